"""The quarantine: corrupt jobs and keys that were set aside, read back."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from redis import Redis

from packmule.coordination.redis.replies import UNREADABLE, as_text, pipelined
from packmule.jobs import keys

BROKEN = "pm:broken:"
"""How the name of a key begins that was moved out of the way."""


class Note(NamedTuple):
    """What was set aside: a job's id or a key, why, by which worker, and when (RQ's text, "" if unknown)."""

    name: str
    reason: str
    worker: str
    at: str


def read(client: Redis, skip: int = 0, count: int = 50) -> tuple[list[Note], int]:
    """The `count` latest notes after the `skip` latest ones, the newest first; and how many there are.

    >>> read(client)[0][0].reason  # doctest: +SKIP
    'the record has no data'
    """
    replies = pipelined(
        client,
        [("LLEN", keys.QUARANTINE), ("LRANGE", keys.QUARANTINE, -skip - count, -skip - 1)],
        None,
    )
    return [_note(each) for each in reversed(replies[1] or ())], replies[0] or 0


def _note(record: bytes) -> Note:
    try:
        found = msgspec.json.decode(record)
    except UNREADABLE:
        found = None
    if not isinstance(found, dict):
        return Note("", f"a note that can't be read: {as_text(record):.100}", "", "")
    name, reason, worker, at = (str(found.get(field) or "") for field in ("job_id", "reason", "worker", "at"))
    return Note(name, reason, worker, at)
