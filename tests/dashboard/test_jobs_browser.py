"""The pages of jobs in a real browser: found, watched, steered, signaled, refused; also by keys alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import keys, reader, registry
from packmule.tests.command_line import CommandLine, environment_in, until
from packmule.tests.dashboard.browser import NARROW, WIDE, opened, shoot, sideways
from packmule.tests.dashboard.sites import Served
from packmule.tests.jobs import sample_jobs
from packmule.tests.jobs.ending import end
from packmule.worker.process.claim import Claims

pytestmark = pytest.mark.usefixtures("produce")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TRACE = """Traceback (most recent call last):
  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode
    raise JSONDecodeError("Expecting value", s, err.value)
  File "/srv/shop.py", line 3, in report
    raise TimeoutError("the bank is late")
TimeoutError: the bank is late"""

MORE = """
import os, time
from packmule import current


@job
def climb(folder: str) -> str:
    for step in range(1, 5):
        current.log(f"step {step}")
        current.progress(step, 4, f"step {step}")
        while not os.path.exists(f"{folder}/{step}"):
            time.sleep(0.02)
    return "up"


@job
def approve(number: int) -> dict:
    return current.wait_for("approved")
"""


@pytest.fixture
def packmule(tmp_path: Path, server: EmbeddedServer, client: Redis) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, MORE, PACKMULE_PROCESSES="1"))


@pytest.fixture
def failed(claims: Claims) -> list[str]:
    """Three jobs that failed, and one that waits."""
    ids = sample_jobs.add.enqueue_many([(n,) for n in range(3)])
    end(claims, TRACE)
    sample_jobs.echo.options(queue="low").enqueue("waits")
    return [str(id) for id in ids]


def rows(page: Page) -> int:
    return page.locator("main tbody tr").count()


def test_jobs_are_searched_with_completion_and_chips(
    dashboard: Served, page: Page, failed: list[str]
) -> None:
    page.goto(f"{dashboard.address}/jobs")
    assert rows(page) == 4
    page.keyboard.press("/")
    page.keyboard.type("stat")
    page.get_by_role("option", name="status:", exact=True).wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.type("fai")
    page.get_by_role("option", name="status:failed").wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.type("args.a:2")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"q=status%3Afailed\+args\.a%3A2"))
    assert rows(page) == 1
    assert page.locator(".chip").all_inner_texts() == ["status:failed\n×", "args.a:2\n×"]
    page.get_by_role("link", name="Remove args.a:2").click()
    page.wait_for_url(re.compile(r"q=status%3Afailed$"))
    assert rows(page) == 3
    page.get_by_role("link", name=re.compile("^waiting")).click()
    page.wait_for_url(re.compile("queued"))
    assert rows(page) == 1


def test_a_word_that_means_nothing_is_marked(dashboard: Served, browser: Browser) -> None:
    with opened(browser) as (page, faults):
        faults.allowed.append("400 (Bad Request)")
        page.goto(f"{dashboard.address}/jobs?q=queue:low+colour:red")
        assert page.locator("mark").inner_text() == "colour:red"
        assert (
            page.get_by_role("searchbox").or_(page.get_by_role("combobox")).input_value()
            == "queue:low colour:red"
        )


def test_failed_jobs_are_retried_by_a_filter_after_a_dry_run(
    dashboard: Served, page: Page, client: Redis, failed: list[str]
) -> None:
    page.goto(f"{dashboard.address}/jobs?q=error:TimeoutError")
    page.locator("summary[aria-label='Act on all matches']").click()
    page.get_by_role("link", name="Retry…").click()
    page.get_by_role("heading", name="Retry 3 jobs?").wait_for()
    assert {reader.read(client, id).status for id in failed} == {"failed"}
    page.get_by_label("Reason").fill("the bank is back")
    page.get_by_role("button", name="Retry them").click()
    page.get_by_text("Queued again").wait_for()
    page.locator(".figures").get_by_text("3", exact=True).wait_for()
    page.locator(".title .s-finished").wait_for()
    assert {reader.read(client, id).status for id in failed} == {"queued"}
    assert page.get_by_text("the bank is back").is_visible()


def test_a_bar_moves_and_lines_come_while_a_job_runs(
    dashboard: Served, page: Page, client: Redis, packmule: CommandLine, tmp_path: Path
) -> None:
    id = packmule.output("enqueue", "call", "shop.climb", f"folder={tmp_path}")
    page.goto(f"{dashboard.address}/jobs/{id}")
    page.get_by_text("waiting", exact=True).first.wait_for()
    with packmule.started("worker"):
        for step in range(1, 5):
            page.locator(f"main progress[value='{step}.0'], main progress[value='{step}']").wait_for()
            page.get_by_role("log").get_by_text(f"step {step}", exact=True).wait_for()
            (tmp_path / str(step)).touch()
        page.locator(".title .s-finished").wait_for()
        page.get_by_label("Result").get_by_text('"up"').wait_for()


def test_a_waiting_job_gets_its_signal_and_a_mistake_is_kept(
    dashboard: Served, browser: Browser, client: Redis, packmule: CommandLine
) -> None:
    first, second = (packmule.output("enqueue", "call", "shop.approve", f"number={n}") for n in (1, 2))
    with packmule.started("worker"), opened(browser) as (page, faults):
        faults.allowed.append("400 (Bad Request)")
        for id in (first, second):
            until(lambda id=id: reader.read(client, id).waits, "the wait")
        page.goto(f"{dashboard.address}/jobs/{first}")
        page.get_by_label("Data for the job, as JSON").fill('{"ok": yes}')
        page.get_by_role("button", name="Send").click()
        page.get_by_text("That is not JSON").wait_for()
        field = page.get_by_label("Data for the job, as JSON")
        assert field.input_value() == '{"ok": yes}'
        assert field.get_attribute("aria-invalid") == "true"
        field.fill('{"ok": 9007199254740993}')
        page.get_by_role("button", name="Send").click()
        page.get_by_text("has the signal approved and goes on").wait_for()
        page.locator(".title .s-finished").wait_for()
        page.get_by_label("Result").get_by_text("9007199254740993").wait_for()
        page.goto(f"{dashboard.address}/approvals")
        assert page.get_by_role("heading", name="shop.approve waits for approved").count() == 1
        page.get_by_label("What shop.approve gets, as JSON").fill("[1]")
        page.get_by_role("button", name="Send").click()
        page.get_by_text("has the signal approved and goes on").wait_for()
        page.get_by_text("No job waits for a signal.").wait_for()
        until(lambda: reader.read(client, second).result == [1], "the result")


def test_roles_see_and_may_do_what_is_theirs(
    dashboard: Served, browser: Browser, client: Redis, failed: list[str]
) -> None:
    dashboard.viewer = Viewer("bob", Role.VIEWER)
    with opened(browser) as (page, faults):
        page.goto(f"{dashboard.address}/jobs/{failed[0]}")
        assert page.get_by_role("button", name="Retry").is_disabled()
        assert page.get_by_text("hidden by your role").count() >= 2
        assert "the bank is late" not in page.content()
        assert page.get_by_text("TimeoutError").first.is_visible()
        page.goto(f"{dashboard.address}/jobs")
        assert page.get_by_role("link", name="New job").count() == 0
        faults.allowed.append("403 (Forbidden)")
        for path in ("/jobs/new", "/bulk/new?act=delete"):
            page.goto(dashboard.address + path)
            page.get_by_text("You are a viewer, but this needs an operator").wait_for()
    assert reader.read(client, failed[0]).status == "failed"


def test_all_of_it_works_by_keys_alone(
    dashboard: Served, page: Page, client: Redis, failed: list[str]
) -> None:
    page.goto(f"{dashboard.address}/")
    page.keyboard.press("g")
    page.keyboard.press("j")
    page.wait_for_url(re.compile("/jobs$"))
    page.keyboard.press("/")
    page.keyboard.type("error:TimeoutError args.a:1")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("args.a"))
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(f"/jobs/{failed[1]}"))
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Delete":
            break
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Yes").wait_for()
    page.keyboard.press("Escape")
    assert reader.read(client, failed[1]).status == "failed"
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Yes").focus()
    page.keyboard.press("Enter")
    page.get_by_text(f"Job {failed[1]} is deleted.").wait_for()
    assert reader.read_if_there(client, failed[1]) is None


def test_all_of_it_works_without_javascript(
    dashboard: Served, browser: Browser, client: Redis, failed: list[str]
) -> None:
    with opened(browser, javascript=False) as (page, _):
        page.goto(f"{dashboard.address}/jobs")
        page.get_by_role("searchbox").fill("error:TimeoutError")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("q=error"))
        assert rows(page) == 3
        page.locator("main tbody a").first.click()
        page.get_by_role("button", name="Retry").click()
        page.get_by_text("is queued again").wait_for()
        page.get_by_role("button", name="Cancel").click()
        page.get_by_text("The job is canceled.").wait_for()
        page.goto(f"{dashboard.address}/bulk/new?act=retry&q=error:TimeoutError")
        page.get_by_role("button", name="Retry them").click()
        page.get_by_text("Retry: it has started.").wait_for()


def test_a_job_is_enqueued_by_a_form_and_a_copy_keeps_its_secrets(
    dashboard: Served, browser: Browser, client: Redis
) -> None:
    name = sample_jobs.choose.job.name
    with opened(browser) as (page, faults):
        faults.allowed.append("400 (Bad Request)")
        page.goto(f"{dashboard.address}/jobs/new?call={name}")
        page.get_by_label("fit").select_option(label="cover")
        page.get_by_label("ratio").fill("much")
        page.get_by_label("Run it in").fill("soon")
        page.get_by_role("button", name="Enqueue").click()
        page.get_by_text("that is not a number").wait_for()
        page.get_by_text("not a duration").wait_for()
        assert page.get_by_label("ratio").input_value() == "much"
        assert page.get_by_label("fit").input_value() == '"cover"'
        page.get_by_label("ratio").fill("0.5")
        page.get_by_label("Run it in").fill("1h")
        page.get_by_role("button", name="Enqueue").click()
        page.get_by_text("The job is enqueued.").wait_for()
        page.locator(".title .s-scheduled").wait_for()
        id = page.url.rpartition("/")[2]
        assert reader.read(client, id).args == ["cover", 0.5]


@pytest.fixture
def pictures(
    client: Redis, claims: Claims, failed: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """Addresses of pages to look at, without the jobs that tests of other rooms have registered."""
    samples = {
        name: job for name, job in registry._registered.items() if name.startswith(sample_jobs.__name__)
    }
    monkeypatch.setattr(registry, "_registered", samples)
    registry.defer(registry.READY)
    waiting = sample_jobs.later.enqueue(1)
    client.lrem(keys.queue_key("default"), 1, waiting)
    client.hset(keys.job_key(waiting), mapping={"status": "deferred", "waits": "signal:approved inf"})
    client.zadd(keys.registry_key("deferred", "default"), {waiting: float("inf")})
    said = '[[1764504000, 20, "printed page 1 of 3"], [1764504001, 30, "the paper is nearly out"]]'
    client.xadd(keys.log_key(failed[0]), {"by": "x", "attempt": 1, "said": said}, id="10-2")
    yield {
        "jobs": "/jobs",
        "job": f"/jobs/{failed[0]}",
        "job-waits": f"/jobs/{waiting}",
        "new-job": "/jobs/new",
        "new-job-form": f"/jobs/new?call={sample_jobs.plan.job.name}",
        "approvals": "/approvals",
        "bulk-new": "/bulk/new?act=delete&q=status:failed",
        "bulks": "/bulk",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_pages_fit_and_axe_finds_nothing(browser, dashboard, pictures, viewport, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = []
    with opened(browser, viewport, scheme) as (page, _):
        for name, path in pictures.items():
            page.goto(dashboard.address + path)
            page.wait_for_load_state("networkidle") if "data-live" not in page.content() else None
            shoot(page, f"{name}-{viewport['width']}-{scheme}")
            assert sideways(page) == 0, name
            options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
            results = axe.run(page, options=options)
            found += [
                f"{name}: {each['id']}: {each['nodes'][0]['html']}" for each in results.response["violations"]
            ]
            size = len(page.evaluate("() => fetch(location.href).then((answer) => answer.text())"))
            assert size < 40_000, name
    assert not found, "\n".join(found)
