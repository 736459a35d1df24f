"""Grants: taking a lock at a majority of the lock nodes, extending it, and giving it back."""

from __future__ import annotations

import math
import os
import secrets
import socket
import time
from dataclasses import dataclass, replace

import redis

from packmule.coordination.locks.quorum import Quorum, Votes
from packmule.coordination.redis.scripts import Script
from packmule.errors import Unavailable
from packmule.units import DAY

COUNTER_SECONDS = DAY
"""How long a node keeps the counter of an unused lock; a new counter starts higher, from the clock."""

_HOST = socket.gethostname()

_acquire = Script("coordination.locks", "acquire")
_extend = Script("coordination.locks", "extend")
_release = Script("coordination.locks", "release")


class NoQuorum(Unavailable, redis.ConnectionError):
    """Fewer than a majority of the lock nodes answered and may vote; the text names the others."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a majority granted: the holder's own value, its token, and its end on the monotonic clock."""

    name: str
    value: str
    fence: int
    until: float


def take(quorum: Quorum, name: str, ttl: float) -> Grant | None:
    """Try once to take the lock `name`; None if another holds it. A failed attempt is undone everywhere.

    Raises `NoQuorum`.
    """
    attempt = Grant(name, f"{_HOST}.{os.getpid()}.{secrets.token_hex(20)}", 0, 0.0)
    begun = time.monotonic()
    try:
        votes = quorum.ask(
            _acquire,
            keys(name),
            (attempt.value, _milliseconds(ttl), COUNTER_SECONDS, _milliseconds(quorum.longest_ttl)),
            ttl / 4,
            voters=True,
        )
        fence = max(votes.replies, default=0)
        # The next holder's majority shares a node with any majority, so a majority must know the token.
        if votes.yes >= quorum.majority > votes.replies.count(fence):
            begun = time.monotonic()
            votes = _confirm(quorum, name, attempt.value, fence, ttl)
        until = _until(begun, ttl)
        if votes.yes >= quorum.majority and time.monotonic() < until:
            return replace(attempt, fence=fence, until=until)
    except BaseException:
        give_back(quorum, attempt)
        raise
    give_back(quorum, attempt)
    if votes.able < quorum.majority:
        raise _shortage(quorum, name, votes)
    return None


def extend(quorum: Quorum, grant: Grant, ttl: float) -> Grant | None:
    """The grant extended to `ttl` seconds from now; None if the lock is lost, and then it is given back.

    Raises `NoQuorum` if too few nodes answered to decide: it is still held until `grant.until`.
    """
    begun = time.monotonic()
    if begun < grant.until:
        votes = _confirm(quorum, grant.name, grant.value, grant.fence, ttl)
        until = _until(begun, ttl)
        answered_at = time.monotonic()
        # Replies after the end count for nothing: another may have held the lock in between.
        if answered_at < grant.until:
            if votes.yes >= quorum.majority and answered_at < until:
                return replace(grant, until=until)
            if votes.no <= len(quorum.nodes) - quorum.majority:
                raise _shortage(quorum, grant.name, votes)
    give_back(quorum, replace(grant, fence=0))
    return None


def give_back(quorum: Quorum, grant: Grant, longest: float = math.inf) -> bool | None:
    """Release it at all nodes and, if it was won, notify waiters; False if it certainly was not held.

    None if too few nodes answered (within `longest` seconds), so that it may still be held. A node that
    doesn't answer still gets the command if it is connected, or forgets the lock at the end of its TTL.
    """
    args = (grant.value, grant.fence, COUNTER_SECONDS, channel(grant.name))
    votes = quorum.ask(_release, keys(grant.name), args, longest, agrees=lambda _: True)
    if len(votes.replies) < quorum.majority:
        return None
    return sum(not reply for reply in votes.replies) < quorum.majority


def keys(name: str) -> tuple[str, str]:
    """The keys of a lock and of its counter, on each node."""
    return f"pm:lock:{name}", f"pm:fence:{name}"


def channel(name: str) -> str:
    """The channel on which the nodes publish the release of a lock."""
    return f"pm:released:{name}"


def _confirm(quorum: Quorum, name: str, value: str, fence: int, ttl: float) -> Votes:
    args = (value, _milliseconds(ttl), fence, COUNTER_SECONDS)
    return quorum.ask(_extend, keys(name), args, ttl / 4)


def _shortage(quorum: Quorum, name: str, votes: Votes) -> NoQuorum:
    said = "; ".join(f"{node}: {fault}" for node, fault in votes.faults.items()) or "no answer in time"
    return NoQuorum(
        f"{name}: {votes.able} of {len(quorum.nodes)} lock nodes answered, but "
        f"{quorum.majority} must agree: {said}"
    )


def _milliseconds(ttl: float) -> int:
    return math.ceil(ttl * 1000)


def _until(begun: float, ttl: float) -> float:
    """A TTL's end on our clock: earlier, because servers' clocks may run 1 % faster or tick coarsely."""
    return begun + ttl * 0.99 - 0.002
