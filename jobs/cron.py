"""The ticks of cron expressions, intervals and single instants, in time zones.

A tick is a whole second of Unix time. Cron expressions follow changes of daylight saving time by two rules:

- An expression with a fixed hour and minute (`30 2 * * *`) runs once a day. If 02:30 does not exist, it runs
  at the first instant after the gap; if 02:30 comes twice, at the first. Two ticks in one gap are one.
- An expression whose hour or minute begins with `*` (`*/15 * * * *`, `30 * * * *`) runs whenever the wall
  clock matches: never in the gap, and in both repeated hours. So its ticks stay evenly spaced.
"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Protocol

from cronsim import CronSim, CronSimError

from packmule.errors import UsageError
from packmule.units import DAY, YEAR, duration, given_span

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = {
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day": "1 to 31, L or LW",
    "month": "1 to 12 or JAN to DEC",
    "weekday": "0 to 7, SUN to SAT, 5L (the last) or MON#1 (the first)",
}
"""The fields of a cron expression, and the values of each."""

LONGEST_EXPRESSION = 200
LAST_INSTANT = 253_000_000_000
"""Unix time shortly before the year 9988: calendars end in 9999."""

LONGEST_INTERVAL = YEAR

_FIVE = 5


class InvalidWhen(UsageError, ValueError):
    """A cron expression, interval, instant or time zone is not valid."""


class When(Protocol):
    """A series of ticks."""

    def next(self, after: int) -> int | None:
        """The first tick later than the Unix time `after`, or None if there is none."""
        ...


class Cron:
    """The ticks of a cron expression in a time zone.

    It has five fields (minute, hour, day of the month, month, day of the week), or six with seconds in front,
    and may use names, lists, ranges, steps, `L`, `LW`, `5L` (the last Friday), `MON#2` or `@daily`. If both
    days are restricted, either one matches, as in every cron.

    Raises `InvalidWhen`, also if the expression never matches.

    >>> Cron("30 2 * * *", "Europe/Madrid").next(1_774_738_800)  # 2026-03-29, which has no 02:30
    1774746000
    """

    def __init__(self, expression: str, tz: str = "UTC") -> None:
        self.zone = zone(tz)
        self._fields = _fields(expression)
        _, minute, hour = self._fields.split()[:3]
        self._is_fixed = not (minute.startswith("*") or hour.startswith("*"))
        if self._next_reading(datetime(2000, 1, 1)) is None:
            raise InvalidWhen(f"{expression!r} never matches: no year has such a day")

    def next(self, after: int) -> int | None:
        """The first tick later than `after`."""
        return self._next_fixed(after) if self._is_fixed else self._next_even(after)

    def _next_reading(self, after: datetime) -> datetime | None:
        """The next time of a wall clock, without a zone, that matches."""
        try:
            return next(CronSim(self._fields, after), None)
        except OverflowError:  # past the year 9999
            return None

    def _next_fixed(self, after: int) -> int | None:
        reading = self._wall(after)
        while (match := self._next_reading(reading)) is not None:
            reading = match
            at = reading.replace(tzinfo=self.zone)
            tick = int(at.timestamp())
            if self._wall(tick) != reading:  # in a gap: take the first second after it
                tick = self._change(tick - DAY, tick)
            if tick > after:
                return tick
        return None

    def _next_even(self, after: int) -> int | None:
        reading, offset = self._wall(after), self._offset(after)
        while True:
            change = None if self._offset(after + DAY) == offset else self._change(after, after + DAY)
            match = self._next_reading(reading)
            if match is None:
                return None
            tick = _unix(match) - offset
            if tick > LAST_INSTANT:
                return None
            if tick < (change or after + DAY):
                return tick
            # Nothing matches before that: continue at the change of the clock, or a day before the match.
            after = change or max(after + DAY, tick - 2 * DAY) - 1
            reading, offset = self._wall(after), self._offset(after)
            if change:
                reading -= timedelta(seconds=1)

    def _wall(self, instant: int) -> datetime:
        return datetime.fromtimestamp(instant, self.zone).replace(tzinfo=None)

    def _offset(self, instant: int) -> int:
        return _unix(self._wall(instant)) - instant

    def _change(self, low: int, high: int) -> int:
        """The first second with the new offset, if the offset changes between two instants."""
        offset = self._offset(low)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._offset(middle) == offset else (low, middle)
        return high


class Every:
    """A tick every `seconds`, counted from `start` or from 1970, so that all schedulers agree.

    >>> Every(30).next(100)
    120
    """

    def __init__(self, seconds: int, start: int = 0) -> None:
        if not 1 <= seconds <= LONGEST_INTERVAL:
            raise InvalidWhen(f"an interval must be from 1 s to 366 days, not {given_span(seconds)}")
        self.seconds = seconds
        self.start = start

    def next(self, after: int) -> int | None:
        """The first tick later than `after`."""
        return self.start + max(0, (after - self.start) // self.seconds + 1) * self.seconds


class At:
    """A single tick."""

    def __init__(self, instant: int) -> None:
        self.instant = instant

    def next(self, after: int) -> int | None:
        """The tick, if it is later than `after`."""
        return self.instant if self.instant > after else None


def previous(when: When, not_after: int, not_before: int) -> int | None:
    """The last tick in `not_before < tick <= not_after`, or None."""
    back = 1
    while True:
        tick = when.next(max(not_after - back, not_before))
        if tick is not None and tick <= not_after:
            while (later := when.next(tick)) is not None and later <= not_after:
                tick = later
            return tick
        if not_after - back <= not_before:
            return None
        back *= 2


def zone(name: str) -> tzinfo:
    """The time zone called `name`, such as `Europe/Madrid`. Raises `InvalidWhen`."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise InvalidWhen(f"{name!r} is not a time zone: give a name such as Europe/Madrid or UTC") from None


def interval(text: str) -> int:
    """Whole seconds of `90`, `30s`, `5m`, `1h30m` or `1d`. Raises `InvalidWhen`."""
    try:
        seconds = duration(text)
    except ValueError as error:
        raise InvalidWhen(f"{text!r} is {error}") from None
    if not seconds.is_integer():
        raise InvalidWhen(f"{text!r} is not a whole number of seconds")
    return int(seconds)


def instant(text: str | datetime, tz: str = "UTC") -> int:
    """The Unix time of `2026-12-01T08:00` in the zone `tz`, unless the text has its own offset.

    Fractions of a second are dropped. Raises `InvalidWhen`.
    """
    try:
        at = text if isinstance(text, datetime) else datetime.fromisoformat(text)
        seconds = int((at if at.tzinfo else at.replace(tzinfo=zone(tz))).timestamp())
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(error, InvalidWhen):
            raise
        raise InvalidWhen(
            f"{str(text)!r} is not a time: write 2026-12-01T08:00 or 2026-12-01T08:00+01:00"
        ) from None
    if not 0 <= seconds <= LAST_INSTANT:
        raise InvalidWhen(f"{str(text)!r} is before 1970")
    return seconds


def shown(tick: int, tz: str = "UTC") -> str:
    """A tick for people: `2026-12-01T08:00:00+01:00`."""
    return datetime.fromtimestamp(tick, zone(tz)).isoformat()


def compact(tick: int) -> str:
    """A tick for job ids, in UTC: `20261201T070000Z`."""
    return datetime.fromtimestamp(tick, UTC).strftime("%Y%m%dT%H%M%SZ")


@lru_cache(maxsize=1024)
def in_words(expression: str) -> str:
    """An expression in words, or as it is if there are none for it. Raises `InvalidWhen`.

    >>> in_words("30 2 * * *")
    'At 02:30 every day'
    """
    fields = _fields(expression)
    try:
        return str(CronSim(fields.removeprefix("0 "), datetime(2000, 1, 1)).explain())
    except Exception:  # it explains what people write, which is less than it parses
        return expression


@lru_cache(maxsize=1024)
def _fields(expression: str) -> str:
    """The expression as six fields for cronsim. Raises `InvalidWhen`."""
    text = MACROS.get(expression.strip().lower(), expression.strip())
    if text.startswith("@"):
        raise InvalidWhen(f"{expression!r} is not a macro: the macros are {', '.join(MACROS)}")
    if len(text) > LONGEST_EXPRESSION:
        raise InvalidWhen(f"a cron expression has at most {LONGEST_EXPRESSION} characters")
    fields = text.split()
    if len(fields) not in (_FIVE, _FIVE + 1):
        raise InvalidWhen(
            f"{expression!r} has {len(fields)} fields: a cron expression has five "
            "(minute hour day month weekday), or six with seconds in front"
        )
    fields = fields if len(fields) > _FIVE else ["0", *fields]
    text = " ".join(fields)
    if not _is_valid(text):
        raise InvalidWhen(f"{expression!r} is not a cron expression: {_fault(fields)}")
    return text


def _is_valid(text: str) -> bool:
    try:
        CronSim(text, datetime(2000, 1, 1))
    except (CronSimError, AssertionError, ValueError, TypeError):
        return False
    return True


def _fault(fields: list[str]) -> str:
    """What is wrong with invalid fields; cronsim names only the field."""
    for position, (name, allowed) in enumerate(FIELDS.items()):
        for part in fields[position].split(","):
            head, has_step, _ = part.partition("/")
            wrong = [end for end in head.split("-", 1) if not _fits(position, end)]
            if wrong:
                return f"{name} must be {allowed}, not {wrong[0] or 'empty'}"
            if not _fits(position, head):
                return f"{name} must be {allowed}, and {head} is not a range from low to high"
            if has_step and not _fits(position, part):
                return f"{name} {part} has an invalid step: steps are 1, 2 and so on"
    return f"no month of {fields[4]} has a day {fields[3]}"


def _fits(position: int, part: str) -> bool:
    alone = ["*"] * len(FIELDS)
    alone[position] = part
    return part != "" and _is_valid(" ".join(alone))


def _unix(reading: datetime) -> int:
    return int(reading.replace(tzinfo=UTC).timestamp())
