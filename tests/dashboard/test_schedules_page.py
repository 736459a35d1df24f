"""The pages of schedules: when they tick, what became of it, and what operators may do."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from redis import Redis

from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import keys, schedule_ledger, schedule_store
from packmule.jobs.schedule import schedule
from packmule.jobs.schedule_info import in_words
from packmule.observe import audit
from packmule.tests.dashboard.browser import NARROW, opened, shoot, sideways
from packmule.tests.dashboard.visits import Visit, visiting
from packmule.tests.jobs import sample_jobs

ADD = sample_jobs.add.job.name


@pytest.fixture
def visit(client: Redis) -> Iterator[Visit]:
    with visiting(client) as found:
        yield found


def put(client: Redis, name: str = "nightly", **table: object) -> None:
    timing = {} if {"every", "at"} & table.keys() else {"cron": "30 2 * * *", "tz": "Europe/Madrid"}
    given = {"job": ADD, "kwargs": {"a": 1, "b": 2}, **timing, **table}
    schedule_store.put(client, schedule(name, given))


def names(page: str) -> list[str]:
    """The schedules of a page in their order."""
    return re.findall(r'<td class="wide"><a href="/schedules/([^"]*)"><b>', page)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"cron": "30 2 * * *", "tz": "Europe/Madrid"}, "At 02:30 every day, Europe/Madrid"),
        ({"cron": "*/15 * * * * *"}, "Every 15th second of every minute, UTC"),
        ({"cron": "@hourly"}, "At the start of every hour, UTC"),
        ({"cron": "0 8 * * MON-FRI"}, "At 08:00 on Monday through Friday, UTC"),
        ({"every": "5m"}, "Every 5 min"),
        ({"at": "2027-01-01T00:00", "tz": "Asia/Tokyo"}, "Once, at 2027-01-01T00:00:00+09:00"),
    ],
)
def test_when_a_schedule_ticks_is_said_in_words(table, words):
    assert in_words(schedule("s", {"job": ADD, **table})) == words


def test_without_schedules_the_page_says_how_to_add_one(visit):
    assert "packmule schedule add nightly" in visit.text("/schedules")


def test_schedules_are_listed_with_their_next_tick_and_found(visit, client):
    put(client)
    put(client, "often", every="45s", owner="code")
    schedule_store.pause(client, "often")
    client.hset(schedule_store.SCHEDULES, "broken", "{")
    page, shown = visit.get("/schedules"), visit.text("/schedules")
    assert names(page) == ["broken", "nightly", "often"]
    assert "All 3 Active 1 Paused 1 Faulty 1" in shown
    assert f"nightly active At 02:30 every day, Europe/Madrid 30 2 * * * {ADD}" in shown
    assert names(visit.get("/schedules", state="paused")) == ["often"]
    assert names(visit.get("/schedules", q="MADRID")) == ["nightly"]
    assert names(visit.get("/schedules", sort="next"))[0] == "nightly"
    assert "can't be read" in shown


def test_a_schedule_shows_its_next_and_last_ticks(visit, client):
    put(client, cron="30 12 * * *", tz="Europe/Madrid", overlap="wait", kwargs={"a": 1, "token": "s3cret"})
    tick = int(time.time()) - 60
    schedule_ledger.append(client, "nightly", {"tick": tick, "did": "skipped", "why": "job x is started"})
    schedule_ledger.append(client, "nightly", {"tick": tick, "did": "enqueued", "job": "j1", "at": tick})
    client.rpush(schedule_ledger.ticks_key("nightly"), "no JSON", '{"tick": "<b>", "did": "\\u202e"}')
    shown = visit.text("/schedules/nightly")
    assert "At 12:30 every day, Europe/Madrid" in shown
    assert len(re.findall(r"\d\d\d\d-\d\d-\d\dT12:30:00\+0[12]:00", shown)) == 5
    assert "the tick waits for it" in shown
    assert "skipped - - job x is started" in shown
    assert "enqueued j1 not kept" in shown
    assert "s3cret" not in shown
    assert '"token": "(hidden)"' in shown
    visit.viewer = Viewer("eve", Role.ADMIN, may_see_payloads=False)
    assert '"token"' not in visit.text("/schedules/nightly")
    assert "hidden by your role" in visit.text("/schedules/nightly")


def test_schedules_are_paused_resumed_run_and_removed_by_operators(visit, client):
    put(client)
    visit.viewer = Viewer("ada", Role.OPERATOR)
    assert visit.post("/schedules/nightly/pause") == "nightly is paused."
    assert visit.post("/schedules/nightly/pause") == "nightly was already paused."
    assert "these are its ticks if it is resumed" in visit.text("/schedules/nightly")
    assert visit.post("/schedules/nightly/resume") == "nightly is resumed from now on."
    said = visit.post("/schedules/nightly/run")
    (id,) = re.findall(r"cron-nightly-run-\w+", said)
    assert client.hget(keys.job_key(id), "status") == b"queued"
    assert f"enqueued {id} waiting by hand" in visit.text("/schedules/nightly")
    assert visit.post("/schedules/nightly/remove") == "nightly is removed."
    done = [(each.action, each.subject) for each in audit.read(client)]
    assert done[0] == ("schedule pause", {"names": ["nightly"]})
    assert ("schedule run", {"name": "nightly", "id": id}) in done
    assert [action for action, _ in done].count("schedule pause") == 2


def test_a_schedule_whose_job_is_unknown_here_is_not_run(visit, client):
    put(client, job="shop.unknown")
    assert "Nothing was done:" in visit.post("/schedules/nightly/run")
    schedule_store.remove(client, "nightly")
    put(client, owner="code")
    assert "The code still declares it" in visit.post("/schedules/nightly/remove")
    assert "Nothing was done: nightly: a removed schedule" in visit.post("/schedules/nightly/pause")


def test_a_viewer_can_change_no_schedule(visit, client):
    put(client)
    visit.viewer = Viewer("eve", Role.VIEWER, may_see_payloads=True)
    for act in ("pause", "resume", "run", "remove", "edit"):
        assert "this needs an operator" in visit.refused(f"/schedules/nightly/{act}")
    visit.get("/schedules/nightly/edit", 403)
    visit.get("/new-schedule", 403)
    visit.refused("/new-schedule", name="mine", job=ADD, every="5m")
    assert schedule_store.entry(client, "nightly").state == "active"
    assert [each.name for each in schedule_store.entries(client)] == ["nightly"]
    assert list(audit.read(client)) == []


def test_an_operator_adds_and_edits_a_schedule(visit, client):
    said = visit.post("/new-schedule", name="mine", job=ADD, every="5m", kwargs='{"a": 9007199254740993}')
    assert said.startswith("mine is added: its next tick is at ")
    assert schedule_store.entry(client, "mine").schedule.kwargs == {"a": 9007199254740993}
    form = visit.get("/schedules/mine/edit")
    assert 'value="300"' in form
    said = visit.post(
        "/schedules/mine/edit", job=ADD, cron="0 3 * * *", tz="UTC", kwargs='{"a": 2}', overlap="skip"
    )
    assert said.startswith("mine is changed")
    found = schedule_store.entry(client, "mine").schedule
    assert (found.cron, found.every, found.kwargs, found.overlap) == ("0 3 * * *", None, {"a": 2}, "skip")
    assert [each.action for each in audit.read(client)] == ["schedule add", "schedule add"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cron": "61 * * * *"}, "61 * * * *"),
        ({"cron": "* * * * *", "every": "5m"}, "give one of cron, every and at"),
        ({"every": "soon"}, "not a duration"),
        ({"every": "5m", "tz": "Mars"}, "is not a time zone"),
        ({"every": "5m", "kwargs": "[1]"}, "must be an object of names and values in JSON"),
        ({"every": "5m", "kwargs": '{"a": "x"}'}, "a: "),
        ({"every": "5m", "kwargs": "[" * 30_000}, "in JSON"),
        ({"every": "5m", "kwargs": '{"a": 1}', "queue": "nowhere"}, "nowhere"),
        ({"every": "5m", "kwargs": '{"a": 1}', "misfire": "<b>"}, "misfire must be skip, once or all"),
        ({"every": "5m", "kwargs": '{"a": 1}', "job": "no.such"}, "no.such"),
        ({"every": "5m", "kwargs": '{"a": 1}', "name": "a/b"}, "is not a valid name"),
    ],
)
def test_a_wrong_form_says_what_is_wrong_and_keeps_what_was_typed(visit, client, given, words):
    shown = visit.refused("/new-schedule", 400, **{"name": "mine", "job": ADD, **given})
    assert words in shown
    assert schedule_store.entries(client) == []
    assert list(audit.read(client)) == []


def test_secrets_stay_while_a_schedule_is_edited(visit, client):
    put(client, job=sample_jobs.noop.job.name, kwargs={})
    record = schedule("kept", {"job": ADD, "kwargs": {"a": 1, "password": "s3cret"}, "every": "5m"})
    schedule_store.put(client, record)
    assert "s3cret" not in visit.get("/schedules/kept/edit")
    visit.viewer = Viewer("ada", Role.OPERATOR, may_see_payloads=False)
    assert "hidden by your role" in visit.text("/schedules/kept/edit", status=403)
    assert "hidden by your role" in visit.refused("/schedules/kept/edit", 403, job=ADD, every="1h")


def test_what_belongs_to_code_is_changed_there(visit, client):
    put(client, owner="code")
    assert "belongs to the code: change it there" in visit.text("/schedules/nightly/edit", status=400)
    assert "belongs to the code" in visit.refused("/schedules/nightly/edit", 400, job=ADD, every="1h")
    assert "Edit" not in visit.text("/schedules/nightly")


@pytest.mark.parametrize("name", ["nobody", "a/b", "%ff", "x" * 300])
def test_an_unknown_schedule_is_said_in_words(visit, client, name):
    assert "no schedule is called" in visit.text(f"/schedules/{name}", status=404)
    visit.refused(f"/schedules/{name}/pause", 404)
    visit.refused("/schedules/nightly/explode", 404)
    assert list(audit.read(client)) == []


@pytest.mark.parametrize("value", ["-1", "1e9", "NaN", "9" * 300, "\x00", "²", "<script>"])
def test_numbers_and_words_from_outside_are_clamped(visit, client, value):
    put(client)
    for name in ("cursor", "sort", "state", "q", "region"):
        visit.get("/schedules", **{name: value})
    assert names(visit.get("/schedules", cursor=value)) == ["nightly"]


def test_a_schedule_is_added_run_and_paused_in_a_browser(browser, dashboard, client):
    with opened(browser) as (page, faults):
        faults.allowed.append("400 (Bad Request)")  # what a mistyped form is answered with
        page.goto(f"{dashboard.address}/schedules")
        page.get_by_role("link", name="New schedule").click()
        page.get_by_label("Name", exact=True).fill("mine")
        page.get_by_label("Calls").fill(ADD)
        page.get_by_label("Arguments by name").fill('{"a": 1}')
        page.get_by_label("Cron expression").fill("30 2 * *")
        page.get_by_role("button", name="Add").click()
        page.get_by_text("has 4 fields").wait_for()
        assert page.get_by_label("Arguments by name").input_value() == '{"a": 1}'
        page.get_by_label("Cron expression").fill("30 2 * * *")
        page.get_by_role("button", name="Add").click()
        page.get_by_text("mine is added").wait_for()
        page.get_by_role("button", name="Run now").click()
        page.get_by_text("by hand").wait_for()
        shoot(page, "schedule-1280-light")
        page.get_by_role("button", name="Pause", exact=True).last.click()
        page.get_by_text("mine is paused.").wait_for()
        page.goto(f"{dashboard.address}/schedules")
        page.get_by_text("At 02:30 every day, UTC").wait_for()
        shoot(page, "schedules-1280-light")


def test_schedules_fit_a_telephone(browser, dashboard, client):
    put(client)
    with opened(browser, NARROW, "dark") as (page, _):
        for name, path in (
            ("schedules", "/schedules"),
            ("schedule", "/schedules/nightly"),
            ("schedule-form", "/schedules/nightly/edit"),
        ):
            page.goto(dashboard.address + path)
            shoot(page, f"{name}-390-dark")
            assert sideways(page) == 0
