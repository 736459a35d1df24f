"""huey, which stores results as it comes."""

from __future__ import annotations

from huey import RedisHuey

from peers import bodies

huey = RedisHuey("bench", url=bodies.URL)
TASKS = {name: huey.task(name=name)(body) for name, body in bodies.PLAIN.items()}


class Producer:
    """Enqueues by calling the task; huey has no bulk."""

    async def start(self) -> None:
        pass

    async def one(self, job: str, *args: float) -> None:
        TASKS[job](*args)

    async def many(self, job: str, count: int) -> None:
        for _ in range(count):
            TASKS[job]()
