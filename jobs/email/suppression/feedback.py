"""What providers report of mails by HTTP, and what it does to the suppressed ones and the ledger."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from packmule.errors import Unavailable
from packmule.jobs.email.delivery.http import sns
from packmule.jobs.email.delivery.http.events import Event, Kind, told
from packmule.jobs.email.delivery.http.signatures import OLDEST_REPEATED, BadSignature
from packmule.jobs.email.ledger import KEEP, Entry, afterwards, reader
from packmule.jobs.email.message.addresses import InvalidAddress, parse
from packmule.jobs.email.suppression.store import Reported, Suppressions
from packmule.units import DAY

if TYPE_CHECKING:
    from redis import Redis

TOKENS = "pm:mail-events:"
"""Keys of tokens that requests of Mailgun had, each with the hash of the events that came with it."""

A_TRIP = 250

_SOURCES = {
    Kind.HARD_BOUNCE: "bounce",
    Kind.SOFT_BOUNCE: "bounce",
    Kind.COMPLAINT: "complaint",
    Kind.UNSUBSCRIBED: "unsubscribe",
}


MOST_SECONDS = 20.0
"""Seconds of one request; the provider sends it again, and what was taken costs little then."""


class TooSlow(Unavailable):
    """Redis takes too long for a request's events."""


class Fed(NamedTuple):
    """What a request did: its events' kinds, who is suppressed now, and unknown mails that were sent."""

    kinds: Counter[str]
    suppressed: list[str]
    resolved: int


def feed(
    client: Redis, provider: str, body: bytes, headers: Mapping[str, str], key: str, keep: float = KEEP
) -> Fed:
    """Take a request with a provider's events, which `events` describes; one that comes again does nothing.

    Bounces and complaints count whoever sent the mail, since the provider says so. What it says of a mail of
    ours is noted in the ledger. A subscription of SNS is confirmed. Raises what `events` does, `TooSlow`, and
    `Unavailable` if SNS can't be reached.
    """
    found = told(provider, body, headers, key)
    if found.invites:
        sns.confirm(*found.invites)
    if found.token:
        _refuse_forged(client, found.token, found.events)
    kinds, suppressed, resolved = Counter[str](), list[str](), 0
    ends = time.monotonic() + MOST_SECONDS
    for first in range(0, len(found.events), A_TRIP):
        if time.monotonic() > ends:
            raise TooSlow(f"{first:,} of {len(found.events):,} events took {MOST_SECONDS:.0f} s")
        events = list(_with_mails(client, found.events[first : first + A_TRIP]))
        kinds.update(event.kind for event, _, _ in events)
        suppressed += Suppressions(client).reported(
            [_report(*each) for each in events if each[0].kind is not Kind.DELIVERED]
        )
        said = [(entry, _words(event)) for event, _, entry in events if entry is not None]
        resolved += afterwards.reported(client, said, provider, keep)
    return Fed(kinds, suppressed, resolved)


def _refuse_forged(client: Redis, token: str, events: Sequence[Event]) -> None:
    """Raise `BadSignature` if this token came with other events before: it's all that Mailgun signs."""
    name = f"{TOKENS}{_hash(token)}"
    mine = _hash(*(part for event in events for part in event)).encode()
    client.set(name, mine, nx=True, ex=2 * int(OLDEST_REPEATED))  # it may be signed a day ahead
    first: Any = client.get(name)
    if first != mine:
        raise BadSignature("a token of mailgun was already used for other events")


def _with_mails(client: Redis, events: Sequence[Event]) -> Iterator[tuple[Event, str, Entry | None]]:
    """Yield events of valid addresses with what the ledger knows of their mails."""
    valid = [(event, to) for event in events if (to := _address(event.recipient))]
    entries = reader.of_messages(client, [(event.mark, to) for event, to in valid])
    for (event, to), entry in zip(valid, entries, strict=True):
        yield event, to, entry


def _report(event: Event, to: str, entry: Entry | None) -> Reported:
    # Without a mail, what is said of an address counts once a day.
    about = entry.id if entry is not None else f"{_hash(to.lower())}.{int(time.time() / DAY)}"
    reason = event.reason or f"{event.kind} by the provider"
    is_soft = event.kind is Kind.SOFT_BOUNCE
    return Reported(to, reason, _SOURCES[event.kind], f"{about}:{event.kind}", is_soft)


def _words(event: Event) -> str:
    """What the ledger notes of an event."""
    if event.kind is Kind.DELIVERED:
        return ""
    what = "bounced" if event.kind in (Kind.HARD_BOUNCE, Kind.SOFT_BOUNCE) else event.kind
    return f"{what}: {event.reason}".removesuffix(": ")


def _address(text: str) -> str:
    try:
        return parse(text).spec
    except InvalidAddress:
        return ""


def _hash(*parts: str) -> str:
    return blake2b("\0".join(parts).encode(errors="replace"), digest_size=16).hexdigest()
