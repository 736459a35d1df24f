"""Enqueueing and no-op throughput of two worker processes, beside RQ's on the same server in the same run.

    python benchmarks/throughput.py [jobs] [rounds]

Each round measures every system once, in turn, on an emptied private server with its append-only file on;
printed are the medians. RQ runs its SimpleWorker, which forks for no job, so that its figure is its best.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import bench_jobs
from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs.client import Client
from packmule.worker.pool.pool import Pool

PROCESSES = 2
ONE_BY_ONE = 2_000
RQ_SHARE = 10
"""RQ performs a tenth of the jobs, for it takes some twenty times as long."""


def rate(count: int, run: Callable[[], object]) -> float:
    """How many a second, when `run` does `count` of them."""
    started = time.perf_counter()
    run()
    return count / (time.perf_counter() - started)


def in_processes(task: Callable[[], object]) -> None:
    """Run `task` in PROCESSES forked processes, and wait for all."""
    children = []
    for _ in range(PROCESSES):
        child = os.fork()
        if not child:
            task()
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def in_a_pool(client_of: Callable[[], Redis]) -> None:
    """Run our pool in burst mode in a process of its own."""
    child = os.fork()
    if not child:
        os._exit(Pool(client_of, ["default"], PROCESSES, burst=True).run())
    os.waitpid(child, 0)


def main(jobs: int, rounds: int) -> None:
    """Measure and print."""
    server = EmbeddedServer(Path(tempfile.mkdtemp(prefix="packmule-bench-")))
    logging.getLogger("rq").setLevel(logging.ERROR)
    figures: dict[str, list[float]] = {}

    def client_of() -> Redis:
        return connect(None, server.data_dir)

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    def rq_worker() -> None:
        logging.getLogger("rq.worker").setLevel(logging.ERROR)
        client = client_of()
        queue = Queue(connection=client, serializer=JSONSerializer)
        SimpleWorker([queue], connection=client, serializer=JSONSerializer).work(
            burst=True, logging_level="ERROR"
        )

    try:
        client = client_of()
        produce = Client(client).send
        queue = Queue(connection=client, serializer=JSONSerializer)
        job = bench_jobs.noop.job
        for _ in range(rounds):
            client.flushall()
            note(
                "packmule, one by one",
                rate(ONE_BY_ONE, lambda: [produce(job, [((), {})]) for _ in range(ONE_BY_ONE)]),
            )
            client.flushall()
            note("packmule, in bulk", rate(jobs, lambda: produce(job, [((), {})] * jobs)))
            note("packmule, two workers", rate(jobs, lambda: in_a_pool(client_of)))
            assert client.zcard("rq:finished:default") == jobs
            client.flushall()
            note(
                "rq, one by one",
                rate(ONE_BY_ONE, lambda: [queue.enqueue(job.name) for _ in range(ONE_BY_ONE)]),
            )
            client.flushall()
            few = jobs // RQ_SHARE
            data = [Queue.prepare_data(job.name) for _ in range(few)]
            note("rq, in bulk", rate(few, partial(queue.enqueue_many, data)))
            note("rq SimpleWorker, two workers", rate(few, lambda: in_processes(rq_worker)))
            assert client.zcard("rq:finished:default") == few
        info = client.info("server")
        print(
            f"{os.cpu_count()} cores, Python {platform.python_version()}, "
            f"Valkey {info['valkey_version']} on a "
            f"unix socket, rq {version('rq')}, redis-py {version('redis')}, {jobs:,} jobs, "
            f"medians of {rounds} rounds\n"
        )
        for name, values in figures.items():
            spread = f"{min(values):,.0f} to {max(values):,.0f}"
            print(f"{name:32} {statistics.median(values):>10,.0f} a second   ({spread})")
        client.close()
    finally:
        server.stop()
        shutil.rmtree(server.data_dir)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
