"""The pages of limits and locks: who waits for whom, and releasing by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from packmule.coordination.limits.rate import Rate
from packmule.coordination.locks.redlock import Redlock
from packmule.coordination.locks.state import lock_state
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import keys
from packmule.jobs.queues import set_rate
from packmule.observe import audit
from packmule.tests.dashboard.browser import NARROW, opened, shoot, sideways
from packmule.tests.dashboard.visits import Visit, visiting
from packmule.tests.worker import limited_jobs
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims

pytestmark = pytest.mark.usefixtures("produce")


@pytest.fixture
def visit(client: Redis) -> Iterator[Visit]:
    with visiting(client) as found:
        yield found


@pytest.fixture
def redlock(client: Redis) -> Iterator[Redlock]:
    made = Redlock([client], timeout=2.0)
    yield made
    made.close()


@pytest.fixture
def held(client: Redis) -> tuple[str, str]:
    """The key of a slot and the job that holds it; another job of its group waits."""
    limited_jobs.alone.enqueue("notes", "first")
    limited_jobs.alone.enqueue("notes", "second")
    claims = Claims(client, "w1", Strict(["default"]))
    (job,) = claims.finish_and_claim(claims.next_id(), [], 10).jobs
    (key,) = [key.decode() for key in client.keys("pm:holders:*")]
    return key.removeprefix("pm:holders:"), job.id


def test_without_limits_the_page_says_where_they_come_from(visit):
    assert "No group of jobs waits." in visit.text("/limits")
    assert "No job holds a slot now." in visit.text("/limits")


def test_groups_holders_and_rates_are_shown(visit, client, held):
    key, job = held
    set_rate(client, "high", Rate.parse("6/m"))
    shown = visit.text("/limits")
    assert f"one at a time: {key} 1" in shown
    assert f"{key} {job} w1 1 alive" in shown
    assert "high 6/m" in shown
    client.delete(keys.claims_key("w1"))
    assert f"{key} {job} w1 1 gone" in visit.text("/limits")


def test_who_may_not_see_payloads_sees_no_arguments_in_keys(visit, client, held):
    client.rename(keys.holders_key(held[0]), keys.holders_key("shop.settle:ada@example.org"))
    visit.viewer = Viewer("eve", Role.ADMIN, may_see_payloads=False)
    shown = visit.get("/limits")
    assert "ada@example.org" not in shown
    assert "hidden by your role" in visit.refused(
        "/limits", 403, key="shop.settle:ada@example.org", job=held[1]
    )
    assert "hidden by your role" in visit.refused("/locks", 403, name="packmule leader", fence="1")


def test_a_slot_is_released_by_operators_and_by_force_if_its_job_runs(visit, client, held):
    key, job = held
    visit.viewer = Viewer("ada", Role.OPERATOR, may_see_payloads=True)
    assert f"Nothing was done: job {job} runs on worker w1" in visit.post("/limits", key=key, job=job)
    assert (
        visit.post("/limits", key=key, job=job, force="yes")
        == f"{key} is released: job {job} of worker w1 held it."
    )
    assert "holds no slot" in visit.post("/limits", key=key, job=job)
    assert "holds no slot" in visit.post("/limits")
    done = [each.subject for each in audit.read(client)]
    assert done[0] == {"key": key, "job": job, "error": "SlotNotReleased"}
    assert done[1] == {"key": key, "job": job, "force": True}


def test_locks_are_listed_with_their_holders(visit, client, redlock):
    assert "No lock is held." in visit.text("/locks")
    lock = redlock.acquire("report <b>", renew=False, ttl=30)
    shown = visit.text("/locks")
    assert "Held on a majority of 1 lock node." in shown
    assert "report <b>" in shown
    assert "1 of 1" in shown
    assert str(lock.fence) in shown
    assert lock_state([client]).locks[0].value not in visit.get("/locks"), (
        "whoever knows it can release the lock"
    )


def test_a_lock_is_released_once_and_not_from_its_next_holder(visit, client, redlock):
    first = redlock.acquire("report", renew=False, ttl=30)
    visit.viewer = Viewer("ada", Role.OPERATOR, may_see_payloads=True)
    assert "the lock has a new holder" in visit.post("/locks", name="report", fence=str(first.fence + 1))
    assert visit.post("/locks", name="report", fence=str(first.fence)).startswith(
        "report is released on 1 of 1"
    )
    assert lock_state([client]).locks == []
    second = redlock.acquire("report", renew=False, ttl=30)
    assert second.fence > first.fence
    assert "the lock has a new holder" in visit.post("/locks", name="report", fence=str(first.fence))
    assert len(lock_state([client]).locks) == 1
    assert "nobody holds that lock" in visit.post("/locks", name="other", fence="1")
    assert "nobody holds that lock" in visit.post("/locks")
    assert [each.action for each in audit.read(client)] == ["locks release"]


def test_a_viewer_releases_nothing(visit, client, held, redlock):
    redlock.acquire("report", renew=False, ttl=30)
    visit.viewer = Viewer("eve", Role.VIEWER, may_see_payloads=True)
    assert "this needs an operator" in visit.refused("/limits", key=held[0], job=held[1], force="yes")
    assert "this needs an operator" in visit.refused("/locks", name="report", fence="1")
    assert len(lock_state([client]).locks) == 1
    assert list(audit.read(client)) == []


def test_garbage_stops_no_page(visit, client, held):
    client.hset(keys.groups_key("default"), mapping={b"\xff<b>": "nothing", "lock x": ""})
    client.hset(keys.holders_key(held[0]), mapping={b"\xff": "w1 \xff", "odd": "nospace"})
    client.set(keys.DUE, "of another type")
    visit.get("/limits")
    client.delete(keys.groups_key("default"))
    client.set(keys.groups_key("default"), "of another type")
    visit.get("/limits")
    for key in (keys.LEASES, keys.QUEUE_RATES, keys.PAUSED):
        client.delete(key)
        client.set(key, "of another type")
        visit.get("/limits")
    visit.get("/locks")


def test_limits_and_locks_are_looked_at_and_released_in_a_browser(browser, dashboard, client, held, redlock):
    redlock.acquire("report", ttl=30)
    with opened(browser) as (page, _):
        page.goto(f"{dashboard.address}/limits")
        shoot(page, "limits-1280-light")
        page.get_by_label(f"Actions on the slot of {held[1]}").click()
        page.get_by_role("button", name="Force release").click()
        page.get_by_role("dialog").get_by_role("button", name="Yes").click()
        page.get_by_text(f"{held[0]} is released").wait_for()
        page.goto(f"{dashboard.address}/locks")
        shoot(page, "locks-1280-light")
        page.get_by_label("Actions on report").click()
        page.get_by_role("button", name="Release").click()
        page.get_by_role("dialog").get_by_role("button", name="Yes").click()
        page.get_by_text("report is released on 1 of 1 nodes.").wait_for()


def test_limits_fit_a_telephone(browser, dashboard, held, redlock):
    redlock.acquire("report", ttl=30)
    with opened(browser, NARROW, "dark") as (page, _):
        for name in ("limits", "locks"):
            page.goto(f"{dashboard.address}/{name}")
            shoot(page, f"{name}-390-dark")
            assert sideways(page) == 0
