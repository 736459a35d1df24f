"""A schedule in words: what `--json` prints and the HTTP API answers."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from packmule.jobs.cron import LAST_INSTANT, shown
from packmule.jobs.cron import in_words as cron_in_words
from packmule.jobs.schedule import Schedule
from packmule.jobs.schedule_store import StoredSchedule
from packmule.units import span


class ScheduleInfo(msgspec.Struct, frozen=True):
    """A schedule: `state` is active, paused, removed, ended or faulty, and then `fault` says why.

    `next` is the next tick of an active one, a text in its time zone, and `when` says all of them.
    """

    name: str
    state: str
    fault: str | None
    when: str | None
    owner: str | None
    next: str | None
    last_job: str | None
    schedule: Schedule | None


class ScheduleTicks(ScheduleInfo, frozen=True):
    """A schedule with its last ticks, the newest last."""

    ticks: list[dict[str, Any]]


def schedule_info(entry: StoredSchedule) -> ScheduleInfo:
    """A stored schedule in words.

    >>> schedule_info(schedule_store.entry(client, "nightly")).when  # doctest: +SKIP
    '30 2 * * * (Europe/Madrid)'
    """
    found = entry.schedule
    return ScheduleInfo(
        entry.name,
        entry.state,
        entry.fault,
        found.timing if found else None,
        found.owner if found else None,
        next_tick(entry),
        entry.job,
        found,
    )


def with_ticks(entry: StoredSchedule, ticks: list[dict[str, Any]]) -> ScheduleTicks:
    """A stored schedule and its last `ticks` likewise."""
    return ScheduleTicks(**msgspec.structs.asdict(schedule_info(entry)), ticks=ticks)


def in_words(schedule: Schedule) -> str:
    """When a schedule has ticks, in words.

    >>> in_words(schedule_store.entry(client, "nightly").schedule)  # doctest: +SKIP
    'At 02:30 every day, Europe/Madrid'
    """
    if schedule.cron is not None:
        return f"{cron_in_words(schedule.cron)}, {schedule.tz}"
    if schedule.every is not None:
        return f"Every {span(schedule.every)}"
    return f"Once, at {tick_text(schedule.at, schedule.tz)}"


def next_ticks(schedule: Schedule, after: int, count: int) -> list[int]:
    """The next ticks of a schedule after the Unix time `after`, `count` at most."""
    ticks: list[int] = []
    tick = schedule.next(after)
    while tick is not None and len(ticks) < count:
        ticks.append(tick)
        tick = schedule.next(tick)
    return ticks


def next_tick(entry: StoredSchedule) -> str | None:
    """The next tick of an active schedule that is not decided yet."""
    if entry.schedule is None or entry.state != "active":
        return None
    tick = entry.schedule.next(max(entry.last or 0, int(time.time())))
    return None if tick is None else tick_text(tick, entry.schedule.tz)


def tick_text(tick: Any, tz: str) -> str:
    """A tick in its time zone, or `-` for what is none."""
    return shown(tick, tz) if isinstance(tick, int) and 0 <= tick <= LAST_INSTANT else "-"
