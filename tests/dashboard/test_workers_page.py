"""The pages of workers: what they show of living and vanished ones, and how these are steered."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from redis import Redis

from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import cluster, keys, reader, stacks, wire
from packmule.jobs.client import Client
from packmule.observe import audit
from packmule.tests.command_line import until
from packmule.tests.dashboard.browser import NARROW, opened, shoot, sideways
from packmule.tests.dashboard.visits import Visit, visiting
from packmule.tests.worker import pool_jobs
from packmule.tests.worker.pools import pool

ODD = "a/b %? #\N{LATIN SMALL LETTER E WITH ACUTE}"


@pytest.fixture
def visit(client: Redis) -> Iterator[Visit]:
    with visiting(client) as found:
        yield found


def register(client: Redis, name: str, ends_in: float = 3600, **fields: str | int) -> None:
    """Register a worker that only exists in Redis."""
    given = {
        "state": "idle",
        "hostname": "host-1",
        "queues": "high,low",
        "birth": wire.time_text(time.time()),
    }
    client.sadd(keys.WORKERS, keys.worker_key(name))
    client.hset(keys.worker_key(name), mapping={**given, **fields})
    client.zadd(keys.LEASES, {name: time.time() + ends_in})


def names(page: str) -> list[str]:
    """The workers of a page in their order."""
    return re.findall(r'<tr>\s*<td class="wide">\s*<a class="id" href="/workers/([^"]*)"', page)


def test_without_workers_the_page_says_how_to_start_one(visit):
    assert "No worker is running: jobs wait until one starts. packmule worker" in visit.text("/workers")


def test_workers_are_listed_counted_sorted_and_found(visit, client):
    register(
        client, "w1", state="busy", current_job="j1", successful_job_count=12, release="r2", memory=2**26
    )
    register(client, "w2", failed_job_count=7, hostname="host-2", release="r1")
    register(client, "w3", ends_in=-5)
    client.sadd(keys.QUIET, keys.worker_key("w2"))
    shown, page = visit.text("/workers"), visit.get("/workers")
    assert names(page) == ["w1", "w2", "w3"]
    assert "Workers 3 on 2 hosts Busy 1 1 idle Jobs done 12" in shown
    assert "All 3 Busy 1 Idle 1 Quiet 1 Vanished 1" in shown
    assert "Releases 2 r2, r1" in shown or "Releases 2 r1, r2" in shown
    assert "w1 busy j1 - host-1 high, low 12 0 64 MiB r2" in shown
    assert names(visit.get("/workers", state="quiet")) == ["w2"]
    assert names(visit.get("/workers", state="vanished")) == ["w3"]
    assert names(visit.get("/workers", q="HOST-2 r1")) == ["w2"]
    assert names(visit.get("/workers", sort="-done")) == ["w1", "w2", "w3"]
    assert names(visit.get("/workers", sort="-failed"))[0] == "w2"
    assert "No worker matches." in visit.text("/workers", q="nobody")


def test_a_worker_shows_what_it_performs_and_what_comes_next(visit, client):
    register(client, "w1", state="busy", threads=4, tasks=100, pid=77, release="r2")
    Client(client).make_default()
    first, second = pool_jobs.noop.enqueue_many([()] * 2)
    client.hset(keys.claims_key("w1"), mapping={first: "e1", second: "e2", ".mark": "c1", "gone": "e3"})
    started = {"status": "started", "started_at": wire.time_text(time.time() - 75)}
    client.hset(keys.job_key(first), mapping=started)
    shown = visit.text("/workers/w1")
    assert "Performs now 1 and 1 held to run next" in shown
    assert "Process 77 Release r2" in shown
    assert "Plain functions at once 4 Async functions at once 100" in shown
    assert f"{first} packmule.tests.worker.pool_jobs.noop running default" in shown
    assert f"{second} packmule.tests.worker.pool_jobs.noop comes next default" in shown


def test_a_worker_with_many_jobs_has_a_small_page(visit, client):
    register(client, "w1", state="busy")
    Client(client).make_default()
    ids = [str(each) for each in pool_jobs.noop.enqueue_many([()] * 200)]
    client.hset(keys.claims_key("w1"), mapping=dict.fromkeys(ids, "e1"))
    text = 'File "a", line 1\n' * 3_000
    stacks.store(client, "w1", stacks.StackDump("1", time.time(), text, tuple(ids)))
    page = visit.get("/workers/w1")
    assert len(page.encode()) <= 60_000
    assert "200 held to run next" in visit.text("/workers/w1")
    shown = page.partition('data-region="jobs"')[2].partition("</table>")[0].count('href="/jobs/')
    assert f"Only {shown} of its jobs are shown." in visit.text("/workers/w1")


def test_workers_are_quieted_resumed_and_stopped_by_operators(visit, client):
    register(client, "w1")
    visit.viewer = Viewer("ada", Role.OPERATOR)
    assert visit.post("/workers/w1/quiet") == "w1 takes no more jobs."
    assert visit.post("/workers/w1/quiet") == "w1 was already quiet."
    assert cluster.worker(client, "w1")["quiet"]
    assert "It is quiet: it takes no jobs until it is resumed." in visit.text("/workers/w1")
    assert visit.post("/workers/w1/resume") == "w1 takes jobs again."
    assert visit.post("/workers/w1/stop") == "w1 stops after its running jobs; its pool starts a replacement."
    done = [(each.who, each.action, each.subject) for each in audit.read(client)]
    assert done[0] == ("ada", "worker quiet", {"names": ["w1"]})
    assert [action for _, action, _ in done] == ["worker quiet"] * 2 + ["worker resume", "worker stop"]


def test_a_viewer_can_change_no_worker(visit, client):
    register(client, "w1")
    visit.viewer = Viewer("eve", Role.VIEWER)
    for act in ("quiet", "resume", "stop"):
        assert "this needs an operator" in visit.refused(f"/workers/w1/{act}")
    assert not cluster.worker(client, "w1")["quiet"]
    assert list(audit.read(client)) == []


def test_an_operator_asks_a_worker_for_its_stacks(visit, client, server, tmp_path):
    Client(client).make_default()
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    id = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "told")
    visit.viewer = Viewer("ada", Role.OPERATOR, may_see_payloads=True)
    with pool(server, processes=1):
        until(notes.exists, "the job")
        (name,) = (each["name"] for each in cluster.workers(client))
        until(lambda: visit.post(f"/workers/{name}/stack").endswith("has written its stacks."), "an answer")
        shown = visit.text(f"/workers/{name}")
        gate.touch()
        assert reader.wait(client, id, 60).result == "told"
    assert "Thread MainThread (most recent call first):" in shown
    assert "in note_when_told" in shown
    assert f"It was running {id}" in shown
    assert ("worker stack", {"name": name}) in [(each.action, each.subject) for each in audit.read(client)]


def test_stacks_are_for_operators_who_may_see_payloads(visit, client):
    register(client, "w1")
    stacks.store(
        client, "w1", stacks.StackDump("1", time.time(), "in secret_function <b>\x1b[2J", ("j1",), False)
    )
    page = visit.get("/workers/w1")
    assert "in secret_function &lt;b&gt;\\x1b[2J" in page
    assert "Some stacks are missing" in page
    visit.viewer = Viewer("bob", Role.OPERATOR, may_see_payloads=False)
    assert "secret_function" not in visit.get("/workers/w1")
    assert "Show stacks" not in visit.get("/workers/w1")
    assert "ask an admin for the right to see payloads" in visit.refused("/workers/w1/stack")
    visit.viewer = Viewer("eve", Role.VIEWER, may_see_payloads=True)
    assert "secret_function" in visit.get("/workers/w1")
    assert "this needs an operator" in visit.refused("/workers/w1/stack")
    assert list(audit.read(client)) == []


def test_a_worker_that_does_not_answer_is_said_to(visit, client):
    register(client, "w1")
    register(client, "w2", ends_in=-5)
    assert "w1 did not answer within 4 s: its pool is stopped" in visit.post("/workers/w1/stack")
    assert "w2 can't answer: its lease has ended" in visit.post("/workers/w2/stack")
    client.set(keys.stacks_key("w1"), b"\xff{")
    assert "did" not in visit.text("/workers/w1").partition("Stacks of its threads")[2]


def test_a_worker_of_any_name_has_a_page(visit, client):
    register(client, ODD, state="<script>", hostname="<b>\x1b[2J", queues="\u202e", release="</td>")
    (path,) = names(visit.get("/workers"))
    page = visit.get(f"/workers/{path}")
    assert "a/b %? #é" in page
    for each in (page, visit.get("/workers")):
        assert "<script>" not in each.partition("<main")[2]
        assert "<b>\\x1b" not in each
        assert "\x1b" not in each
        assert "\u202e" not in each
    assert visit.post(f"/workers/{path}/quiet") == f"{ODD} takes no more jobs."


@pytest.mark.parametrize("name", ["nobody", "a/b", "%ff", "x" * 300, "w1/explode"])
def test_an_unknown_worker_is_said_in_words(visit, client, name):
    register(client, "w1")
    assert "no worker is called" in visit.text(f"/workers/{name}", status=404)
    visit.refused(f"/workers/{name}/quiet", 404)
    visit.refused("/workers/w1/explode", 404)
    assert list(audit.read(client)) == []


@pytest.mark.parametrize("value", ["-1", "1e9", "NaN", "9" * 300, "\x00", "²"])
def test_numbers_and_words_from_outside_are_clamped(visit, client, value):
    register(client, "w1")
    for name in ("cursor", "sort", "state", "q", "region"):
        visit.get("/workers", **{name: value})
    assert names(visit.get("/workers", cursor=value)) == ["w1"]


def test_two_thousand_workers_come_in_pages_and_few_trips(visit, client):
    for number in range(2000):
        register(client, f"w{number:04}", state="busy", current_job=f"j{number}")
    trips = client.info("stats")["total_commands_processed"]
    page = visit.get("/workers")
    assert len(names(page)) == 50
    assert "1 to 50 of 2,000" in visit.text("/workers")
    assert "1,951 to 2,000 of 2,000" in visit.text("/workers", cursor="999999")
    assert len(page) < 60_000
    assert client.info("stats")["total_commands_processed"] - trips < 20_000


def test_a_worker_is_watched_and_quieted_in_a_browser(browser, dashboard, client, server, tmp_path):
    Client(client).make_default()
    gate = tmp_path / "gate"
    with pool(server, processes=1), opened(browser) as (page, _):
        until(lambda: len(cluster.workers(client)) == 1, "a worker")
        name = cluster.workers(client)[0]["name"]
        pool_jobs.note_when_told.enqueue(str(tmp_path / "notes"), str(gate), "told")
        page.goto(f"{dashboard.address}/workers")
        page.get_by_text("note_when_told").wait_for()  # live
        shoot(page, "workers-1280-light")
        page.get_by_role("link", name=name).click()
        page.get_by_text("running", exact=True).wait_for()
        page.get_by_role("button", name="Quiet").click()
        page.get_by_text(f"{name} takes no more jobs.").wait_for()

        def has_stacks() -> bool:
            with page.expect_navigation():
                page.get_by_role("button", name="Show stacks").click()
            return page.get_by_text(f"{name} has written its stacks.").is_visible()

        until(has_stacks, "an answer")
        shoot(page, "worker-1280-light")
        assert cluster.worker(client, name)["quiet"]
        gate.touch()
        page.get_by_text("It is quiet: it takes no jobs until it is resumed.").wait_for()


def test_workers_fit_a_telephone(browser, dashboard, client):
    register(client, "host-with-a-long-name.example.org.1234.abcdef", state="busy")
    register(client, "w2", ends_in=-5)
    with opened(browser, NARROW, "dark") as (page, _):
        for name, path in (("workers", "/workers"), ("worker", "/workers/w2")):
            page.goto(dashboard.address + path)
            shoot(page, f"{name}-390-dark")
            assert sideways(page) == 0
