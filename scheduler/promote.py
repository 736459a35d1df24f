"""Promotion: delayed jobs and retries whose time has come go to their queues."""

from __future__ import annotations

import time

from redis import Redis

from coordination.scripts import Script
from jobs import wire
from scheduler.leader import FENCE, refuse

JOBS_A_CALL = 300
"""Few enough that one call holds the server for a few milliseconds only."""

_promote = Script("scheduler", "promote", after=(*wire.GROUPS, *FENCE))


def promote(client: Redis, term: str = "", leads_for: float = 0.0) -> float | None:
    """Promote up to `JOBS_A_CALL` due jobs; seconds until the next is due, None if none is scheduled.

    Zero or less means that more are due already. Queues share the call. A job is promoted once, whoever calls
    this and however often: each move is one atomic step. A leader names its `term`, and for how many seconds
    it `leads_for`, which is its sign of life; `Overtaken` is raised if another leads.
    """
    args = [JOBS_A_CALL, wire.time_text(time.time()), term, f"{leads_for:.3f}"]
    due = _promote(client, [wire.QUEUES], args)
    refuse(due)
    return float(due) if due else None
