"""Promotion: delayed jobs and retries whose time has come go to their queues."""

from __future__ import annotations

import time

from redis import Redis

from coordination.scripts import Script
from jobs import wire
from scheduler.leader import FENCE, refuse

JOBS_A_CALL = 500
"""Few enough that one call holds the server for a few milliseconds only."""

_promote = Script("scheduler", "promote", after=(*wire.GROUPS, *FENCE))


def promote(client: Redis, term: str = "") -> float | None:
    """Promote up to `JOBS_A_CALL` due jobs of each queue; seconds until the next is due, None if none is.

    Zero or less means that more are due already. A job is promoted once, whoever calls this and however
    often: each move is one atomic step. A leader names its `term`, and `Overtaken` is raised if it is over.
    """
    next_due: float | None = None
    for key in sorted(map(wire.text, client.smembers(wire.QUEUES))):
        scheduled = wire.registry_key("scheduled", wire.queue_name(key))
        keys = [scheduled, key, wire.QUEUES, wire.QUARANTINE]
        due = _promote(client, keys, [JOBS_A_CALL, wire.time_text(time.time()), term])
        refuse(due)
        if due:
            next_due = float(due) if next_due is None else min(next_due, float(due))
    return next_due
