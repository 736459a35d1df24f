"""The exceptions that end a run of a job early: `Retry`, which it raises itself, and those raised in it."""

from __future__ import annotations

from datetime import timedelta

from packmule.jobs.options import in_seconds


class Retry(Exception):
    """Raise this in a job to run it again `after` seconds (or a `timedelta`), for `reason`.

    It uses none of the job's retries. `limit` bounds the attempts: the one that reaches it fails.

    >>> from packmule import Retry
    >>> raise Retry(after=30, reason="the report is not ready yet", limit=20)
    Traceback (most recent call last):
    packmule.jobs.interrupts.Retry: the report is not ready yet
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
    """Raised in a running job when it is canceled. Clean up and let it pass."""


class Killed(BaseException):
    """Raised in a running job by RQ's kill command: the job fails, and its retries apply."""


class Interrupted(BaseException):
    """Raised by `current.checkpoint` when the worker stops: another worker continues from that checkpoint.

    A worker that has to stop at once raises it in the job wherever it is.
    """
