"""The page of metrics: hours of queues and types of jobs as charts and tables, as `packmule top` has them."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from redis import Redis

from packmule.coordination.counters.histogram import bucket
from packmule.dashboard.pages.addresses import STATIC
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import keys
from packmule.observe import day_record, statistics
from packmule.observe.days import day_key
from packmule.observe.statistics import Statistics
from packmule.tests.command_line import CommandLine, environment_in, until
from packmule.tests.dashboard.browser import NARROW, WIDE, becomes_true, opened, shoot, sideways
from packmule.tests.dashboard.visits import Visit, text_of, visiting
from packmule.tests.worker import pool_jobs
from packmule.worker import Worker

FIELDS = {"at", "performed", "failed", "wait_p50", "wait_p95", "run_p50", "run_p95"}
HOSTILE = "<script>alert(1)</script>\x1b[2J"


@pytest.fixture
def visit(client: Redis) -> Iterator[Visit]:
    with visiting(client) as found:
        yield found


def write(
    client: Redis, queue: str, kind: str, ago: int, finished: int, failed: int = 0, run: float = 0.1
) -> None:
    """What an hour some hours `ago` counted."""
    start, performed = f"{queue}\x1f{kind}\x1f", finished + failed
    counts = {"k1": finished, "k2": failed, "us": int(1e6 * run * performed)}
    counts |= {f"w{bucket(run / 4)}": performed, f"r{bucket(run)}": performed - performed // 10}
    counts[f"r{bucket(run * 8)}"] = performed // 10
    hour = int(time.time()) // 3600 - ago
    client.hset(
        f"{keys.STATISTICS}hour:{hour}", mapping={start + name: each for name, each in counts.items()}
    )


def grown(page: Page) -> bool:
    """Whether the page shows the count that grew, after it was told that everything changed."""
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    cell = page.get_by_role("cell", name="70,0").first
    with suppress(PlaywrightTimeout):
        cell.wait_for(timeout=3000)
    return cell.is_visible()


def data(visit: Visit, **query: str) -> dict[str, list[float | None]]:
    found: dict[str, list[float | None]] = json.loads(visit.get("/metrics/data", **query))
    return found


def test_without_jobs_the_page_says_so(visit):
    assert "No job ran in this period." in visit.text("/metrics")
    assert "By hour, for 90 days" in visit.text("/metrics")
    found = data(visit)
    assert found.keys() == FIELDS
    assert found["performed"] == [0] * 24
    assert found["wait_p50"] == [None] * 24


def test_the_hours_are_those_of_the_queue_or_type_in_the_address(visit, client, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    write(client, "mail", "shop.send", 3, 40, 2, run=2.0)
    write(client, "low", "shop.report", 3, 7)
    write(client, "low", "shop.send", 30, 5)
    hours = int(time.time()) // 3600 % 24 + 1
    found = {each: data(visit, period=each) for each in ("24h", "8d", "30d", "90d")}
    assert [sum(each["performed"]) for each in found.values()] == [49, 54, 54, 54]
    days = [len(each["at"]) for each in found.values()]
    assert days == [24, 8 * 24 + hours, 30 * 24 + hours, 90 * 24 + hours]
    mail = data(visit, name="mail")
    assert (mail["performed"][-4], mail["failed"][-4]) == (42, 2)
    assert mail["run_p50"][-4] == pytest.approx(2.0, rel=0.1)
    assert mail["run_p95"][-4] == pytest.approx(16.0, rel=0.1)
    assert mail["wait_p50"][-4] == pytest.approx(0.5, rel=0.1)
    assert mail["at"][-1] == time.time() // 3600 * 3600
    assert sum(data(visit, by="type", name="shop.send", period="8d")["performed"]) == 47
    assert sum(data(visit, name="nobody")["performed"]) == 0
    shown = visit.text("/metrics")
    assert "mail 42 2 0" in shown
    assert shown.index("mail 42") < shown.index("low 7")
    assert "49 runs, 2 failed" in shown
    assert "of mail: 42 runs, 2 failed" in visit.text("/metrics", name="mail")
    assert "shop.send 42 2 0" in visit.text("/metrics", by="type")


def test_the_numbers_are_those_of_the_command_line(visit, client, server, tmp_path, produce):
    pool_jobs.noop.enqueue_many([()] * 5)
    Worker(["default"], connection=client).work(burst=True)
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url))
    top = json.loads(packmule.output("top", "--json", "--period", "24h"))
    (queue,) = [each for each in top["queues"] if each["queue"] == "default"]
    found = data(visit, name="default")
    assert found["performed"][-1] == queue["performed"] == 5
    assert (found["wait_p50"][-1], found["wait_p95"][-1]) == (queue["wait_p50"], queue["wait_p95"])
    (kind,) = top["types"]
    assert data(visit, by="type", name=kind["name"])["run_p95"][-1] == kind["run_p95"]


@pytest.mark.parametrize("value", ["-1", "1e9", "9" * 300, "\x00", "²", "%", "a" * 5000])
def test_what_comes_from_outside_is_clamped(visit, client, value):
    write(client, "mail", "shop.send", 0, 1)
    for name in ("period", "by", "name", "cursor", "region"):
        visit.get("/metrics", **{name: value})
        assert data(visit, **{name: value}).keys() == FIELDS


def test_garbage_and_markup_stop_no_page(visit, client):
    write(client, HOSTILE, HOSTILE, 1, 3)
    hour = int(time.time()) // 3600
    client.hset(f"{keys.STATISTICS}hour:{hour - 1}", mapping={b"\xff": "x", "a\x1fb\x1fk1": "many", "w": "1"})
    client.set(f"{keys.STATISTICS}hour:{hour}", "of another type")
    for by in ("queue", "type"):
        assert "<script>alert" not in visit.get("/metrics", by=by, name=HOSTILE)
        assert sum(data(visit, by=by, name=HOSTILE)["performed"]) == 3


def test_many_types_come_in_pages_and_hours_in_one_trip(visit, client):
    for number in range(60):
        write(client, "low", f"shop.job{number:02}", 0, 100 - number)
    assert "shop.job49 51" in visit.text("/metrics", by="type")
    assert "shop.job50 50" not in visit.text("/metrics", by="type")
    assert "shop.job50 50" in visit.text("/metrics", by="type", cursor="50")
    before = client.info("commandstats").get("cmdstat_hgetall", {"calls": 0})["calls"]
    assert len(statistics.each_hour(client, 10_000)) == statistics.MOST_HOURS
    assert client.info("commandstats")["cmdstat_hgetall"]["calls"] - before == statistics.MOST_HOURS


def test_days_of_a_long_period_come_from_their_records(visit, client):
    today = int(time.time()) // day_record.DAY
    for day in (today - 89, today - 50):
        hours = [
            day_record.hour({("mail", f"shop.job{n:02} {'long' * 40}"): Statistics(3 + n) for n in range(60)})
        ] * 24
        client.hset(day_key(day), mapping=day_record.fields(hours))
    assert [sum(data(visit, period=each)["performed"]) for each in ("30d", "90d")] == [
        0,
        2 * 24 * (180 + 1770),
    ]
    page = visit.get("/metrics", by="type", period="90d")
    assert len(page.encode()) < 60_000
    text = text_of(page)
    assert "Days, in UTC, as a table: 93,600 runs, 0 failed" in text
    assert f"{datetime.fromtimestamp((today - 50) * day_record.DAY, UTC):%Y-%m-%d} 46,800 0" in text
    name = f"shop.job59 {'long' * 40}"
    assert sum(data(visit, by="type", name=name, period="90d")["performed"]) == 2 * 24 * 62


def test_viewers_without_payloads_see_metrics(visit, client):
    write(client, "mail", "shop.send", 0, 1)
    visit.viewer = Viewer("eve", Role.VIEWER, may_see_payloads=False)
    assert "mail 1" in visit.text("/metrics")
    assert sum(data(visit)["performed"]) == 1


def test_the_charts_library_is_on_this_page_alone_with_its_licence(visit):
    assert "uplot.js" in visit.get("/metrics")
    assert "uplot" not in visit.get("/leaderboard")
    for name in ("uplot.js", "uplot.css"):
        assert "The MIT License" in (STATIC / name).read_text()[:300]


def test_charts_are_drawn_and_live_in_a_browser(browser, dashboard, client):
    some = random.Random(7)
    for ago in range(192):
        busy = 600 + 500 * (ago % 24 < 12)
        write(
            client, "mail", "shop.send", ago, some.randrange(busy), some.randrange(busy // 20), some.random()
        )
        write(client, "low", "shop.report", ago, some.randrange(90), some.randrange(5), some.uniform(1, 30))
    for viewport, scheme in ((WIDE, "light"), (WIDE, "dark"), (NARROW, "dark")):
        with opened(browser, viewport, scheme) as (page, _):
            for period in ("24h", "8d", "90d"):
                page.goto(f"{dashboard.address}/metrics?period={period}")
                page.locator("#charts canvas").nth(3).wait_for()
                shoot(page, f"metrics-{period}-{viewport['width']}-{scheme}")
                assert sideways(page) == 0
    with opened(browser) as (page, _):
        page.goto(f"{dashboard.address}/metrics")
        page.locator("#charts canvas").nth(3).wait_for()
        page.locator("[data-chart=performed] .u-over").hover()
        becomes_true(
            page, "/\\d/.test(document.querySelector('[data-line=run_p95] [data-value]').textContent)"
        )
        shoot(page, "metrics-hover-1280-light")
        page.get_by_role("link", name="mail", exact=True).click()
        page.get_by_text("Only the queue").wait_for()
        page.locator("#charts canvas").nth(3).wait_for()
        page.get_by_text("Hours as a table, of mail").click()
        write(client, "mail", "shop.send", 0, 70_001)
        until(lambda: grown(page), "the table of hours, which is live")
    with opened(browser, javascript=False) as (page, _):
        page.goto(f"{dashboard.address}/metrics")
        assert page.locator("noscript p.message").is_visible()
        page.get_by_text("Hours as a table").click()
        assert page.get_by_role("region", name="Hours").get_by_role("row").count() == 25
