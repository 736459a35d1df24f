"""Reading the ledger: the mails in open states that fit a filter, those of a job, and how many there are."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from redis import Redis

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.errors import UsageError
from packmule.jobs.email.ledger import names
from packmule.jobs.email.ledger.entry import LETTERS, Entry, read
from packmule.jobs.email.message.addresses import domain_of
from packmule.jobs.email.outcome import State

OPEN = (State.UNKNOWN, State.DEFERRED, State.SUPPRESSED, State.SENDING, State.RESERVED)
"""The states in which mails can be looked for. Those that have ended are found by their job or key alone."""

INDEX_OF = {
    State.RESERVED: names.INDEXES[0],
    State.SENDING: names.INDEXES[0],
    State.DEFERRED: names.INDEXES[1],
    State.SUPPRESSED: names.INDEXES[2],
    State.UNKNOWN: names.INDEXES[3],
}

A_TRIP = 500
MOST_LOOKED_AT = 100_000
"""Mails that one search looks at."""

_COUNT = re.compile(r"[0-9]{1,15}")


class InvalidMailFilter(UsageError, ValueError):
    """A filter of mails can't be meant."""


class MailFilter(NamedTuple):
    """Which mails are meant: all that is given has to fit."""

    states: Sequence[State] = OPEN
    address: str | None = None
    domain: str | None = None
    job: str | None = None
    batch: str | None = None
    key: str | None = None
    since: float | None = None
    until: float | None = None

    def __contains__(self, entry: object) -> bool:
        return (
            isinstance(entry, Entry)
            and entry.state in self.states
            and self.job in (None, entry.job)
            and self.batch in (None, entry.batch)
            and self.key in (None, entry.key)
            and (self.address is None or names.compared(self.address) == names.compared(entry.recipient))
            and (self.domain is None or self.domain.lower() == domain_of(entry.recipient))
            and (self.since is None or entry.changed >= self.since)
            and (self.until is None or entry.changed <= self.until)
        )


class Found(NamedTuple):
    """The mails of a page, and how far it came: give `cursor` to go on behind it, unless it's None."""

    mails: list[Entry]
    cursor: str | None


def search(
    client: Redis,
    wanted: MailFilter,
    limit: int = 50,
    after: str | None = None,
    most_looked: int = MOST_LOOKED_AT,
) -> Found:
    """Up to `limit` mails that fit, the newest of each state first. Raises `InvalidMailFilter`.

    A mail that was being sent by a run that is over counts as unknown. One call looks at `most_looked` mails.

    >>> search(client, MailFilter([State.UNKNOWN], domain="example.org"))  # doctest: +SKIP
    """
    if not wanted.states or any(state not in OPEN for state in wanted.states):
        raise InvalidMailFilter(
            f"mails can be searched only while they are {', '.join(OPEN)}; for others, use packmule email "
            "show JOB"
        )
    mails: list[Entry] = []
    number, offset = _position(after)
    looked = 0
    keys = _indexes(wanted.states)
    while number < len(keys):
        ids = _page(client, keys[number], offset)
        looked += len(ids)
        for place, entry in enumerate(current(client, entries(client, ids)), offset + 1):
            if entry is not None and entry in wanted:
                mails.append(entry)
                if len(mails) == limit:
                    return Found(mails, f"{number}-{place}")
        number, offset = (number, offset + len(ids)) if len(ids) == A_TRIP else (number + 1, 0)
        if looked >= most_looked and number < len(keys):
            return Found(mails, f"{number}-{offset}")
    return Found(mails, None)


def all_that_fit(client: Redis, wanted: MailFilter) -> list[Entry]:
    """The mails that fit, 100,000 at most. Raises `InvalidMailFilter`."""
    return search(client, wanted, MOST_LOOKED_AT).mails


def counts(client: Redis) -> dict[str, int]:
    """How many mails are in which index: `active` (reserved or sending), deferred, suppressed, unknown."""
    replies = pipelined(client, [("ZCOUNT", key, time.time(), "+inf") for key in names.INDEXES], 0)
    return {key.rpartition(":")[2]: int(reply) for key, reply in zip(names.INDEXES, replies, strict=True)}


def counts_of(client: Redis, send: str) -> dict[State, int]:
    """How many mails of a counted send are in which state."""
    return counts_of_each(client, [send])[0]


def counts_of_each(client: Redis, sends: Sequence[str]) -> list[dict[State, int]]:
    """How many mails of each of some counted sends are in which state."""
    replies = pipelined(client, [("HGETALL", names.counts_key(send)) for send in sends], {})
    return [_counts(found) for found in replies]


def _counts(found: Any) -> dict[State, int]:
    pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
    told = {as_text(name): as_text(value) for name, value in pairs}
    return {
        state: int(told[letter]) if _COUNT.fullmatch(told.get(letter, "")) else 0
        for state, letter in LETTERS.items()
    }


def of_send(client: Redis, send: str, recipients: Iterable[str]) -> Iterator[Entry | None]:
    """What is known of a send's mail to each of `recipients`, in their order; None if nothing is."""
    waiting: list[str] = []
    for to in recipients:
        waiting.append(names.mail_id(send, to))
        if len(waiting) == A_TRIP:
            yield from entries(client, waiting)
            waiting = []
    yield from entries(client, waiting)


def of_message(client: Redis, message_id: str, recipient: str) -> Entry | None:
    """What is known of the mail to `recipient` that has this Message-ID; None if the ledger sent none such.

    >>> of_message(client, "<7fzikxchknsf2ux4vntotcgrs4@example.org>", "ada@example.org")  # doctest: +SKIP
    """
    return of_messages(client, [(message_id, recipient)])[0]


def of_messages(client: Redis, wanted: Sequence[tuple[str, str]]) -> list[Entry | None]:
    """What `of_message` says of each Message-ID and recipient, of some hundreds in one round trip."""
    ids = []
    for message_id, recipient in wanted:
        token = message_id.strip().removeprefix("<").partition("@")[0][: names.ID_LENGTH]
        # Mails of a bulk send have their own id there, and others that of their send.
        ids += [names.mail_id(token, recipient), token] if names.ID.fullmatch(token) else ["", ""]
    found = entries(client, ids)
    return [
        of_send or (own if own and names.compared(own.recipient) == names.compared(recipient) else None)
        for (_, recipient), of_send, own in zip(wanted, found[::2], found[1::2], strict=True)
    ]


def entries(client: Redis, ids: Sequence[str]) -> list[Entry | None]:
    """The entries of mails, by their ids; None for one that there is not."""
    if not ids:
        return []
    # MGET has nothing for a key of another type, which is no entry either.
    found: Any = client.mget([names.mail_key(id) for id in ids])
    return [read(id, packed) for id, packed in zip(ids, found, strict=True)]


def current(client: Redis, found: Sequence[Entry | None]) -> list[Entry | None]:
    """Entries as they are known now: what a run that is over was sending is unknown."""
    sending = [entry for entry in found if entry is not None and entry.state is State.SENDING]
    replies = pipelined(client, [("HGET", entry.claims, entry.job) for entry in sending], b"?")
    over = {
        entry.id
        for entry, reply in zip(sending, replies, strict=True)
        if reply is None or as_text(reply) != entry.execution
    }
    reply = "the run ended while this was sent"
    return [
        entry._replace(state=State.UNKNOWN, reply=reply) if entry is not None and entry.id in over else entry
        for entry in found
    ]


def _page(client: Redis, index: str, offset: int) -> list[str]:
    command = ("ZRANGE", index, "+inf", time.time(), "BYSCORE", "REV", "LIMIT", offset, A_TRIP)
    (found,) = pipelined(client, [command], [])
    return [as_text(id) for id in found if names.ID.fullmatch(as_text(id))]


def _indexes(states: Sequence[State]) -> list[str]:
    wanted = {INDEX_OF[state] for state in states}
    if State.UNKNOWN in states:  # what was being sent may be unknown
        wanted.add(INDEX_OF[State.SENDING])
    return [INDEX_OF[state] for state in OPEN[:4] if INDEX_OF[state] in wanted]


def _position(after: str | None) -> tuple[int, int]:
    number, _, offset = (after or "0-0").partition("-")
    parts = (number, offset)
    if not all(each.isascii() and each.isdecimal() and len(each) <= 9 for each in parts):  # noqa: PLR2004
        raise InvalidMailFilter(f"cursor {after!r:.40}: give the one that an earlier list printed")
    return int(number), int(offset)
