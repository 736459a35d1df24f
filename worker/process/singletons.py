"""Singletons: this process holds a Redlock while it runs such a job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from redis import Redis

from packmule.coordination.locks.redlock import Lock, NoQuorum, NotAcquired, Redlock, SameServer
from packmule.jobs import keys
from packmule.worker.process.outcome import Done, Outcome

TTL = keys.LEASE_SECONDS
"""A lock outlives its holder as long as a worker's lease does. No lock of ours lasts longer, so a lock node
that may have forgotten some has no vote for this long."""

RETRY_SECONDS = 0.5
"""Seconds until a singleton is claimed again whose lock is taken: its last holder was killed."""

log = logging.getLogger("packmule.worker")


class Singletons:
    """The locks of the singletons that this process performs, on `nodes`.

    `fences` receives the fencing token of each execution that holds a lock. `lost` is called with an
    execution whose lock was lost.

    The claim script already lets only one of them run at a time. The lock protects against what the script
    can't see, a job server that failed over and forgot who runs. It also gives the fencing token.
    """

    def __init__(self, nodes: Sequence[Redis], fences: dict[str, int], lost: Callable[[str], object]) -> None:
        self._redlock = Redlock(nodes, longest_ttl=TTL)
        self._fences = fences
        self._lost = lost
        self._locks: dict[str, Lock] = {}

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

    def releasing(self, execution: str, done: Done) -> Done:
        """`done`, which first releases the lock of `execution`."""

        def release_and_done(ended: Outcome | None) -> None:
            self.give_back(execution)
            done(ended)

        return release_and_done

    def give_back(self, execution: str) -> None:
        """Release the lock of `execution`, if it had one."""
        if lock := self._locks.pop(execution, None):
            del self._fences[execution]
            lock.release()

    def close(self) -> None:
        """Close the connections to the lock nodes."""
        self._redlock.close()
