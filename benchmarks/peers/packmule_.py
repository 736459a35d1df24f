"""Packmule: a pool of two worker processes with the ready-made jobs loaded, as `packmule worker` runs it.

BENCH_LANE is where jobs run: "" (in the process), "isolate", "threads" or "async".
BENCH_BATCH is the most jobs of a batch, if it is to be held down.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from coordination.connection import connect
from jobs import job, registry
from jobs.producer import Producer as OurProducer
from peers import bodies
from worker.batch import MOST
from worker.pool import Pool

LANE = os.environ.get("BENCH_LANE", "")
THREADS = 100
READY_MADE = ("jobs.email", "jobs.image", "jobs.files")

register: Any = job(isolate=True) if LANE == "isolate" else job
JOBS = {
    name: register(body).job for name, body in (bodies.ASYNC if LANE == "async" else bodies.PLAIN).items()
}

client = partial(connect, bodies.URL, Path())


def work() -> None:
    """Run the pool until told to stop."""
    registry.load(READY_MADE)
    threads = THREADS if LANE == "threads" else 1
    sys.exit(
        Pool(client, ["default"], 2, threads=threads, most=int(os.environ.get("BENCH_BATCH", MOST))).run()
    )


class Producer:
    """Enqueues through our own producer."""

    async def start(self) -> None:
        self.enqueue = OurProducer(client()).enqueue

    async def one(self, job: str, *args: float) -> None:
        self.enqueue(JOBS[job], [(args, {})])

    async def many(self, job: str, count: int) -> None:
        self.enqueue(JOBS[job], [((), {})] * count)
