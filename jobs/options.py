"""The options of one enqueue: which queue, when, how long, how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

from jobs.wire import JOB_ID

DEFAULT_QUEUE = "default"
DEFAULT_TIMEOUT = 180.0
DEFAULT_RESULT_TTL = 500.0
DEFAULT_FAILURE_TTL = 31_536_000.0

LONGEST_SPAN = 3_153_600_000.0
"""Seconds, a hundred years: far beyond, Redis refuses to expire a key and RQ to show a date."""

MOST_RETRIES = 1_000_000

_TYPES = {"queue": str, "description": str, "job_id": str, "at": datetime, "at_front": bool}


class InvalidOption(ValueError):
    """An option with a value that can't be meant; nothing was enqueued."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a job may ask for. Unset ones come from the job's decorator, then from the defaults above.

    `queue` is the name of one of the settings' queues. `timeout`, `result_ttl`, `failure_ttl`, `delay`,
    `expires` and `retry_intervals` are seconds (or `timedelta`); the wire keeps timeouts and TTLs in whole
    seconds, rounded up. `result_ttl` of 0 deletes the job when it has finished, -1 keeps it for ever. `delay`
    counts from now by Redis's clock; `at` is an aware instant; at most one of the two. A job that has not
    started `expires` seconds after it could have fails instead. `retries` is how often a failed job
    runs again, after `retry_intervals` where given and with exponential back-off where not. `at_front` jumps
    the queue. `job_id` makes the enqueue idempotent: while a job of that id exists, it is not enqueued again.
    """

    queue: str | None = None
    timeout: float | timedelta | None = None
    result_ttl: float | timedelta | None = None
    failure_ttl: float | timedelta | None = None
    retries: int | None = None
    retry_intervals: Sequence[float | timedelta] | None = None
    description: str | None = None
    delay: float | timedelta | None = None
    at: datetime | None = None
    expires: float | timedelta | None = None
    at_front: bool | None = None
    job_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        for name, kind in _TYPES.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise InvalidOption(f"{name}={value!r}: give a {kind.__name__}")
            if isinstance(value, str) and not _is_text(value):
                raise InvalidOption(f"{name}={value!r}: give text that UTF-8 can hold")
        for name in ("timeout", "result_ttl", "failure_ttl", "delay", "expires"):
            if (value := getattr(self, name)) is not None:
                _check_span(name, value)
        if self.retry_intervals is not None:
            if not isinstance(self.retry_intervals, tuple | list):
                raise InvalidOption(f"retry_intervals={self.retry_intervals!r}: give a list of seconds")
            for value in self.retry_intervals:
                _check_span("retry_intervals", value)
        if self.retries is not None and not _is_retries(self.retries):
            raise InvalidOption(f"retries={self.retries!r}: give a whole number from 0 to {MOST_RETRIES}")
        if self.job_id is not None and not JOB_ID.fullmatch(self.job_id):
            raise InvalidOption(f"job_id={self.job_id!r}: use up to 200 letters, digits, _ and -")
        if self.at is not None and self.at.tzinfo is None:
            raise InvalidOption(f"at={self.at.isoformat()}: give the time zone too, such as +01:00")
        if self.at is not None and self.delay is not None:
            raise InvalidOption("give delay or at, not both")

    @property
    def is_scheduled(self) -> bool:
        """Whether the job waits for its time before it is queued."""
        return self.delay is not None or self.at is not None

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


def _check_span(name: str, value: Any) -> None:
    """Raise `InvalidOption` if `value` is no span that the option `name` can have."""
    if isinstance(value, int | float | timedelta) and not isinstance(value, bool):
        seconds = in_seconds(value)
        keeps_for_ever = name.endswith("_ttl") and seconds == -1
        never_runs = name == "timeout" and seconds == 0
        if keeps_for_ever or (0 <= seconds <= LONGEST_SPAN and not never_runs):
            return
    least = "above 0" if name == "timeout" else "of 0 or more"
    more = ", or -1 to keep it for ever" if name.endswith("_ttl") else ""
    raise InvalidOption(f"{name}={value!r}: give seconds {least}, at most a hundred years{more}")


def _is_retries(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_RETRIES


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
