"""arq, with 100 jobs at a time in each worker, which looks every 5 ms (as it comes, every 500 ms)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from arq import create_pool, func
from arq.connections import RedisSettings

from peers import bodies
from peers.produce import in_slices

SETTINGS = RedisSettings.from_dsn(bodies.URL)


def _with_context(body: Callable[..., Awaitable[int]]) -> Callable[..., Awaitable[int]]:
    async def run(context: object, *args: float) -> int:
        return await body(*args)

    return run


class WorkerSettings:
    """What arq's command line reads."""

    functions: ClassVar = [func(_with_context(body), name=name) for name, body in bodies.ASYNC.items()]
    redis_settings = SETTINGS
    max_jobs = 100
    poll_delay = 0.005


class Producer:
    """Enqueues with `enqueue_job`."""

    async def start(self) -> None:
        self.pool = await create_pool(SETTINGS)

    async def one(self, job: str, *args: float) -> None:
        await self.pool.enqueue_job(job, *args)

    async def many(self, job: str, count: int) -> None:
        await in_slices([self.pool.enqueue_job(job) for _ in range(count)])
