"""Redis being away: which errors pass by themselves, and how often a call is tried until they have."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

BACK_OFF_CAP = 5.0

AWAY = (ConnectionError, TimeoutError)
"""What redis-py raises while the server can't be reached; a server that is loading its data counts too."""

NOT_NOW = (b"MISCONF", b"NOREPLICAS", b"BUSY", b"UNBLOCKED")
"""How answers begin by which a server that can be reached says that it can't write at the moment."""

NOT_NOW_ERRORS = (ReadOnlyError, OutOfMemoryError, ClusterDownError, TryAgainError)
"""What redis-py makes of further such answers; their texts have lost the word in front."""

T = TypeVar("T")

log = logging.getLogger("packmule.worker")


def is_passing(error: ResponseError) -> bool:
    """Whether the server will do the same later: it starts, fails over, or is out of memory or disk."""
    return isinstance(error, NOT_NOW_ERRORS) or str(error).encode().startswith(NOT_NOW)


def persist(call: Callable[[], T]) -> T:
    """Make the call, which may be made twice, until Redis answers it."""
    for pause in _pauses():
        try:
            return call()
        except AWAY as error:
            _pause(error, pause)
        except ResponseError as error:
            if not is_passing(error):
                raise
            _pause(error, pause)
    raise AssertionError("the pauses have no end")


def _pause(error: Exception, seconds: float) -> None:
    log.warning("redis is away (%s); trying again in %.1f s", error, seconds)
    time.sleep(seconds)


def _pauses() -> Iterator[float]:
    """Seconds to wait between tries: growing, jittered, without an end."""
    ceiling = 0.1
    while True:
        yield random.uniform(0, ceiling)  # noqa: S311  jitter needs no secrecy
        ceiling = min(ceiling * 2, BACK_OFF_CAP)
