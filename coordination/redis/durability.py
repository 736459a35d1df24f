"""Durability: what a server promises of the writes that it has acknowledged, and how to wait for more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from packmule.errors import Conflict, Unavailable

CONFIRM_TIMEOUT = 2.0
"""Seconds for which a confirmation waits for the disk, and as long again for a replica."""

KEY = "pm:durable"
"""Written in front of each wait: the server waits for a connection's own last write and no other's."""

_HAS_WAITAOF = (7, 2)
_OPTIONS = ("appendfsync", "save", "min-replicas-to-write", "min-replicas-max-lag")


class NotDurable(Conflict, RuntimeError):
    """The server can keep nothing that a restart or a failover would spare; nothing was enqueued."""


class Unconfirmed(Unavailable, RuntimeError):
    """The server did not confirm in time that it keeps a write; the write itself was done."""


@dataclass(frozen=True, slots=True)
class Durability:
    """How a server keeps writes. `fsync` and `least_replicas` are as configured, empty and 0 if unknown."""

    appends: bool
    snapshots: bool
    fsync: str
    replicas: int
    least_replicas: int
    lag: int
    version: tuple[int, ...]

    @property
    def promise(self) -> str:
        """What becomes of acknowledged jobs when the server ends or fails over, for a person."""
        return f"{self._after_a_restart}; {self._after_a_failover}"

    def waits(self) -> list[tuple[str, int, tuple[Any, ...]]]:
        """What confirms a write, as far as this server can: a place, how many must have it, and the command.

        Raises `NotDurable`.
        """
        found: list[tuple[str, int, tuple[Any, ...]]] = []
        span = int(CONFIRM_TIMEOUT * 1000)
        waits_for_disk = self.appends and self.version >= _HAS_WAITAOF
        if waits_for_disk:
            found.append(("its disk", 1, ("WAITAOF", 1, 0, span)))
        if self.replicas:
            found.append(("a replica", 1, ("WAIT", 1, span)))
        if not found and not (self.appends and self.fsync == "always"):
            raise NotDurable(
                "the server can confirm no write: run CONFIG SET appendonly yes on Redis 7.2 or later, any "
                "Valkey, or with appendfsync always; or give it a replica; or enqueue without durable"
            )
        return found

    @property
    def _after_a_restart(self) -> str:
        if not self.appends:
            lost = "the jobs since its last snapshot" if self.snapshots else "all jobs"
            return f"a restart loses {lost} (appendonly no)"
        if self.fsync == "always":
            return "no crash of server or machine loses a job (appendfsync always)"
        how = f"appendfsync {self.fsync}" if self.fsync else "appendfsync unknown"
        return f"a crash of server or machine loses up to the last 2 s of jobs ({how})"

    @property
    def _after_a_failover(self) -> str:
        if not self.replicas:
            return "no replica is connected"
        if self.least_replicas:
            return (
                f"a failover loses up to the last {self.lag} s (min-replicas-to-write {self.least_replicas})"
            )
        return "a failover loses what no replica has received (min-replicas-to-write 0)"


def durability(client: redis.Redis) -> Durability:
    """How the server of `client` keeps writes; takes two round trips. Raises redis-py's errors."""
    info: Mapping[str, Any] = client.info()
    with client.pipeline(transaction=False) as pipeline:
        for name in _OPTIONS:
            pipeline.config_get(name)
        replies = pipeline.execute(raise_on_error=False)
    options: dict[str, str] = {}
    for reply in replies:
        options |= reply if isinstance(reply, dict) else {}  # managed services forbid CONFIG
    return Durability(
        bool(info.get("aof_enabled")),
        bool(options.get("save")),
        str(options.get("appendfsync", "")),
        int(info.get("connected_slaves", 0)),
        int(options.get("min-replicas-to-write", 0)),
        int(options.get("min-replicas-max-lag", 0)),
        _numbers(str(info.get("redis_version", ""))),
    )


def refuse_unconfirmed(waits: Sequence[tuple[str, int, tuple[Any, ...]]], replies: Sequence[Any]) -> None:
    """Raise `Unconfirmed` if the `replies` to `waits` say that too few places have the write."""
    for (place, needed, _), reply in zip(waits, replies, strict=True):
        if isinstance(reply, Exception):
            raise reply
        if (reply[0] if isinstance(reply, list) else reply) < needed:
            raise Unconfirmed(
                f"the server took the jobs, but did not confirm within {CONFIRM_TIMEOUT:g} s that {place} "
                "has them: enqueue them again under the same ids to wait once more"
            )


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version, none if it has none."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
