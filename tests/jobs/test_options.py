"""Options: invalid ones are refused before anything is sent."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from packmule import job
from packmule.jobs.job_type import Traits
from packmule.jobs.options import InvalidOption, Options
from packmule.jobs.spans import UnfitSpan, in_seconds
from packmule.tests.jobs import sample_jobs

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "said",
    [
        {"timeout": 0},
        {"timeout": timedelta(0)},
        {"timeout": -1},
        {"timeout": True},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": 1e17},
        {"result_ttl": -2},
        {"result_ttl": 10**30},
        {"failure_ttl": "forever"},
        {"delay": -1},
        {"delay": timedelta(seconds=-1)},
        {"delay": 1e12},
        {"retries": -1},
        {"retries": 1.5},
        {"retries": "3"},
        {"retries": True},
        {"retries": 10**19},
        {"retry_intervals": 5},
        {"retry_intervals": "5"},
        {"retry_intervals": [1, -1]},
        {"retry_intervals": [float("nan")]},
        {"job_id": ""},
        {"job_id": "a:b"},
        {"job_id": "a" * 201},
        {"job_id": "a\n"},
        {"job_id": 7},
        {"at": datetime(2026, 11, 1)},
        {"at": "2026-11-01T00:00:00Z"},
        {"at_front": "yes"},
        {"priority": 101},
        {"priority": -101},
        {"priority": 1.0},
        {"priority": "5"},
        {"priority": True},
        {"queue": 1},
        {"queue": "\ud800"},
        {"queue": "low,+2"},
        {"description": b"bytes"},
        {"description": "\udcff"},
        {"unique": ""},
        {"unique": 1},
        {"unique": ["a"]},
        {"unique": "\ud800"},
        {"unique_ttl": 0},
        {"unique_ttl": -1},
        {"throttle": 0},
        {"throttle": timedelta(0)},
        {"throttle": True},
        {"debounce": 0},
        {"debounce": 1e12},
        {"debounce_limit": 0},
    ],
    ids=str,
)
def test_an_invalid_value_is_refused_and_names_its_option(said):
    (name,) = said
    with pytest.raises(InvalidOption, match=f"^{name}=") as refused:
        Options(**said)
    assert "\n" not in str(refused.value)


def test_delay_and_at_exclude_each_other():
    with pytest.raises(InvalidOption, match="not both"):
        Options(delay=1, at=NOW)


@pytest.mark.parametrize(
    "said",
    [
        {"timeout": 0.1},
        {"timeout": timedelta(minutes=5)},
        {"result_ttl": 0},
        {"result_ttl": -1},
        {"failure_ttl": -1},
        {"delay": 0},
        {"delay": timedelta(days=365)},
        {"retries": 0},
        {"retry_intervals": [1, 2.5, timedelta(seconds=3)]},
        {"job_id": "Order_7-b"},
        {"at": NOW},
        {"at_front": False},
        {"priority": -100},
        {"priority": 100},
        {"unique": True},
        {"unique": False},
        {"unique": "{account_id}"},
        {"unique_ttl": 0.5},
        {"throttle": timedelta(hours=1)},
        {"debounce": 5},
    ],
    ids=str,
)
def test_valid_values_are_accepted(said):
    (name,) = said
    assert getattr(Options(**said), name) == said[name]


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="dely"):
        Options(dely=5)


def test_given_options_override_those_below_them():
    base = Options(queue="low", timeout=60, retries=3, priority=9)
    assert Options(timeout=5, retries=0, priority=0).over(base) == Options(
        queue="low", timeout=5, retries=0, priority=0
    )
    assert Options().over(base) is base


def test_a_contradiction_between_two_layers_of_options_is_refused():
    with pytest.raises(InvalidOption, match="not both"):
        Options(at=NOW).over(Options(delay=60))


def test_spans_are_seconds_timedeltas_or_texts():
    assert in_seconds(timedelta(minutes=1, milliseconds=500)) == 60.5
    assert in_seconds(3) == 3.0
    assert in_seconds("1h30m") == in_seconds("PT1H30M") == 5400.0
    given = Options(timeout="5m", result_ttl="1d", delay="90s", retry_intervals=["1s", timedelta(minutes=1)])
    assert (given.timeout, given.result_ttl, given.delay) == (300.0, 86_400.0, 90.0)
    assert given.retry_intervals == [1.0, 60.0]


@pytest.mark.parametrize("span", ["", "soon", "5 m", "-5m", "1w", "P", "PTx", True, None, [5], float("nan")])
def test_what_is_no_span_is_named_with_the_way_out(span):
    with pytest.raises(UnfitSpan, match=r"give seconds, a timedelta, or a text such as"):
        in_seconds(span)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": "5 minutes"}, "timeout='5 minutes': give seconds, a timedelta, or a text such as '90s'"),
        ({"retry_intervals": ["1s", "x"]}, "retry_intervals='x': give seconds"),
        ({"timeout": "0s"}, "timeout='0s': give a span above 0"),
        ({"delay": "99999d"}, "delay='99999d': give a span of 0 or more, at most a hundred years"),
        ({"result_ttl": "-1"}, "result_ttl='-1': give seconds"),
    ],
)
def test_a_wrong_text_for_a_span_is_one_line(options, said):
    with pytest.raises(InvalidOption, match=f"^{re.escape(said)}") as caught:
        Options(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("misspelt", "way_out"),
    [("quue", "did you mean queue?"), ("isolated", "there are queue, timeout"), ("zzz", "there are queue")],
)
def test_an_unknown_option_is_refused_with_the_nearest_one(misspelt, way_out):
    with pytest.raises(InvalidOption, match=rf"^no option is called '{misspelt}': {re.escape(way_out)}"):
        sample_jobs.add.options(**{misspelt: 1})


def test_an_unknown_setting_of_a_job_is_refused_with_the_nearest_one():
    with pytest.raises(InvalidOption, match=r"no option is called 'isolated': did you mean isolate\?"):
        job(isolated=True)


def test_processor_time_may_be_a_text():
    assert Traits(isolate=True, max_cpu="5m").max_cpu == 300.0
    with pytest.raises(UnfitSpan, match=r"^max_cpu='much': give seconds"):
        Traits(isolate=True, max_cpu="much")
