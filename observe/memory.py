"""Memory: how much of it a server uses, and how much jobs may use of it."""

from __future__ import annotations

from redis import Redis

DEFAULT_SHARE = 0.9
"""Of the server's `maxmemory`, if it has one."""


class MemoryMark:
    """How much memory the server may use: `high_water` in bytes, or `80%` of its `maxmemory`, or "" for 90 %.

    Given a share, a server without `maxmemory` has no limit.

    >>> MemoryMark(client, "80%").usage()  # doctest: +SKIP
    (1_048_576, 858_993_459)
    """

    def __init__(self, client: Redis, high_water: str = "") -> None:
        self.client = client
        self.high_water = high_water

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
