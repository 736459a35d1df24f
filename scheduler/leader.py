"""Leadership: any number of schedulers may run; one at a time leads, by a Redlock and its fencing token."""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Sequence

from redis import Redis

from packmule.coordination.locks.redlock import Lock, LockLost, NoQuorum, NotAcquired, Redlock, SameServer
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys
from packmule.observe.leadership import leader

LOCK = "packmule leader"
TERM = 3.0
"""Seconds for which a leader may be silent; another then takes over within 5."""

MARGIN = 0.1
"""The last part of a term, in which a leader starts nothing."""

CANDIDACY = 0.5
"""Seconds between two attempts to lead while nobody leads, shortened at random by up to a half."""

LONGEST_STANDBY = 1.0
"""Seconds between two checks whether the other scheduler still leads."""

QUORUM_RETRY_INTERVAL = 0.1
"""Seconds until a leader that could not reach enough lock nodes tries again."""

EXTEND = 0.65
"""The part of a term after which the leader extends it."""

_lead = Script("scheduler", "lead")
_resign = Script("scheduler", "resign")


log = logging.getLogger("packmule.scheduler")


class NotLeading(Exception):
    """This scheduler does not lead any more; its last step wrote nothing."""


class Leadership:
    """One scheduler's candidacy, named by host, process and a random part; `nodes` grant the lock.

    It leads while it holds the lock by its own clock, less a margin, and `client`'s server knows its term.
    The term is the lock's fencing token; every script of a leader's duties compares it.
    """

    def __init__(self, client: Redis, nodes: Sequence[Redis] = (), term: float = TERM) -> None:
        self.client = client
        self.name = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"
        self.ttl = term
        # Nobody else takes this lock, so a restarted node that forgot it need not wait longer than one term.
        self._redlock = Redlock(nodes or [client], longest_ttl=term)
        self._lock: Lock | None = None
        self.is_server_reachable = True
        """Whether the job server answered last: a leader that can't reach it does not extend its lock."""
        self._is_announced = False
        self._next_attempt_at = 0.0
        self._fault_since = 0.0
        self._has_warned = False

    @property
    def held_for(self) -> float:
        """Seconds for which nobody else can lead; zero or less if this scheduler does not lead."""
        return (self._lock.until if self._lock is not None else 0.0) - time.monotonic()

    @property
    def term(self) -> str:
        """This scheduler's term, as scripts compare it; empty if it does not lead."""
        lock = self._lock
        return str(lock.fence) if lock is not None and self.held_for > self.ttl * MARGIN else ""

    @property
    def next_attempt_in(self) -> float:
        """Seconds until `hold` has something to do."""
        return max(0.0, self._next_attempt_at - time.monotonic())

    def hold(self) -> bool:
        """Become or stay the leader; return whether this scheduler leads. Needs a round trip now and then.

        Raises what the job server raises. Lock nodes that can't be reached are logged once.
        """
        now = time.monotonic()
        try:
            if now >= self._next_attempt_at:
                self._attempt(now)
            if self._lock is not None and not self._is_announced:
                self._announce()
        except (NotAcquired, LockLost, NoQuorum, SameServer) as error:
            if isinstance(error, NoQuorum | SameServer):
                self._warn(error, now)
            if not self.term:
                self._drop()
        return bool(self.term)

    def attempt_soon(self) -> None:
        """Check almost at once whether somebody leads, because the leader said that it resigns."""
        if self._lock is None:
            # At random, so that the candidates do not all ask together.
            self._next_attempt_at = time.monotonic() + random.uniform(0, QUORUM_RETRY_INTERVAL)  # noqa: S311

    def check(self) -> str:
        """The term, which the next step of a duty must name. Raises `NotLeading` if it is over."""
        if not self.term:
            raise NotLeading(f"{self.name} no longer leads")
        return self.term

    def announce_again(self) -> None:
        """Announce the term to the job server once more, because the server may have lost it."""
        self._is_announced = False

    def resign(self) -> None:
        """End the term, so that another scheduler can lead at once."""
        if self._lock is not None:
            term = str(self._lock.fence)
            self._drop()
            _resign(self.client, [keys.LEADER], [term])

    def close(self) -> None:
        """Close the connections to the lock nodes."""
        self._redlock.close()

    def _attempt(self, now: float) -> None:
        """Extend the lock, or try to acquire it if nobody else leads."""
        if self._lock is not None:
            self._next_attempt_at = now + QUORUM_RETRY_INTERVAL
            if self.is_server_reachable:
                self._lock.extend()
                self._next_attempt_at = now + self.ttl * EXTEND
            elif self.held_for <= 0:
                self._drop()
        elif left := self._others_left():
            pause = min(left + random.uniform(0, QUORUM_RETRY_INTERVAL), LONGEST_STANDBY)  # noqa: S311
            self._next_attempt_at = now + pause
        else:
            self._next_attempt_at = now + CANDIDACY * random.uniform(0.5, 1)  # noqa: S311
            self._lock = self._redlock.acquire(LOCK, ttl=self.ttl, wait=0, renew=False)
            self.is_server_reachable = True
            self._next_attempt_at = now + self.ttl * EXTEND
        self._fault_since, self._has_warned = 0.0, False

    def _others_left(self) -> float:
        """Seconds for which another scheduler still leads, as far as the job server knows."""
        found = leader(self.client)
        return found.left if found and found.left <= 2 * self.ttl else 0.0

    def _announce(self) -> None:
        """Announce the term to the job server; if a later leader did so already, give up."""
        lock = self._lock
        if lock is not None and _lead(
            self.client, [keys.LEADER], [self.name, lock.fence, int(self.ttl * 1000)]
        ):
            self._is_announced = True
        else:
            log.warning("%s: the job server knows a later leader", self.name)
            self._drop()

    def _warn(self, error: Exception, now: float) -> None:
        """Log once that there may be no leader, unless the lock nodes have only just started."""
        self._fault_since = self._fault_since or now
        if not self._has_warned and now > self._fault_since + 2 * self.ttl:
            self._has_warned = True
            log.warning("the lock nodes can't elect a leader: %s", error)

    def _drop(self) -> None:
        lock, self._lock = self._lock, None
        self._is_announced = False
        if lock is not None:
            lock.release()


def require_leading(reply: object) -> None:
    """Raise `NotLeading` if that is what a duty's script replied."""
    if reply == b"not leading":
        raise NotLeading("another scheduler leads, or the server forgot who does")
