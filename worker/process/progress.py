"""Progress, checkpoints, steps and costs: what a running job stores through its worker."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from packmule.coordination.redis.backoff import retry_until_available
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys

PROGRESS_TTL = 86_400

log = logging.getLogger("packmule.worker")
_write = Script("worker.process", "write")
_remember = Script("worker.process", "remember")
_spend = Script("worker.process", "spend")


class ProgressStore:
    """Stores what jobs of `worker` report, as long as the worker's claims name their executions.

    A report that can't be stored is logged and dropped: the job goes on. A step waits until it's stored.
    """

    def __init__(self, client: Redis, worker: str) -> None:
        self.client = client
        self.worker = worker

    def report(
        self, id: str, execution: str, attempt: int, done: float, total: float | None, message: str
    ) -> None:
        """Store the progress of the job `id`."""
        # An empty total overwrites one that an earlier attempt knew.
        known = "" if total is None else total
        fields = ["done", done, "total", known, "message", message, "attempt", attempt]
        self._write(id, execution, keys.progress_key(id), "progress", PROGRESS_TTL, fields)

    def save(self, id: str, execution: str, cursor: bytes) -> None:
        """Store a checkpoint of the job `id` in its record."""
        self._write(id, execution, keys.job_key(id), "checkpoint", 0, ["checkpoint", cursor])

    def spend(self, id: str, execution: str, spent: int) -> None:
        """Correct what the job `id` took of its rate: in this execution it has `spent` so much."""
        try:
            done = _spend(self.client, [keys.claims_key(self.worker)], [id, execution, spent])
        except RedisError as error:
            log.warning("job %s: its rate was not corrected: %s", id, error)
            return
        if not done:
            log.warning("job %s: its rate was not corrected, since the worker's lease had ended", id)

    def remember(self, id: str, execution: str, version: str, *values: str) -> bool:
        """Store a step of the job `id` (`jobs.steps.Remember`), whose code has this version, once Redis
        answers.

        False if the worker has lost its claim.
        """
        key_names = [keys.claims_key(self.worker), keys.steps_key(id)]
        args = [id, execution, version, *values]
        return bool(retry_until_available(lambda: _remember(self.client, key_names, args)))

    def _write(self, id: str, execution: str, key: str, what: str, ttl: int, fields: Sequence[Any]) -> None:
        try:
            written = _write(self.client, [keys.claims_key(self.worker), key], [id, execution, ttl, *fields])
        except RedisError as error:
            log.warning("job %s: its %s was not stored: %s", id, what, error)
            return
        if not written:
            log.warning("job %s: its %s was refused, since the worker's lease had ended", id, what)
