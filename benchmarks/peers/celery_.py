"""Celery: BENCH_PREFETCH is its prefetch multiplier; BENCH_RESULTS, where set, stores results in Redis."""

from __future__ import annotations

import os
from typing import ClassVar

from celery import Celery, group

from peers import bodies
from peers.produce import Calls, OneByOne

results = bool(os.environ.get("BENCH_RESULTS"))
app = Celery(broker=bodies.URL, backend=bodies.URL if results else None)
app.conf.update(
    task_ignore_result=not results,
    worker_prefetch_multiplier=int(os.environ["BENCH_PREFETCH"]),
    result_backend_thread_safe=True,  # otherwise each greenlet looks for its backend again, which takes 8 ms
)
TASKS = {name: app.task(name=name)(body) for name, body in bodies.PLAIN.items()}


class Producer(OneByOne):
    """Enqueues with `delay`, and with a group in bulk."""

    calls: ClassVar[Calls] = {name: task.delay for name, task in TASKS.items()}

    async def many(self, job: str, count: int) -> None:
        group(TASKS[job].si() for _ in range(count)).apply_async()
