"""What open pages are told of changes: by one watcher for all, that nothing on the server can stop."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack

import httpx
import pytest
from starlette.responses import HTMLResponse
from starlette.routing import Route

from packmule.coordination.redis.connection import connect
from packmule.dashboard.live import changes
from packmule.dashboard.live.changes import EVERYTHING, Changes, topic
from packmule.dashboard.live.hub import FETCHES, LONGEST, SHORTEST, Hub, Subscriber
from packmule.dashboard.live.shared import shared
from packmule.dashboard.live.streams import LONGEST_TOPIC, MOST_TOPICS, hub_of
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import keys, queues
from packmule.observe import audit, events
from packmule.tests.command_line import DEADLINE, until
from packmule.tests.dashboard.sites import served
from packmule.tests.dashboard.streams import listening
from packmule.tests.jobs import sample_jobs

pytestmark = pytest.mark.usefixtures("steady_hub")


def event(type: str, job: str = "j1", queue: str = "mail") -> list[object]:
    return [type, job, queue, "", 1_800_000_000.0]


def begun(client, *queues: str) -> Changes:
    looks = Changes(client, queues)
    looks.begin()
    return looks


def after(looks: Changes) -> set[str]:
    """The topics that changed since the call before, which has just been made."""
    found: set[str] = set()
    until(lambda: found.update(looks.next()) or found, "a change")
    return found


def test_a_page_is_told_what_changed_of_what_it_shows(dashboard, client, produce):
    with (
        listening(dashboard.address, "/live?on=jobs+queue:default") as all_jobs,
        listening(dashboard.address, "/live?on=queue:other") as other,
        listening(dashboard.address, "/live?on=audit+queues") as acts,
    ):
        id = str(sample_jobs.add.enqueue(1))
        assert set(all_jobs.next(having="jobs").split(" ")) <= {"jobs", "queue:default"}
        queues.pause(client, "default")
        audit.record(client, "queue pause", {"queue": "default"})
        acts.next(having="audit")
        with listening(dashboard.address, f"/live?on=job:{id}") as one:
            events.stream(client).append([event("started", id)])
            assert one.next() == f"job:{id}"
        assert other.events.empty()


def test_changes_are_named_by_topics(client, produce):
    looks = begun(client)
    events.stream(client).append([event("failed"), event("waiting", "j2")])
    assert after(looks) >= {"jobs", "job:j1", "job:j2", "queue:mail", "errors", "approvals"}
    for action, named in {
        "schedule pause": "schedules",
        "batch cancel": "batches",
        "webhooks resend": "webhooks",
    }.items():
        audit.record(client, action, {})
        assert {"audit", named} <= after(looks)


def test_many_changes_at_once_are_everything(client):
    looks = begun(client)
    for number in range(changes.MOST_ENTRIES + 5):
        events.stream(client).append([event("finished", f"j{number}")])
    assert after(looks) == EVERYTHING
    events.stream(client).append([event("finished", "last")])
    assert "job:last" in after(looks)


def test_what_emits_no_events_is_noticed(client, monkeypatch):
    monkeypatch.setattr(changes, "SURVEY", 0.0)
    looks = begun(client, "default")
    client.sadd(keys.WORKERS, "rq:worker:w1")
    assert "workers" in after(looks)
    client.rpush(keys.queue_key("default"), "an-rq-job")
    assert "jobs" in after(looks)
    client.sadd(keys.PAUSED, "default")
    assert "queues" in after(looks)


@pytest.mark.parametrize("garbage", [b"\xff\xfe", b"\x91" * 50, b"", b"\x93\x01\x02\x03"])
def test_garbage_among_the_events_stops_nothing(client, garbage):
    looks = begun(client)
    client.xadd(keys.JOB_EVENTS, {"e": garbage, "x": garbage})
    client.xadd(keys.AUDIT, {"y": garbage})
    events.stream(client).append([event("finished", "innocent")])
    assert "job:innocent" in after(looks)


def test_a_key_of_another_type_keeps_no_page_from_being_told_of_others(client):
    client.set(keys.LEADER, "odd")
    client.set(keys.WORKERS, "odd")
    looks = begun(client)
    events.stream(client).append([event("finished")])
    assert "jobs" in after(looks)


@pytest.mark.parametrize("key", [keys.JOB_EVENTS, keys.AUDIT])
def test_a_stream_that_is_none_hides_only_itself_until_it_is_one_again(client, monkeypatch, key):
    monkeypatch.setattr(changes, "SURVEY", 0.0)
    monkeypatch.setattr(changes, "BLOCK", 0.02)
    client.set(key, "odd")
    looks = begun(client)
    assert looks.next() == set()
    if key == keys.AUDIT:
        events.stream(client).append([event("finished")])
        assert "jobs" in after(looks)
    client.delete(key)
    assert after(looks) == EVERYTHING
    events.stream(client).append([event("finished", "last")])
    assert "job:last" in after(looks)


def test_entries_behind_a_stream_that_has_lost_its_end_are_seen(client, monkeypatch):
    """As after a failover to a host whose clock is behind, and that had not all entries."""
    monkeypatch.setattr(changes, "SURVEY", 0.0)
    ahead = int(1000 * time.time()) + 60_000
    client.xadd(keys.JOB_EVENTS, {"e": b""}, id=f"{ahead}-0")
    looks = begun(client)
    client.delete(keys.JOB_EVENTS)
    events.stream(client).append([event("finished")])
    assert after(looks) == EVERYTHING
    events.stream(client).append([event("finished", "last")])
    assert "job:last" in after(looks)


@pytest.mark.parametrize("id", ["a b", "*", "\n\ndata: x", "é" * 300, "~"])
def test_every_id_has_a_topic_of_its_own_that_is_one_short_word(client, id):
    looks = begun(client)
    events.stream(client).append([event("finished", id)])
    found = topic("job", id)
    assert found in after(looks)
    assert re.fullmatch(r"job:[!-~]+", found)
    assert len(found) <= LONGEST_TOPIC
    assert found not in (topic("job", id + "x"), topic("job", id[:-1]))


def test_topics_from_outside_are_bounded(dashboard, client, produce):
    many = "+".join(f"t{number}" for number in range(1000))
    hub = hub_of(dashboard.app.site)
    with (
        listening(dashboard.address, f"/live?on={'x' * 400}+{many}+%00+jobs"),
        listening(dashboard.address, "/live?on=jobs") as heard,
    ):
        assert max(len(each.wanted) for each in hub._subscribers) <= MOST_TOPICS
        sample_jobs.noop.enqueue()
        heard.next()
    until(lambda: not hub._subscribers, "both to leave")


def test_one_watcher_serves_all_pages_and_rests_without_any(client, produce, monkeypatch):
    with served(client) as site, ExitStack() as stack:
        pages = [stack.enter_context(listening(site.address, "/live?on=jobs")) for _ in range(20)]
        blocked = [each for each in client.client_list() if each["cmd"] == "xread"]
        assert len(blocked) <= 1
        generation = hub_of(site.app.site).generation
        sample_jobs.noop.enqueue()
        assert {page.next() for page in pages} == {"jobs"}
        assert hub_of(site.app.site).generation > generation, "a region of before would be served again"
        monkeypatch.setattr("packmule.dashboard.live.hub.LINGER", 0.0)
        stack.close()
        hub = hub_of(site.app.site)
        until(lambda: hub._thread is None, "the watcher to rest")
        with listening(site.address, "/live?on=jobs") as again:
            sample_jobs.noop.enqueue()
            again.next()


def test_more_viewers_are_told_less_often(client):
    hub = Hub(client)
    assert hub.pace() == SHORTEST
    hub._subscribers = {Subscriber(frozenset(), None) for _ in range(2 * FETCHES)}  # type: ignore[arg-type]
    assert hub.pace() == 2.0
    hub._subscribers |= {Subscriber(frozenset(), None) for _ in range(100 * FETCHES)}  # type: ignore[arg-type]
    assert hub.pace() == LONGEST


def test_two_notices_may_follow_each_other_after_a_quiet_time(client):
    hub = Hub(client)
    hub._subscribers = {Subscriber(frozenset(), None) for _ in range(100 * FETCHES)}  # type: ignore[arg-type]
    assert hub.rest() == SHORTEST
    assert SHORTEST < hub.rest() <= LONGEST


def test_pages_are_told_that_redis_is_away_and_that_it_is_back(spare_server):
    server = spare_server()
    with (
        connect(server.url, server.data_dir) as client,
        served(client) as site,
        listening(site.address, "/live?on=jobs") as heard,
    ):
        server.stop()
        heard.next("away")
        with listening(site.address, "/live?on=jobs") as late:
            late.next("away")
            server.ensure()
            heard.next("back")
            late.next("back")
            assert heard.next() == "*"
        events.stream(client).append([event("finished")])
        heard.next(having="jobs")


def test_a_region_is_made_once_for_viewers_with_the_same_rights(client, monkeypatch):
    monkeypatch.setattr("packmule.dashboard.live.shared.UNWATCHED", DEADLINE)
    made: list[str] = []

    @shared
    def page(request):
        made.append(request.state.viewer.role)
        return HTMLResponse(f"{len(made)}")

    with (
        served(client, more_routes=[Route("/page", page)]) as site,
        httpx.Client(timeout=DEADLINE) as browser,
    ):
        address = f"{site.address}/page?region=a"
        assert [browser.get(f"{site.address}/page").text for _ in range(2)] == ["1", "2"]
        assert [browser.get(address).text for _ in range(3)] == ["3"] * 3
        site.viewer = Viewer("bob", Role.VIEWER, may_see_payloads=False)
        assert [browser.get(address).text for _ in range(2)] == ["4"] * 2
        assert made[-1] == Role.VIEWER
        hub_of(site.app.site).generation += 1
        assert browser.get(address).text == "5"


def test_a_region_that_fails_is_made_again(client):
    broken = [True]

    @shared
    def page(request):
        if broken:
            raise ValueError("once")
        return HTMLResponse("whole")

    with served(client, more_routes=[Route("/page", page)]) as site:
        address = f"{site.address}/page?region=a"
        assert httpx.get(address, timeout=DEADLINE).status_code == 500
        broken.clear()
        assert httpx.get(address, timeout=DEADLINE).text == "whole"
