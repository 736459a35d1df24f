"""The lease to compute a value: held by one process at a time, and ended by storing the value."""

from __future__ import annotations

import secrets
import time
from typing import NamedTuple

from redis import RedisError

from packmule.coordination.cache.entry import ID_BYTES
from packmule.coordination.cache.link import Link
from packmule.coordination.redis.scripts import Script

ANY = "any"
"""Instead of the id of the entry seen: take the lease whatever is stored."""

TAG_SPARE = 3_600_000
"""Milliseconds that a tag outlives its entries, so that a computation may take this long."""

_begin = Script("coordination.cache", "begin")
_keep = Script("coordination.cache", "keep")
_hold = Script("coordination.cache", "hold")


class Place(NamedTuple):
    """The Redis keys for a key of the cache `name` with these tags, all bounded in length."""

    name: str
    key: str
    tags: tuple[str, ...]

    @property
    def entry(self) -> str:
        """The key of the entry."""
        return f"pm:cache:{self.name}:{self.key}"

    @property
    def lease(self) -> str:
        """The key of the lease."""
        return f"pm:computing:{self.name}:{self.key}"

    @property
    def channel(self) -> str:
        """The channel that wakes waiting readers."""
        return f"pm:computed:{self.name}:{self.key}"

    def tag_keys(self) -> list[str]:
        """The keys of the tags' versions."""
        return [tag_key(self.name, tag) for tag in self.tags]


def tag_key(name: str, tag: str) -> str:
    """The key of a tag's version; the tag is bounded already."""
    return f"pm:tag:{name}:{tag}"


class Lease:
    """The right to compute the entry at `place`, until `seconds` after it was taken or last renewed.

    It is renewed for at most `longest` seconds. `id` is the id of the entry to be stored; `versions` are the
    tags' versions when the lease was taken.
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
        """Extend it; returns seconds until the next renewal, None once it is lost or over."""
        if time.monotonic() > self._ends_at:
            return None
        try:
            held = self._held_for(self._seconds)
        except RedisError:
            return self._seconds / 10
        return self._seconds / 3 if held else None

    def keep(self, entry: bytes, life_ms: int) -> bool:
        """Store the entry and end the lease; returns whether it was stored: it may have been overtaken."""
        place = self._place
        args = [self._claim, len(self.id), entry, life_ms, place.channel]
        return bool(self._link.run(_keep, [place.entry, place.lease, *place.tag_keys()], args))

    def give_back(self) -> None:
        """End the lease without a value, so that another may compute it."""
        self._held_for(0.0)

    def _held_for(self, seconds: float) -> bool:
        args = [self._claim, _milliseconds(seconds), self._place.channel]
        return bool(self._link.run(_hold, [self._place.lease], args))


def take(
    link: Link, place: Place, seen: bytes | str, life_ms: int, seconds: float, longest: float
) -> Lease | float | None:
    """The lease to compute the entry at `place`; the seconds until it ends if another holds it.

    None if the entry stored is no longer the one with the id `seen`. Raises `redis.RedisError`.
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
