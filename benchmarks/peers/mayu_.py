"""mayu in two processes, as it advises where Python has a GIL; results are stored."""

from __future__ import annotations

from mayu import App

from peers import bodies

app = App(bodies.URL, result_ttl=500)
TASKS = {name: app.task(body, name=name) for name, body in bodies.PLAIN.items()}


class Producer:
    """Enqueues with `delay`; mayu has no bulk."""

    async def start(self) -> None:
        pass

    async def one(self, job: str, *args: float) -> None:
        TASKS[job].delay(*args)

    async def many(self, job: str, count: int) -> None:
        for _ in range(count):
            TASKS[job].delay()
