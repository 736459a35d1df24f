"""Memory limit: refuse new jobs before the server's memory is full."""

from __future__ import annotations

import logging

from redis import Redis

from packmule.jobs import keys
from packmule.observe.memory import MemoryMark

FREE_SHARE = 0.95
"""Of the limit: when usage falls below it, jobs are accepted again."""

FULL_SECONDS = 5
"""How long jobs are refused if no scheduler confirms it any more."""

NEAR_REST, FAR_REST = 0.5, 15.0
"""Seconds between two checks while more than half of the limit is used, and while less is."""

log = logging.getLogger("packmule.scheduler")


class MemoryLimit(MemoryMark):
    """Watches how much memory the server uses, and lets nobody enqueue while that is above the mark."""

    def __init__(self, client: Redis, high_water: str = "") -> None:
        super().__init__(client, high_water)
        self.is_full = False
        self._warned: str | None = None

    def check(self, term: str = "") -> float:
        """Publish whether the server `is_full`, for `enqueue.lua`; return seconds until the next check.

        The `term` is not compared: a former leader measures the same memory.
        """
        used, allowed = self.usage()
        fault = self.fault(allowed)
        if fault and fault != self._warned:
            log.warning("%s", fault)
        self._warned = fault
        is_full = allowed > 0 and used > allowed * (FREE_SHARE if self.is_full else 1)
        if is_full:
            self.client.set(keys.FULL, f"{used} {allowed}", ex=FULL_SECONDS)
        elif self.is_full:
            self.client.delete(keys.FULL)
        if is_full != self.is_full:
            verdict = "new jobs are refused" if is_full else "jobs are accepted again"
            log.warning("the server uses %d of %d MiB: %s", used >> 20, allowed >> 20, verdict)
        self.is_full = is_full
        return NEAR_REST if used > allowed / 2 > 0 else FAR_REST

    def lift(self) -> None:
        """Accept jobs again, because this scheduler stops checking."""
        if self.is_full:
            self.client.delete(keys.FULL)
            self.is_full = False
