"""Marks: a job's record says `started` once the job has run for a moment."""

from __future__ import annotations

import time
from collections.abc import Sequence

from redis import Redis

from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys, wire
from packmule.worker.scoreboard import RunningJob

MARK_SECONDS = 0.05
"""A job that has run for this long is marked at the next check; a shorter one costs no write."""

_mark = Script("worker", "mark_started")


class Marks:
    """Marks running jobs from outside their process, which a job may block."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._marked: dict[str, set[str]] = {}

    def mark(self, worker: str, running: Sequence[RunningJob]) -> None:
        """Mark the jobs that have run for long enough, each once. Raises what redis-py does."""
        before = self._marked.get(worker, set())
        long = {job.execution: job for job in running if time.monotonic() - job.started > MARK_SECONDS}
        for execution in long.keys() - before:
            job = long[execution]
            key_names = [keys.claims_key(worker), keys.job_key(job.id)]
            _mark(self.client, key_names, [job.id, execution, worker, wire.time_text(time.time())])
        if long or before:
            self._marked[worker] = set(long)

    def forget(self, worker: str) -> None:
        """Forget a worker that has ended."""
        self._marked.pop(worker, None)
