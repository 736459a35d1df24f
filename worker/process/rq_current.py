"""`rq.get_current_job()` in jobs that our own code performs: it fetches the job when asked."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, cast

import rq.job
from redis import Redis
from rq.job import Job, JobStatus
from rq.local import LocalStack

from packmule.jobs import context, keys
from packmule.worker.process.callbacks import job_of

_known: ContextVar[tuple[context.Running, Job] | None] = ContextVar("known", default=None)


class JobStack(LocalStack):
    """RQ's stack of running jobs, extended to ours at no cost to jobs that don't ask."""

    connection: Redis
    serializer: Any
    worker: str
    job_class: type[Job]

    @property
    def top(self) -> Job | None:
        """The job that runs in this thread or task, always as the same object; None outside of a job."""
        running = context.running()
        job: Job | None = super().top
        if job is not None or running is None:
            return job
        known = _known.get()
        if known is None or known[0] is not running:
            record = cast(dict[bytes, bytes], self.connection.hgetall(keys.job_key(running.id)))
            job = job_of(self.job_class, running.id, record, self.connection, self.serializer)
            # The record says these only once a job has run for a moment.
            job._status, job.worker_name = JobStatus.STARTED, self.worker
            known = running, job
            _known.set(known)
        return known[1]


def install(connection: Redis, worker: str, serializer: Any, job_class: type[Job] = Job) -> None:
    """Let RQ find the running jobs of `worker` by this connection, in this process."""
    stack: Any = rq.job._job_stack
    stack.__class__ = JobStack  # in place: a job that runs a worker may be on it
    stack.connection, stack.serializer = connection, serializer
    stack.worker, stack.job_class = worker, job_class
