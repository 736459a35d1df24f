"""The pages of queues: how they are listed, found and sorted, and how one is paused, limited and purged."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from urllib.parse import quote, unquote

import pytest
from redis import Redis
from redis.connection import AbstractConnection

from packmule.dashboard.pages import queues as page_of_queues
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import keys, queues, reader
from packmule.observe import audit
from packmule.tests.dashboard.browser import NARROW, WIDE, opened, shoot, sideways
from packmule.tests.dashboard.test_accessible import AXE
from packmule.tests.dashboard.test_overview import LONGEST_PAGE, MOST_TRIPS, NASTY, fill, worker
from packmule.tests.dashboard.visits import OURS, Visit, visiting
from packmule.tests.jobs import sample_jobs


@pytest.fixture
def visit(client: Redis) -> Iterator[Visit]:
    with visiting(client, Role.OPERATOR) as found:
        yield found


def names(page: str) -> list[str]:
    """The queues of a list in their order."""
    return [
        unquote(each) for each in re.findall(r'<tr><td class="wide"><div><a href="/queues/([^"]*)"', page)
    ]


def test_queues_are_listed_by_need_found_sorted_and_counted(visit, client):
    fill(client, ["mail", "reports"])
    queues.pause(client, "reports")
    worker(client, "w1", "mail,high")
    client.rpush(keys.queue_key("reports"), "r3", "r4", "r5")
    client.zadd(keys.registry_key("failed", "mail"), {"f2": 1, "f3": 1})
    page, shown = visit.get("/queues"), visit.text("/queues")
    assert names(page) == ["reports", "mail", "default", "high", "low"]
    assert "All 5 Paused 1 Limited 0 No workers 0 Failed 2" in shown
    assert names(visit.get("/queues", sort="-failed"))[0] == "mail"
    assert names(visit.get("/queues", sort="name")) == ["default", "high", "low", "mail", "reports"]
    assert names(visit.get("/queues", state="paused")) == ["reports"]
    assert names(visit.get("/queues", q="AI")) == ["mail"]
    assert "No queue matches." in visit.text("/queues", q="nothing like it")
    assert "No queue is in this state." in visit.text("/queues", state="limited")
    assert names(visit.get("/queues", region="list")) == names(page)


def test_a_queue_shows_its_states_types_and_workers(visit, client):
    fill(client, ["mail"])
    worker(client, "w1", "high,mail")
    worker(client, "w2", "emails")
    shown = visit.text("/queues/mail")
    assert "2 waiting" in shown
    assert "shop.report" in shown
    assert "w1 idle" in shown
    assert "w2" not in shown
    page = visit.get("/queues/mail")
    assert 'href="/jobs?q=queue%3Amail+status%3Afailed"' in page
    assert 'href="/jobs?q=queue%3Amail+name%3Ashop.report"' in page
    assert "There is no queue nobody." in visit.text("/queues/nobody", status=404)


def test_one_is_paused_and_resumed_and_the_same_page_comes_again(visit, client):
    fill(client, ["mail"])
    for back, title in (("queues", "<h1>Queues</h1>"), ("queue", "<h1>mail</h1>"), ("", "<h1>Overview</h1>")):
        assert visit.post("/queues/mail/pause", back=back) == "mail is paused."
        assert "mail" in queues.paused(client)
        answer = visit.http.post("/queues/mail/resume", data={"back": back}, headers=OURS)
        assert title in answer.text
    assert queues.paused(client) == set()
    actions = [each.action for each in audit.read(client)]
    assert actions == ["queue pause", "queue resume"] * 3


def test_a_rate_is_set_lifted_and_refused_beside_its_field(visit, client):
    fill(client, ["mail"])
    assert visit.post("/queues/mail/limit", rate=" 100/m ") == "mail is limited to 100/m."
    assert queues.rates(client) == {"mail": "100/m"}
    assert 'value="100/m"' in visit.get("/queues/mail")
    for wrong in ("fast", "0/s", "1/0s", "9" * 300 + "/s", "<b>"):
        page = visit.http.post("/queues/mail/limit", data={"rate": wrong}, headers=OURS)
        assert page.status_code == 400
        assert 'aria-invalid="true"' in page.text
        assert "<b>" not in page.text.partition("<main")[2].replace("<b>packmule", "")
    assert queues.rates(client) == {"mail": "100/m"}
    assert visit.post("/queues/mail/limit", rate="") == "mail has no rate limit."
    assert [each.subject for each in audit.read(client)] == [
        {"queue": "mail", "rate": "100/m"},
        {"queue": "mail", "rate": "none"},
    ]


def test_a_purge_asks_first_with_the_count_and_says_how_many(visit, client, produce):
    ids = sample_jobs.noop.enqueue_many([()] * 3)
    assert "Delete 3 jobs" not in visit.text("/queues/default")
    asked = visit.text("/queues/default", ask="purge")
    assert "Now 3 wait, 0 are blocked and 0 scheduled." in asked
    assert "Delete 3 jobs" in asked
    assert reader.read(client, ids[0]).status == "queued"
    assert visit.post("/queues/default/purge") == "default: 3 jobs are deleted."
    assert reader.read_many(client, ids) == [None] * 3
    assert visit.post("/queues/default/purge") == "default: 0 jobs are deleted."
    first, _ = audit.read(client)
    assert (first.who, first.action, first.subject) == (
        "ada",
        "queue purge",
        {"queue": "default", "deleted": 3},
    )


def test_a_purge_that_takes_too_long_leaves_the_rest_and_says_so(visit, client, produce, monkeypatch):
    sample_jobs.noop.enqueue_many([()] * 1200)
    monkeypatch.setattr(page_of_queues, "PURGE_SECONDS", 0.0)
    assert (
        visit.post("/queues/default/purge") == "default: 0 jobs are deleted. There may be more: purge again."
    )
    assert queues.purge(client, "default") == 1200


def test_viewers_read_and_change_nothing(visit, client):
    fill(client, ["mail"])
    visit.viewer = Viewer("eve", Role.VIEWER)
    assert "mail" in visit.text("/queues")
    page = visit.get("/queues/mail", ask="purge")
    assert "Purge" not in page
    assert 'action="/queues/mail' not in page
    for act in ("pause", "resume", "limit", "purge"):
        assert "this needs an operator" in visit.refused(f"/queues/mail/{act}", rate="1/s")
    assert (queues.paused(client), queues.rates(client)) == (set(), {})
    assert client.llen(keys.queue_key("mail")) == 2
    assert list(audit.read(client)) == []


@pytest.mark.parametrize("name", [NASTY, "a/b ?#%&c", "ünï", "x" * 300, " ", "a/pause"])
def test_a_queue_of_any_name_has_a_page_and_is_text(visit, client, name):
    fill(client, [name])
    page = visit.get("/queues")
    assert names(page)[0] == name
    assert "<img" not in page + visit.get(f"/queues/{quote(name, safe='')}", ask="purge")
    assert visit.post(f"/queues/{quote(name, safe='')}/limit", rate="1/s").endswith("is limited to 1/s.")
    assert queues.rates(client) == {name: "1/s"}


@pytest.mark.parametrize("value", ["-1", "1e9", "NaN", "9" * 300, "\x00", "²"])
def test_numbers_and_words_from_outside_are_clamped(visit, client, value):
    fill(client, ["mail"])
    for parameter in ("cursor", "sort", "state", "q", "region", "ask"):
        visit.get("/queues", **{parameter: value})
        visit.get("/queues/mail", **{parameter: value})
    assert "mail" in names(visit.get("/queues", cursor=value))


def test_a_queue_with_long_names_has_a_small_page(visit, client):
    client.sadd(keys.QUEUES, keys.queue_key("mail"))
    long = "\N{LATIN SMALL LETTER E WITH ACUTE}" * 300
    for number in range(30):
        worker(client, f"w{number}{long}", f"mail,{long}")
        client.hset(f"{keys.STATISTICS}hour:{int(time.time()) // 3600}", f"mail\x1f{long}{number}\x1fk1", 5)
    page = visit.get("/queues/mail")
    assert len(page.encode()) <= LONGEST_PAGE
    assert re.search(r"The \d+ of 30 types that ran most\.", visit.text("/queues/mail"))
    assert re.search(r" \d+ of 30 workers\.", visit.text("/queues/mail"))


@pytest.mark.parametrize("path", ["/queues", "/queues/tenant-of-some-length-001"])
def test_five_hundred_queues_come_in_small_pages_and_few_trips(visit, client, monkeypatch, path):
    known = [f"tenant-of-some-length-{number:03}" for number in range(500)]
    fill(client, known)
    for number in range(200):
        worker(client, f"w{number}", ",".join(known[:50]))
    page, sent, trips = visit.get(path), list[int](), list[int]()
    send = AbstractConnection.send_packed_command
    assert len(page.encode()) < LONGEST_PAGE
    with monkeypatch.context() as patched:
        patched.setattr(
            AbstractConnection,
            "send_packed_command",
            lambda self, *args, **options: sent.append(1) or send(self, *args, **options),
        )
        for _ in range(3):  # since a connection that is made meanwhile sends some words of its own
            time.sleep(0.2)  # past what is kept for those who ask at the same moment
            sent.clear()
            visit.get(path)
            trips.append(len(sent))
    assert 0 < min(trips) <= MOST_TRIPS
    assert len(names(visit.get("/queues"))) == page_of_queues.ROWS
    assert "1 to 30 of 503" in visit.text("/queues")
    assert "481 to 503 of 503" in visit.text("/queues", cursor="999999")


@pytest.mark.parametrize(("viewport", "scheme"), [(WIDE, "light"), (NARROW, "dark")])
def test_the_pages_fit_and_are_accessible(browser, dashboard, client, viewport, scheme):
    from axe_playwright_python.sync_playwright import Axe

    fill(
        client,
        ["mail", "a-queue-with-a-rather-long-name-of-a-tenant", *(f"tenant-{each}" for each in range(20))],
    )
    queues.pause(client, "mail")
    with opened(browser, viewport, scheme) as (page, _):
        for name, path in (("queues", "/queues"), ("queue", "/queues/mail?ask=purge")):
            page.goto(dashboard.address + path)
            shoot(page, f"{name}-full-{viewport['width']}-{scheme}")
            assert sideways(page) == 0
            found = Axe().run(page, options=AXE).response["violations"]
            assert [(each["id"], node["html"]) for each in found for node in each["nodes"]] == []
        page.get_by_role("button", name="Resume").click()
        page.get_by_text("mail is resumed.").wait_for()
        assert page.get_by_role("heading", name="mail", exact=True).is_visible()
