"""The memory budget: past a share of the server's memory jobs are refused, before there is none left."""

from __future__ import annotations

import logging

from redis import Redis

from packmule.jobs import wire

DEFAULT_SHARE = 0.9
"""Of the server's `maxmemory`, where it has one."""

FREE_SHARE = 0.95
"""Of the budget: below that jobs are taken again."""

FULL_SECONDS = 5
"""How long they are refused if no scheduler says so any more."""

NEAR_REST, FAR_REST = 0.5, 15.0
"""Seconds between two looks, while more than half of the budget is used and while less is."""

log = logging.getLogger("packmule.scheduler")


class Budget:
    """What the server's memory may be used for, by `high_water`: bytes, `80%` of `maxmemory`, or "" for 90 %.

    Without a number of bytes a server that has no `maxmemory` has no bound.
    """

    def __init__(self, client: Redis, high_water: str = "") -> None:
        self.client = client
        self.high_water = high_water
        self.is_full = False
        self._said: str | None = None

    def look(self, term: str = "") -> float:
        """Let producers know whether the server `is_full`; seconds until the next look.

        The `term` is not compared: what a leader says that was overtaken is true as well.
        """
        used, allowed = self.usage()
        said = self.fault(allowed)
        if said and said != self._said:
            log.warning("%s", said)
        self._said = said
        is_full = allowed > 0 and used > allowed * (FREE_SHARE if self.is_full else 1)
        if is_full:
            self.client.set(wire.FULL, f"{used} {allowed}", ex=FULL_SECONDS)
        elif self.is_full:
            self.client.delete(wire.FULL)
        if is_full != self.is_full:
            said = "no jobs are taken" if is_full else "jobs are taken again"
            log.warning("the server uses %d of %d MiB: %s", used >> 20, allowed >> 20, said)
        self.is_full = is_full
        return NEAR_REST if used > allowed / 2 > 0 else FAR_REST

    def forget(self) -> None:
        """Take back what was said, when another may lead or none."""
        if self.is_full:
            self.client.delete(wire.FULL)
            self.is_full = False

    def usage(self) -> tuple[int, int]:
        """Bytes that the server uses, and that it may use, 0 for any number."""
        info = self.client.info("memory")
        return int(info["used_memory"]), self.allowed(int(info.get("maxmemory", 0)))

    def fault(self, allowed: int) -> str | None:
        """What keeps a budget that was set from having an effect, if anything does."""
        if allowed or not self.high_water:
            return None
        return f"PACKMULE_MEMORY_HIGH_WATER={self.high_water} has no effect: the server has no maxmemory"

    def allowed(self, maxmemory: int) -> int:
        """Bytes that may be used of a server with such a bound, 0 for any number."""
        if self.high_water.endswith("%"):
            return int(maxmemory * float(self.high_water[:-1]) / 100)
        return int(self.high_water) if self.high_water else int(maxmemory * DEFAULT_SHARE)
