"""What a line of a job's log costs, how fast emitted chunks reach a watcher, and what silent jobs pay.

    python benchmarks/said.py [lines] [chunks] [jobs] [rounds]

A line is written in a job that a real worker performs, and its cost is processor time, that of the thread
that sends it included. A chunk is the time of its `emit`, and a watcher in this process reads the clock when
it has it in hand. Silent jobs are no-ops that a worker in this process performs, with and without the handler
of `logging`, in turns; their cost is processor time, too.
"""

from __future__ import annotations

import logging
import statistics
import threading
import time

import bench_jobs
from harness import arguments, by_turns, client_of, in_a_pool, machine, ratio, table
from redis import Redis

from packmule.jobs.client import Client
from packmule.jobs.said import OFF
from packmule.testing import private_server
from packmule.worker.options import WorkerOptions
from packmule.worker.order import Strict
from packmule.worker.process.worker import Worker
from packmule.worker.registration import Registration
from packmule.worker.scoreboard import Scoreboard

PAUSE = 0.01
QUEUES = ["default"]


def perform(client: Redis, level: int) -> None:
    """Perform all jobs in this process."""
    name = f"bench-{level}"
    options, registration = WorkerOptions(burst=True, job_log_level=level), Registration(client, name, QUEUES)
    Worker(client, name, QUEUES, Strict(QUEUES), options, registration, Scoreboard.of_worker(1, 100)).run()


def main() -> None:
    lines, chunks, jobs, rounds = arguments(20_000, 300, 3000, 5)
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger("packmule").setLevel(logging.WARNING)
    with private_server() as server, client_of(server) as client:
        print(machine("redis", client=client))
        Client(client).make_default()
        kinds = {"plain": bench_jobs.talking, "isolated": bench_jobs.talking_isolated}
        handles = {kind: job.enqueue_many([(int(lines),)] * int(rounds)) for kind, job in kinds.items()}
        in_a_pool(server)
        found = {kind: [handle.result() for handle in handles[kind]] for kind in kinds}
        rows = [
            (name, *(f"{statistics.median(each[name] for each in found[kind]):.1f}" for kind in kinds))
            for name in found["plain"][0]
        ]
        table(("µs a call", *kinds), rows)

        handle = bench_jobs.speaking.enqueue(int(chunks), PAUSE)
        spans = []
        pool = threading.Thread(target=in_a_pool, args=(server,))
        pool.start()
        for sent in handle.output():
            spans.append((time.time() - sent) * 1000)
        pool.join()
        spans.sort()
        print(
            f"\n{len(spans)} chunks reach a watcher after {statistics.median(spans):.0f} ms, "
            f"99 % within {spans[int(len(spans) * 0.99)]:.0f} ms, and all within {spans[-1]:.0f} ms"
        )

        def pace(level: int) -> float:
            bench_jobs.noop.enqueue_many([()] * int(jobs))
            began = time.process_time()
            perform(client, level)
            return (time.process_time() - began) / int(jobs) * 1e6

        pace(OFF)
        paces = by_turns({"without": lambda: pace(OFF), "with": lambda: pace(logging.INFO)}, int(rounds))
        print(
            f"\na no-op job takes {statistics.median(paces['without']):.1f} µs without the handler, "
            f"{ratio(paces['with'], paces['without']):.3f} times as long with it"
        )


if __name__ == "__main__":
    main()
