"""Promotion: delayed jobs and retries whose time has come go to their queues."""

from __future__ import annotations

import time

from redis import Redis

from coordination.scripts import Script
from jobs import wire

JOBS_A_CALL = 500
"""Few enough that one call holds the server for a few milliseconds only."""

_promote = Script("scheduler", "promote")


def promote(client: Redis) -> float | None:
    """Promote what is due in every queue; seconds until the next job is, None if none is scheduled.

    A job is promoted once, whoever calls this and however often: each move is one atomic step.
    """
    next_due: float | None = None
    for key in sorted(map(wire.text, client.smembers(wire.QUEUES))):
        due = _promote_queue(client, wire.queue_name(key))
        if due is not None:
            next_due = due if next_due is None else min(next_due, due)
    return next_due


def _promote_queue(client: Redis, queue: str) -> float | None:
    keys = [wire.registry_key("scheduled", queue), wire.queue_key(queue), wire.QUEUES, wire.QUARANTINE]
    while True:
        promoted, due = _promote(client, keys, [JOBS_A_CALL, wire.time_text(time.time())])
        if promoted < JOBS_A_CALL:
            return float(due) if due else None
