"""Retrying calls to Redis: which errors are transient, and how long to pause before the next try."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from packmule.coordination.redis.embedded_server import ServerFailed
from packmule.units import span

UNAVAILABLE = (ConnectionError, TimeoutError)
"""What redis-py raises while the server can't be reached, and while it loads its data."""

REDIS_ERRORS = (RedisError, OSError, ServerFailed)
"""What a call to Redis may raise; `is_transient` tells which of these a later try may not meet."""

_TRANSIENT = (*UNAVAILABLE, ReadOnlyError, OutOfMemoryError, ClusterDownError, TryAgainError)
_TRANSIENT_REPLIES = ("MISCONF", "NOREPLICAS", "BUSY ", "UNBLOCKED")
_TRANSIENT_IN_SCRIPT = (" -OOM ", " -MISCONF ", " -NOREPLICAS ")
"""In the errors with which Redis before 7.0 ends a script."""

T = TypeVar("T")

log = logging.getLogger("packmule.redis")


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed later: the server is down, starting, failing over or can't write."""
    if not isinstance(error, RedisError):
        return isinstance(error, REDIS_ERRORS)
    said = str(error)
    return (
        isinstance(error, _TRANSIENT)
        or said.startswith(_TRANSIENT_REPLIES)
        or (said.startswith("Error running script") and any(each in said for each in _TRANSIENT_IN_SCRIPT))
    )


class BackOff:
    """Pauses in seconds that double from `first` up to `cap`, each shortened at random by up to a half."""

    def __init__(self, first: float = 0.05, cap: float = 2.0) -> None:
        self.first = first
        self.cap = cap
        self._ceiling = first

    def next(self) -> float:
        """The pause before the next try; each call doubles the one after it."""
        seconds = self._ceiling * random.uniform(0.5, 1)  # noqa: S311  jitter needs no secrecy
        self._ceiling = min(self.cap, self._ceiling * 2)
        return seconds

    def reset(self) -> None:
        """Start again with the shortest pause, after a success."""
        self._ceiling = self.first


class Outage:
    """Logs that Redis is away, once, and that it is back; `level` is DEBUG if another process says so."""

    def __init__(self) -> None:
        self.level = logging.WARNING
        self._since: float | None = None

    def begin(self, error: Exception) -> None:
        """Redis did not answer, or not as it should."""
        if self._since is None:
            self._since = time.monotonic()
            log.log(self.level, "redis is away: %s", error)

    def end(self) -> None:
        """Redis has answered."""
        if self._since is not None:
            log.log(self.level, "redis is back after %s", span(time.monotonic() - self._since))
            self._since = None


outage = Outage()
"""This process's."""


def retry_until_available(call: Callable[[], T]) -> T:
    """Repeat `call`, which must be safe to repeat, until Redis answers. Raises what isn't transient."""
    backoff = BackOff()
    while True:
        try:
            answer = call()
        except (*UNAVAILABLE, ResponseError) as error:
            if not is_transient(error):
                raise
            outage.begin(error)
            time.sleep(backoff.next())
        else:
            outage.end()
            return answer
