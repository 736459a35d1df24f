"""Marks: a job's record says `started` once the job has run for a moment."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

from redis import Redis

from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys, wire
from packmule.worker.scoreboard import RunningJob, is_shortened

MARK_SECONDS = 0.05
"""A job that has run for this long is marked at the next check; a shorter one costs no write."""

_mark = Script("worker", "mark_started")


class Marks:
    """Marks running jobs from outside their process, which a job may block."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._marked: dict[str, set[str]] = {}

    def mark(self, worker: str, running: Sequence[RunningJob], now: float) -> None:
        """Mark the jobs that had run for long enough at the monotonic instant `now`, each once.

        Each of them ran at `now`. A job that ended sooner says in its outcome that it wasn't marked. Raises
        what redis-py does.
        """
        before = self._marked.get(worker, set())
        long = {job.execution: job for job in running if now - job.started > MARK_SECONDS}
        for execution in long.keys() - before:
            id = self._whole_id(worker, long[execution])
            key_names = [
                keys.claims_key(worker),
                keys.job_key(id),
                keys.execution_key(id, execution),
                keys.executions_key(id),
            ]
            _mark(self.client, key_names, [id, execution, worker, wire.time_text(time.time())])
        if long or before:
            self._marked[worker] = set(long)

    def _whole_id(self, worker: str, job: RunningJob) -> str:
        """The id of a job that may be too long for the scoreboard: the claims have it whole."""
        if not is_shortened(job.id):
            return job.id
        claims = cast(dict[bytes, bytes], self.client.hgetall(keys.claims_key(worker)))
        held = (as_text(id) for id, execution in claims.items() if as_text(execution) == job.execution)
        return next(held, job.id)

    def forget(self, worker: str) -> None:
        """Forget a worker that has ended."""
        self._marked.pop(worker, None)
