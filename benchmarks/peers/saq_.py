"""saq, with 100 jobs at a time in each worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from saq.queue.redis import RedisQueue

from peers import bodies
from peers.produce import in_slices

# Each of the 100 keeps a connection, and redis-py stops at 100 where it isn't told otherwise.
queue = RedisQueue(Redis.from_url(bodies.URL, max_connections=1_000))


def _with_context(body: Callable[..., Awaitable[int]]) -> Callable[..., Awaitable[int]]:
    async def run(context: object, **arguments: float) -> int:
        return await body(**arguments)

    return run


settings: dict[str, Any] = {
    "queue": queue,
    "functions": [(name, _with_context(body)) for name, body in bodies.ASYNC.items()],
    "concurrency": 100,
}


class Producer:
    """Enqueues with the queue's `enqueue`, whose arguments have names."""

    async def start(self) -> None:
        await queue.connect()

    async def one(self, job: str, *args: float) -> None:
        await queue.enqueue(job, **dict(zip(("value",), args, strict=False)))

    async def many(self, job: str, count: int) -> None:
        await in_slices([queue.enqueue(job) for _ in range(count)])
