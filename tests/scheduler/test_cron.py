"""Calendars: ten years in six zones beside a second library, both days of daylight saving, and bad input."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter

from packmule.jobs.cron import (
    MACROS,
    At,
    Cron,
    Every,
    InvalidWhen,
    When,
    compact,
    instant,
    interval,
    previous,
    shown,
)

ZONES = (
    "UTC",
    "Europe/Madrid",
    "America/New_York",
    "Australia/Lord_Howe",  # changes by half an hour
    "America/Santiago",  # changes at midnight, so that a day may begin at 01:00
    "Asia/Kathmandu",
)
FIRST, END = datetime(2020, 1, 1), datetime(2030, 1, 1)
SPARSE = {  # ours: croniter's
    "30 2 * * *": "30 2 * * *",
    "0,30 0,2 * * SUN": "0,30 0,2 * * SUN",
    "59 23 L * *": "59 23 L * *",
    "5 1 * * FRI#2": "5 1 * * FRI#2",
    "0 0 * * 5L": "0 0 * * L5",
    "0 4 1,15 JAN-JUN/2 MON": "0 4 1,15 JAN-JUN/2 MON",
    "10 30 2 * * SUN": "10 30 2 * * SUN",
    "0 12 29 2 *": "0 12 29 2 *",
}
DENSE = ("*/15 * * * *", "30 * * * *", "*/20 2,3 * * *", "* 0 * * *", "*/10 */15 1-3 * * *")


def readings(expression: str, first: datetime, end: datetime) -> Iterator[datetime]:
    """The other library's ticks as times of a wall clock, from `first` on."""
    other = croniter(expression, first - timedelta(seconds=1), second_at_beginning=True)
    while (reading := other.get_next(datetime)) < end:
        yield reading


@cache
def ten_years(expression: str) -> tuple[datetime, ...]:
    return tuple(readings(expression, FIRST, END))


def instants(reading: datetime, zone: ZoneInfo) -> list[int]:
    """The Unix times (none, one or two) at which a clock of the zone shows `reading`."""
    both = {reading.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return sorted(int(at.timestamp()) for at in both if at.astimezone(zone).replace(tzinfo=None) == reading)


def once(reading: datetime, zone: ZoneInfo) -> int:
    """The first of these times, or the end of the gap."""
    for minutes in range(0, 181):
        # A gap begins and ends at whole minutes.
        later = reading if not minutes else reading.replace(second=0) + timedelta(minutes=minutes)
        if found := instants(later, zone):
            return found[0]
    raise AssertionError(f"{reading} is in no gap of {zone}")


def ticks_between(when: When, first: int, end: int) -> list[int]:
    ticks = []
    tick = when.next(first - 1)
    while tick is not None and tick < end:
        ticks.append(tick)
        tick = when.next(tick)
    return ticks


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("expression", SPARSE)
def test_ten_years_match_another_library_and_each_time_comes_once(expression, name):
    zone = ZoneInfo(name)
    expected = sorted({once(reading, zone) for reading in ten_years(SPARSE[expression])})
    begin, end = (int(each.replace(tzinfo=zone).timestamp()) for each in (FIRST, END))
    assert ticks_between(Cron(expression, name), begin, end) == expected


def changes(zone: ZoneInfo) -> list[datetime]:
    """The days on which the zone's clocks change."""
    days = [FIRST + timedelta(days=day) for day in range((END - FIRST).days)]
    return [
        day
        for day in days
        if day.replace(tzinfo=zone).utcoffset() != (day + timedelta(days=1)).replace(tzinfo=zone).utcoffset()
    ]


@pytest.mark.parametrize("name", ZONES[1:5])
@pytest.mark.parametrize("expression", DENSE)
def test_evenly_spaced_ticks_follow_the_wall_clock_around_each_of_its_changes(expression, name):
    zone = ZoneInfo(name)
    days = changes(zone)
    assert len(days) == 20
    for day in days[::3]:
        first, end = day - timedelta(hours=12), day + timedelta(hours=36)
        begin, stop = (int(each.replace(tzinfo=zone).timestamp()) for each in (first, end))
        expected = sorted(tick for each in readings(expression, first, end) for tick in instants(each, zone))
        assert ticks_between(Cron(expression, name), begin, stop) == expected, day


def local(ticks: list[int], name: str) -> list[str]:
    return [shown(tick, name)[5:] for tick in ticks]


MARCH, OCTOBER = instant("2026-03-29T00:00", "Europe/Madrid"), instant("2026-10-25T00:00", "Europe/Madrid")


def test_a_time_in_a_gap_runs_after_it_and_a_time_that_comes_twice_runs_once():
    for expression in ("30 2 * * *", "0 30 2 * * *"):
        when = Cron(expression, "Europe/Madrid")
        assert local(ticks_between(when, MARCH, MARCH + 86_400), "Europe/Madrid") == ["03-29T03:00:00+02:00"]
        assert local(ticks_between(when, OCTOBER, OCTOBER + 86_400), "Europe/Madrid") == [
            "10-25T02:30:00+02:00"
        ]
    when = Cron("0,30 2,3 * * *", "Europe/Madrid")
    assert local(ticks_between(when, MARCH, MARCH + 86_400), "Europe/Madrid") == [
        "03-29T03:00:00+02:00",
        "03-29T03:30:00+02:00",
    ]


def test_evenly_spaced_ticks_skip_the_gap_and_run_in_both_repeated_hours():
    when = Cron("30 * * * *", "Europe/Madrid")
    for first in (MARCH, OCTOBER):
        ticks = ticks_between(when, first, first + 6 * 3600)
        assert {later - tick for tick, later in pairwise(ticks)} == {3600}


@pytest.mark.parametrize("name", ZONES)
def test_the_next_tick_does_not_depend_on_where_the_search_starts(name):
    for expression in ("30 2 * * *", "*/15 * * * *", "* 2 25 10 *"):
        when = Cron(expression, name)
        first = instant("2026-10-24T20:00")
        ticks = ticks_between(when, first, first + 2 * 86_400)
        for after in range(first, ticks[-1] if ticks else first, 601):
            assert when.next(after) == next(tick for tick in ticks if tick > after)


def test_a_repeated_hour_is_not_missed_before_a_pause_of_a_year():
    when = Cron("* 2 25 10 *", "Europe/Madrid")
    ticks = ticks_between(when, OCTOBER, OCTOBER + 86_400)
    assert len(ticks) == 120
    assert local([when.next(ticks[-1])], "Europe/Madrid") == ["10-25T02:00:00+02:00"]


def test_intervals_and_instants():
    assert ticks_between(Every(30), 95, 200) == [120, 150, 180]
    assert ticks_between(Every(30, start=100), 95, 200) == [100, 130, 160, 190]
    assert Every(30, start=1000).next(0) == 1000
    assert ticks_between(At(100), 0, 200) == [100]
    assert At(100).next(100) is None


@pytest.mark.parametrize("when", [Every(7), Cron("*/5 * * * *"), Cron("0 0 1 1 *")])
def test_the_previous_tick_is_the_last_of_those_before(when):
    now = instant("2026-11-26T01:23:45")
    tick = previous(when, now, 0)
    assert tick <= now < when.next(tick)
    assert previous(when, tick, 0) == tick
    assert previous(when, now, now) is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30s", 30), ("5m", 300), ("1h30m", 5400), ("1d", 86_400)]
)
def test_intervals_are_parsed(text, seconds):
    assert interval(text) == seconds


def test_instants_are_parsed_in_their_zone():
    assert shown(instant("2026-12-01T08:00", "Europe/Madrid"), "Europe/Madrid") == "2026-12-01T08:00:00+01:00"
    assert instant("2026-12-01T08:00+01:00") == instant("2026-12-01T07:00Z")
    assert compact(instant("2026-12-01T08:00+01:00")) == "20261201T070000Z"


@pytest.mark.parametrize("macro", MACROS)
def test_macros_are_understood_in_any_case(macro):
    now = instant("2026-11-26T01:23")
    assert Cron(macro).next(now) == Cron(MACROS[macro].upper()).next(now) == Cron(macro.upper()).next(now)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("31 2 30 2 *", "no month of 2 has a day 30"),
        ("* * */20 * 1L", "never matches"),
        ("75 * * * *", "minute must be 0 to 59, not 75"),
        ("60 0 0 * * *", "second must be 0 to 59, not 60"),
        ("* 8-24 * * *", "hour must be 0 to 23, not 24"),
        ("0 0 0 * *", "day must be 1 to 31, L or LW, not 0"),
        ("0 0 * JUNE *", "month must be 1 to 12 or JAN to DEC, not JUNE"),
        ("0 0 * * 1,8", "weekday must be 0 to 7, SUN to SAT, 5L (the last) or MON#1 (the first), not 8"),
        ("*/0 * * * *", "minute */0 has an invalid step"),
        ("5-1 * * * *", "minute must be 0 to 59, and 5-1 is not a range from low to high"),
        ("1,,2 * * * *", "minute must be 0 to 59, not empty"),
        ("* * * *", "4 fields"),
        ("", "0 fields"),
        ("0 0 * * * * 2030", "7 fields"),
        ("@reboot", "'@reboot' is not a macro"),
        ("٣ * * * *", "minute must be 0 to 59, not ٣"),
        ("1" * 300 + " * * * *", "characters"),
        ("9" * 150 + " * * * *", "minute must be"),
        ("0 0 * * L", "weekday must be"),
        ("0 0 * * MON#6", ", not MON#6"),
    ],
)
def test_an_invalid_expression_is_refused_in_one_sentence_with_the_field_and_its_values(expression, expected):
    with pytest.raises(InvalidWhen) as refused:
        Cron(expression)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name", ["Europe/Nowhere", "", "../etc/passwd", "Europe", "/etc/localtime", "\0", "Ü"]
)
def test_an_unknown_zone_is_refused(name):
    with pytest.raises(InvalidWhen, match="is not a time zone"):
        Cron("@daily", name)


@pytest.mark.parametrize("text", ["", "soon", "-5", "1.5s", "5 m", "30s5m", "٣s"])
def test_an_invalid_interval_is_refused(text):
    with pytest.raises(InvalidWhen, match=r"not a duration|not a whole number of seconds"):
        interval(text)


def test_invalid_instants_and_spans_are_refused():
    for text in ("tomorrow", "", "2026-13-01", "1969-01-01T00:00", "9999-12-31T00:00"):
        with pytest.raises(InvalidWhen, match=r"is not a time|is before 1970"):
            instant(text)
    for seconds in (0, -1, 10**9):
        with pytest.raises(InvalidWhen, match="an interval must be from"):
            Every(seconds)


def test_a_decision_is_quick():
    rows = [Cron("*/15 * * * *", "Europe/Madrid"), Cron("30 2 * * *", "America/New_York"), Cron("0 0 29 2 *")]
    begun = time.process_time()
    for row in rows * 100:
        assert row.next(1_790_000_000)
    assert time.process_time() - begun < 1
