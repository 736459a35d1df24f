"""What the ledger and the list of suppressed addresses know of recipients before a bulk send begins."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar, cast

import msgspec
from redis import Redis

from packmule.coordination.redis.replies import UNREADABLE
from packmule.jobs.email.ledger import entry, names
from packmule.jobs.email.outcome import State
from packmule.jobs.email.suppression.addresses import suppressed_as

T = TypeVar("T")

SUPPRESSED = "pm:mail-suppressed"

KNOWN = (State.ACCEPTED, State.UNKNOWN)
"""The states in which a mail is not sent again."""

ASKED_AT_ONCE = 500
"""Recipients of whom one round trip asks."""


class Before(msgspec.Struct, frozen=True):
    """How many recipients were `sent` the mail of this key, and of how many that is `unknown`.

    Of `known` ones the ledger has an entry, and `suppressed` ones of the others get no mail.
    """

    sent: int
    unknown: int
    known: int
    suppressed: int


def look(client: Redis, send: str, recipients: Iterable[str]) -> Before:
    """Look for `recipients` among the mails of the ledger's `send`, and among suppressed addresses."""
    sent = unknown = known = suppressed = 0
    for some in slices(recipients, ASKED_AT_ONCE):
        found = entries(client, send, some)
        states = [each.state for each in found if each is not None]
        known += len(states)
        sent += states.count(State.ACCEPTED)
        unknown += states.count(State.UNKNOWN)
        open_ones = [to for to, each in zip(some, found, strict=True) if not (each and each.state in KNOWN)]
        suppressed += _suppressed(client, open_ones)
    return Before(sent, unknown, known, suppressed)


def entries(client: Redis, send: str, recipients: list[str]) -> list[entry.Entry | None]:
    """The ledger's entries of a send's mails to `recipients`, in their order."""
    ids = [names.mail_id(send, to) for to in recipients]
    found = cast(list[bytes | None], client.mget([names.mail_key(id) for id in ids]))
    return [entry.read(id, packed) for id, packed in zip(ids, found, strict=True)]


def _suppressed(client: Redis, recipients: list[str]) -> int:
    """How many of `recipients` have an address or domain that is suppressed now."""
    if not recipients:
        return 0
    wanted = [each for to in recipients for each in (suppressed_as(to), f"@{names.domain_of(to)}")]
    found = cast(list[bytes | None], client.hmget(SUPPRESSED, wanted))
    return sum(any(map(_holds, both)) for both in zip(found[::2], found[1::2], strict=True))


def _holds(packed: bytes | None) -> bool:
    """Whether an entry of the list is there, and its time has not come."""
    if packed is None:
        return False
    try:
        return not 0 < float(msgspec.msgpack.decode(packed)[3]) <= time.time()
    except (TypeError, ValueError, LookupError, *UNREADABLE):
        return True


def slices(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield `items` in lists of `size`."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
