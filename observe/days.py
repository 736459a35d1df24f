"""Days: what queues and types of jobs performed in each hour of up to 90 days, for those who ask often."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from redis import Redis

from packmule.coordination.redis.replies import pipelined
from packmule.jobs import keys
from packmule.observe import day_record, statistics
from packmule.observe.day_record import DAY, HOURS, Hour
from packmule.observe.statistics import HOUR, Statistics, Summary, combined, summary

KEPT_DAYS = 90
"""Days after its end for which a day's record is kept."""

MOST_UNRECORDED = 8
"""Days after its end for which some hours of a day are kept, so that it can be recorded."""

LATE = 2
"""Hours after which nothing is added to one any more: the server counts by its own clock."""

AGAIN = 60.0
"""Seconds until days that should have a record are looked at again."""

MOST_KEPT = 16
"""Periods of some name that are kept."""

At = tuple[int, Summary]
"""When an hour or a day began, in Unix seconds, and what was performed in it."""


def day_key(day: int) -> str:
    """The key of the record of a day, counted from 1970."""
    return f"{keys.STATISTICS}day:{day}"


@dataclass(frozen=True, slots=True)
class Period:
    """What was performed in some days: by name, in all, and in each hour and day, the oldest first.

    `parts` has all queues or types; the rest is of the one that was asked for, or of all together.
    """

    parts: dict[str, Statistics]
    total: Statistics
    hours: Sequence[At]
    days: Sequence[At]


@dataclass(frozen=True, slots=True)
class _Recorded:
    """The days that have a record, those that should have one, and until when this may be used."""

    parts: dict[str, Statistics]
    total: Statistics
    shown: dict[int, tuple[list[At], At]]
    missing: tuple[int, ...]
    until: float


class Days:
    """The past days on `client`'s server; what has been read once is kept. Threads may share it.

    >>> Days(client).look(90, "queue", "mail").total.failed  # doctest: +SKIP
    0
    """

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._lock = threading.Lock()
        self._recorded: dict[tuple[int, int, str, str], _Recorded] = {}
        self._hours: dict[int, Hour] = {}

    def look(self, days: int, part: str, name: str = "") -> Period:
        """The last `days` whole days (in UTC, 90 at most), and this one so far, in two or three round trips.

        `part` is "queue" or "type", and `name` one of them; "" stands for all. Raises redis-py's errors.
        """
        this_hour = int(time.time()) // HOUR
        today = this_hour // HOURS
        first = today - max(1, min(days, KEPT_DAYS))
        with self._lock:
            found = self._of_records(first, today, part, name)
            hours = self._of_hours([*found.missing, today], this_hour)
        parts = [found.parts, *(each[part] for each in hours.values())]
        names = dict.fromkeys(name for each in parts for name in each)
        shown = dict(found.shown)
        wanted = {number: _of(each, part, name) for number, each in hours.items()}
        for day in [*found.missing, today]:
            numbers = [number for number in range(day * HOURS, (day + 1) * HOURS) if number <= this_hour]
            shown[day] = _shown(day, name, [wanted.get(number, Statistics()) for number in numbers])
        ordered = [shown[day] for day in range(first, today + 1)]
        return Period(
            {each: combined(some[each] for some in parts if each in some) for each in names},
            combined([found.total, *wanted.values()]),
            [at for hours_of, _ in ordered for at in hours_of],
            [day for _, day in ordered],
        )

    def _of_records(self, first: int, today: int, part: str, name: str) -> _Recorded:
        asked = first, today, part, name
        found = self._recorded.get(asked)
        if found is None or found.until < time.monotonic():
            self._recorded.pop(asked, None)
            while len(self._recorded) >= MOST_KEPT:
                del self._recorded[next(iter(self._recorded))]
            found = self._recorded[asked] = self._read(first, today, part, name)
        return found

    def _read(self, first: int, today: int, part: str, name: str) -> _Recorded:
        names = [day_record.ALL, part, day_record.field(part, name)]
        days = range(first, today)
        commands = [("HMGET", day_key(day), *names) for day in days]
        replies = pipelined(self.client, commands, [None] * 3, only="WRONGTYPE")
        sums, totals, shown, missing = [], [], {}, []
        for day, (always, packed, hours) in zip(days, replies, strict=True):
            if always is None and day >= today - MOST_UNRECORDED:
                missing.append(day)
                continue
            sums.append(day_record.sums(packed))
            each = day_record.hours(hours)
            totals += each
            shown[day] = _shown(day, name, each)
        parts = {
            each: combined(some[each] for some in sums if each in some) for each in dict.fromkeys(_in(sums))
        }
        until = time.monotonic() + AGAIN if missing else float("inf")
        return _Recorded(parts, combined(totals), shown, tuple(missing), until)

    def _of_hours(self, days: Iterable[int], this_hour: int) -> dict[int, Hour]:
        """The hours of days without a record; only those that may still grow are read again."""
        wanted = [number for day in days for number in range(day * HOURS, (day + 1) * HOURS)]
        wanted = [number for number in wanted if number <= this_hour]
        unread = [n for n in wanted if n > this_hour - LATE or n not in self._hours]
        found = map(day_record.hour, statistics.of_hours(self.client, unread))
        read = self._hours | dict(zip(unread, found, strict=True))
        self._hours = {number: read[number] for number in wanted}
        return self._hours


def _in(sums: Sequence[dict[str, Statistics]]) -> Iterator[str]:
    return (name for each in sums for name in each)


def _of(hour: Hour, part: str, name: str) -> Statistics:
    return hour[part].get(name, Statistics()) if name else combined(hour[part].values())


def _shown(day: int, name: str, hours: Sequence[Statistics]) -> tuple[list[At], At]:
    at = day * DAY
    lines = [(at + number * HOUR, summary(name, each)) for number, each in enumerate(hours)]
    return lines, (at, summary(name, combined(hours)))
