"""RQ: BENCH_WORKER is Worker, which forks for each job, or SimpleWorker, which doesn't; jobs are JSON."""

from __future__ import annotations

import os

import rq
from redis import Redis
from rq.serializers import JSONSerializer

from peers import bodies

NAMES = {name: f"peers.bodies.{name}" for name in bodies.PLAIN}


def _queue() -> rq.Queue:
    return rq.Queue(connection=Redis.from_url(bodies.URL), serializer=JSONSerializer)


def work() -> None:
    """Run one worker."""
    queue = _queue()
    kind = getattr(rq, os.environ["BENCH_WORKER"])
    kind([queue], connection=queue.connection, serializer=JSONSerializer).work(logging_level="ERROR")


class Producer:
    """Enqueues with the queue's own methods."""

    async def start(self) -> None:
        self.queue = _queue()

    async def one(self, job: str, *args: float) -> None:
        self.queue.enqueue(NAMES[job], *args)

    async def many(self, job: str, count: int) -> None:
        self.queue.enqueue_many([rq.Queue.prepare_data(NAMES[job]) for _ in range(count)])
