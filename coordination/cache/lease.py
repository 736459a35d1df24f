"""The lease to compute a value: held by one at a time, renewed meanwhile, given up with what came of it."""

from __future__ import annotations

import secrets
import time
from typing import NamedTuple

from redis import RedisError

from packmule.coordination.cache.entry import ID_BYTES
from packmule.coordination.cache.link import Link
from packmule.coordination.redis.scripts import Script

ANY = "any"
"""Instead of the id of what was seen: take the lease whatever is there."""

TAG_SPARE = 3_600_000
"""Milliseconds that a tag is kept beyond the life of its entries, so that a computation may take so long."""

_begin = Script("coordination.cache", "begin")
_keep = Script("coordination.cache", "keep")
_hold = Script("coordination.cache", "hold")


class Place(NamedTuple):
    """Where Redis keeps what belongs to a key of the cache `name` with these tags, all of bounded length."""

    name: str
    key: str
    tags: tuple[str, ...]

    @property
    def entry(self) -> str:
        """The key of what is kept."""
        return f"pm:cache:{self.name}:{self.key}"

    @property
    def lease(self) -> str:
        """The key of the lease to compute it."""
        return f"pm:computing:{self.name}:{self.key}"

    @property
    def channel(self) -> str:
        """Where those who wait are told that they can look."""
        return f"pm:computed:{self.name}:{self.key}"

    def tag_keys(self) -> list[str]:
        """The keys of the tags' versions."""
        return [tag_key(self.name, tag) for tag in self.tags]


def tag_key(name: str, tag: str) -> str:
    """Where Redis keeps the version of a tag, whose length is bounded already."""
    return f"pm:tag:{name}:{tag}"


class Lease:
    """The right to compute what is at `place`, until `seconds` after it was taken or last renewed.

    It is renewed for `longest` seconds.

    `id` is that of the entry to be kept, `versions` are those of the place's tags when it was taken.
    """

    def __init__(self, link: Link, place: Place, claim: str, seconds: float, longest: float) -> None:
        self.id = claim[: 2 * ID_BYTES]
        self.versions = claim.split(" ")[1:]
        self._link = link
        self._place = place
        self._claim = claim
        self._seconds = seconds
        self._ends_at = time.monotonic() + longest

    def renew(self) -> float | None:
        """Let it last longer; seconds until the next time, None once it is lost or over."""
        if time.monotonic() > self._ends_at:
            return None
        try:
            held = self._held_for(self._seconds)
        except RedisError:
            return self._seconds / 10
        return self._seconds / 3 if held else None

    def keep(self, entry: bytes, life_ms: int) -> bool:
        """Store the entry and give the lease up; whether it was stored, for it may have been overtaken."""
        place = self._place
        args = [self._claim, len(self.id), entry, life_ms, place.channel]
        return bool(self._link.run(_keep, [place.entry, place.lease, *place.tag_keys()], args))

    def give_back(self) -> None:
        """Let another compute it."""
        self._held_for(0.0)

    def _held_for(self, seconds: float) -> bool:
        args = [self._claim, _milliseconds(seconds), self._place.channel]
        return bool(self._link.run(_hold, [self._place.lease], args))


def take(
    link: Link, place: Place, seen: bytes | str, life_ms: int, seconds: float, longest: float
) -> Lease | float | None:
    """The lease to compute what is at `place`; seconds until it ends if another has it.

    None if there is another entry by now than the one with the id `seen`. Raises `redis.RedisError`.
    """
    answer = link.run(
        _begin,
        [place.entry, place.lease, *place.tag_keys()],
        [
            secrets.token_hex(ID_BYTES),
            _milliseconds(seconds),
            seen,
            secrets.token_hex(8),
            life_ms + TAG_SPARE,
        ],
    )
    if answer[0] == b"mine":
        return Lease(link, place, answer[1].decode(), seconds, longest)
    return None if answer[0] == b"changed" else max(0.0, answer[1] / 1000)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
