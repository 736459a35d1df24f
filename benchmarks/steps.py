"""What a step costs beside a bare checkpoint, and what sleeping jobs cost the server and the scheduler.

    python benchmarks/steps.py [steps] [rounds] [sleepers]

A step calls a function that does nothing, and is recorded before it returns. Jobs are claimed and performed
on a private server by the code of a worker, in this process.
"""

from __future__ import annotations

import json
import statistics
import time
from base64 import b64decode
from collections.abc import Iterator

import bench_jobs
from harness import arguments, client_of, machine, table
from redis import Redis

from packmule.jobs.client import Client
from packmule.scheduler.maintenance.promote import promote
from packmule.testing import private_server
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Performer
from packmule.worker.process.progress import ProgressStore

JOBS_A_CLAIM = 500
LOOKS = 200


def performed(client: Redis) -> Iterator[Outcome]:
    """Perform all jobs that wait, as a worker does; their outcomes, which are acknowledged."""
    claims, store = Claims(client, "bench", Strict(["default"])), ProgressStore(client, "bench")
    performer = Performer(store.report, store.save, remember=store.remember)
    outcomes: list[Outcome] = []
    while jobs := claims.finish_and_claim(claims.next_id(), outcomes, JOBS_A_CLAIM).jobs:
        calls = [performer.prepare(job) for job in jobs]
        outcomes = [call if isinstance(call, Outcome) else performer.perform(call) for call in calls]
        yield from outcomes


def used(client: Redis) -> int:
    return int(client.info("memory")["used_memory"])


def looks(client: Redis) -> float:
    """Microseconds that the leading scheduler takes to find that nothing is due."""
    began = time.perf_counter()
    for _ in range(LOOKS):
        promote(client)
    return (time.perf_counter() - began) / LOOKS * 1e6


def main() -> None:
    steps, rounds, sleepers = arguments(900, 5, 100_000)
    with private_server() as server, client_of(server) as client:
        print(machine("redis", client=client))
        Client(client).make_default()
        bench_jobs.paced.enqueue_many([(steps,)] * rounds)
        found = [json.loads(b64decode(ended.value)) for ended in performed(client)]
        rows = [(name, f"{statistics.median(each[name] for each in found):.1f}") for name in found[0]]
        table(("in a job", "µs a call"), rows)

        client.flushall()
        before, idle = used(client), looks(client)
        bench_jobs.sleeping.enqueue_many([()] * sleepers)
        queued = used(client)
        count = sum(ended.status == "waiting" for ended in performed(client))
        taken, asleep = (queued - before, used(client) - before)
        print(f"\n{count:,} jobs take {taken / 1e6:.1f} MB in their queue, {asleep / 1e6:.1f} MB asleep")
        print(f"a look of the scheduler takes {looks(client):.0f} µs, and {idle:.0f} µs without them")


if __name__ == "__main__":
    main()
