"""A schedule: which job is enqueued when, who owns it, and what happens to missed or overlapping ticks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Literal

import msgspec

from packmule.errors import UsageError
from packmule.jobs.cron import (
    LAST_INSTANT,
    LONGEST_INTERVAL,
    At,
    Cron,
    Every,
    InvalidWhen,
    When,
    compact,
    instant,
    interval,
    shown,
    zone,
)
from packmule.jobs.job_type import JobType
from packmule.units import given_span

NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
TICK = "{tick}"
"""Replaced by the tick in a schedule's arguments."""

LONGEST_JITTER = 86_400
_SPANS = ("every", "window", "jitter")
_INSTANTS = ("at", "start", "end")
_EXPECTED = {
    **dict.fromkeys(("job", "cron", "tz", "queue"), "a text in quotes"),
    **dict.fromkeys(_SPANS, "a span such as 30s, 5m or 1h30m, or whole seconds"),
    **dict.fromkeys(_INSTANTS, "a time such as 2026-12-01T08:00:00"),
    "args": "a list of values",
    "kwargs": "a table of names and values",
    "misfire": "skip, once or all",
    "overlap": "allow, skip, wait or cancel",
    "paused": "true or false",
}
"""What people may write in each field, for errors."""

_LONGEST_VALUE = 60


class InvalidSchedule(UsageError, ValueError):
    """A schedule is not valid."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One schedule, made by `schedule()`, as Redis stores it. Spans are seconds, instants Unix times.

    One of `cron` (in the zone `tz`), `every` and `at` defines its ticks; `start` and `end` bound them.
    `job` is a registered name. It is called with `args` and `kwargs`, in whose texts `{tick}` is replaced by
    the tick. `jitter` delays each tick by up to that many seconds, always by the same for the same tick.

    `misfire` decides on ticks that were missed while no scheduler ran: `skip` all, enqueue the latest `once`,
    or enqueue `all` that are not older than `window`. `overlap` decides on a tick whose predecessor's job is
    still pending or running: `allow` both, `skip` the tick, let it `wait`, or `cancel` that job first.

    `owner` may change it: the `code`, a `file` (its `source`) or an `operator`.
    """

    name: str
    job: str
    cron: str | None = None
    every: int | None = None
    at: int | None = None
    tz: str = "UTC"
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    queue: str | None = None
    misfire: Literal["skip", "once", "all"] = "once"
    window: int = 3600
    overlap: Literal["allow", "skip", "wait", "cancel"] = "allow"
    jitter: int = 0
    start: int | None = None
    end: int | None = None
    owner: Literal["code", "file", "operator"] = "operator"
    source: str = ""
    paused: bool = False

    def __post_init__(self) -> None:
        """Validate the fields. Raises `InvalidSchedule` or `InvalidWhen`."""
        if not NAME.fullmatch(self.name):
            raise InvalidSchedule(
                f"{self.name!r} is not a valid name: use up to 100 letters, digits, _ and -"
            )
        if [self.cron, self.every, self.at].count(None) != 2:  # noqa: PLR2004  one of three
            raise InvalidSchedule("give one of cron, every and at")
        if not 0 <= self.jitter <= LONGEST_JITTER:
            raise InvalidSchedule(f"jitter must be from 0 s to a day, not {given_span(self.jitter)}")
        if not 0 <= self.window <= LONGEST_INTERVAL:
            raise InvalidSchedule(f"window must be from 0 s to 366 days, not {given_span(self.window)}")
        if any(
            each is not None and not 0 <= each <= LAST_INSTANT for each in (self.at, self.start, self.end)
        ):
            raise InvalidSchedule("at, start and end must be Unix times from 1970 to 9987")
        if self.start is not None and self.end is not None and self.end < self.start:
            raise InvalidSchedule(
                f"its end, {shown(self.end, self.tz)}, is before its start, {shown(self.start, self.tz)}"
            )
        if self.at is not None and (self.start is not None or self.end is not None):
            raise InvalidSchedule("at is a single instant: leave out start and end")
        zone(self.tz)
        if self.at is None and self.next((self.start or 1) - 1) is None:
            raise InvalidSchedule("there is no tick between its start and its end")

    def next(self, after: int) -> int | None:
        """The first tick later than the Unix time `after`, or None if there is none."""
        tick = _when(self).next(after if self.start is None else max(after, self.start - 1))
        return None if tick is None or (self.end is not None and tick > self.end) else tick

    def due(self, tick: int) -> int:
        """The Unix time at which a tick is enqueued: itself, or up to `jitter` seconds later."""
        if not self.jitter:
            return tick
        chance = hashlib.sha256(f"{self.name} {tick}".encode()).digest()
        return tick + int.from_bytes(chance[:8]) % (self.jitter + 1)

    def job_id(self, tick: int) -> str:
        """The id of a tick's job: `cron-nightly-20261201T070000Z`."""
        return f"cron-{self.name}-{compact(tick)}"

    def call(self, tick: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a tick's job."""
        text = shown(tick, self.tz)
        return tuple(_filled(self.args, text)), _filled(self.kwargs, text)

    @property
    def timing(self) -> str:
        """Its `cron`, `every` or `at`, for people."""
        if self.cron is not None:
            return f"{self.cron} ({self.tz})"
        return f"every {given_span(self.every)}" if self.at is None else f"at {shown(self.at, self.tz)}"


def schedule(name: str, table: Mapping[str, Any]) -> Schedule:
    """The schedule `name` from what people write: spans as `30s` or seconds, instants as text or `datetime`.

    >>> schedule("nightly", {"job": "shop.report", "cron": "30 2 * * *", "tz": "Europe/Madrid"}).timing
    '30 2 * * * (Europe/Madrid)'

    Raises `InvalidSchedule`.
    """
    given = dict(table)
    try:
        for field in _SPANS:
            if isinstance(given.get(field), str):
                given[field] = interval(given[field])
        tz = given.get("tz", "UTC")
        for field in _INSTANTS:
            value = given.get(field)
            if isinstance(value, date) and not isinstance(value, datetime):
                value = value.isoformat()
            if isinstance(value, str | datetime):
                given[field] = instant(value, tz if isinstance(tz, str) else "UTC")
        found = msgspec.convert({**given, "name": name}, Schedule)
        msgspec.json.encode(found)
    except TypeError as error:
        raise InvalidSchedule(f"schedule {name}: an argument can't be written as JSON: {error}") from None
    except (msgspec.ValidationError, InvalidWhen, InvalidSchedule) as error:
        raise InvalidSchedule(f"schedule {name}: {_mistyped(error, table) or _explained(error)}") from None
    return found


def read(record: bytes, name: str) -> Schedule:
    """The schedule `name` from its stored record. Raises `InvalidSchedule`."""
    try:
        found = msgspec.json.decode(record, type=Schedule)
    except (
        ValueError,
        ArithmeticError,
        OSError,
        RecursionError,
    ) as error:  # `InvalidSchedule` and msgspec's errors too
        raise InvalidSchedule(_explained(error)) from None
    if found.name != name:
        raise InvalidSchedule(f"the record belongs to a schedule {found.name}")
    return found


def declared(job: JobType) -> Schedule | None:
    """The schedule that a job's decorator declares, if it does. Raises `InvalidSchedule`."""
    traits = job.traits
    if traits.cron is None and traits.every is None:
        return None
    timing = {"cron": traits.cron, "every": traits.every, "tz": traits.tz}
    table = {field: value for field, value in timing.items() if value is not None}
    try:
        more = dict(traits.schedule or {})
        called = str(more.pop("name", job.name.replace(".", "-")))
    except (TypeError, ValueError) as error:
        raise InvalidSchedule(
            f"schedule={traits.schedule!r}: give a table of names and values: {error}"
        ) from None
    return schedule(called, {**more, **table, "job": job.name, "owner": "code"})


def of_settings(name: str, job: str, every: str, queue: str, **kwargs: Any) -> Schedule:
    """The schedule that settings ask for, of a ready-made job. Late ticks and overlaps are skipped."""
    skipped = {"overlap": "skip", "misfire": "skip", "owner": "code", "source": "settings"}
    return schedule(name, {"job": job, "every": every, "queue": queue, "kwargs": kwargs, **skipped})


def _when(schedule: Schedule) -> When:
    if schedule.cron is not None:
        return _cron(schedule.cron, schedule.tz)
    if schedule.every is not None:
        return Every(schedule.every, schedule.start or 0)
    return At(schedule.at or 0)


_crons: dict[tuple[str, str], Cron] = {}
MOST_CRONS = 20_000


def _cron(expression: str, tz: str) -> Cron:
    """The parsed expression, cached because parsing costs more than a decision."""
    key = (expression, tz)
    if key not in _crons:
        if len(_crons) >= MOST_CRONS:
            _crons.clear()
        _crons[key] = Cron(expression, tz)
    return _crons[key]


def _filled(value: Any, text: str) -> Any:
    if isinstance(value, str):
        return value.replace(TICK, text)
    if isinstance(value, list | tuple):
        return [_filled(each, text) for each in value]
    if isinstance(value, dict):
        return {key: _filled(each, text) for key, each in value.items()}
    return value


def _mistyped(error: Exception, table: Mapping[str, Any]) -> str | None:
    """msgspec's error about a field's type, in the words of the table's author; None for another error."""
    place = re.search(r"\$\.(\w+)", str(error))
    field = place[1] if place else ""
    if field not in _EXPECTED or field not in table:
        return None
    try:
        value = msgspec.json.encode(table[field]).decode()
    except TypeError:
        value = repr(table[field])
    value = value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}..."
    return f"{field} must be {_EXPECTED[field]}, not {value}"


def _explained(error: Exception) -> str:
    """msgspec's text with the field in front: "jitter: expected `int`, got `str`"."""
    text, _, place = str(error).partition(" - at `$.")
    text = text.replace("Object contains unknown field", "there is no setting").replace(
        "Object missing required field", "it lacks"
    )
    return f"{place.rstrip('`')}: {text[0].lower()}{text[1:]}" if place else text
