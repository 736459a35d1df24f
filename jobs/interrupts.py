"""The exceptions that end a run of a job early: `Retry`, which it raises itself, and those raised in it."""

from __future__ import annotations

from packmule.jobs.spans import Span, in_seconds


class Retry(Exception):
    """Raise this in a job to run it again for a `reason`, `after` some seconds.

    `after` may also be a `timedelta` or a text such as `"5m"`. This uses none of the job's retries. `limit`
    bounds the attempts: the one that reaches it fails.

    >>> from packmule import Retry
    >>> raise Retry(after=30, reason="the report is not ready yet", limit=20)
    Traceback (most recent call last):
    packmule.jobs.interrupts.Retry: the report is not ready yet
    """

    def __init__(
        self,
        after: Span = 0,
        reason: str = "the job asked to run again",
        limit: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.after = max(0.0, in_seconds(after, "after"))
        self.limit = limit


class Stopped(BaseException):
    """Raised in a running job when it is canceled. Clean up and let it pass."""


class Killed(BaseException):
    """Raised in a running job by RQ's kill command: the job fails, and its retries apply."""


class Interrupted(BaseException):
    """Raised by `current.checkpoint` when the worker stops: another worker continues from that checkpoint.

    A worker that has to stop at once raises it in the job wherever it is.
    """


class Waiting(BaseException):
    """Raised in a job that waits for a time or a signal: its process is free until then.

    `field` is one of its steps (`jobs/steps.py`), and `head` its value as far as the time, which is in
    `seconds` or never. `version` is that of the job's code.
    """

    def __init__(self, version: str, field: str, head: str, seconds: float | None) -> None:
        super().__init__(f"the job waits under {field}")
        self.version = version
        self.field = field
        self.head = head
        self.seconds = seconds
