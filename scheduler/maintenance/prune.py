"""Pruning: what is over is forgotten, so that nothing grows for ever."""

from __future__ import annotations

import contextlib

from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.scripts import Script
from packmule.jobs import wire
from packmule.observe import audit, events
from packmule.scheduler.leader import FENCE, require_leading
from packmule.scheduler.maintenance.queue_scan import QueueScan

JOBS_A_CALL = 500
"""Few enough that one call holds the server for a millisecond or so."""

_prune = Script("scheduler.maintenance", "prune", after=(*wire.CALL, *FENCE))


class Pruner:
    """Forgets jobs whose time to live is over, workers that are gone, and old events.

    RQ trims its registries where its own workers run or its dashboard is looked at, and nowhere else. Done at
    any time and by several it does no harm.
    """

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._scan = QueueScan(client)

    def prune(self, term: str = "") -> int:
        """Go on for a while; how many ids were forgotten. Raises `NotLeading` if the `term` is over."""
        forgotten = 0

        def step(queue: str, cursor: str) -> str:
            nonlocal forgotten
            keys = [wire.registry_key(status, queue) for status in ("finished", "failed", "canceled")]
            keys += wire.workers_key(queue), wire.WORKERS
            reply = _prune(self.client, keys, [JOBS_A_CALL, cursor, term])
            require_leading(reply)
            count, cursor = int(reply[0]), wire.text(reply[1])
            forgotten += count
            return cursor if cursor != "0" or count >= JOBS_A_CALL else ""

        self._scan.run(step)
        for stream in (events.stream(self.client), audit.stream(self.client)):
            # A key that holds something else is moved aside by the next event.
            with contextlib.suppress(ResponseError):
                stream.trim()
        return forgotten
