"""Jobs that failed of errors, without a worker."""

from __future__ import annotations

from collections.abc import Sequence

from redis import Redis

from packmule.jobs.client import Client
from packmule.tests.worker import pool_jobs
from packmule.worker.order import Strict
from packmule.worker.process import outcome
from packmule.worker.process.claim import Claims
from packmule.worker.process.failure import Failure

TRACEBACK = """Traceback (most recent call last):
  File "/srv/lib/python3.11/site-packages/rows/read.py", line 3, in read
    deep(row)
  File "/srv/app/{where}", line 40, in render
    raise Wrong(row)
{type}: {text}
"""


def failed(client: Redis, failures: Sequence[Failure], worker: str = "w1") -> list[str]:
    """Let a job fail of each of `failures`; their ids."""
    Client(client).make_default()
    ids = [str(id) for id in pool_jobs.noop.enqueue_many([()] * len(failures))]
    claims = Claims(client, worker, Strict(["default"]))
    jobs = claims.finish_and_claim(claims.next_id(), [], len(failures)).jobs
    for job, failure in zip(jobs, failures, strict=True):
        traceback = TRACEBACK.format(where=failure.where, type=failure.type, text=failure.text)
        claims.finish_and_claim(
            claims.next_id(), [outcome.failed(job, traceback, 1.0, 2.0, failure=failure)], 0
        )
    return ids
