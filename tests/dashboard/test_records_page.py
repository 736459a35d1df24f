"""The pages of the audit, the quarantine and the leaderboard."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from redis import Redis

from packmule.coordination.counters.leaderboard import Leaderboard
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import keys, wire
from packmule.observe import audit
from packmule.tests.dashboard.browser import NARROW, opened, shoot, sideways
from packmule.tests.dashboard.visits import Visit, visiting
from packmule.tests.worker import pool_jobs
from packmule.worker import Worker


@pytest.fixture
def visit(client: Redis) -> Iterator[Visit]:
    with visiting(client) as found:
        yield found


def test_empty_pages_say_so(visit):
    assert "Nobody has changed anything yet." in visit.text("/audit")
    assert "Nothing is in quarantine" in visit.text("/quarantine")
    assert "No job ran in this period." in visit.text("/leaderboard")


def test_the_audit_is_shown_newest_first_and_found_by_words(visit, client):
    audit.record(client, "queue pause", {"name": "low"}, "ada", "192.0.2.7")
    audit.record(client, "job cancel", {"id": "<script>", "names": ["a", "b"]}, "bob\x1b[2J", "198.51.100.1")
    shown = visit.text("/audit")
    assert shown.index("job cancel") < shown.index("queue pause")
    assert "ada queue pause name=low 192.0.2.7" in shown
    assert "bob\\x1b[2J job cancel id=<script> names=a,b 198.51.100.1" in shown
    assert "<script>alert" not in visit.get("/audit")
    assert "queue pause" not in visit.text("/audit", q="BOB cancel")
    assert "No action has these words." in visit.text("/audit", q="nobody")


def test_a_viewer_sees_no_addresses_in_the_audit(visit, client):
    audit.record(client, "queue pause", {"name": "low"}, "ada", "192.0.2.7")
    visit.viewer = Viewer("eve", Role.VIEWER)
    assert "192.0.2.7" not in visit.get("/audit")
    assert "queue pause" not in visit.text("/audit", q="192.0.2.7")
    assert "queue pause" in visit.text("/audit")


def test_the_audit_hides_keys_that_are_made_of_arguments(visit, client):
    audit.record(client, "limits release", {"key": "user:s3cret", "job": "j1"}, "ada")
    audit.record(client, "locks release", {"name": "singleton report:s3cret"}, "ada")
    assert visit.text("/audit").count("s3cret") == 2
    visit.viewer = Viewer("eve", Role.OPERATOR)
    assert "s3cret" not in visit.text("/audit")
    assert "No action has these words." in visit.text("/audit", q="user:s3")
    assert "job=j1" in visit.text("/audit")


def test_the_audit_comes_in_pages(visit, client):
    for number in range(120):
        audit.record(client, "job cancel", {"id": f"j{number:03}"}, "ada")
    page, seen, cursor = audit.latest(client), 0, ""
    assert [each.subject["id"] for each in page.actions[:2]] == ["j119", "j118"]
    while True:
        page = audit.latest(client, cursor)
        seen += len(page.actions)
        if page.next is None:
            break
        cursor = page.next
    assert seen == 120
    assert "j069" in visit.text("/audit", cursor=audit.latest(client).next)
    rare = audit.latest(client, fits=lambda action: action.subject["id"] == "j000")
    assert [each.subject["id"] for each in rare.actions] == ["j000"]


@pytest.mark.parametrize(
    "value", ["-1", "1-1", "1e9", "NaN", "9" * 300, "9" * 20 + "-1", "\x00", "²", "(1-1", "+"]
)
def test_cursors_and_words_from_outside_are_clamped(visit, client, value):
    audit.record(client, "queue pause", {"name": "low"}, "ada")
    for path in ("/audit", "/quarantine", "/leaderboard"):
        for name in ("cursor", "q", "period", "by", "region"):
            visit.get(path, **{name: value})


def test_garbage_stops_no_page(visit, client):
    client.xadd(keys.AUDIT, {"e": b"\xff\xc1"})
    client.xadd(keys.AUDIT, {"other": "field"})
    audit.record(client, "queue pause", {"name": "low"}, "ada")
    assert "queue pause" in visit.text("/audit")
    client.set(keys.AUDIT + "x", "1")
    client.delete(keys.AUDIT)
    client.set(keys.AUDIT, "of another type")
    visit.get("/audit")
    client.rpush(
        keys.QUARANTINE, b"\xff", "[]", "{}", "[" * 9000, '{"job_id": 7, "reason": {"<b>": 1}, "at": []}'
    )
    assert visit.text("/quarantine").count("a note that can't be read") == 3
    client.delete(keys.QUARANTINE)
    client.set(keys.QUARANTINE, "of another type")
    visit.get("/quarantine")
    hour = int(time.time()) // 3600
    client.set(Leaderboard(client, "busiest").key(hour), "of another type")
    client.set(f"{keys.STATISTICS}hour:{hour}", "of another type")
    visit.get("/leaderboard")


def test_the_quarantine_shows_what_was_set_aside_and_why(visit, client):
    at = wire.time_text(time.time() - 90)
    for number in range(60):
        note = {"job_id": f"j{number:02}", "reason": f"no data <b>{number}", "worker": "w1", "at": at}
        client.rpush(keys.QUARANTINE, json.dumps(note))
    client.rpush(keys.QUARANTINE, json.dumps({"job_id": "pm:groups:low", "reason": "WRONGTYPE"}))
    shown = visit.text("/quarantine")
    assert "pm:groups:low kept as pm:broken:pm:groups:low WRONGTYPE" in shown
    assert "j59 no data <b>59 w1" in shown
    assert "j10" not in shown
    assert "j10" in visit.text("/quarantine", cursor="50")
    assert "61 in all" in shown
    visit.viewer = Viewer("eve", Role.VIEWER)
    assert "no data" not in visit.get("/quarantine")


def test_the_leaderboard_names_types_jobs_and_workers(visit, client, produce):
    pool_jobs.noop.enqueue_many([()] * 3)
    Worker(["default"], connection=client, name="<b>w1").work(burst=True)
    for order in ("runs", "time", "failures"):
        shown = visit.text("/leaderboard", by=order)
        assert "packmule.tests.worker.pool_jobs.noop 3 0" in shown
    assert "<b>w1" in shown
    assert "<b>w1" not in visit.get("/leaderboard")
    assert "packmule.tests.worker.pool_jobs.noop 3 0" in visit.text("/leaderboard", period="7d")


def test_records_are_looked_at_in_a_browser(browser, dashboard, client, produce):
    pool_jobs.noop.enqueue_many([()] * 3)
    Worker(["default"], connection=client).work(burst=True)
    audit.record(client, "queue pause", {"name": "low"}, "ada", "192.0.2.7")
    client.rpush(
        keys.QUARANTINE, json.dumps({"job_id": "pm:groups:" + "x" * 300, "reason": "WRONGTYPE " * 30})
    )
    for viewport, scheme in (({"width": 1280, "height": 900}, "light"), (NARROW, "dark")):
        with opened(browser, viewport, scheme) as (page, _):
            for name in ("audit", "quarantine", "leaderboard"):
                page.goto(f"{dashboard.address}/{name}")
                shoot(page, f"{name}-{viewport['width']}-{scheme}")
                assert sideways(page) == 0
    with opened(browser) as (page, _):
        page.goto(f"{dashboard.address}/audit")
        page.get_by_text("queue pause").wait_for()
        audit.record(client, "queue resume", {"name": "low"}, "bob")
        page.get_by_text("queue resume").wait_for()  # live
