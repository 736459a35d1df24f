"""Afterwards: what is reported of mails that left, such as a bounce, put into the ledger."""

from __future__ import annotations

import time
from collections.abc import Sequence

from redis import Redis
from redis.exceptions import RedisError

from packmule.coordination.redis.scripts import Script
from packmule.jobs import wire
from packmule.jobs.email.ledger import acts, names, reader
from packmule.jobs.email.ledger.entry import LONGEST_REPLY, Entry
from packmule.jobs.email.outcome import State
from packmule.plain_text import one_line

_note = Script("jobs.email.ledger", "note")


def reported(client: Redis, said: Sequence[tuple[Entry, str]], who: str, keep: float = acts.KEEP) -> int:
    """Note what `who` reports of mails: a text such as `bounced: 5.1.1 no such user`, "" for a delivery.

    Whoever reports of a mail had it, so an unknown one was sent, and its job goes on. How many were unknown.
    """
    if not said:
        return 0
    now = reader.current(client, [entry for entry, _ in said])
    unknown = {entry.id: entry for entry in now if entry is not None and entry.state is State.UNKNOWN}
    done = acts.resolve(client, [*unknown.values()], was_sent=True, who=who, keep=keep).done if unknown else 0
    at = wire.time_text(time.time())
    calls = [
        ([names.mail_key(entry.id)], [at, one_line(words, LONGEST_REPLY)])
        for entry, words in said
        if words and (entry.state is State.ACCEPTED or entry.id in unknown)
    ]
    for answer in _note.each(client, calls) if calls else ():
        if isinstance(answer, RedisError):
            raise answer
    return done
