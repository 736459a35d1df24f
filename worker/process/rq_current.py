"""What `rq.get_current_job()` returns in a job that our own code performs: fetched when one asks for it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import rq.job
from redis import Redis
from rq.job import Job, JobStatus
from rq.local import LocalStack

from packmule.jobs import context

_known: ContextVar[tuple[context.Running, Job] | None] = ContextVar("known", default=None)


class JobStack(LocalStack):
    """RQ's stack of running jobs, which also knows those of ours; performing a job costs nothing for it."""

    connection: Redis
    serializer: Any

    @property
    def top(self) -> Job | None:
        """The job that runs in this thread or task, the same object each time; None outside of one."""
        running = context.running()
        job: Job | None = super().top
        if job is not None or running is None:
            return job
        known = _known.get()
        if known is None or known[0] is not running:
            job = Job.fetch(running.id, self.connection, self.serializer)
            job._status = JobStatus.STARTED  # the record says so only for jobs that take a while
            known = running, job
            _known.set(known)
        return known[1]


def install(connection: Redis, serializer: Any) -> None:
    """Let RQ find the jobs of ours by this connection, in this process."""
    stack: Any = rq.job._job_stack
    stack.__class__ = JobStack  # in place, for a job may be on it that runs a worker
    stack.connection, stack.serializer = connection, serializer
