"""Leadership: any number of schedulers may run, and one at a time leads, by a Redlock and its token."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from coordination.redlock import Lock, LockLost, NoQuorum, NotAcquired, Redlock, SameServer
from coordination.scripts import Script
from jobs import wire

LEADER = "pm:leader"
LOCK = "packmule leader"
TERM = 3.0
"""Seconds that a leader leads without a sign of life; so another follows it within 5."""

MARGIN = 0.1
"""The part of a term before whose end a leader begins nothing more."""

CANDIDACY = 0.5
"""Seconds between two attempts to lead."""

FENCE = (("scheduler", "fence"),)
"""The Lua file in front of the scripts of a leader's duties."""

_lead = Script("scheduler", "lead")
_resign = Script("scheduler", "resign")


log = logging.getLogger("packmule.scheduler")


class Overtaken(RuntimeError):
    """Another scheduler leads: nothing was written."""


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, in which `term` (a fencing token), since and until when, in Unix seconds."""

    name: str
    term: str
    since: float
    until: float


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
        self._tries_at = 0.0
        self._extends_at = 0.0
        self._fault_since = 0.0
        self._has_complained = False

    @property
    def term(self) -> str:
        """The term in which this candidate leads, as scripts compare it; empty if it does not."""
        lock = self._lock
        is_held = lock is not None and time.monotonic() < lock.until - self.ttl * MARGIN
        return str(lock.fence) if lock is not None and is_held else ""

    def hold(self) -> bool:
        """Become or stay the leader; whether this candidate leads now. A trip now and then.

        Raises what the job server does; lock nodes that can't be asked are logged once.
        """
        now = time.monotonic()
        try:
            if self._lock is None and now >= self._tries_at:
                self._tries_at = now + CANDIDACY
                self._lock = self._redlock.acquire(LOCK, ttl=self.ttl, wait=0, renew=False)
                self._announce()
            elif self._lock is not None and now >= self._extends_at:
                self._lock.extend()
                self._announce()
        except (NotAcquired, LockLost, NoQuorum, SameServer) as error:
            if isinstance(error, NoQuorum | SameServer):
                self._complain(error, now)
            if not self.term:
                self._drop()
        return bool(self.term)

    def check(self) -> str:
        """The term, to be named by what is done now. Raises `Overtaken` if it is over."""
        if not self.term:
            raise Overtaken(f"{self.name} leads no longer")
        return self.term

    def announce_again(self) -> None:
        """Let the job server know the term anew, for it may have lost it."""
        self._extends_at = 0.0

    def resign(self) -> None:
        """Let another lead at once."""
        if self._lock is not None:
            term = str(self._lock.fence)
            self._drop()
            _resign(self.client, [LEADER], [term])

    def close(self) -> None:
        """Close the connections to the lock nodes."""
        self._redlock.close()

    def _announce(self) -> None:
        """Tell the job server, unless a later leader did."""
        self._extends_at = time.monotonic() + self.ttl / 3
        self._fault_since, self._has_complained = 0.0, False
        lock = self._lock
        if lock and not _lead(self.client, [LEADER], [self.name, lock.fence, int(self.ttl * 1000)]):
            self._drop()

    def _complain(self, error: Exception, now: float) -> None:
        """Log once that there may be no leader, but not in the first moments of a node."""
        self._fault_since = self._fault_since or now
        if not self._has_complained and now > self._fault_since + 2 * self.ttl:
            self._has_complained = True
            log.warning("the lock nodes can't choose a leader: %s", error)

    def _drop(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


def leader(client: Redis) -> Leader | None:
    """Who leads at present, or None if nobody does."""
    try:
        found: Any = client.hgetall(LEADER)
    except ResponseError:
        return None
    fields = {wire.text(key): wire.text(value) for key, value in found.items()}
    try:
        known = Leader(fields["name"], fields["term"], float(fields["since"]), float(fields["until"]))
    except (KeyError, ValueError):
        return None
    seconds, microseconds = client.time()
    return known if known.until > seconds + microseconds / 1e6 else None


def refuse(reply: object) -> None:
    """Raise `Overtaken` if that is what a duty's script said."""
    if reply == b"overtaken":
        raise Overtaken("another scheduler leads, or the server forgot who does")
