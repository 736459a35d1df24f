"""The options of one enqueue: which queue, when, how long, how often."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

from jobs.wire import JOB_ID

DEFAULT_QUEUE = "default"
DEFAULT_TIMEOUT = 180.0
DEFAULT_RESULT_TTL = 500.0
DEFAULT_FAILURE_TTL = 31_536_000.0


class InvalidOption(ValueError):
    """An option with a value that can't be meant; nothing was enqueued."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a job may ask for. Unset ones come from the job's decorator, then from the defaults above.

    `queue` is the name of one of the settings' queues. `timeout`, `result_ttl`, `failure_ttl`, `delay` and
    `retry_intervals` are seconds (or `timedelta`); the wire keeps timeouts and TTLs in whole seconds, rounded
    up. `result_ttl` of 0 deletes the job when it has finished, -1 keeps it for ever. `delay` counts from now
    by Redis's clock; `at` is an aware instant; at most one of the two. `retries` is how often a failed job
    runs again, after `retry_intervals` where given and with exponential back-off where not. `at_front` jumps
    the queue. `job_id` makes the enqueue idempotent: while a job of that id exists, it is not enqueued again.
    """

    queue: str | None = None
    timeout: float | timedelta | None = None
    result_ttl: float | timedelta | None = None
    failure_ttl: float | timedelta | None = None
    retries: int | None = None
    retry_intervals: tuple[float, ...] | None = None
    description: str | None = None
    delay: float | timedelta | None = None
    at: datetime | None = None
    at_front: bool | None = None
    job_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        for name in ("timeout", "result_ttl", "failure_ttl", "delay"):
            value = getattr(self, name)
            if isinstance(value, timedelta):
                value = value.total_seconds()
            if value is not None and not _is_span(value, keeps_for_ever=name.endswith("_ttl")):
                raise InvalidOption(f"{name}={value!r}: give seconds" + _range(name))
        if self.timeout == 0:
            raise InvalidOption("timeout=0: give seconds above 0")
        if self.retries is not None and (isinstance(self.retries, bool) or self.retries < 0):
            raise InvalidOption(f"retries={self.retries!r}: give a whole number of 0 or more")
        if self.job_id is not None and not JOB_ID.fullmatch(self.job_id):
            raise InvalidOption(f"job_id={self.job_id!r}: use up to 200 letters, digits, _ and -")
        if self.at is not None and self.at.tzinfo is None:
            raise InvalidOption(f"at={self.at.isoformat()}: give the time zone too, such as +01:00")
        if self.at is not None and self.delay is not None:
            raise InvalidOption("give delay or at, not both")

    def over(self, base: Options) -> Options:
        """These options, and `base`'s where these say nothing."""
        said: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) is not None
        }
        return replace(base, **said) if said else base


def in_seconds(span: float | timedelta) -> float:
    """A span in seconds."""
    return span.total_seconds() if isinstance(span, timedelta) else float(span)


def _is_span(value: Any, keeps_for_ever: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < float("inf") or (keeps_for_ever and value == -1)


def _range(name: str) -> str:
    return " of 0 or more, or -1 to keep it for ever" if name.endswith("_ttl") else " of 0 or more"
