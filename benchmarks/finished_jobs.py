"""Redis memory of a finished no-op job, ours beside RQ's, with the embedded server's settings and stock ones.

    python benchmarks/finished_jobs.py [jobs]

All have stored their results, and ours their events and statistics. Memory is what the server says it uses.
"""

from __future__ import annotations

from collections.abc import Callable

import bench_jobs
from harness import arguments, client_of, in_a_pool, in_processes, machine, table
from rq import Queue, SimpleWorker

from packmule.coordination.redis import compact
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs.client import Client
from packmule.testing import private_server

FEW = 500
STOCK = {"stream-node-max-bytes": 4096, "hash-max-listpack-value": 64}
"""The values that Valkey and Redis come with."""


def ours(server: EmbeddedServer, count: int) -> None:
    with client_of(server) as client:
        Client(client).send(bench_jobs.noop.job, [((), {})] * count)
    in_a_pool(server)


def rqs(server: EmbeddedServer, count: int) -> None:
    with client_of(server) as client:
        Queue(connection=client).enqueue_many([Queue.prepare_data("peers.bodies.noop") for _ in range(count)])

    def work() -> None:
        queue = Queue(connection=client_of(server))
        SimpleWorker([queue], connection=queue.connection).work(burst=True, logging_level="ERROR")

    in_processes(work)


def bytes_a_job(finish: Callable[[EmbeddedServer, int], None], settings: dict[str, int], count: int) -> float:
    """What the server's memory grows by when `finish` enqueues and performs jobs; a few come before them."""
    with private_server() as server, client_of(server) as client:
        client.config_set(*(word for setting in settings.items() for word in setting))
        finish(server, FEW)
        before = client.info("memory")["used_memory"]
        finish(server, count)
        return float(client.info("memory")["used_memory"] - before) / count


def main(count: int) -> None:
    """Measure both with both settings, and print a table."""
    assert STOCK.keys() == compact.SETTINGS.keys()
    with private_server() as server, client_of(server) as client:
        print(f"{machine('redis', 'rq', client=client)}; {count:,} jobs\n")
    rows = [
        (name, *(f"{bytes_a_job(finish, settings, count):,.0f}" for finish in (ours, rqs)))
        for name, settings in (("as embedded", compact.SETTINGS), ("stock", STOCK))
    ]
    table(("server's settings; bytes a finished job", "packmule", "RQ"), rows)


if __name__ == "__main__":
    main(*arguments(2_000))
