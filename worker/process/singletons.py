"""Singletons: this process holds a Redlock while it runs such a job."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from redis import Redis

from packmule.coordination.locks.redlock import Lock, NoQuorum, NotAcquired, Redlock, SameServer
from packmule.jobs import keys
from packmule.worker.scoreboard import HeldLock

TTL = keys.LEASE_SECONDS
"""A lock outlives its holder as long as a worker's lease does. No lock of ours lasts longer, so a lock node
that may have forgotten some has no vote for this long."""

RETRY_SECONDS = 0.5
"""Seconds until a singleton is claimed again whose lock is taken: its last holder was killed."""

log = logging.getLogger("packmule.worker")


class Singletons:
    """The locks of the singletons that this process performs, on `nodes`.

    `fences` receives the fencing token of each execution that holds a lock. `lost` is called with an
    execution whose lock was lost. `show` gets the locks that the pool may release if this process dies.

    The claim script already lets only one of them run at a time. The lock protects against what the script
    can't see, a job server that failed over and forgot who runs. It also gives the fencing token.
    """

    def __init__(
        self,
        nodes: Sequence[Redis],
        fences: dict[str, int],
        lost: Callable[[str], object],
        show: Callable[[Sequence[HeldLock]], object],
    ) -> None:
        self._redlock = Redlock(nodes, longest_ttl=TTL)
        self._fences = fences
        self._lost = lost
        self._show = show
        self._locks: dict[str, Lock] = {}
        self._shown: dict[str, HeldLock] = {}
        self._mutex = threading.Lock()

    def take(self, name: str, execution: str) -> bool:
        """Try to lock the singleton `name` for `execution`; whether it succeeded."""
        try:
            lock = self._redlock.acquire(
                f"singleton {name}", ttl=TTL, wait=0, on_lost=lambda _: self._lost(execution)
            )
        except (NotAcquired, NoQuorum, SameServer) as error:
            log.warning("a singleton waits for its lock: %s", error)
            return False
        self._locks[execution] = lock
        self._fences[execution] = lock.fence
        return True

    def show(self, execution: str) -> None:
        """Show the lock of `execution` to the pool, for a job whose body ends with this process."""
        lock = self._locks[execution]
        with self._mutex:
            self._shown[execution] = HeldLock(lock.name, lock.value, lock.fence)
            self._show(list(self._shown.values()))

    def give_back(self, execution: str) -> None:
        """Release the lock of `execution`, if it had one."""
        if lock := self._locks.pop(execution, None):
            del self._fences[execution]
            with self._mutex:
                if self._shown.pop(execution, None):
                    self._show(list(self._shown.values()))
            lock.release()

    def close(self) -> None:
        """Close the connections to the lock nodes."""
        self._redlock.close()
