"""Marks: jobs are seen as started once they take longer than next to no time."""

from __future__ import annotations

import time
from collections.abc import Sequence

from redis import Redis

from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys, wire
from packmule.worker.scoreboard import RunningJob

MARK_SECONDS = 0.05
"""A job that has run for this long is marked at the next look; one that ends sooner costs no write for it."""

_mark = Script("worker", "mark_started", after=keys.EVENTS)


class Marks:
    """Marks what workers perform, from outside: a job may never let its own process do it."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._marked: dict[str, set[str]] = {}

    def mark(self, worker: str, running: Sequence[RunningJob]) -> None:
        """Mark those that have run for long enough, each once. Raises what redis-py does."""
        before = self._marked.get(worker, set())
        long = {job.execution: job for job in running if time.monotonic() - job.started > MARK_SECONDS}
        for execution in long.keys() - before:
            job = long[execution]
            key_names = [keys.claims_key(worker), keys.job_key(job.id)]
            _mark(self.client, key_names, [job.id, execution, worker, wire.time_text(time.time())])
        if long or before:
            self._marked[worker] = set(long)

    def forget(self, worker: str) -> None:
        """A worker is gone."""
        self._marked.pop(worker, None)
