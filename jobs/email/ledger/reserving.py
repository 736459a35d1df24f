"""Reserving mails: one script says which of them a run of a job may send, and what is known of the others."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from redis import Redis

from packmule.coordination.redis.backoff import retry_until_available
from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys, wire
from packmule.jobs.email.ledger import names
from packmule.jobs.email.ledger.channel import Channel
from packmule.jobs.email.ledger.entry import Entry, known
from packmule.jobs.email.message.addresses import domain_of
from packmule.jobs.email.outcome import State
from packmule.jobs.email.suppression.addresses import suppressed_as
from packmule.jobs.email.suppression.store import KEY as SUPPRESSED

_pack = msgspec.msgpack.Encoder().encode
_reserve = Script("jobs.email.ledger", "reserve")


class Performed(NamedTuple):
    """The run of a job: its id, its execution, the key of its worker's claims, and its batch or ""."""

    job: str
    execution: str
    claims: str
    batch: str = ""


class Send(NamedTuple):
    """What is sent: its `name` (`names.py`), and the `key` that a user gave it.

    If it `is_of_job`, it is of a job's own life, and a later job with the same id sends anew. How many mails
    are in which state is counted if it `is_counted`.
    """

    name: str
    key: str = ""
    is_of_job: bool = False
    is_counted: bool = False


class Reserved(NamedTuple):
    """What is known of mails, whether all `are_marked` as being sent, and when that was asked by `clock`."""

    entries: list[Entry]
    origin: str
    are_marked: bool
    asked_at: float


def reserve(
    channel: Channel,
    keep: int,
    job: Performed,
    send: Send,
    asked: Sequence[tuple[str, str]],
    flags: tuple[bool, bool, str | None],
) -> Reserved | None:
    """Reserve mails, each given as a recipient and the execution that had it and is over, or "".

    The `flags` say whether unknown mails are sent again, whether refused ones are, and under which origin new
    ones are marked. None if the worker has lost its claim.
    """
    mails = [names.mail_id(send.name, to) for to, _ in asked]
    key_names = [
        job.claims,
        keys.job_key(job.job),
        SUPPRESSED,
        names.counts_key(send.name),
        *names.INDEXES,
        *map(names.mail_key, mails),
    ]
    request = _pack((
        wire.time_text(time.time()), job.job, job.execution, keep, names.short(job.job), send.name, send.key,
        names.short(job.batch), int(send.is_counted), send.is_of_job, *flags,
        [(to, suppressed_as(to), domain_of(to), over) for to, over in asked],
    ))  # fmt: skip
    channel.send(_reserve, key_names, [request])
    reply = channel.receive()
    if reply is None:
        return None
    origin, *found = reply
    pairs = [(mail, to) for (to, _), mail in zip(asked, mails, strict=True)]
    if are_marked := isinstance(now := found[0], int):
        as_new = Entry("", State.SENDING, "", "", now, names.short(job.job), job.execution, began=now)
        entries = [as_new._replace(id=mail, recipient=to) for mail, to in pairs]
    else:
        entries = [known(*pair, packed) for pair, packed in zip(pairs, found, strict=True)]
    return Reserved(entries, as_text(origin), are_marked, channel.sent_at)


def ended_holders(client: Redis, held: Iterable[Entry]) -> set[str]:
    """The executions of other jobs that hold mails although they are over."""
    holders = list({(each.claims, names.long(each.job), each.execution) for each in held if each.claims})
    if not holders:
        return set()

    def look() -> list[Any]:
        with client.pipeline(transaction=False) as pipeline:
            for claims, job, _ in holders:
                pipeline.hget(claims, job)
            return pipeline.execute()

    replies = retry_until_available(look)
    return {
        execution
        for (_, _, execution), reply in zip(holders, replies, strict=True)
        if reply is None or as_text(reply) != execution
    }
