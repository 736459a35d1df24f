"""Schedules: tables become schedules, and invalid ones are refused with file and line."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pytest

from packmule import job
from packmule.jobs import registry
from packmule.jobs.cron import instant
from packmule.jobs.job_type import InvalidJob
from packmule.jobs.schedule import InvalidSchedule, declared, read, schedule
from packmule.jobs.schedule_file import read_file
from packmule.jobs.toml_file import InvalidFile


@job(cron="30 2 * * *", tz="Europe/Madrid", schedule={"kwargs": {"month": "{tick}"}, "overlap": "skip"})
def report(month: str) -> None: ...


@job(every="5m", schedule={"name": "often"})
def poll() -> None: ...


def plain() -> None: ...


def test_a_table_becomes_a_schedule_that_survives_redis():
    found = schedule(
        "nightly",
        {
            "job": "shop.report",
            "cron": "30 2 * * *",
            "tz": "Europe/Madrid",
            "args": ["{tick}"],
            "kwargs": {"deep": [{"at": "<{tick}>"}]},
            "window": "2h",
            "jitter": "30s",
            "start": "2026-03-01",
            "end": datetime(2026, 12, 31, tzinfo=UTC),
        },
    )
    assert (found.window, found.jitter, found.owner) == (7200, 30, "operator")
    assert found.start == instant("2026-03-01T00:00+01:00")
    assert read(msgspec.json.encode(found), found.name) == found
    tick = found.next(instant("2026-03-28T12:00"))
    assert found.job_id(tick) == "cron-nightly-20260329T010000Z"
    at = "2026-03-29T03:00:00+02:00"
    assert found.call(tick) == ((at,), {"deep": [{"at": f"<{at}>"}]})


def test_a_date_means_its_first_instant_in_the_zone():
    table = {"job": "shop.report", "every": 60, "tz": "Europe/Madrid"}
    assert schedule("s", {**table, "end": date(2026, 12, 1)}) == schedule("s", {**table, "end": "2026-12-01"})


def test_ticks_lie_between_start_and_end():
    found = schedule("a", {"job": "j", "every": 60, "start": 1030, "end": 1150})
    assert [found.next(after) for after in (0, 1030, 1090, 1150)] == [1030, 1090, 1150, None]
    cron = schedule("a", {"job": "j", "cron": "* * * * *", "start": 1200})
    assert cron.next(0) == 1200


def test_jitter_delays_a_tick_by_the_same_time_whenever_it_is_computed():
    found = [schedule(f"s{n}", {"job": "j", "every": 60, "jitter": 30}) for n in range(200)]
    dues = [each.due(600) for each in found]
    assert dues == [each.due(600) for each in found]
    assert {min(dues), max(dues)} <= set(range(600, 631))
    assert len(set(dues)) > 20
    assert schedule("s", {"job": "j", "every": 60}).due(600) == 600


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"job": "j"}, "give one of cron, every and at"),
        ({"job": "j", "cron": "* * * * *", "every": 5}, "give one of cron, every and at"),
        ({"cron": "* * * * *"}, "job"),
        ({"job": "j", "cron": "31 2 30 2 *"}, "'31 2 30 2 *' is not a cron expression"),
        ({"job": "j", "cron": "@daily", "tz": "Europe/Nowhere"}, "'Europe/Nowhere' is not a time zone"),
        ({"job": "j", "every": 60, "start": "2026-02-01", "end": "2026-01-01"}, "is before its start"),
        (
            {"job": "j", "cron": "0 0 1 1 *", "start": "2026-02-01", "end": "2026-03-01"},
            "there is no tick between",
        ),
        ({"job": "j", "at": "2026-02-01", "end": "2026-03-01"}, "single instant"),
        ({"job": "j", "every": "soon"}, "'soon' is not a duration"),
        ({"job": "j", "every": 0}, "an interval must be from 1 s"),
        ({"job": "j", "every": 10**30}, "an interval must be"),
        ({"job": "j", "at": "tomorrow"}, "'tomorrow' is not a time"),
        ({"job": "j", "at": 10**15}, "Unix times"),
        ({"job": "j", "every": 60, "jitter": -1}, "jitter must be from 0 s to a day, not -1 s"),
        ({"job": "j", "every": 60, "window": 10**15}, "window must be from 0 s to 366 days"),
        ({"job": "j", "every": 60, "misfire": "twice"}, "misfire"),
        ({"job": "j", "every": 60, "overlap": 3}, "overlap"),
        ({"job": "j", "every": 60, "kwargs": []}, "kwargs"),
        ({"job": 5, "every": 60}, "job"),
        ({"job": "j", "every": 60, "tz": 7}, "tz"),
        ({"job": "j", "every": 60, "colour": "red"}, "colour"),
        ({"job": "j", "every": 60, "kwargs": {"a": object()}}, "can't be written as JSON"),
    ],
)
def test_an_invalid_schedule_is_refused_in_one_sentence_with_its_name(table, expected):
    with pytest.raises(InvalidSchedule) as refused:
        schedule("nightly", table)
    assert str(refused.value).startswith("schedule nightly: ")
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a" * 101, "ü"])
def test_a_name_must_be_valid_in_a_job_id(name):
    with pytest.raises(InvalidSchedule, match="is not a valid name"):
        schedule(name, {"job": "j", "every": 60})


@pytest.mark.parametrize(
    "record", [b"", b"{", b"[]", b"null", b"\xff", b'{"name":"a","job":"j","every":"x"}', b"[" * 5000, b"{}"]
)
def test_a_corrupt_record_raises_invalid_schedule(record):
    with pytest.raises(InvalidSchedule):
        read(record, "a")


def test_decorators_declare_schedules():
    found = [declared(each.job) for each in (report, poll)]
    prefix = __name__.replace(".", "-")
    assert {each.name: (each.timing, each.owner) for each in found} == {
        f"{prefix}-report": ("30 2 * * * (Europe/Madrid)", "code"),
        "often": ("every 5 min", "code"),
    }


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"cron": "61 * * * *"}, "minute"),
        ({"every": "5x"}, "not a duration"),
        ({"every": 60, "tz": "Europe/Nowhere"}, "Nowhere"),
        ({"every": 60, "schedule": {"overlap": "sometimes"}}, "overlap must be allow, skip, wait or cancel"),
        ({"every": 60, "schedule": {"quue": "low"}}, "quue"),
        ({"every": 60, "schedule": ["overlap"]}, "give a table of names and values"),
        ({"every": 60, "schedule": {"name": "a b"}}, "not a valid name"),
        ({"tz": "UTC"}, "add cron or every"),
    ],
)
def test_a_schedule_that_cannot_be_kept_is_refused_when_the_job_is_declared(settings, says):
    with pytest.raises(InvalidJob, match=says):
        job(**settings)(plain)
    assert f"{__name__}.plain" not in registry.names()


GOOD = """
# what runs at night
[nightly]
job = "shop.report"
cron = "30 2 * * *"
tz = "Europe/Madrid"
kwargs = { month = "{tick}" }

[often]
job = "shop.poll"
every = "30s"
start = 2026-12-01T08:00:00
paused = true
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "schedules.toml"
    path.write_text(text)
    return path


def test_a_file_holds_a_table_for_each_schedule(tmp_path):
    path = write(tmp_path, GOOD)
    nightly, often = read_file(path)
    assert (nightly.name, nightly.kwargs, nightly.owner, nightly.source) == (
        "nightly",
        {"month": "{tick}"},
        "file",
        str(path),
    )
    assert (often.every, often.start, often.paused) == (30, instant("2026-12-01T08:00"), True)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "30 2 * * *",
            "61 2 * * *",
            ", line 5: schedule nightly: '61 2 * * *' is not a cron expression: minute must be 0 to 59",
        ),
        (
            "Europe/Madrid",
            "Europe/Nowhere",
            ", line 6: schedule nightly: 'Europe/Nowhere' is not a time zone",
        ),
        ("cron =", "corn =", ", line 5: schedule nightly: there is no setting 'corn'"),
        ('every = "30s"', "", ", line 9: schedule often: give one of cron"),
        ("[often]", "[often", "(at line 9"),
        ("[often]", "[nightly]", "is not valid TOML"),
        ("[often]", "", "is not valid TOML"),
        ("# what", "stray = 1\n# what", ", line 2: stray is outside a table"),
        ("paused = true", 'owner = "code"', ", line 13: schedule often: there is no setting 'owner'"),
    ],
)
def test_a_mistake_in_a_file_is_reported_with_its_line(tmp_path, old, new, expected):
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(InvalidFile) as refused:
        read_file(path)
    assert str(refused.value).startswith(str(path))
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("job = 5", "job must be a text in quotes, not 5"),
        ("every = [1]", "every must be a span such as 30s, 5m or 1h30m, or whole seconds, not [1]"),
        ("jitter = 1.5", "jitter must be a span such as 30s, 5m or 1h30m, or whole seconds, not 1.5"),
        ("start = true", "start must be a time such as 2026-12-01T08:00:00, not true"),
        ('args = "x"', 'args must be a list of values, not "x"'),
        ("kwargs = [5]", "kwargs must be a table of names and values, not [5]"),
        ('overlap = "twice"', 'overlap must be allow, skip, wait or cancel, not "twice"'),
        ('paused = "yes"', 'paused must be true or false, not "yes"'),
        ("tz = ['" + "x" * 99 + "']", 'tz must be a text in quotes, not ["' + "x" * 58 + "..."),
    ],
)
def test_a_value_of_another_type_is_reported_in_plain_words_with_its_line(tmp_path, wrong, expected):
    field = wrong.partition(" ")[0]
    good = {"job": 'job = "shop.poll"', "window": "window = 5", "every": 'every = "30s"'}
    lines = {**good, field: wrong}
    path = write(tmp_path, "\n".join(["[often]", *lines.values()]))
    with pytest.raises(InvalidFile) as refused:
        read_file(path)
    assert str(refused.value) == f"{path}, line {list(lines).index(field) + 2}: schedule often: {expected}"


def test_an_unreadable_file_is_reported(tmp_path):
    with pytest.raises(InvalidFile, match="no such file"):
        read_file(tmp_path / "nothing")
    with pytest.raises(InvalidFile, match="is a directory"):
        read_file(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(InvalidFile, match="is not valid TOML"):
        read_file(tmp_path / "bytes")
