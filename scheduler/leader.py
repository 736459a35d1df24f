"""Leadership: any number of schedulers may run, and one at a time leads, by a Redlock and its token."""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import NoPermissionError

from packmule.coordination.locks.redlock import Lock, LockLost, NoQuorum, NotAcquired, Redlock, SameServer
from packmule.coordination.redis.scripts import Script
from packmule.jobs import wire

LEADER = "pm:leader"
LOCK = "packmule leader"
TERM = 3.0
"""Seconds that a leader leads without a sign of life; so another follows it within 5."""

MARGIN = 0.1
"""The part of a term before whose end a leader begins nothing more."""

CANDIDACY = 0.5
"""Seconds between two attempts to lead while nobody does, less up to a half by chance."""

LONGEST_STANDBY = 1.0
"""Seconds between two looks whether another leads still."""

AGAIN = 0.1
"""Seconds after which a leader asks again that could not reach enough lock nodes."""

EXTEND = 0.65
"""The part of a term after which a leader asks for another."""

FENCE = (("scheduler", "fence"),)
"""The Lua file in front of the scripts of a leader's duties."""

_lead = Script("scheduler", "lead")
_who_leads = Script("scheduler", "who_leads")
_resign = Script("scheduler", "resign")


log = logging.getLogger("packmule.scheduler")


class Overtaken(RuntimeError):
    """Another scheduler leads: nothing was written."""


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, in which `term` (a token), since and until when in Unix time, and the seconds left."""

    name: str
    term: str
    since: float
    until: float
    left: float


class Leadership:
    """One candidate's claim to lead, named by host, process and chance; `nodes` grant the lock.

    It leads while it holds the lock by its own clock, less a margin, and `client`'s server knows its term:
    the lock's token, which every script that a leader calls compares.
    """

    def __init__(self, client: Redis, nodes: Sequence[Redis] = (), term: float = TERM) -> None:
        self.client = client
        self.name = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"
        self.ttl = term
        # A node that forgot in a restart need not wait longer than this lock lives: nobody else takes it.
        self._redlock = Redlock(nodes or [client], longest_ttl=term)
        self._lock: Lock | None = None
        self.serves = True
        """Whether the job server could be reached the last time: who can't reach it leads no further term."""
        self._is_announced = False
        self._asks_at = 0.0
        self._fault_since = 0.0
        self._has_complained = False

    @property
    def held_for(self) -> float:
        """Seconds for which nobody else can lead, zero or less if this candidate does not."""
        return (self._lock.until if self._lock is not None else 0.0) - time.monotonic()

    @property
    def term(self) -> str:
        """The term in which this candidate leads, as scripts compare it; empty if it does not."""
        lock = self._lock
        return str(lock.fence) if lock is not None and self.held_for > self.ttl * MARGIN else ""

    @property
    def rests(self) -> float:
        """Seconds until it is to be asked again whether it leads."""
        return max(0.0, self._asks_at - time.monotonic())

    def hold(self) -> bool:
        """Become or stay the leader; whether this candidate leads now. A trip now and then.

        Raises what the job server does; lock nodes that can't be asked are logged once.
        """
        now = time.monotonic()
        try:
            if now >= self._asks_at:
                self._ask(now)
            if self._lock is not None and not self._is_announced:
                self._announce()
        except (NotAcquired, LockLost, NoQuorum, SameServer) as error:
            if isinstance(error, NoQuorum | SameServer):
                self._complain(error, now)
            if not self.term:
                self._drop()
        return bool(self.term)

    def ask_again(self) -> None:
        """Look at once whether another leads still, for it said that it resigns."""
        if self._lock is None:
            self._asks_at = time.monotonic() + random.uniform(0, AGAIN)  # noqa: S311  so that not all ask together

    def check(self) -> str:
        """The term, to be named by what is done now. Raises `Overtaken` if it is over."""
        if not self.term:
            raise Overtaken(f"{self.name} leads no longer")
        return self.term

    def announce_again(self) -> None:
        """Let the job server know the term anew, for it may have lost it."""
        self._is_announced = False

    def resign(self) -> None:
        """Let another lead at once."""
        if self._lock is not None:
            term = str(self._lock.fence)
            self._drop()
            _resign(self.client, [LEADER], [term])

    def close(self) -> None:
        """Close the connections to the lock nodes."""
        self._redlock.close()

    def _ask(self, now: float) -> None:
        """Extend the lock, or try to get it if no other leads."""
        if self._lock is not None:
            self._asks_at = now + AGAIN
            if self.serves:
                self._lock.extend()
                self._asks_at = now + self.ttl * EXTEND
            elif self.held_for <= 0:
                self._drop()
        elif others := self._others():
            self._asks_at = now + min(others + random.uniform(0, AGAIN), LONGEST_STANDBY)  # noqa: S311
        else:
            self._asks_at = now + CANDIDACY * random.uniform(0.5, 1)  # noqa: S311
            self._lock = self._redlock.acquire(LOCK, ttl=self.ttl, wait=0, renew=False)
            self.serves = True
            self._asks_at = now + self.ttl * EXTEND
        self._fault_since, self._has_complained = 0.0, False

    def _others(self) -> float:
        """Seconds for which another leads still, as far as the job server knows."""
        found = leader(self.client)
        return found.left if found and found.left <= 2 * self.ttl else 0.0

    def _announce(self) -> None:
        """Tell the job server, unless a later leader did."""
        lock = self._lock
        if lock is not None and _lead(self.client, [LEADER], [self.name, lock.fence, int(self.ttl * 1000)]):
            self._is_announced = True
        else:
            log.warning("%s: the job server knows a later leader", self.name)
            self._drop()

    def _complain(self, error: Exception, now: float) -> None:
        """Log once that there may be no leader, but not in the first moments of a node."""
        self._fault_since = self._fault_since or now
        if not self._has_complained and now > self._fault_since + 2 * self.ttl:
            self._has_complained = True
            log.warning("the lock nodes can't choose a leader: %s", error)

    def _drop(self) -> None:
        lock, self._lock = self._lock, None
        self._is_announced = False
        if lock is not None:
            lock.release()


def leader(client: Redis) -> Leader | None:
    """Who leads at present, or None if nobody does."""
    found = _who_leads(client, [LEADER])
    if found is None:
        return None
    name, term, *times = map(wire.text, found)
    try:
        since, until, now = map(float, times)
    except ValueError:
        return None
    return Leader(name, term, since, until, until - now) if until > now else None


def candidates(client: Redis) -> int:
    """How many schedulers run, the leader among them: as many as listen to what schedulers are told.

    Zero where the server tells `client` nothing of that.
    """
    try:
        ((_, listening),) = client.pubsub_numsub(wire.SCHEDULER)
    except NoPermissionError:
        return 0
    return int(listening)


def refuse(reply: object) -> None:
    """Raise `Overtaken` if that is what a duty's script said."""
    if reply == b"overtaken":
        raise Overtaken("another scheduler leads, or the server forgot who does")
