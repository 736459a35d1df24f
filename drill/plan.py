"""The plan of a drill: how long it lasts or how many faults it injects, and which fault comes when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

from packmule.drill.hits import PRIVATE

LIGHT_GAP, HEAVY_GAP = (0.02, 0.2), (3.0, 6.0)
"""Seconds between two faults of single processes, and between two faults of pools or Redis."""

LIGHT = {"kill process": 16, "stop process": 3, "freeze process": 1}
HEAVY = {
    "kill pool": 5,
    "stop pool": 4,
    "freeze pool": 2,
    "freeze supervisor": 2,
    "cut pool": 2,
    "kill redis": 3,
    "restart redis": 1,
    "freeze redis": 1,
    "stop redis": 1,
}
"""Weights of the faults in a drill that lasts a given time."""

SHARES = {
    "kill": ["kill process", "kill pool", *["kill process"] * 18],
    "term": ["stop process", "stop pool", "stop process"],
    "freeze": ["freeze process", "freeze pool", "freeze supervisor"],
    "redis": ["kill redis", "kill redis", "restart redis"],
    "outage": ["freeze redis", "cut pool", "stop redis", "cut pool"],
}
"""The faults that a given number of kills, SIGTERMs, freezes, kills of Redis or outages injects, in turn."""


@dataclass(frozen=True)
class Plan:
    """A drill of `seconds`, or, if `counts` has any, until all of its faults are injected."""

    seconds: float
    counts: Mapping[str, int]
    pools: int
    processes: int
    seed: int

    @property
    def is_counted(self) -> bool:
        """Whether the faults end it, and not the time."""
        return any(self.counts.values())


class FaultQueue:
    """Light or heavy faults in their order, with a random pause after each."""

    def __init__(self, kinds: Iterator[str], gap: tuple[float, float], random: Random) -> None:
        self._kinds = kinds
        self._gap = gap
        self._random = random
        self.next = next(kinds, None)
        self._due = 0.0

    def offer(self, inject: Callable[[str], bool]) -> None:
        """Let `inject` do the next fault if it is due; if it finds no victim, the fault is tried again."""
        if self.next is not None and time.monotonic() >= self._due and inject(self.next):
            self.next = next(self._kinds, None)
            self._due = time.monotonic() + self._random.uniform(*self._gap)


def fault_queues(random: Random, counts: Mapping[str, int], redis_too: bool) -> list[FaultQueue]:
    """The light and the heavy faults: those of `counts`, or an endless mixture if it has none."""
    wanted = [SHARES[what][n % len(SHARES[what])] for what, count in counts.items() for n in range(count)]
    random.shuffle(wanted)
    queues = []
    for weights, gap in ((LIGHT, LIGHT_GAP), (HEAVY, HEAVY_GAP)):
        allowed = {kind: weight for kind, weight in weights.items() if redis_too or kind not in PRIVATE}
        kinds = iter([kind for kind in wanted if kind in allowed]) if wanted else _endless(random, allowed)
        queues.append(FaultQueue(kinds, gap, random))
    return queues


def _endless(random: Random, weights: Mapping[str, int]) -> Iterator[str]:
    while True:
        yield from random.choices(list(weights), list(weights.values()), k=100)
