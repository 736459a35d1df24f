"""The rate of a queue: how many of its jobs begin in a time, over all workers, whoever enqueued them."""

from __future__ import annotations

from redis import Redis

from packmule.coordination.limits.rate import Rate
from packmule.jobs import wire
from packmule.jobs.pause import wake_workers


def limit(client: Redis, queue: str, rate: Rate | None) -> None:
    """Let no more jobs of `queue` begin than `rate` says, or as many as can be where that is None.

    It holds for every worker from its next claim on, and survives restarts.
    """
    if rate is None:
        client.hdel(wire.QUEUE_RATES, queue)
    else:
        client.hset(wire.QUEUE_RATES, queue, f"{rate.interval_us} {rate.capacity_us} {rate}")
    wake_workers(client)


def rates(client: Redis) -> dict[str, str]:
    """The rates of queues that have one, as text."""
    return {
        wire.text(queue): wire.text(value).split(" ", 2)[-1]
        for queue, value in client.hgetall(wire.QUEUE_RATES).items()
    }
