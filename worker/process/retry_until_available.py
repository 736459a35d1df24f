"""Redis being away: a call is tried until the server answers it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from packmule.coordination.redis.backoff import passes

BACK_OFF_CAP = 5.0

AWAY = (ConnectionError, TimeoutError)
"""What redis-py raises while the server can't be reached; a server that is loading its data counts too."""

T = TypeVar("T")

log = logging.getLogger("packmule.worker")


def persist(call: Callable[[], T]) -> T:
    """Make the call, which may be made twice, until Redis answers it."""
    for pause in _pauses():
        try:
            return call()
        except (*AWAY, ResponseError) as error:
            if not passes(error):
                raise
            log.warning("redis is away (%s); trying again in %.1f s", error, pause)
            time.sleep(pause)
    raise AssertionError("the pauses have no end")


def _pauses() -> Iterator[float]:
    """Seconds to wait between tries: growing, jittered, without an end."""
    ceiling = 0.1
    while True:
        yield random.uniform(0, ceiling)  # noqa: S311  jitter needs no secrecy
        ceiling = min(ceiling * 2, BACK_OFF_CAP)
