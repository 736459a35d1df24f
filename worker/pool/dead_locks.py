"""Locks of dead processes: a singleton needn't wait for the end of a lock whose holder has died."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from redis import Redis

from packmule.coordination.locks.redlock import Redlock
from packmule.worker.process.singletons import TTL
from packmule.worker.scoreboard import HeldLock

ANSWER_SECONDS = 0.2
"""How long a pool waits for each step of a lock node: while it waits, it does nothing else."""


class DeadLocks:
    """Releases locks on the nodes whose clients `nodes` makes, once there is a lock to release."""

    def __init__(self, nodes: Callable[[], Sequence[Redis]]) -> None:
        self._nodes = nodes
        self._redlock: Redlock | None = None
        self._left: deque[tuple[HeldLock, float]] = deque()

    def add(self, locks: Sequence[HeldLock]) -> None:
        """Take over the locks of a process that is certainly dead: the pool, its parent, has reaped it."""
        ends_at = time.monotonic() + TTL
        self._left.extend((lock, ends_at) for lock in locks)

    def release(self) -> bool:
        """Release them as far as the nodes answer; whether none is left that hasn't ended by itself.

        The value of each lock is its holder's alone, so a later holder's lock stays.
        """
        while self._left:
            lock, ends_at = self._left[0]
            if time.monotonic() < ends_at:
                if self._redlock is None:
                    self._redlock = Redlock(self._nodes(), longest_ttl=TTL)
                if not self._redlock.release_of(*lock, within=ANSWER_SECONDS):
                    return False
            self._left.popleft()
        return True

    def close(self) -> None:
        """Close the connections to the lock nodes."""
        if self._redlock:
            self._redlock.close()
