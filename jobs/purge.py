"""Purging: all jobs that wait in a queue are deleted."""

from __future__ import annotations

from redis import Redis

from packmule.coordination.redis.scripts import Script
from packmule.jobs import wire

JOBS_A_CALL = 500
"""Few enough that one call holds the server for a few milliseconds only."""

_purge = Script("jobs", "purge", after=wire.GROUPS)


def purge(client: Redis, queue: str) -> int:
    """Delete the jobs that wait in `queue` and return how many; running and scheduled ones stay.

    It goes on until the queue is empty, so those that come meanwhile are deleted too.
    """
    total = 0
    while True:
        deleted, taken = _purge(client, [wire.queue_key(queue)], [queue, JOBS_A_CALL])
        total += int(deleted)
        if not taken:
            return total
