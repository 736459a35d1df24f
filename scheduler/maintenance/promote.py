"""Promotion: move delayed jobs and retries to their queues when they are due."""

from __future__ import annotations

import math
import time

from redis import Redis

from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys, wire
from packmule.scheduler.leader import require_leading

JOBS_A_CALL = 300
"""Jobs that one call moves at most: few enough that it occupies the server for a few milliseconds."""

QUEUES_A_CALL = 200
"""About how many queues one call checks, which takes a millisecond if nothing is due."""

_promote = Script("scheduler.maintenance", "promote")


def promote(client: Redis, term: str = "", leads_for: float = 0.0) -> float | None:
    """Promote due jobs of all queues; return seconds until the next one is due, None if none is scheduled.

    Zero or less means that more jobs are due: a call promotes up to `JOBS_A_CALL`, shared by its queues. Each
    move is one atomic step, so a job is promoted once, whoever calls this and however often. A leader gives
    its `term` and the seconds that it `leads_for`, as its sign of life. Raises `NotLeading`.
    """
    nearest, cursor = math.inf, "0"
    ends_at = time.monotonic() + leads_for
    while True:
        left = ends_at - time.monotonic()
        now = wire.time_text(time.time())
        args = [JOBS_A_CALL, now, term, f"{left:.3f}", cursor, QUEUES_A_CALL]
        reply = _promote(client, [keys.QUEUES], args)
        require_leading(reply)
        due, cursor = map(as_text, reply)
        nearest = min(nearest, float(due))
        if cursor == "0":
            return nearest if nearest < math.inf else None
