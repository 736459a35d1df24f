"""Terms: for how long a cache keeps a value, and what invalidates it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from packmule.coordination.keys import bounded

LONGEST_TTL = 86_400.0 * 366
SHORTEST_TTL = 0.001
MOST_TAGS = 16


class Terms(NamedTuple):
    """For how many milliseconds a value is valid and kept after that, and what it depends on."""

    ttl_ms: int
    stale_ms: int
    tags: tuple[str, ...]

    @property
    def life_ms(self) -> int:
        """Milliseconds for which it is stored."""
        return self.ttl_ms + self.stale_ms


def agreed(ttl: float, stale_ttl: float, tags: Sequence[str]) -> Terms:
    """The terms of a call. Raises `ValueError` for a time that is none."""
    valid, stale = seconds("ttl", ttl, SHORTEST_TTL), seconds("stale_ttl", stale_ttl, 0.0)
    return Terms(round(valid * 1000), round(stale * 1000), named_tags(tags) if tags else ())


def named_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Each tag once, at a bounded length. Raises `ValueError` for too many, or a text alone."""
    if isinstance(tags, str) or len(tags) > MOST_TAGS:
        raise ValueError(f"tags={tags!r:.120}: give a list of up to {MOST_TAGS} texts")
    return tuple(dict.fromkeys(bounded(tag) for tag in tags))


def seconds(what: str, value: float, least: float) -> float:
    """`value` if it is a time of at least `least` seconds. Raises `ValueError`."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= LONGEST_TTL:
        raise ValueError(f"{what}={value!r:.120}: give seconds, from {least:g} to those of a year")
    return value
