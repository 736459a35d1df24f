"""Pruning: remove what has expired, so that nothing grows forever."""

from __future__ import annotations

import contextlib

from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys
from packmule.observe import audit, events
from packmule.scheduler.leader import require_leading
from packmule.scheduler.maintenance.queue_scan import QueueScan

JOBS_A_CALL = 500
"""Ids of each kind that one call removes: few enough that it occupies the server for about a millisecond."""

_prune = Script("scheduler.maintenance", "prune")


class Pruner:
    """Removes ids of expired jobs, workers that are gone, and old events.

    RQ trims its registries only where its own workers run or its dashboard is open. Running this at any time,
    or several at once, does no harm.
    """

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._scan = QueueScan(client)

    def prune(self, term: str = "") -> int:
        """Prune for a while; return how many ids were removed. Raises `NotLeading` if `term` is over."""
        removed = 0

        def step(queue: str, cursor: str) -> str:
            nonlocal removed
            key_names = [keys.registry_key(status, queue) for status in ("finished", "failed", "canceled")]
            key_names += keys.workers_key(queue), keys.WORKERS, keys.QUIET
            reply = _prune(self.client, key_names, [JOBS_A_CALL, cursor, term])
            require_leading(reply)
            count, cursor = int(reply[0]), as_text(reply[1])
            removed += count
            return cursor if cursor != "0" or count >= JOBS_A_CALL else ""

        self._scan.run(step)
        for stream in (events.stream(self.client), audit.stream(self.client)):
            # If the key holds another type, the next event moves it aside.
            with contextlib.suppress(ResponseError):
                stream.trim()
        return removed
