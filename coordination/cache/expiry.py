"""Expiry: how long a cache keeps a value, and which tags invalidate it sooner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from packmule.coordination.keys import bounded
from packmule.units import YEAR

LONGEST_TTL = float(YEAR)
SHORTEST_TTL = 0.001
MOST_TAGS = 16


class Expiry(NamedTuple):
    """Milliseconds a value is valid, milliseconds it is then kept stale, and the tags that invalidate it."""

    ttl_ms: int
    stale_ms: int
    tags: tuple[str, ...]

    @classmethod
    def of(cls, ttl: float, stale_ttl: float, tags: Sequence[str]) -> Expiry:
        """The expiry for these arguments, in seconds. Raises `ValueError` if a span is out of range."""
        valid, stale = seconds("ttl", ttl, SHORTEST_TTL), seconds("stale_ttl", stale_ttl, 0.0)
        return cls(round(valid * 1000), round(stale * 1000), named_tags(tags) if tags else ())

    @property
    def life_ms(self) -> int:
        """Milliseconds until Redis deletes it."""
        return self.ttl_ms + self.stale_ms


def named_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """The tags without duplicates, bounded in length. Raises `ValueError` for a text or too many tags."""
    if isinstance(tags, str) or len(tags) > MOST_TAGS:
        raise ValueError(f"tags={tags!r:.120}: give a list of up to {MOST_TAGS} texts")
    return tuple(dict.fromkeys(bounded(tag) for tag in tags))


def seconds(what: str, value: float, least: float) -> float:
    """`value`, checked to be a number of seconds from `least` to a year. Raises `ValueError` if it isn't."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= LONGEST_TTL:
        raise ValueError(f"{what}={value!r:.120}: give a number of seconds from {least:g} to a year")
    return value
