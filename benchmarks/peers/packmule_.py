"""Packmule: `packmule worker` with two processes and its scheduler, in production.

BENCH_EXECUTOR is where jobs run: "" (in the process), "isolate" or "async".
BENCH_CLAIM is the most jobs of a claim, for the pool that `work` runs, since no option limits it.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from packmule import job
from packmule.coordination.redis.connection import connect
from packmule.jobs.client import Client
from peers import bodies

EXECUTOR = os.environ.get("BENCH_EXECUTOR", "")

register: Any = job(isolate=True) if EXECUTOR == "isolate" else job
JOBS = {
    name: register(body).job for name, body in (bodies.ASYNC if EXECUTOR == "async" else bodies.PLAIN).items()
}

client = partial(connect, bodies.URL, Path())


def work() -> None:
    """Run the pool until told to stop."""
    from packmule.worker.options import WorkerOptions
    from packmule.worker.pool.pool import Pool

    sys.exit(Pool(client, ["default"], 2, WorkerOptions(most=int(os.environ["BENCH_CLAIM"]))).run())


class Producer:
    """Enqueues by our own client."""

    async def start(self) -> None:
        self.enqueue = Client(client()).send

    async def one(self, job: str, *args: float) -> None:
        self.enqueue(JOBS[job], [(args, {})])

    async def many(self, job: str, count: int) -> None:
        self.enqueue(JOBS[job], [((), {})] * count)
