"""Ends jobs as a worker does, for tests."""

from __future__ import annotations

import time

from packmule.worker.process import outcome, performer
from packmule.worker.process.claim import Claims


def end(claims: Claims, error: str = "", times: int = 100) -> list[str]:
    """End jobs that wait, one call each, and return their ids in that order."""
    ids: list[str] = []
    while len(ids) < times and (jobs := claims.finish_and_claim(claims.next_id(), [], 1).jobs):
        now = time.time()
        (job,) = jobs
        ended = outcome.failed(job, error, now, now) if error else performer.finished(job, b"1", now, now)
        claims.finish_and_claim(claims.next_id(), [ended], 0)
        ids.append(job.id)
    return ids
