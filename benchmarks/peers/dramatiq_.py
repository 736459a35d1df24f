"""dramatiq: BENCH_RESULTS, where set, stores results in Redis."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from peers import bodies

broker = RedisBroker(url=bodies.URL)
options = {}
if os.environ.get("BENCH_RESULTS"):
    broker.add_middleware(Results(backend=RedisBackend(url=bodies.URL)))
    options["store_results"] = True
dramatiq.set_broker(broker)
ACTORS = {name: dramatiq.actor(body, actor_name=name, **options) for name, body in bodies.PLAIN.items()}


class Producer:
    """Enqueues with `send`; dramatiq has no bulk."""

    async def start(self) -> None:
        pass

    async def one(self, job: str, *args: float) -> None:
        ACTORS[job].send(*args)

    async def many(self, job: str, count: int) -> None:
        for _ in range(count):
            ACTORS[job].send()
