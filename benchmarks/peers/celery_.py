"""Celery: BENCH_PREFETCH is its prefetch multiplier; BENCH_RESULTS, where set, stores results in Redis."""

from __future__ import annotations

import os

from celery import Celery, group

from peers import bodies

results = bool(os.environ.get("BENCH_RESULTS"))
app = Celery(broker=bodies.URL, backend=bodies.URL if results else None)
app.conf.update(
    task_ignore_result=not results,
    worker_prefetch_multiplier=int(os.environ["BENCH_PREFETCH"]),
    result_backend_thread_safe=True,  # otherwise each greenlet looks for its backend again, which takes 8 ms
)
TASKS = {name: app.task(name=name)(body) for name, body in bodies.PLAIN.items()}


class Producer:
    """Enqueues with `delay`, and with a group in bulk."""

    async def start(self) -> None:
        pass

    async def one(self, job: str, *args: float) -> None:
        TASKS[job].delay(*args)

    async def many(self, job: str, count: int) -> None:
        group(TASKS[job].si() for _ in range(count)).apply_async()
