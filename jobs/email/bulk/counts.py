"""How far a bulk send is: its facts, kept with its batch, and the ledger's counts of its mails."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

import msgspec
from redis import Redis

from packmule.coordination.redis.replies import UNREADABLE, as_text, pipelined
from packmule.errors import NotFound
from packmule.jobs import batch_state, keys
from packmule.jobs.batch_info import word
from packmule.jobs.email.ledger.reader import counts_of, counts_of_each
from packmule.jobs.email.outcome import State

FIELD = "mails"
"""The field of a batch's hash that has a bulk send's facts as JSON."""

ENDED = (State.ACCEPTED, State.REFUSED, State.SUPPRESSED, State.UNKNOWN)
"""The states in which nothing more becomes of a mail by itself."""


MOST_LOOKED = 2_000
"""Batches among which the latest bulk sends are looked for."""


class NoSuchSend(NotFound, LookupError):
    """No bulk send has that id, or it ended longer ago than it was kept."""


class Facts(msgspec.Struct, frozen=True):
    """What a bulk send is: `send` is the ledger's name of its `key`, and `column` has the addresses.

    `total` mails have this key, those of earlier lists among them; `ended` of these had ended before.
    """

    send: str
    key: str
    source: str
    subject: str
    template: str | None
    column: str
    recipients: int
    total: int
    ended: int


class Progress(msgspec.Struct, frozen=True):
    """A bulk send at one moment.

    Its `state` is that of its batch. Of `total` mails with its key, those of earlier lists among them, each
    is counted in one state, and `waiting` were not begun. `rate` is in mails a second since it began, and
    `seconds_left` is what the others take at that rate, if there is one.
    """

    id: str
    key: str
    source: str
    subject: str
    template: str | None
    state: str
    recipients: int
    total: int
    sent: int
    deferred: int
    refused: int
    suppressed: int
    unknown: int
    sending: int
    waiting: int
    rate: float
    seconds_left: float | None


def latest(client: Redis, limit: int = 20) -> list[Progress]:
    """The latest `limit` bulk sends, the newest first, among the latest 2,000 batches."""
    ids = [as_text(id) for id in cast(list[bytes], client.zrevrange(keys.BATCHES, 0, MOST_LOOKED - 1))]
    written = pipelined(client, [("HGET", keys.batch_key(id), FIELD) for id in ids], None)
    facts = {id: read for id, each in zip(ids, written, strict=True) if (read := _facts(each)) is not None}
    shown = list(facts)[:limit]
    batches = batch_state.read_each(client, shown)
    counts = counts_of_each(client, [facts[id].send for id in shown])
    found = zip(shown, batches, counts, strict=True)
    return [_progress(id, facts[id], batch, its) for id, batch, its in found if batch is not None]


def facts_of(client: Redis, id: str) -> Facts:
    """The facts of the bulk send `id`. Raises `NoSuchSend`."""
    (written,) = pipelined(client, [("HGET", keys.batch_key(id), FIELD)], None)
    facts = _facts(written)
    if facts is None:
        raise NoSuchSend(f"no bulk send has the id {id}: check the id; it may also have ended too long ago")
    return facts


def _facts(written: Any) -> Facts | None:
    try:
        return msgspec.json.decode(written or b"", type=Facts)
    except (*UNREADABLE, msgspec.ValidationError):
        return None


def ended_of(counts: Mapping[State, int]) -> int:
    """How many mails have ended."""
    return sum(counts[state] for state in ENDED)


def progress_of(client: Redis, id: str) -> Progress:
    """How far the bulk send `id` is. Raises `NoSuchSend` and `NoSuchBatch`."""
    facts = facts_of(client, id)
    return _progress(id, facts, batch_state.read(client, id), counts_of(client, facts.send))


def _progress(id: str, facts: Facts, batch: batch_state.State, counts: Mapping[State, int]) -> Progress:
    ended = ended_of(counts)
    seconds = max((batch.ended or time.time()) - batch.created, 0.001)
    rate = max(0, ended - facts.ended) / seconds
    known = sum(counts.values())
    left = max(facts.total, known) - ended
    seconds_left = round(left / rate, 1) if rate and left and batch.ended is None else None
    return Progress(
        id, facts.key, facts.source, facts.subject, facts.template, word(batch), facts.recipients,
        max(facts.total, known), counts[State.ACCEPTED], counts[State.DEFERRED], counts[State.REFUSED],
        counts[State.SUPPRESSED], counts[State.UNKNOWN], counts[State.RESERVED] + counts[State.SENDING],
        max(facts.total - known, 0), round(rate, 3), seconds_left,
    )  # fmt: skip
