"""Enqueueing and no-op throughput of two worker processes, beside RQ's on the same server in the same run.

    python benchmarks/throughput.py [jobs] [rounds]

Each round measures every system once, in turn, on an emptied private server. Our workers are measured again
with the settings that a server of your own has, and with jobs of all bands of priorities. RQ runs its
SimpleWorker, which forks for no job, so its figure is its best.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping
from functools import partial

import bench_jobs
from harness import (
    arguments,
    by_turns,
    client_of,
    in_a_pool,
    in_processes,
    machine,
    rate,
    table,
)
from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from packmule.coordination.redis import compact
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs.client import Client
from packmule.jobs.options import Options
from packmule.testing import private_server

ONE_BY_ONE = 2_000
RQ_SHARE = 10
"""RQ performs a tenth of the jobs, because it takes some twenty times as long."""

PRIORITIES = (0, 100, -100, 1, -1)

STOCK = {"stream-node-max-bytes": 4096, "hash-max-listpack-value": 64}
"""What a server of the user's own has unless told otherwise, in place of the compact settings."""


def rq_worker(server: EmbeddedServer) -> None:
    """Perform all jobs of the default queue with RQ."""
    logging.getLogger("rq.worker").setLevel(logging.ERROR)
    client = client_of(server)
    queue = Queue(connection=client, serializer=JSONSerializer)
    worker = SimpleWorker([queue], connection=client, serializer=JSONSerializer)
    worker.work(burst=True, logging_level="ERROR")


def _set(client: Redis, settings: Mapping[str, int]) -> None:
    for name, value in settings.items():
        client.config_set(name, value)


def main(jobs: int, rounds: int) -> None:
    """Measure and print."""
    logging.getLogger("rq").setLevel(logging.ERROR)
    few = jobs // RQ_SHARE
    with private_server() as server, client_of(server) as client:
        send = Client(client).send
        queue = Queue(connection=client, serializer=JSONSerializer)
        job = bench_jobs.noop.job
        data = [Queue.prepare_data(job.name) for _ in range(few)]

        def ours_one_by_one() -> float:
            client.flushall()
            return rate(ONE_BY_ONE, lambda: [send(job, [((), {})]) for _ in range(ONE_BY_ONE)])

        def ours_in_bulk() -> float:
            client.flushall()
            return rate(jobs, lambda: send(job, [((), {})] * jobs))

        def our_workers() -> float:
            found = rate(jobs, lambda: in_a_pool(server))
            assert client.zcard("rq:finished:default") == jobs
            return found

        def our_workers_on_stock_settings() -> float:
            _set(client, STOCK)
            try:
                ours_in_bulk()
                return our_workers()
            finally:
                _set(client, compact.SETTINGS)

        def ours_with_priorities() -> float:
            client.flushall()
            for priority in PRIORITIES:
                send(job, [((), {})] * (jobs // len(PRIORITIES)), Options(priority=priority))
            return rate(jobs, lambda: in_a_pool(server))

        def rqs_one_by_one() -> float:
            client.flushall()
            return rate(ONE_BY_ONE, lambda: [queue.enqueue(job.name) for _ in range(ONE_BY_ONE)])

        def rqs_in_bulk() -> float:
            client.flushall()
            return rate(few, partial(queue.enqueue_many, data))

        def rqs_workers() -> float:
            found = rate(few, lambda: in_processes(partial(rq_worker, server)))
            assert client.zcard("rq:finished:default") == few
            return found

        ways = {
            "packmule, one by one": ours_one_by_one,
            "packmule, in bulk": ours_in_bulk,
            "packmule, two workers": our_workers,
            "packmule, two workers, stock settings": our_workers_on_stock_settings,
            "packmule, two workers, priorities": ours_with_priorities,
            "rq, one by one": rqs_one_by_one,
            "rq, in bulk": rqs_in_bulk,
            "rq SimpleWorker, two workers": rqs_workers,
        }
        figures = by_turns(ways, rounds)
        print(f"{machine('rq', 'redis', client=client)}; {jobs:,} jobs, medians of {rounds} rounds\n")
    rows = [
        (name, f"{statistics.median(values):,.0f}", f"{min(values):,.0f} to {max(values):,.0f}")
        for name, values in figures.items()
    ]
    table(("", "a second", "from to"), rows)


if __name__ == "__main__":
    main(*arguments(20_000, 3))
