"""No system at all: a push to a blocking pop, and INCR in a loop; what the others are measured by."""

from __future__ import annotations

from redis import Redis

from peers import bodies

LIST = "bench:list"


def work() -> None:
    """Pop, and note the time, until told to stop."""
    client = Redis.from_url(bodies.URL)
    while True:
        bodies.mark(float(client.blpop(LIST)[1]))


class Producer:
    """A mark is pushed to the list; an INCR is done here and now."""

    async def start(self) -> None:
        self.client = Redis.from_url(bodies.URL)

    async def one(self, job: str, *args: float) -> None:
        if job == "incr":
            self.client.incr(bodies.COUNTER)
        else:
            self.client.rpush(LIST, *args)

    async def many(self, job: str, count: int) -> None:
        self.client.rpush(LIST, *[0.0] * count)
