"""The overview: what it says of queues, workers and the server, whatever they are called."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest
from redis.connection import AbstractConnection

from packmule.coordination.counters.histogram import bucket
from packmule.dashboard.pages.overview import CARDS, ROWS
from packmule.dashboard.viewer import Role
from packmule.jobs import keys, queues
from packmule.observe.history import History
from packmule.observe.situation import Situations
from packmule.tests.dashboard.pages_of_jobs import QUEUES, pages_for, text_of

NASTY = '<img src=x onerror="alert(1)">\x1b[2J\u202e"\''
LONGEST_PAGE = 60_000
MOST_TRIPS = 20


def fill(client, names) -> None:
    """Queues with jobs in each status, and something to tell for each of the last minutes and hours.

    Also for the minute and the hour that may begin before it is read.
    """
    now = time.time()
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.sadd(keys.QUEUES, keys.queue_key(name))
            pipeline.rpush(keys.queue_key(name), f"{name}-1", f"{name}-2")
            for status in ("scheduled", "deferred", "started", "failed"):
                pipeline.zadd(keys.registry_key(status, name), {f"{status}-{name}": now})
            counts = {
                f"{name}\x1fshop.report\x1f{field}": 5
                for field in ("k1", "k2", f"w{bucket(2)}", f"r{bucket(1)}")
            }
            for ago in range(-1, 62):
                pipeline.hset(f"{keys.STATISTICS}minute:{int(now) // 60 - ago}", mapping=counts)
            for ago in range(-1, 26):
                pipeline.hset(f"{keys.STATISTICS}hour:{int(now) // 3600 - ago}", mapping=counts)
        pipeline.execute()


def worker(client, name: str, serves: str, state: str = "idle", lease: float = 60.0) -> None:
    client.sadd(keys.WORKERS, keys.worker_key(name))
    client.hset(keys.worker_key(name), mapping={"state": state, "queues": serves})
    client.zadd(keys.LEASES, {name: time.time() + lease})


def test_a_queue_is_said_to_lack_workers_only_if_jobs_wait_for_one(client):
    fill(client, ["mail", "paused", "served"])
    client.sadd(keys.QUEUES, keys.queue_key("empty"))
    queues.pause(client, "paused")
    worker(client, "w1", "served,other", "busy")
    worker(client, "w2", "mail", lease=-60)
    found = {each.name: each for each in Situations(client).now(["mail"]).queues}
    assert [name for name, each in found.items() if each.lacks_workers] == ["mail"]
    with pages_for(client) as pages:
        text = text_of(pages.get("/"))
    assert "Jobs are waiting, and no worker serves mail: packmule worker -q mail starts one." in text
    assert text.count("no workers") == 1
    assert "Workers 1 1 busy, 1 vanished" in text
    assert "No scheduler leads" in text


def test_a_command_can_be_pasted_whatever_its_queue_is_called(client):
    fill(client, ["a b; rm -rf ~"])
    with pages_for(client) as pages:
        assert "packmule worker -q 'a b; rm -rf ~' starts one." in text_of(pages.get("/"))
    client.flushall()
    fill(client, ["bell\x07"])
    with pages_for(client) as pages:
        assert "serves bell\\x07: add it to PACKMULE_QUEUES." in text_of(pages.get("/"))


def test_a_card_has_all_figures_of_its_queue(client):
    fill(client, ["mail"])
    client.hset(keys.job_key("mail-1"), "enqueued_at", "2026-01-01T00:00:00.000000Z")
    with pages_for(client) as pages:
        page = pages.get("/")
    text = text_of(page)
    assert "2 waiting 1 running 1 scheduled 1 deferred 1 failed" in text
    assert "Depth 5 " in text
    assert "Wait p50 1.92 s p95 1.92 s Run p50 962 ms p95" in text
    assert "1 h, 600 jobs" in text
    assert "24 h, 240 jobs" in text  # 23 whole hours and the one that has just begun
    assert 'aria-label="2 waiting, 1 running, 1 scheduled, 1 deferred, 1 failed"' in page


def test_how_many_jobs_arrive_is_told_from_two_looks(client, monkeypatch):
    history, clock = History(client), [1000.0]
    monkeypatch.setattr("packmule.observe.history.time.monotonic", lambda: clock[0])
    history.look()
    assert history.arrivals({"mail": 10}) is None
    clock[0] += 10
    name = f"{keys.STATISTICS}minute:{int(time.time()) // 60}"
    client.hset(name, mapping={"mail\x1fshop.add\x1fk1": 30, "mail\x1fshop.add\x1fk4": 7})
    history.look()
    assert history.arrivals({"mail": 20}) == {"mail": 4.0}  # 10 more are there, and 30 have ended


def test_what_has_passed_is_read_once(client):
    fill(client, ["mail"])
    history = History(client)
    history.look()
    first = client.info("commandstats")["cmdstat_hgetall"]["calls"]
    history.look()
    again = client.info("commandstats")["cmdstat_hgetall"]["calls"] - first
    assert first >= 84
    assert again <= 6  # the periods that may still grow, and those that began meanwhile


def test_names_of_queues_are_text_and_their_links_whole(client):
    names = [NASTY, "a/b ?#%&c", "ünï", "x" * 300, "..", " "]
    fill(client, names)
    with pages_for(client) as pages:
        page = pages.get("/")
        assert "<img" not in page
        assert "\x1b" not in page
        for name in names[:4]:
            pages.post(f"/queues/{quote(name, safe='')}/pause")
        assert queues.paused(client) == set(names[:4])
        assert pages.get("/").count(">paused</span>") == 4
        pages.post("/queues/no-such-queue/pause", 404)


@pytest.mark.parametrize("count", [CARDS - len(QUEUES), CARDS + 1, 500])
def test_an_overview_of_many_queues_stays_small_and_quick(client, monkeypatch, count):
    names = [f"tenant-{number:03}" for number in range(count)]
    fill(client, names)
    for number in range(200):
        worker(client, f"w{number}", ",".join(names[:50]))
    sent = []
    send = AbstractConnection.send_packed_command
    with pages_for(client) as pages:
        page = pages.get("/")
        assert len(page.encode()) < LONGEST_PAGE
        rows = page.count("<article") + page.count('<tr id="queue-')
        assert rows == min(ROWS, count + len(QUEUES))
        with monkeypatch.context() as patched:
            patched.setattr(
                AbstractConnection,
                "send_packed_command",
                lambda self, *args, **options: sent.append(1) or send(self, *args, **options),
            )
            time.sleep(0.2)  # past what is kept for those who ask at the same moment
            pages.get("/")
        assert 0 < len(sent) <= MOST_TRIPS
        if count > CARDS + 1:
            assert "tenant-499" in pages.get("/", find="tenant-499")
            assert "No queue matches." in pages.get("/", find="nothing like it")
            first, last = pages.get("/"), pages.get("/", cursor=str(10**5 - 1))
            assert "Next page" in first
            assert "Next page" not in last
            for odd in ("-1", "x", "9" * 300, "1e9", "\x00"):
                pages.get("/", cursor=odd)


def test_keys_of_another_type_break_no_overview(client):
    fill(client, ["mail"])
    for key in (
        keys.PAUSED,
        keys.QUEUE_RATES,
        keys.LEADER,
        keys.ERRORS,
        keys.LEASES,
        keys.QUIET,
        keys.groups_key("mail"),
    ):
        client.set(key, "odd")
    client.set(f"{keys.STATISTICS}minute:{int(time.time()) // 60}", "odd")
    with pages_for(client) as pages:
        page = pages.get("/", status=200)
    assert "2 waiting" in text_of(page)


def test_a_viewer_sees_no_acts_and_may_not_act(client):
    fill(client, ["mail"])
    with pages_for(client, Role.VIEWER) as pages:
        assert "Pause mail" not in pages.get("/")
        pages.post("/queues/mail/pause", 403)
    assert queues.paused(client) == set()
