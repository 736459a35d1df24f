"""Renewal: one thread a process and Redlock keeps what is held from ending, as long as anything is held."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from typing import Protocol

IDLE = 5.0
"""Seconds without anything to renew after which the thread ends."""

logger = logging.getLogger(__name__)


class Renewable(Protocol):
    """What can be renewed, and knows when it wants to be again."""

    def renew(self) -> float | None:
        """Renew it; seconds until the next time, or None if that is no use any more."""


class Renewer:
    """Renews what it was given until it is taken away, says that it is over, or its owner forgot it."""

    def __init__(self) -> None:
        self.reset()
        _everywhere.add(self)

    def reset(self) -> None:
        """Forget everything, as a forked child must: what its parent holds is the parent's to renew."""
        self._due: weakref.WeakKeyDictionary[Renewable, float] = weakref.WeakKeyDictionary()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0

    def add(self, held: Renewable, after: float) -> None:
        """Renew `held` in `after` seconds for the first time."""
        with self._changed:
            self._due[held] = due = time.monotonic() + after
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="packmule-renewal", daemon=True)
                self._thread.start()
            elif due < self._wakes_at:
                self._changed.notify()

    def discard(self, held: Renewable) -> None:
        """Renew `held` no more; a renewal that is under way goes on."""
        with self._changed:
            self._due.pop(held, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                due = [held for held, at in self._due.items() if at <= now]
                if not due:
                    idle = not self._due
                    self._wakes_at = now + IDLE if idle else min(self._due.values(), default=now)
                    self._changed.wait(self._wakes_at - now)
                    if idle and not self._due and time.monotonic() >= self._wakes_at:
                        self._thread = None
                        return
            while due:  # and nothing here keeps alive what its owner forgot
                self._renew(due.pop())

    def _renew(self, held: Renewable) -> None:
        try:
            after = held.renew()
        except Exception:
            logger.exception("a renewal failed")
            after = 1.0
        with self._changed:
            if after is None:
                self._due.pop(held, None)
            elif held in self._due:
                self._due[held] = time.monotonic() + after


_everywhere: weakref.WeakSet[Renewer] = weakref.WeakSet()


def _begin_anew() -> None:
    for renewer in list(_everywhere):
        renewer.reset()


os.register_at_fork(after_in_child=_begin_anew)
