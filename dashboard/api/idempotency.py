"""Idempotency keys: a request that is sent again under its key enqueues nothing again."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from redis import Redis

from packmule.coordination.redis.replies import UNREADABLE, pipelined
from packmule.dashboard.api.problems import Fault, Refused
from packmule.units import DAY

if TYPE_CHECKING:
    from packmule.dashboard.api.endpoint import Call

HEADER = "Idempotency-Key"

KEPT_SECONDS = DAY
"""How long a key is known."""

_KEY = re.compile(r"[!-~]([ -~]{0,253}[!-~])?")


class Repeat(msgspec.Struct, frozen=True):
    """What a request with a key had for an answer: ids, and the positions of calls that were held back."""

    ids: list[str]
    held: list[int]


class _Kept(msgspec.Struct, frozen=True):
    """What is kept under a key: the request's fingerprint, and its answer once it has one."""

    request: str
    answer: Repeat | None = None


class Idempotency(NamedTuple):
    """A request's key: `name` stands for it and whoever sent it, `request` for what was asked for.

    Ids of the jobs follow from `name`. So even if the process dies between the enqueue and the note of it,
    the same request finds its jobs while they exist.
    """

    name: str
    request: str

    @property
    def stored_at(self) -> str:
        """Where Redis has it."""
        return f"pm:idempotent:{self.name}"

    def id_of(self, number: int, of: int) -> str:
        """The id of a request's job."""
        return self.name if of == 1 else f"{self.name}-{number}"

    def begin(self, client: Redis, answer: Repeat | None = None) -> Repeat | None:
        """The answer to the same request before, if it had one; otherwise `answer`, if given, is kept.

        Of several at the same time one is the first. Raises `Refused` for another request.
        """
        kept = msgspec.json.encode(_Kept(self.request, answer))
        set_new = ("SET", self.stored_at, kept, "NX", "EX", KEPT_SECONDS)
        _, found = pipelined(client, [set_new, ("GET", self.stored_at)], None)
        try:
            before = msgspec.json.decode(found or kept, type=_Kept)
        except UNREADABLE:
            before = _Kept("")
        if before.request != self.request:
            text = "another request was sent with this key: choose a new key for each request"
            raise Refused(422, "KeyReused", text, Fault(text, header=HEADER))
        return None if before.answer == answer else before.answer  # ours, if a lost reply was asked for again

    def end(self, client: Redis, answer: Repeat) -> None:
        """Keep the answer."""
        client.set(self.stored_at, msgspec.json.encode(_Kept(self.request, answer)), ex=KEPT_SECONDS)


def idempotency(call: Call) -> Idempotency | None:
    """The key of a request, if it has one. Raises `Refused` for one that can't be meant."""
    given = call.request.headers.get(HEADER)
    if given is None:
        return None
    if not _KEY.fullmatch(given):
        text = "a key has 1 to 255 visible characters, such as those of a UUID"
        raise Refused(422, "InvalidKey", text, Fault(text, header=HEADER))
    what = msgspec.json.encode([call.request.url.path, call.body])
    name = hashlib.sha256(f"{call.asker.name}\n{given}".encode()).hexdigest()[:32]
    return Idempotency(name, hashlib.sha256(what).hexdigest()[:32])
