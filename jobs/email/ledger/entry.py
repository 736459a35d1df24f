"""Entries: what the ledger knows of one mail, read from Redis whatever is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from packmule.coordination.redis.replies import UNREADABLE
from packmule.jobs.email.ledger.names import long
from packmule.jobs.email.outcome import State
from packmule.jobs.wire import instant

LONGEST_REPLY = 120
"""Characters of a server's reply that an entry keeps."""

STATES = {
    "r": State.RESERVED,
    "s": State.SENDING,
    "a": State.ACCEPTED,
    "x": State.REFUSED,
    "d": State.DEFERRED,
    "n": State.SUPPRESSED,
    "u": State.UNKNOWN,
}
LETTERS = {state: letter for letter, state in STATES.items()}

_decode = msgspec.msgpack.Decoder().decode


class Entry(NamedTuple):
    """What the ledger knows of a mail to `recipient`.

    `reply` is the server's, or why it is in its `state`. Times are in Unix seconds: it is in this state since
    `changed`, was reserved first at `began`, and is tried again at `due`. `job` is the one that had it last.
    If an answer was lost, `request` is that which the provider knows again (`HttpWay.request`). Of accepted
    and refused mails nothing is kept behind `job`.
    """

    id: str
    state: State
    recipient: str = ""
    reply: str = ""
    changed: float = 0.0
    job: str = ""
    execution: str = ""
    claims: str = ""
    send: str = ""
    key: str = ""
    batch: str = ""
    began: float = 0.0
    tries: int = 0
    due: float = 0.0
    request: str = ""


def read(id: str, packed: Any) -> Entry | None:
    """The entry in a value of Redis; None if there is none. What makes no sense is unknown."""
    if packed is None:
        return None
    try:
        state, recipient, reply, changed, job, _, _, *rest = _decode(packed)
        texts = [*(_text(each) for each in (rest[:5] or [""] * 5))]
        numbers = [instant(each) for each in (rest[5:8] or [0, 0, 0])]
        return Entry(
            id, STATES[state], _text(recipient), _text(reply), instant(changed), long(_text(job)),
            texts[0], texts[1], texts[2], texts[3], long(texts[4]), numbers[0], int(numbers[1]), numbers[2],
            *map(_text, rest[8:9]),
        )  # fmt: skip
    except (KeyError, IndexError, TypeError, ValueError, *UNREADABLE):
        return Entry(id, State.UNKNOWN, reply="what the ledger has of it is unreadable")


def known(id: str, recipient: str, packed: bytes) -> Entry:
    """The entry of a mail as `reserve.lua` tells it."""
    found: Sequence[Any] = _decode(packed)
    state, reply, changed, job, execution, claims, began, tries, due, request = found
    return Entry(
        id,
        STATES[state],
        recipient,
        _text(reply),
        instant(changed),
        _text(job),
        _text(execution),
        _text(claims),
        began=instant(began),
        tries=int(instant(tries)),
        due=instant(due),
        request=_text(request),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value
