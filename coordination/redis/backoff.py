"""Trying again: which errors pass by themselves, and how long to pause before the next try."""

from __future__ import annotations

import random

from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
    TryAgainError,
)

from packmule.coordination.redis.embedded_server import ServerFailed

AWAY = (RedisError, OSError, ServerFailed)
"""What a call may raise while the server is away; `passes` tells which of it will pass."""

_PASSING = (ConnectionError, TimeoutError, ReadOnlyError, OutOfMemoryError, ClusterDownError, TryAgainError)
_PASSING_WORDS = ("MISCONF", "NOREPLICAS", "BUSY ", "UNBLOCKED")


def passes(error: Exception) -> bool:
    """Whether the same may succeed later: the server is away, starts, fails over, or can't write."""
    if not isinstance(error, RedisError):
        return isinstance(error, AWAY)
    return isinstance(error, _PASSING) or str(error).startswith(_PASSING_WORDS)


class BackOff:
    """Pauses in seconds that double from `first` up to `cap`, each shortened by chance by up to a half."""

    def __init__(self, first: float = 0.05, cap: float = 5.0) -> None:
        self.first = first
        self.cap = cap
        self._ceiling = first

    def next(self) -> float:
        """How long to pause now; the next time longer."""
        seconds = self._ceiling * random.uniform(0.5, 1)  # noqa: S311  jitter needs no secrecy
        self._ceiling = min(self.cap, self._ceiling * 2)
        return seconds

    def reset(self) -> None:
        """It went well: the next pause is a short one again."""
        self._ceiling = self.first
