"""Promotion: delayed jobs and retries whose time has come go to their queues."""

from __future__ import annotations

import math
import time

from redis import Redis

from packmule.coordination.redis.scripts import Script
from packmule.jobs import wire
from packmule.scheduler.leader import FENCE, require_leading

JOBS_A_CALL = 300
"""Few enough that one call holds the server for a few milliseconds only."""

QUEUES_A_CALL = 200
"""At about so many queues a call looks, for a millisecond if nothing is due."""

_promote = Script("scheduler.maintenance", "promote", after=(*wire.GROUPS, *FENCE))


def promote(client: Redis, term: str = "", leads_for: float = 0.0) -> float | None:
    """Look at all queues, and promote what is due, some of each; seconds until the next is, None if none is.

    Zero or less means that more are due already: a call promotes up to `JOBS_A_CALL`, shared by the queues
    that it looks at. A job is promoted once, whoever calls this and however often: each move is one atomic
    step. A leader names its `term`, and for how many seconds it `leads_for`, which is its sign of life;
    `NotLeading` is raised if another leads.
    """
    nearest, cursor = math.inf, "0"
    ends_at = time.monotonic() + leads_for
    while True:
        left = ends_at - time.monotonic()
        now = wire.time_text(time.time())
        args = [JOBS_A_CALL, now, term, f"{left:.3f}", cursor, QUEUES_A_CALL]
        reply = _promote(client, [wire.QUEUES], args)
        require_leading(reply)
        due, cursor = map(wire.text, reply)
        nearest = min(nearest, float(due or math.inf))
        if cursor == "0":
            return nearest if nearest < math.inf else None
