"""What the ledger and the list of suppressed addresses know of recipients before a bulk send begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import msgspec
from redis import Redis

from packmule.jobs.email.ledger import names, reader
from packmule.jobs.email.outcome import State
from packmule.jobs.email.suppression.store import Suppressions

T = TypeVar("T")

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
    suppressions = Suppressions(client)
    for some in slices(recipients, ASKED_AT_ONCE):
        found = reader.entries(client, [names.mail_id(send, to) for to in some])
        states = [each.state for each in found if each is not None]
        known += len(states)
        sent += states.count(State.ACCEPTED)
        unknown += states.count(State.UNKNOWN)
        left = [to for to, each in zip(some, found, strict=True) if not (each and each.state in KNOWN)]
        suppressed += len(suppressions.among(left))
    return Before(sent, unknown, known, suppressed)


def slices(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield `items` in lists of `size`."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
