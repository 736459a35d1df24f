"""A rate: a number of events per period, read from text such as `100/m burst 20`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packmule.errors import UsageError
from packmule.units import CENTURY, UNIT_SECONDS

MICROSECONDS = 1_000_000

ANY_RATE = 10_000
"""Events per second up to which any number works; faster ones need an interval of whole microseconds."""

MAX_SHOWN = 40

_LONGEST_FIRST = tuple(reversed(UNIT_SECONDS.items()))
_RATE = re.compile(r"(?P<limit>[0-9]+)/(?P<count>[0-9]*)(?P<unit>[smhd])(?: +burst +(?P<burst>[0-9]+))?")
_FRACTION = re.compile(r"[0-9]*\.[0-9]+/.*|.*/[0-9]*\.[0-9]+[a-z]*.*")
_LONGEST_NUMBER = 10


class InvalidRate(UsageError, ValueError):
    """A text or number is not a rate."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`limit` events per `period` seconds, with at most `burst` at once (0 means `limit`).

    Raises `InvalidRate` for numbers that can't be enforced: the limiters count in whole microseconds, so a
    rate faster than `ANY_RATE` per second must divide a second evenly.
    """

    limit: int
    period: float
    burst: int = 0

    def __post_init__(self) -> None:
        """Check the numbers, and make the limit the default of `burst`."""
        for name, value, least in (("limit", self.limit, 1), ("burst", self.burst, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InvalidRate(f"a rate's {name} is {value!r}: give a whole number from 1")
        if isinstance(self.period, bool) or not isinstance(self.period, int | float):
            raise InvalidRate(f"a rate's period is {self.period!r}: give seconds")
        if not 1 / MICROSECONDS <= self.period <= CENTURY:  # false for NaN too
            raise InvalidRate(f"a rate's period is {self.period!r} seconds: give at most a hundred years")
        object.__setattr__(self, "period", float(self.period))
        object.__setattr__(self, "burst", self.burst or self.limit)
        # Up to 1 % slower than asked for is accepted as rounding.
        if self.interval_us * self.limit > self.period_us * 1.01:
            raise InvalidRate(
                f"{self} is too fast to count in microseconds: use up to {ANY_RATE:,} per second, or "
                "a number per second that divides a million, such as 20,000 or 50,000"
            )
        if self.burst * self.interval_us > CENTURY * MICROSECONDS:
            raise InvalidRate(f"{self} takes more than a hundred years to allow its burst again")

    @classmethod
    def parse(cls, text: str) -> Rate:
        """The rate of a text such as `100/m`, `5/30s` or `1000/h burst 50`; the units are s, m, h and d.

        >>> Rate.parse("5/30s")
        Rate(limit=5, period=30.0, burst=5)
        >>> Rate.parse("10/fortnight")
        Traceback (most recent call last):
        ...
        packmule.coordination.limits.rate.InvalidRate: '10/fortnight' is not a rate: write a number, / \
and s, m, h or d, such as 100/m, 5/30s or 100/m burst 20

        Raises `InvalidRate`.
        """
        parts = _RATE.fullmatch(text.strip()) if isinstance(text, str) else None
        if parts is None:
            raise InvalidRate(f"{_short(text)} is not a rate: {_advice(text)}")
        limit, count, burst = parts["limit"], parts["count"] or "1", parts["burst"] or "1"
        for number in (limit, count, burst):
            if len(number) > _LONGEST_NUMBER:
                raise InvalidRate(
                    f"{_short(text)} is not a rate: a number has at most {_LONGEST_NUMBER} digits"
                )
            if not int(number):
                raise InvalidRate(f"{_short(text)} is not a rate: its numbers must be at least 1")
        return cls(int(limit), float(int(count) * UNIT_SECONDS[parts["unit"]]), int(parts["burst"] or 0))

    @property
    def period_us(self) -> int:
        """The period in microseconds."""
        return round(self.period * MICROSECONDS)

    @property
    def interval_us(self) -> int:
        """Microseconds from one event to the next at an even pace, rounded up: never faster than the rate."""
        return -(-self.period_us // self.limit)

    @property
    def capacity_us(self) -> int:
        """Microseconds by which a full burst is ahead of an even pace."""
        return self.burst * self.interval_us

    def __str__(self) -> str:
        """The text that `parse` reads, if the period is whole seconds."""
        unit = next((unit for unit, span in _LONGEST_FIRST if self.period % span == 0), "s")
        count = self.period / UNIT_SECONDS[unit]
        shown = "" if count == 1 else f"{int(count) if count == int(count) else count}"
        burst = "" if self.burst == self.limit else f" burst {self.burst}"
        return f"{self.limit}/{shown}{unit}{burst}"


def _short(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."


def _advice(text: object) -> str:
    if not isinstance(text, str):
        return "write it as text, such as '100/m'"
    if _FRACTION.fullmatch(text.strip()):
        return "write whole numbers, such as 3/2s for 1.5 per second"
    return "write a number, / and s, m, h or d, such as 100/m, 5/30s or 100/m burst 20"
