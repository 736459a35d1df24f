"""The list of jobs: what a filter finds, its chips and tabs, and filters that are none."""

from __future__ import annotations

import html
import re

import pytest
from redis import Redis
from redis.connection import AbstractConnection

from packmule import job
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import keys
from packmule.jobs.client import Client
from packmule.tests.dashboard.pages_of_jobs import text_of
from packmule.tests.jobs import sample_jobs
from packmule.tests.jobs.ending import end
from packmule.worker.process import statistics

ADD = "packmule.tests.jobs.sample_jobs.add"


@job
def pay(account: int, api_key: str) -> None:
    pass


@pytest.fixture(autouse=True)
def enqueueing(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    Client(client).make_default()
    monkeypatch.setattr(statistics, "MOST_AN_ENTRY", 1)


def listed(page: str) -> list[str]:
    """The ids that a page lists."""
    return [
        html.unescape(id)
        for id in re.findall(r'<td class="n">(?:<input[^>]*>)?<a href="/jobs/([^"?]+)"', page)
    ]


def test_jobs_are_found_by_words(pages, client, claims):
    failed = sample_jobs.add.enqueue(1)
    end(claims, "Traceback (most recent call last):\nTimeoutError: late")
    done = sample_jobs.add.enqueue(2, b=7)
    end(claims)
    low = sample_jobs.add.options(queue="low").enqueue(3)
    waiting = sample_jobs.echo.enqueue("x")
    assert set(listed(pages.get("/jobs"))) == {failed, done, low, waiting}
    for words, ids in [
        ("status:failed", {failed}),
        ("error:TimeoutError since:1h", {failed}),
        ("queue:low", {low}),
        ("name:add args.b:7", {done}),
        ("echo", {waiting}),
        (f"id:{low[:9]}", {low}),
        ("until:1h", set()),
    ]:
        assert set(listed(pages.get("/jobs", q=words))) == ids, words


def test_the_filter_has_chips_that_can_be_removed_and_tabs_that_keep_the_rest(pages, claims):
    sample_jobs.add.enqueue(1)
    sample_jobs.add.options(queue="low").enqueue(2)
    page = pages.get("/jobs", q='queue:low status:queued args.a:"2"')
    assert "/jobs?q=status%3Aqueued+args.a%3A2" in page  # without the queue
    assert "/jobs?q=status%3Afailed+queue%3Alow+args.a%3A2" in html.unescape(page)
    assert re.search(r'aria-current="true">.{0,80}waiting</span> <small>1<', page)
    assert "No job matches this filter." in pages.get("/jobs", q="queue:high")
    assert "There are no jobs yet" not in pages.get("/jobs")


def test_a_pasted_id_leads_to_the_job(pages):
    id = sample_jobs.add.enqueue(1)
    assert "sample_jobs.add" in text_of(pages.get("/jobs", q=id))
    assert f'<span class="id">{id}</span>' in pages.get("/jobs", q=f" {id} ")
    assert "No job matches" in pages.get("/jobs", q="0" * 32)


def test_a_filter_that_is_none_is_said_and_its_word_marked(pages):
    page = pages.get("/jobs", 400, q="queue:low colour:<b>red</b>")
    assert "colour is not a filter: use name, queue" in text_of(page)
    assert "<mark>colour:&lt;b&gt;red&lt;/b&gt;</mark>" in page
    assert pages.browser.get("/jobs", params={"q": "status:x", "region": "jobs"}).status_code == 400
    assert "is not valid: give the one that" in text_of(pages.get("/jobs", 400, cursor="nonsense"))


def test_pages_follow_each_other_by_cursor(pages):
    handles = sample_jobs.add.enqueue_many([(n,) for n in range(120)])
    ids: list[str] = []
    page = pages.get("/jobs", q="queue:default")
    while True:
        assert len(listed(page)) <= 50
        ids += listed(page)
        following = re.search(r'href="(/jobs\?[^"]+)" rel="next"', page)
        if not following:
            break
        page = pages.get(html.unescape(following[1]))
        assert 'rel="first"' in page
    assert sorted(ids) == sorted(handles)


def test_secrets_are_hidden_and_payloads_from_those_who_may_not_see_them(pages, claims):
    pay.enqueue(4711, "s3cret-key")
    sample_jobs.echo.enqueue("s3cret-text")
    end(claims, "Traceback (most recent call last):\nValueError: s3cret-error", times=1)
    page = pages.get("/jobs")
    assert "s3cret-text" in page
    assert "ValueError: s3cret-error" in page
    assert "s3cret-key" not in page
    pages.viewer = Viewer("bob", Role.VIEWER)
    page = pages.get("/jobs")
    assert "s3cret" not in page
    assert "ValueError" in page
    assert "New job" not in page


def test_what_is_hidden_can_not_be_guessed_by_filters(pages, claims):
    pay.enqueue(4711, "s3cret-key")
    assert "args.api_key can't be searched: it is a secret" in text_of(
        pages.get("/jobs", 400, q="args.api_key:x")
    )
    assert len(listed(pages.get("/jobs", q="args.account:4711"))) == 1
    pages.viewer = Viewer("bob", Role.OPERATOR)
    for path in ("/jobs", "/bulk/new"):
        shown = text_of(pages.get(path, 400, q="args.account:4711", act="cancel"))
        assert "args.account can't be searched: arguments are hidden by your role" in shown
    pages.post("/bulk", 400, q="args.account:4711", act="cancel")


def test_the_search_box_is_offered_the_words_that_there_are(pages, claims):
    sample_jobs.add.options(queue="low").enqueue(1)
    end(claims)
    found = pages.browser.get("/jobs/words").json()
    assert found["fields"][:3] == ["name", "queue", "status"]
    assert ADD in found["words"]["name"]
    assert found["words"]["queue"][:3] == ["high", "default", "low"]
    assert "account" in found["words"]["args"]
    assert {"waiting", "queued", "running", "started"} < set(found["words"]["status"])
    for status in found["words"]["status"]:
        pages.get("/jobs", q=f"status:{status}")


def test_hostile_records_are_listed_and_stop_nobody(pages, client, claims):
    sample_jobs.echo.enqueue("innocent")
    nasty = "<img src=x onerror=alert(1)>\x1b[2J\u202e"
    for number, fields in enumerate(
        [
            {"data": b"\xff\xfe", "status": "queued", "origin": nasty},
            {"data": b"[1]", "status": nasty, "origin": "default"},
            {
                "data": b'["a<b>",null,["' + b"x" * 3000 + b'"],{}]',
                "status": "queued",
                "created_at": "9" * 400,
            },
            {"data": b'["f",null,[' + b"[" * 90 + b"]" * 90 + b"],{}]", "status": "queued", "priority": "x"},
        ]
    ):
        client.hset(keys.job_key(f"bad{number}"), mapping=fields)
        client.rpush(keys.queue_key("default"), f"bad{number}")
    client.set(keys.job_key("text"), "none")
    client.rpush(keys.queue_key("default"), "text", "gone", nasty)
    page = pages.get("/jobs", q="queue:default")
    assert "<img" not in page
    assert "\x1b" not in page
    assert "innocent" in page
    for id in ("bad0", "bad2", "bad3"):
        pages.get(f"/jobs/{id}")
    client.set(keys.registry_key("failed", "default"), "text")
    assert "innocent" in pages.get("/jobs")


@pytest.mark.parametrize(
    "query",
    ["q=%00", "q=%ff%fe", "q=" + "a" * 5000, "cursor=" + "9" * 400, "q=since:99999999d", "q=args.x:%1b[2J",
     "q=id:*&cursor=1-%00", "region=jobs&region=jobs&q=", "q=%22"],
)  # fmt: skip
def test_no_query_breaks_the_page(pages, query):
    sample_jobs.add.enqueue(1)
    assert pages.browser.get(f"/jobs?{query}", headers={"Accept": "text/html"}).status_code in (200, 400)


def test_a_page_takes_at_most_twenty_trips(pages, client, claims, monkeypatch):
    sample_jobs.add.enqueue_many([(n,) for n in range(200)])
    end(claims, times=60)
    pages.get("/jobs")
    sent: list[object] = []
    send = AbstractConnection.send_packed_command

    def count(connection, command, *args, **options):
        sent.append(command)
        return send(connection, command, *args, **options)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", count)
    for words in ("", "status:finished", "name:add args.a:7", "error:ValueError"):
        sent.clear()
        pages.get("/jobs", q=words)
        assert len(sent) <= 20, words
