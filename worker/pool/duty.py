"""Duties: what a pool does again and again, none of which can take down another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from redis.exceptions import RedisError

log = logging.getLogger("packmule.worker")


@dataclass
class Duty:
    """What a pool does every `interval` seconds; `name` completes the sentence "the pool can't ..."."""

    name: str
    do: Callable[[], None]
    interval: float = 0.0
    due_at: float = 0.0
    """On the monotonic clock."""


class Guard:
    """Keeps an error in one part of the pool's loop from the others, and logs it once until it changes."""

    def __init__(self) -> None:
        self._logged: dict[str, str] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Catch and log whatever this part raises."""
        try:
            yield
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if self._logged.get(part) != text:
                is_plain = isinstance(error, RedisError | OSError)
                log.error("the pool can't %s: %s", part, text, exc_info=None if is_plain else error)
            self._logged[part] = text
        else:
            self._logged.pop(part, None)
