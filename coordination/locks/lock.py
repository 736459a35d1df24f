"""A lock that is held: until when, with which token, and how it is extended and released."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar

from packmule.coordination.locks import grants
from packmule.coordination.locks.grants import Grant, NoQuorum
from packmule.coordination.locks.quorum import Quorum
from packmule.coordination.renewal import Renewer
from packmule.errors import Conflict

SHORTEST_TTL = 0.01
"""Seconds; less would leave nothing of a TTL after the margins."""

RELEASE_INTERVAL = 0.3
"""Seconds until a release is tried again that too few nodes answered."""

logger = logging.getLogger(__name__)


class LockLost(Conflict, RuntimeError):
    """The lock ended before it was released, so another may have held it since."""


def refuse_ttl(ttl: float, longest: float) -> None:
    """Raise `ValueError` for a TTL that is too short, or longer than restarted nodes wait."""
    if not SHORTEST_TTL <= ttl <= longest:
        raise ValueError(f"a lock's TTL is from {SHORTEST_TTL:g} to {longest:g} s (longest_ttl), not {ttl}")


class Lock:
    """A lock that is held: a context manager that releases it, returned by `Redlock.acquire`.

    `fence` is higher than that of any earlier holder. Pass it to the resource that the lock guards, which
    refuses lower ones. `value` proves to the nodes who holds the lock. Until the instant `until` of
    `time.monotonic()` nobody else holds it; it is 0 once the lock is over. A process may be frozen at any
    moment, so only the fence proves that the lock was still held when a write arrived.
    """

    def __init__(
        self,
        quorum: Quorum,
        grant: Grant,
        ttl: float,
        renewer: Renewer | None,
        on_lost: Callable[[Lock], object] | None,
    ) -> None:
        self.name = grant.name
        self.fence = grant.fence
        self.value = grant.value
        self.ttl = ttl
        self._grant: Grant | None = grant
        self._quorum = quorum
        self._renewer = renewer
        self._on_lost = on_lost
        self._released = False
        self._process = os.getpid()
        self._mutex = threading.Lock()
        if renewer is not None:
            renewer.add(self, ttl / 3)

    @property
    def until(self) -> float:
        """The end on the monotonic clock; 0 once released or lost, and in a forked child."""
        grant = self._grant
        return grant.until if grant is not None and self._process == os.getpid() else 0.0

    def extend(self, ttl: float | None = None) -> float:
        """Hold it for `ttl` seconds from now, by default its previous TTL; returns the new `until`.

        Raises `LockLost` if it is over; `NoQuorum` if too few nodes answered: it is still held to `until`.
        """
        if ttl is not None:
            refuse_ttl(ttl, self._quorum.longest_ttl)
        if self._process != os.getpid():
            raise LockLost(f"{self.name}: the lock is held by the process that forked this one")
        with self._mutex:
            if self._grant is not None:
                self._grant = grants.extend(self._quorum, self._grant, ttl or self.ttl)
            if self._grant is None:
                raise LockLost(f"{self.name}: the lock was {'released' if self._released else 'lost'}")
            if ttl is not None:
                self.ttl = ttl
                if self._renewer is not None:
                    self._renewer.add(self, ttl / 3)
            return self._grant.until

    def renew(self) -> float | None:
        """Extend it for the renewer; returns seconds until the next renewal, None once it is over."""
        try:
            self.extend()
        except NoQuorum as error:
            logger.warning("%s; it is still held for %.1f s", error, self.until - time.monotonic())
            return self.ttl / 20
        except LockLost as error:
            if not self._released:
                logger.warning("%s", error)
                if self._on_lost is not None:
                    self._on_lost(self)
            return None
        return self.ttl / 3

    def release(self) -> bool:
        """Release it; returns whether it was still held. Does nothing a second time or in a forked child."""
        if self._process != os.getpid():
            return False
        with self._mutex:
            if self._released:
                return False
            self._released = True
            if self._renewer is not None:
                self._renewer.discard(self)
            grant, self._grant = self._grant, None
            if grant is None:
                return False
            held = time.monotonic() < grant.until
            was_held = grants.give_back(self._quorum, grant)
            if was_held is None and self._renewer is not None:
                Unreleased(self._quorum, grant).try_again(self._renewer)
            return was_held is not False and held

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release it; raises `LockLost` if it had ended before, unless another exception is being raised."""
        if self._released or self._process != os.getpid():
            return
        if not self.release() and kind is None:
            raise LockLost(f"{self.name}: the lock was lost before it was released")


class Unreleased:
    """A lock whose release too few nodes answered: the renewer tries again until they do or it has ended."""

    _all: ClassVar[set[Unreleased]] = set()
    """The renewer keeps nothing alive, and the owner has dropped the lock."""

    def __init__(self, quorum: Quorum, grant: Grant) -> None:
        self._quorum = quorum
        self._grant = grant

    def try_again(self, renewer: Renewer) -> None:
        """Let the renewer try again soon."""
        self._all.add(self)
        renewer.add(self, RELEASE_INTERVAL)

    def renew(self) -> float | None:
        """Try again, for the renewer; seconds until the next time, None once the lock is over."""
        if time.monotonic() < self._grant.until and grants.give_back(self._quorum, self._grant) is None:
            return RELEASE_INTERVAL
        self._all.discard(self)
        return None
