"""ardiq, with 100 jobs at a time in each worker."""

from __future__ import annotations

from ardiq import Ardiq

from peers import bodies

app = Ardiq(bodies.URL, concurrency=100)
TASKS = {name: app.task(name=name)(body) for name, body in bodies.ASYNC.items()}


class Producer:
    """Enqueues with `enqueue` and `enqueue_many`."""

    async def start(self) -> None:
        pass

    async def one(self, job: str, *args: float) -> None:
        await TASKS[job].enqueue(*args)

    async def many(self, job: str, count: int) -> None:
        await app.enqueue_many([TASKS[job].prepare() for _ in range(count)])
