"""rq-dashboard at `/rq` in a real browser: nothing that others wrote runs, and buttons say what they did."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import keys, reader
from packmule.jobs.job import job
from packmule.tests.dashboard import browser as browsers
from packmule.tests.dashboard.sites import served

EVIL = "</pre></script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'>\"'><b id=pwned>"


@job(queue="default")
def work(a: str) -> None:
    """Does nothing."""


def hostile_job(client: Redis) -> str:
    """A failed job with markup wherever it can be."""
    id = str(work.enqueue(EVIL))
    client.hset(
        keys.job_key(id), mapping={"description": EVIL, "meta": '{"m": "' + EVIL.replace('"', "") + '"}'}
    )
    client.hset(keys.job_key(id), mapping={"status": "failed", "ended_at": "2026-11-30T08:00:00.000000Z"})
    client.lrem(keys.queue_key("default"), 0, id)
    client.zadd(keys.registry_key("failed", "default"), {id: 2e9})
    client.xadd(keys.results_key(id), {"type": 2, "exc_string": f"Traceback\n{EVIL}: {EVIL}"})
    client.sadd(keys.dependencies_key(id), keys.job_key(EVIL))
    return id


def is_unharmed(page: Any) -> bool:
    return not page.evaluate("window.pwned || document.getElementById('pwned') !== null")


def test_nothing_that_others_wrote_runs(client: Redis, produce: None, browser: Any) -> None:
    id = hostile_job(client)
    client.rpush(keys.queue_key("default"), EVIL)
    client.set(keys.job_key("other"), "x")
    for name in (EVIL, "\\", "'+alert(1)+'", "${alert(1)}", "{{7*7}}<%=alert(1)%>"):
        client.sadd(keys.QUEUES, keys.queue_key(name))
        client.rpush(keys.queue_key(name), id)
        client.sadd(keys.WORKERS, keys.worker_key(name))
        record = {"state": EVIL, "queues": f"{EVIL},x", "current_job": id, "birth": EVIL, "version": EVIL}
        client.hset(keys.worker_key(name), mapping=record)
    with served(client) as site, browsers.opened(browser) as (page, _):
        page.goto(f"{site.address}/rq/")
        page.wait_for_selector("tr[data-role=queue]")
        links = page.eval_on_selector_all(
            "tr[data-role=queue] td:nth-child(2) a", "all => all.map(a => a.href)"
        )
        assert len(links) == 6
        assert is_unharmed(page)
        browsers.shoot(page, "rq-queues")
        for link in links:
            page.goto(link)
            page.wait_for_selector("tr[data-role=job], td:has-text('No jobs')")
            page.click("#select-queue")
            page.hover("#jobs")
            assert is_unharmed(page), link
        page.goto(f"{site.address}/rq/0/view/jobs/default/failed/8/asc/1")
        page.wait_for_selector("tr[data-role=job]")
        assert page.inner_text(".description") == EVIL
        assert is_unharmed(page)
        browsers.shoot(page, "rq-jobs")
        page.goto(f"{site.address}/rq/0/view/job/{id}")
        page.wait_for_selector("#job-data .exc_info")
        assert EVIL in page.inner_text("#job-data")
        assert is_unharmed(page)
        browsers.shoot(page, "rq-job")
        page.goto(f"{site.address}/rq/0/view/workers")
        page.wait_for_selector("tr[data-role=worker]")
        assert is_unharmed(page)
        browsers.shoot(page, "rq-workers")


def test_buttons_act_and_say_so(client: Redis, produce: None, browser: Any) -> None:
    id = hostile_job(client)
    with served(client) as site, browsers.opened(browser) as (page, faults):
        page.goto(f"{site.address}/rq/0/view/jobs/default/failed/8/asc/1")
        page.click("[data-role=requeue-job-btn]")
        page.wait_for_selector("text=The job is queued again.")
        assert reader.read(client, id).status == "queued"
        faults.allowed.append("409")
        page.goto(f"{site.address}/rq/0/view/jobs/default/started/8/asc/1")
        page.click("#empty-btn")
        page.click("#confirmation-modal-yes")
        page.wait_for_selector("text=cancel them first")
        page.goto(f"{site.address}/rq/0/view/job/{id}")
        page.click("#delete-job-btn")
        page.click("#confirmation-modal-yes")
        page.wait_for_url("**/view/queues")
        assert reader.read_if_there(client, id) is None


@pytest.mark.parametrize("viewport", [browsers.WIDE, browsers.NARROW])
def test_a_viewer_is_told_why_a_button_does_nothing(
    client: Redis, produce: None, browser: Any, viewport: dict[str, int]
) -> None:
    id = hostile_job(client)
    with served(client) as site, browsers.opened(browser, viewport) as (page, faults):
        site.viewer = Viewer("vic", Role.VIEWER, False, "s1")
        page.goto(f"{site.address}/rq/0/view/jobs/default/failed/8/asc/1")
        page.wait_for_selector("tr[data-role=job]")
        assert "hidden by your role" in page.inner_text(".exc_info")
        assert not page.is_visible("#empty-btn")
        faults.allowed.append("403")
        page.click("[data-role=requeue-job-btn]")
        page.wait_for_selector("text=You are a viewer, but this needs an operator")
        assert reader.read(client, id).status == "failed"
        browsers.shoot(page, f"rq-viewer-{viewport['width']}")
