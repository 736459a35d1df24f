"""The order in which queues are served: strict, by weight, or random."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from packmule.errors import UsageError

Order: TypeAlias = "Strict | Shuffled | Weighted"

_WEIGHTED = re.compile(r"(?P<name>.+):(?P<weight>\d+)")
MOST_WEIGHT = 1000


class InvalidWeight(UsageError, ValueError):
    """A queue's weight that is not a whole number from 1 to `MOST_WEIGHT`."""


class Strict:
    """The first queue comes first, however full the others are."""

    def __init__(self, queues: Sequence[str]) -> None:
        self.next: Callable[[], Sequence[str]] = itertools.repeat(list(queues)).__next__
        """The order for the next claim."""


class Shuffled:
    """Any queue may come first."""

    def __init__(self, queues: Sequence[str]) -> None:
        self.queues = list(queues)

    def next(self) -> Sequence[str]:
        """The order for the next claim."""
        return random.sample(self.queues, len(self.queues))


class Weighted:
    """Each queue comes first in its share of the claims, evenly spread, so none starves.

    >>> order = Weighted({"high": 2, "low": 1})
    >>> [order.next()[0] for _ in range(6)]
    ['high', 'low', 'high', 'high', 'low', 'high']
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self.weights = dict(weights)
        self._credits = dict.fromkeys(weights, 0)

    def next(self) -> Sequence[str]:
        """The order for the next claim: the queue whose turn it is, then the queues that follow."""
        for queue, weight in self.weights.items():
            self._credits[queue] += weight
        order = sorted(self._credits, key=self._credits.__getitem__, reverse=True)
        self._credits[order[0]] -= sum(self.weights.values())
        return order


def parse(names: Sequence[str]) -> dict[str, int | None]:
    """Queues with their weights, None without one: `parse(["high:5,low:1"]) == {"high": 5, "low": 1}`.

    Either all queues have weights or none has. Raises `InvalidWeight`.
    """
    queues: dict[str, int | None] = {}
    for name in (name.strip() for text in names for name in text.split(",")):
        match = _WEIGHTED.fullmatch(name)
        if match and not 1 <= int(match["weight"]) <= MOST_WEIGHT:
            raise InvalidWeight(f"{name}: a weight is a whole number from 1 to {MOST_WEIGHT}")
        if name:
            queues[match["name"] if match else name] = int(match["weight"]) if match else None
    if len({weight is None for weight in queues.values()}) > 1:
        raise InvalidWeight(f"{', '.join(names)}: give each queue a weight, such as high:5,low:1, or none")
    return queues


def of(queues: Mapping[str, int | None]) -> Strict | Weighted:
    """The order that `parse`d queues ask for: by weight if they have weights, else strict."""
    weights = {queue: weight for queue, weight in queues.items() if weight is not None}
    return Weighted(weights) if weights else Strict(list(queues))
