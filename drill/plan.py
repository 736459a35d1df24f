"""What a drill is to do: how long or how often, and which fault comes when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

from packmule.drill.ledger import REDIS_AWAY

LIGHT_GAP, HEAVY_GAP = (0.02, 0.2), (3.0, 6.0)
"""Seconds between two faults of one process, and between two of a whole pool or of Redis."""

LIGHT = {"kill process": 16, "stop process": 3, "freeze process": 1}
HEAVY = {
    "kill pool": 5,
    "stop pool": 4,
    "freeze pool": 2,
    "freeze supervisor": 2,
    "kill redis": 3,
    "restart redis": 1,
}
"""How often each comes in a drill that lasts a given time."""

SHARES = {
    "kill": ["kill process", "kill pool", *["kill process"] * 18],
    "term": ["stop process", "stop pool", "stop process"],
    "freeze": ["freeze process", "freeze pool", "freeze supervisor"],
    "redis": ["kill redis", "kill redis", "restart redis"],
}
"""What a given number of kills, SIGTERMs, freezes or kills of Redis strikes in turn."""


@dataclass(frozen=True)
class Plan:
    """What a drill is to do: for `seconds`, or until each fault of `counts` was done where that has any."""

    seconds: float
    counts: Mapping[str, int]
    pools: int
    processes: int
    seed: int

    @property
    def is_counted(self) -> bool:
        """Whether the faults end it and not the time."""
        return any(self.counts.values())


class Stream:
    """Faults of one weight in their order, with a pause between one and the next."""

    def __init__(self, kinds: Iterator[str], gap: tuple[float, float], random: Random) -> None:
        self._kinds = kinds
        self._gap = gap
        self._random = random
        self.next = next(kinds, None)
        self._due = 0.0

    def offer(self, strike: Callable[[str], bool]) -> None:
        """Let `strike` do the next fault if it is due; it comes again where that found no victim."""
        if self.next is not None and time.monotonic() >= self._due and strike(self.next):
            self.next = next(self._kinds, None)
            self._due = time.monotonic() + self._random.uniform(*self._gap)


def streams(random: Random, counts: Mapping[str, int], redis_too: bool) -> list[Stream]:
    """The light and the heavy faults: as many as `counts` says, or an endless mixture if it says nothing."""
    wanted = [SHARES[what][n % len(SHARES[what])] for what, count in counts.items() for n in range(count)]
    random.shuffle(wanted)
    both = []
    for weights, gap in ((LIGHT, LIGHT_GAP), (HEAVY, HEAVY_GAP)):
        allowed = {kind: weight for kind, weight in weights.items() if redis_too or kind not in REDIS_AWAY}
        kinds = iter([kind for kind in wanted if kind in allowed]) if wanted else _endless(random, allowed)
        both.append(Stream(kinds, gap, random))
    return both


def _endless(random: Random, weights: Mapping[str, int]) -> Iterator[str]:
    while True:
        yield from random.choices(list(weights), list(weights.values()), k=100)
