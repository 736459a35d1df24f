"""Memory limit: refuse new jobs before the server's memory is full."""

from __future__ import annotations

import logging

from redis import Redis

from packmule.jobs import keys

DEFAULT_SHARE = 0.9
"""Of the server's `maxmemory`, if it has one."""

FREE_SHARE = 0.95
"""Of the limit: when usage falls below it, jobs are accepted again."""

FULL_SECONDS = 5
"""How long jobs are refused if no scheduler confirms it any more."""

NEAR_REST, FAR_REST = 0.5, 15.0
"""Seconds between two checks while more than half of the limit is used, and while less is."""

log = logging.getLogger("packmule.scheduler")


class MemoryLimit:
    """How much memory the server may use: `high_water` in bytes, or `80%` of its `maxmemory`, or "" for 90 %.

    Given a share, a server without `maxmemory` has no limit.
    """

    def __init__(self, client: Redis, high_water: str = "") -> None:
        self.client = client
        self.high_water = high_water
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

    def usage(self) -> tuple[int, int]:
        """Bytes that the server uses, and bytes that it may use (0: no limit)."""
        info = self.client.info("memory")
        return int(info["used_memory"]), self.allowed(int(info.get("maxmemory", 0)))

    def fault(self, allowed: int) -> str | None:
        """Why the configured limit has no effect, or None if it has."""
        if allowed or not self.high_water:
            return None
        return f"PACKMULE_MEMORY_HIGH_WATER={self.high_water} has no effect: the server has no maxmemory"

    def allowed(self, maxmemory: int) -> int:
        """Bytes that a server with this `maxmemory` may use (0: no limit)."""
        if self.high_water.endswith("%"):
            return int(maxmemory * float(self.high_water[:-1]) / 100)
        return int(self.high_water) if self.high_water else int(maxmemory * DEFAULT_SHARE)
