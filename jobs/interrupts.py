"""What ends a run of a job early: its own wish to run again, a cancel, or a worker that stops."""

from __future__ import annotations

from datetime import timedelta

from packmule.jobs.options import in_seconds


class Retry(Exception):
    """Raised by a job that wants to run again `after` seconds (or a `timedelta`), for `reason`.

    It uses up none of the job's retries. `limit` bounds its attempts: the one that reaches it fails.

    >>> from packmule import Retry
    >>> raise Retry(after=30, reason="the report is not ready yet", limit=20)
    Traceback (most recent call last):
    jobs.interrupts.Retry: the report is not ready yet
    """

    def __init__(
        self,
        after: float | timedelta = 0,
        reason: str = "the job asked to run again",
        limit: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.after = max(0.0, in_seconds(after))
        self.limit = limit


class Stopped(BaseException):
    """Raised in a running job that somebody cancelled. Clean up and let it pass."""


class Killed(BaseException):
    """Raised in a running job that is killed by RQ's command: it has failed, and its retries hold."""


class Interrupted(BaseException):
    """The worker stops, and the job goes on elsewhere: from its last `current.checkpoint`, which raises this.

    A worker that has to stop at once raises it in the job.
    """
