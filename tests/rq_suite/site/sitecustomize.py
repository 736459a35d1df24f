"""What each Python process of the suite does first: take our worker for RQ's, and our server for Redis."""

import os
import socket

import redis.connection

connect = redis.connection.Connection._connect


def connect_here(connection):
    """Connect to this process's server where the suite wants the one that it takes to be running."""
    if (connection.host, connection.port) not in {("localhost", 6379), ("127.0.0.1", 6379)}:
        return connect(connection)
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(connection.socket_timeout)
    servers = os.environ["RQ_SUITE_SOCKETS"].split(os.pathsep)
    connected.connect(servers[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))])
    return connected


redis.connection.Connection._connect = connect_here

if os.environ["RQ_SUITE_KNOWN"]:
    import rq.worker

    from packmule import worker

    class Worker(worker.Worker):
        """Ours, performing pickles and functions that nobody registered, as the suite's jobs are."""

        trusts_all = True

    class SimpleWorker(Worker):
        pass

    for module in (rq, rq.worker):
        module.Worker = Worker
        module.SimpleWorker = SimpleWorker
