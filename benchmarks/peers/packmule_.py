"""Packmule: a pool of two worker processes with the ready-made jobs loaded, as `packmule worker` runs it.

BENCH_EXECUTOR is where jobs run: "" (in the process), "isolate", "threads" or "async".
BENCH_CLAIM is the most jobs of a claim, to limit it.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from packmule import job
from packmule.coordination.redis.connection import connect
from packmule.jobs import registry
from packmule.jobs.client import Client
from packmule.worker.options import WorkerOptions
from packmule.worker.pool.pool import Pool
from packmule.worker.process.claim import MOST
from peers import bodies

EXECUTOR = os.environ.get("BENCH_EXECUTOR", "")
THREADS = 100
READY_MADE = ("packmule.jobs.email", "packmule.jobs.image", "packmule.jobs.files")

register: Any = job(isolate=True) if EXECUTOR == "isolate" else job
JOBS = {
    name: register(body).job for name, body in (bodies.ASYNC if EXECUTOR == "async" else bodies.PLAIN).items()
}

client = partial(connect, bodies.URL, Path())


def work() -> None:
    """Run the pool until told to stop."""
    registry.load(READY_MADE)
    threads = THREADS if EXECUTOR == "threads" else 1
    options = WorkerOptions(threads=threads, most=int(os.environ.get("BENCH_CLAIM", MOST)))
    sys.exit(Pool(client, ["default"], 2, options).run())


class Producer:
    """Enqueues by our own client."""

    async def start(self) -> None:
        self.enqueue = Client(client()).send

    async def one(self, job: str, *args: float) -> None:
        self.enqueue(JOBS[job], [(args, {})])

    async def many(self, job: str, count: int) -> None:
        self.enqueue(JOBS[job], [((), {})] * count)
