"""Renewal: one thread extends held locks and leases in time, for as long as anything is held."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from typing import Protocol

IDLE = 5.0
"""Seconds with nothing to renew after which the thread ends."""

logger = logging.getLogger(__name__)


class Renewable(Protocol):
    """A lock or lease that can be renewed."""

    def renew(self) -> float | None:
        """Renew it; returns the seconds until the next renewal, or None if it is over."""


class Renewer:
    """Renews what was added, until it is discarded, reports its end, or is garbage-collected."""

    def __init__(self) -> None:
        self.reset()
        _everywhere.add(self)

    def reset(self) -> None:
        """Forget everything, as a forked child must: its parent renews what the parent holds."""
        self._due: weakref.WeakKeyDictionary[Renewable, float] = weakref.WeakKeyDictionary()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0

    def add(self, held: Renewable, after: float) -> None:
        """Renew `held` for the first time in `after` seconds."""
        with self._changed:
            self._due[held] = due = time.monotonic() + after
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="packmule-renewal", daemon=True)
                self._thread.start()
            elif due < self._wakes_at:
                self._changed.notify()

    def discard(self, held: Renewable) -> None:
        """Stop renewing `held`; a renewal that has begun continues."""
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
            while due:  # popped, so that nothing here keeps alive what its owner dropped
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


def _reset_after_fork() -> None:
    for renewer in list(_everywhere):
        renewer.reset()


os.register_at_fork(after_in_child=_reset_after_fork)
