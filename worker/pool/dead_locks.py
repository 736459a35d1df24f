"""Locks of dead processes: a singleton needn't wait for the end of a lock whose holder has died."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from redis import Redis

from packmule.coordination.locks.redlock import Redlock
from packmule.worker.process.singletons import TTL
from packmule.worker.scoreboard import HeldLock


class DeadLocks:
    """Releases locks on the nodes whose clients `nodes` makes, once there is a lock to release."""

    def __init__(self, nodes: Callable[[], Sequence[Redis]]) -> None:
        self._nodes = nodes
        self._redlock: Redlock | None = None

    def release(self, locks: Sequence[HeldLock]) -> None:
        """Release the locks of a process that is certainly dead: the pool is its parent and has reaped it.

        The value of each lock is its holder's alone, so a later holder's lock stays.
        """
        if not locks:
            return
        if self._redlock is None:
            self._redlock = Redlock(self._nodes(), longest_ttl=TTL)
        for lock in locks:
            self._redlock.release_of(*lock)

    def close(self) -> None:
        """Close the connections to the lock nodes."""
        if self._redlock:
            self._redlock.close()
