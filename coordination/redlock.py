"""Redlock: a lock that a majority of independent servers grants for a while, with a token for what it guards."""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import redis

from coordination.handover import Ear
from coordination.lock_nodes import Nodes, Votes
from coordination.renewal import Renewer
from coordination.scripts import Script

SHORTEST_TTL = 0.01
"""Seconds below which nothing would be left of a TTL."""

COUNTER_SECONDS = 86_400
"""How long a node keeps the counter of a lock that nobody takes; a later one begins higher by the clock."""

_acquire = Script("coordination", "acquire")
_extend = Script("coordination", "extend")
_release = Script("coordination", "release")

logger = logging.getLogger(__name__)


class NotAcquired(RuntimeError):
    """Somebody else held the lock for as long as we were willing to wait."""


class NoQuorum(redis.ConnectionError):
    """Fewer than a majority of the lock nodes answered and may vote; the text names the others."""


class LockLost(RuntimeError):
    """The lock ended before it was released: someone else may have held it since."""


@dataclass(frozen=True)
class _Grant:
    """What a majority granted: to whom, with which token, and until when on the monotonic clock."""

    value: str
    fence: int
    until: float


class Redlock:
    """Locks on 1, 3 or 5 independent servers: one is held while a majority of them says so.

    With one server it is a lock as good as that server: gone with its data. `longest_ttl` is the most that a
    lock may ask for, and must be the same for all who use these servers, because a server that may have
    forgotten locks in a restart has no vote until it has been up for so long. `timeout` is how long a server
    may take to answer, and `retry` about how long to wait between two attempts, in seconds.

    Connections are its own, one a server, made when first needed; the clients only tell how. Threads may share
    it, and a forked child may go on using it. Raises `ValueError` for an even number of servers.

    >>> redlock = Redlock([redis.Redis(host=f"lock{n}") for n in (1, 2, 3)])
    >>> with redlock.acquire("report 7") as lock:  # doctest: +SKIP
    ...     write_report(fence=lock.fence)
    """

    def __init__(
        self,
        clients: Sequence[redis.Redis],
        *,
        longest_ttl: float = 30.0,
        timeout: float = 0.08,
        retry: float = 0.05,
    ) -> None:
        if len(clients) % 2 == 0:
            raise ValueError(
                f"{len(clients)} lock nodes: use 1, 3 or 5, for an even number outlives no more failures"
            )
        if (
            not SHORTEST_TTL <= longest_ttl < math.inf
            or not 0 < timeout < longest_ttl
            or not 0 < retry < math.inf
        ):
            raise ValueError("longest_ttl, timeout and retry are seconds above zero, the timeout the shorter")
        self.longest_ttl = longest_ttl
        self._timeout = timeout
        self._retry = retry
        self._host = socket.gethostname()
        self._nodes = Nodes(clients, longest_ttl, timeout)
        self._renewer = Renewer()

    def acquire(
        self,
        name: str,
        *,
        ttl: float = 10.0,
        wait: float = 10.0,
        renew: bool = True,
        on_lost: Callable[[Lock], object] | None = None,
    ) -> Lock:
        """Take the lock `name` for `ttl` seconds, and go on holding it if `renew`.

        Tries for `wait` seconds, once with 0 and for ever with `math.inf`. `on_lost` is called with the lock, in
        the thread that renews it, when that has failed for good; it should be quick.

        Raises `NotAcquired`, `NoQuorum`, or `ValueError` for what can't be meant.
        """
        if not name:
            raise ValueError("a lock needs a name")
        if not wait >= 0:
            raise ValueError(f"wait is a number of seconds of zero or more, not {wait}")
        if on_lost and not renew:
            raise ValueError("on_lost is called by the renewal: leave renew=True")
        self._check_ttl(ttl)
        gives_up_at = time.monotonic() + wait
        ear: Ear | None = None
        try:
            while True:
                try:
                    if (grant := self._attempt(name, ttl)) is not None:
                        return Lock(self, name, ttl, grant, renew, on_lost)
                    shortage = None
                except NoQuorum as error:
                    shortage = error
                left = gives_up_at - time.monotonic()
                if left <= 0:
                    raise shortage or NotAcquired(
                        f"{name}: another holds the lock, for {wait:g} s of waiting"
                    )
                if ear is None:  # and try once more, for the release may have come before it
                    ear = Ear(self._nodes.nodes, _channel(name), self._timeout)
                else:
                    ear.wait(self._retry, left)
        finally:
            if ear is not None:
                ear.close()

    def faults(self) -> dict[str, str]:
        """The nodes without a vote at present, and why; empty if all is well."""
        return self._nodes.faults()

    def close(self) -> None:
        """Close the connections. What is held stays held until it is released or ends."""
        self._nodes.close()

    def _attempt(self, name: str, ttl: float) -> _Grant | None:
        """Ask once; None if others hold the lock. What is not won is given back everywhere."""
        value = f"{self._host}.{os.getpid()}.{secrets.token_hex(20)}"
        try:
            begun = time.monotonic()
            args = (value, _milliseconds(ttl), COUNTER_SECONDS)
            votes = self._nodes.ask(_acquire, _keys(name), args, self._patience(ttl), voters=True)
            fence = max(votes.replies, default=0)
            # The next holder meets one of a majority, so a majority must know the token.
            if votes.yes >= self._nodes.quorum > votes.replies.count(fence):
                begun = time.monotonic()
                votes = self._confirm(name, value, ttl, fence)
            until = _until(begun, ttl)
            if votes.yes >= self._nodes.quorum and time.monotonic() < until:
                return _Grant(value, fence, until)
        except BaseException:
            self._give_back(name, value, 0)
            raise
        self._give_back(name, value, 0)
        if votes.yes + votes.no < self._nodes.quorum:
            raise self._shortage(name, votes)
        return None

    def _confirm(self, name: str, value: str, ttl: float, fence: int) -> Votes:
        args = (value, _milliseconds(ttl), fence, COUNTER_SECONDS)
        return self._nodes.ask(_extend, _keys(name), args, self._patience(ttl))

    def _give_back(self, name: str, value: str, fence: int) -> Votes:
        args = (value, fence, COUNTER_SECONDS, _channel(name))
        return self._nodes.ask(_release, _keys(name), args, self._timeout, agrees=lambda _: True)

    def _shortage(self, name: str, votes: Votes) -> NoQuorum:
        said = "; ".join(f"{node}: {fault}" for node, fault in votes.faults.items()) or "no answer in time"
        return NoQuorum(
            f"{name}: of {len(self._nodes.nodes)} lock nodes {votes.yes + votes.no} answered and "
            f"{self._nodes.quorum} must agree: {said}"
        )

    def _patience(self, ttl: float) -> float:
        return min(self._timeout, ttl / 4)

    def _check_ttl(self, ttl: float) -> None:
        if not SHORTEST_TTL <= ttl <= self.longest_ttl:
            raise ValueError(
                f"a lock's TTL is from {SHORTEST_TTL:g} to {self.longest_ttl:g} s (longest_ttl), not {ttl}"
            )


class Lock:
    """A lock that is held: a context manager that releases it, made by `Redlock.acquire`.

    `fence` is higher than that of any holder before: give it to whatever the lock guards, which refuses lower
    ones. `until` is the instant of `time.monotonic()` up to which nobody else holds it, 0 once it is over; a
    process may be frozen at any moment, so that only the fence can tell whether it was still true on arrival.
    """

    def __init__(
        self,
        redlock: Redlock,
        name: str,
        ttl: float,
        grant: _Grant,
        renew: bool,
        on_lost: Callable[[Lock], object] | None,
    ) -> None:
        self.name = name
        self.ttl = ttl
        self.fence = grant.fence
        self._value = grant.value
        self._until = grant.until
        self._redlock = redlock
        self._on_lost = on_lost
        self._released = False
        self._process = os.getpid()
        self._mutex = threading.Lock()
        self._renews = renew
        if renew:
            redlock._renewer.add(self, ttl / 3)

    @property
    def until(self) -> float:
        """Until when it is held, on the monotonic clock; 0 once released or lost, and in a forked child."""
        return self._until if self._process == os.getpid() else 0.0

    def extend(self, ttl: float | None = None) -> float:
        """Hold it for `ttl` seconds from now, as long as before by default; returns the new `until`.

        Raises `LockLost` if it is over, and `NoQuorum` if too few nodes answered: it is held until `until` still.
        """
        if ttl is not None:
            self._redlock._check_ttl(ttl)
            self.ttl = ttl
        with self._mutex:
            if self._hold_on():
                return self._until
            self._until = 0.0
        raise LockLost(f"{self.name}: the lock was {'released' if self._released else 'lost'}")

    def renew(self) -> float | None:
        """Extend it for the renewal: seconds until the next time, None once it is lost and `on_lost` was told."""
        try:
            self.extend()
        except NoQuorum as error:
            logger.warning("%s: held for %.1f s more", error, self.until - time.monotonic())
            return self.ttl / 20
        except LockLost as error:
            if not self._released:
                logger.warning("%s", error)
                if self._on_lost is not None:
                    self._on_lost(self)
            return None
        return self.ttl / 3

    def release(self) -> bool:
        """Let others have it; whether it had been held up to now. Does nothing in a forked child or again."""
        if self._process != os.getpid():
            return False
        with self._mutex:
            if self._released:
                return False
            held = time.monotonic() < self._until
            self._released = True
            self._until = 0.0
            if self._renews:
                self._redlock._renewer.discard(self)
            votes = self._redlock._give_back(self.name, self._value, self.fence)
            gone = sum(not reply for reply in votes.replies)
            return held and gone < self._redlock._nodes.quorum

    def _hold_on(self) -> bool:
        """Extend at a majority; whether it is held without a gap."""
        begun = time.monotonic()
        if begun >= self.until:
            return False
        nodes = self._redlock._nodes
        votes = self._redlock._confirm(self.name, self._value, self.ttl, self.fence)
        until = _until(begun, self.ttl)
        answered_at = time.monotonic()
        # Answers that come after the end count for nothing: in between someone else may have held it.
        if answered_at < self._until:
            if votes.yes >= nodes.quorum and answered_at < until:
                self._until = until
                return True
            if votes.no <= len(nodes.nodes) - nodes.quorum:
                raise self._redlock._shortage(self.name, votes)
        self._redlock._give_back(self.name, self._value, 0)
        return False

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release it; raises `LockLost` if it was over before, unless something else is being raised."""
        if not self._released and not self.release() and kind is None and self._process == os.getpid():
            raise LockLost(f"{self.name}: the lock was lost before it was released")


def _keys(name: str) -> tuple[str, str]:
    return f"pm:lock:{name}", f"pm:fence:{name}"


def _channel(name: str) -> str:
    return f"pm:released:{name}"


def _milliseconds(ttl: float) -> int:
    return math.ceil(ttl * 1000)


def _until(begun: float, ttl: float) -> float:
    """The end of a TTL on our clock, early enough for a server whose clock runs 1 % faster, and for its ticks."""
    return begun + ttl * 0.99 - 0.002
