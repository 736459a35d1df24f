"""streaq, with 100 jobs at a time in each worker."""

from __future__ import annotations

from streaq import Worker

from peers import bodies

worker = Worker(redis_url=bodies.URL, concurrency=100)
TASKS = {name: worker.task(name=name, silent=True)(body) for name, body in bodies.ASYNC.items()}


class Producer:
    """Enqueues with `enqueue` and `enqueue_many`."""

    async def start(self) -> None:
        await worker.__aenter__()

    async def one(self, job: str, *args: float) -> None:
        await TASKS[job].enqueue(*args)

    async def many(self, job: str, count: int) -> None:
        await worker.enqueue_many([TASKS[job].enqueue() for _ in range(count)])
