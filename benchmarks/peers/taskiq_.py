"""taskiq: BENCH_BROKER is list or stream; BENCH_RESULTS, where set, stores results in Redis."""

from __future__ import annotations

import os

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from peers import bodies
from peers.produce import in_slices

# Without a time limit on replies: redis-py gives up on a blocking pop after 5 s, and the worker with it.
broker = {"list": ListQueueBroker, "stream": RedisStreamBroker}[os.environ["BENCH_BROKER"]](
    bodies.URL, socket_timeout=None
)
if os.environ.get("BENCH_RESULTS"):
    broker = broker.with_result_backend(RedisAsyncResultBackend(bodies.URL, result_ex_time=500))
TASKS = {name: broker.task(task_name=name)(body) for name, body in bodies.ASYNC.items()}


class Producer:
    """Enqueues with `kiq`."""

    async def start(self) -> None:
        await broker.startup()

    async def one(self, job: str, *args: float) -> None:
        await TASKS[job].kiq(*args)

    async def many(self, job: str, count: int) -> None:
        await in_slices([TASKS[job].kiq() for _ in range(count)])
