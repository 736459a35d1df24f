"""The scheduler: one leads at a time, a dead one is followed, and it waits while Redis is unavailable."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from unittest.mock import Mock

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue
from rq.serializers import JSONSerializer

from packmule import scheduler
from packmule.coordination.locks.redlock import Redlock
from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import ServerFailed
from packmule.coordination.streams.pubsub import MISSED, Subscriber
from packmule.jobs import registry, wire
from packmule.jobs.client import Producer
from packmule.scheduler.leader import CANDIDACY, LEADER, LOCK, LONGEST_STANDBY, Leadership, Overtaken
from packmule.scheduler.leader import leader as who_leads
from packmule.scheduler.maintenance.promote import JOBS_A_CALL, promote
from packmule.scheduler.scheduler import AWAY_REST, JOBS_REST, Scheduler
from packmule.tests.jobs import sample_jobs
from packmule.worker.order import Strict
from packmule.worker.process import outcome
from packmule.worker.process.claim import Claims

ROOT = Path(scheduler.__file__).parents[1]
PROGRAM = """
import logging, sys
from pathlib import Path
from packmule.coordination.redis.connection import connect
from packmule.scheduler.scheduler import Scheduler

logging.basicConfig(level=logging.INFO)
with connect(sys.argv[1], Path("unused")) as client:
    Scheduler(client, term=float(sys.argv[2])).run()
"""


class Start(Protocol):
    def __call__(self, url: str, term: float = 5.0) -> subprocess.Popen[bytes]: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a scheduler in a process of its own; what it logs is in `log` of the test's folder."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(url: str, term: float = 5.0) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, url, str(term)], cwd=ROOT, stdout=log, stderr=log
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def enqueueing(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_enqueue", Producer(client).enqueue)


def wait_for(condition: Callable[[], object], seconds: float = 15) -> float:
    """How long it took until `condition` held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, "it did not come true in time"
        time.sleep(0.01)
    return time.monotonic() - began


def leader(client: Redis) -> str:
    """The leader's name, empty where there is none: host, process id and chance."""
    found = who_leads(client)
    return found.name if found else ""


def leads(client: Redis, process: subprocess.Popen[bytes]) -> bool:
    return f".{process.pid}." in leader(client)


def job_ids(client: Redis) -> list[str]:
    return Queue(connection=client, serializer=JSONSerializer).job_ids


# --- leadership


def test_one_candidate_leads_at_a_time(client):
    candidates = [Leadership(client) for _ in range(5)]
    for _ in range(3):
        assert [candidate.hold() for candidate in candidates] == [True, False, False, False, False]
    assert leader(client) == candidates[0].name


def test_a_leader_says_who_it_is_and_until_when(client):
    leadership = Leadership(client, term=2)
    assert who_leads(client) is None
    assert leadership.hold()
    found = who_leads(client)
    assert (found.name, found.term) == (leadership.name, leadership.term)
    assert 1 < found.until - found.since <= 2


def test_holding_goes_on_past_the_first_end_in_the_same_term(client):
    leadership = Leadership(client, term=0.6)
    leadership.hold()
    term = leadership.term
    began = time.monotonic()
    while time.monotonic() < began + 1.0:
        assert leadership.hold()
        promote(client, leadership.check(), leadership.held_for)  # its sign of life
        time.sleep(0.02)
    assert leadership.term == term
    assert who_leads(client).term == term


def test_resigning_hands_over_at_once_and_each_term_is_higher(client):
    first, second = Leadership(client), Leadership(client)
    assert first.hold()
    assert not second.hold()
    before = int(first.term)
    first.resign()
    assert leader(client) == ""
    second.ask_again()  # as it does when it is told
    wait_for(second.hold)
    assert not first.hold()
    assert int(second.term) > before


def test_who_stands_by_asks_again_when_the_leader_is_silent_and_believes_no_absurd_end(client):
    first, second = Leadership(client, term=2), Leadership(client, term=2)
    first.hold()
    assert not second.hold()
    assert 0.5 < second.rests <= LONGEST_STANDBY
    first.close()
    client.hset(LEADER, "until", "99999999999")
    client.delete(f"pm:lock:{LOCK}")
    wait_for(second.hold)


@pytest.mark.parametrize("term", ["inf", "1e300", "nan", "-5", "9" * 400, "9007199254740000", ""])
def test_a_term_that_is_none_keeps_nobody_from_leading(client, term):
    client.hset(LEADER, mapping={"name": "odd", "term": term, "since": "x", "until": term})
    leadership = Leadership(client)
    wait_for(leadership.hold)
    assert promote(client, leadership.check(), leadership.held_for) is None
    assert who_leads(client).name == leadership.name


def test_a_leader_that_cannot_reach_the_job_server_leads_no_further_term(client, spare_server, monkeypatch):
    with connect(spare_server().url, Path("unused")) as node:
        wait_for(lambda: not Redlock([node], longest_ttl=1).faults())
        first, second = Scheduler(client, [node], term=1), Leadership(client, [node], term=1)
        wait_for(lambda: first.tick() is not None and first.leadership.term)
        monkeypatch.setattr(
            "packmule.scheduler.scheduler.promote", Mock(side_effect=RedisConnectionError("cut off"))
        )
        monkeypatch.setattr("packmule.scheduler.scheduler.AWAY_REST", 0.01)
        wait_for(lambda: [first.tick(), second.hold()][1], 5)
        assert leader(client) == second.name


def test_an_embedded_server_that_cannot_start_is_waited_for(client, monkeypatch):
    ticking = Scheduler(client)
    monkeypatch.setattr(ticking.leadership, "hold", Mock(side_effect=ServerFailed("its file is broken")))
    assert ticking.tick() == AWAY_REST


def test_those_who_stand_by_are_told_when_the_leader_resigns(client):
    first, second = Scheduler(client, term=60), Scheduler(client, term=60)
    with Subscriber(client, [wire.SCHEDULER]) as second._told:
        first.tick()
        second.tick()
        second._rest(0)  # listens
        first.leadership.resign()
        second._rest(0.5)
        assert second.leadership.rests < 0.5
        wait_for(second.leadership.hold)
    assert leader(client) == second.leadership.name


def test_only_the_leader_can_resign(client):
    first, second = Leadership(client), Leadership(client)
    first.hold()
    second.resign()
    assert leader(client) == first.name


def test_a_silent_leader_is_followed_after_its_term_and_does_not_come_back(client):
    first, second = Leadership(client, term=0.4), Leadership(client, term=0.4)
    first.hold()
    assert wait_for(second.hold) > 0.1
    assert first.term == ""
    assert not first.hold()


def test_a_leader_trusts_itself_only_until_shortly_before_its_end(client):
    leadership = Leadership(client, term=0.5)
    leadership.hold()
    held_until = time.monotonic() + 0.5
    wait_for(lambda: not leadership.term)
    assert time.monotonic() < held_until
    with pytest.raises(Overtaken):
        leadership.check()


def test_what_an_overtaken_leader_sends_is_refused(client):
    first, second = Leadership(client), Leadership(client)
    first.hold()
    stale = first.check()
    first.resign()
    wait_for(second.hold)
    id = sample_jobs.noop.options(delay=0).enqueue()
    with pytest.raises(Overtaken):
        promote(client, stale)
    assert job_ids(client) == []
    promote(client, second.check())
    assert job_ids(client) == [id]


def test_a_leader_whose_server_forgot_it_says_so_again(client):
    ticking = Scheduler(client)
    ticking.tick()
    id = sample_jobs.noop.options(delay=0).enqueue()
    client.set(LEADER, "not a hash")
    wait_for(lambda: ticking.tick() is not None and job_ids(client) == [id])
    assert leader(client) == ticking.leadership.name


def test_leadership_needs_a_majority_of_the_lock_nodes(client, spare_server):
    with contextlib.ExitStack() as opened:
        nodes = [opened.enter_context(connect(spare_server().url, Path("unused"))) for _ in range(3)]
        leadership = Leadership(client, nodes, term=0.5)
        wait_for(leadership.hold)  # each node votes when it has been up for a term
        other = Leadership(client, nodes, term=0.5)
        assert not other.hold()
        for node in nodes[:2]:
            node.set(f"pm:lock:{LOCK}", "another", px=60_000)
        wait_for(lambda: not leadership.hold())


def test_lock_nodes_that_are_one_server_make_nobody_leader_and_end_no_scheduler(client, server):
    with contextlib.ExitStack() as opened:
        nodes = [opened.enter_context(connect(server.url, Path("unused"))) for _ in range(3)]
        ticking = Scheduler(client, nodes)
        assert 0 < ticking.tick() <= CANDIDACY
        assert leader(client) == ""


# --- ticks


def test_only_the_leader_promotes(client):
    first, second = Scheduler(client), Scheduler(client)
    assert 0 < first.tick() <= JOBS_REST
    id = sample_jobs.noop.options(delay=0).enqueue()
    assert 0 < second.tick() <= LONGEST_STANDBY
    assert job_ids(client) == []
    first.wake()
    first.tick()
    assert job_ids(client) == [id]


def test_the_sleep_ends_when_the_next_job_is_due(client):
    ticking = Scheduler(client)
    sample_jobs.noop.options(delay=0.1).enqueue()
    assert 0 < ticking.tick() <= 0.1
    sample_jobs.noop.options(delay=3600).enqueue()
    wait_for(lambda: ticking.tick() > 0.5)


def told(subscriber: Subscriber) -> list[float]:
    """What schedulers hear that listen there."""
    return [message.value for message in iter(lambda: subscriber.wait(0.05), None) if message is not MISSED]


def test_schedulers_hear_of_what_is_due_before_they_look_again(client):
    with Subscriber(client, [wire.SCHEDULER]) as subscriber:
        told(subscriber)
        sample_jobs.noop.options(delay=2).enqueue()
        assert told(subscriber) == []
        sample_jobs.noop.options(delay=0.5).enqueue_many([()] * 100)
        assert told(subscriber) == [0.5]
        sample_jobs.noop.options(delay=0.8).enqueue()
        assert told(subscriber) == []
        sample_jobs.noop.options(delay=0.8, queue="low").enqueue()
        assert told(subscriber) == [0.8]
        sample_jobs.noop.options(at=datetime.now(UTC) - timedelta(days=1)).enqueue()
        assert told(subscriber) == [0]


def test_schedulers_hear_of_retries(client):
    sample_jobs.noop.options(retries=3).enqueue_many([()] * 2)
    claims = Claims(client, "w", Strict(["default"]))
    jobs = claims.finish_and_claim(claims.next_id(), [], 2).jobs
    with Subscriber(client, [wire.SCHEDULER]) as subscriber:
        told(subscriber)
        failed = [outcome.failed(job, "ValueError", 1, 2) for job in jobs]
        claims.finish_and_claim(claims.next_id(), failed, 0)
        assert told(subscriber) == [pytest.approx(min(each.delay for each in failed), abs=0.001)]


def test_what_a_scheduler_hears_ends_its_sleep(client):
    ticking = Scheduler(client)
    with Subscriber(client, [wire.SCHEDULER]) as ticking._told:
        ticking.tick()
        ticking._rest(0)  # listens
        assert ticking.tick() >= 0
        for message in ('"nonsense"', "no json", "[]", "null", "true", "-1", "1" * 400, "1e308", "0.1"):
            client.publish(wire.SCHEDULER, message)
        began = time.monotonic()
        ticking._rest(30)
        assert time.monotonic() < began + 15
        ticking.tick()
        client.publish(wire.SCHEDULER, "0")
        ticking._rest(30)
        assert ticking._round() >= 0


def test_without_leave_to_publish_or_to_listen_all_is_done_a_little_later(spare_server, monkeypatch, caplog):
    spare = spare_server()
    with connect(spare.url, Path("unused")) as mighty:
        mighty.acl_setuser("mute", True, passwords="+x", commands=["+@all"], keys=["*"])
        mighty.execute_command("ACL", "SETUSER", "mute", "resetchannels")
    with connect(spare.url.replace("://", "://mute:x@"), Path("unused")) as own:
        monkeypatch.setattr(registry, "_enqueue", Producer(own).enqueue)
        ticking = Scheduler(own)
        with Subscriber(own, [wire.SCHEDULER]) as ticking._told:
            ticking.tick()
            id = sample_jobs.noop.options(delay=0.2).enqueue()
            ticking._rest(0.05)
            ticking._rest(0.05)
            wait_for(lambda: ticking.tick() > 0 and job_ids(own) == [id])
            assert [record.levelname for record in caplog.records].count("ERROR") == 1
            assert "late" in caplog.text
        ticking.leadership.resign()
        ticking.leadership.close()
        assert leader(own) == ""


def test_while_more_is_due_there_is_no_sleep(client):
    ticking = Scheduler(client)
    ids = sample_jobs.noop.options(delay=0).enqueue_many([()] * 1200)
    pauses = [ticking.tick() for _ in range(1200 // JOBS_A_CALL)]
    assert pauses[:-1] == [0] * (1200 // JOBS_A_CALL - 1)
    assert 0.5 < pauses[-1] <= JOBS_REST
    assert job_ids(client) == ids


# --- processes


def test_a_running_scheduler_promotes_what_falls_due(client, server, start):
    process = start(server.url)
    wait_for(lambda: leads(client, process))
    ids = sample_jobs.noop.options(delay=0.5).enqueue_many([()] * 1200)
    assert wait_for(lambda: len(job_ids(client)) == 1200) < 2
    assert job_ids(client) == ids


def sent(client: Redis, seconds: float) -> int:
    """How many commands the server receives in that time; what scripts call is not among them."""
    count, ends_at = 0, time.monotonic() + seconds
    with client.monitor() as monitor:
        while (left := ends_at - time.monotonic()) > 0:
            if monitor.connection.can_read(timeout=left):
                count += monitor.next_command()["client_type"] != "lua"
    return count


def test_an_idle_leader_sends_fewer_than_two_commands_a_second_and_who_stands_by_one(client, server, start):
    process = start(server.url, term=3.0)
    wait_for(lambda: leads(client, process))
    time.sleep(1.5)  # what it does at first is done
    assert 0 < sent(client, 10) < 20 + 3  # as many as may fall together
    start(server.url, term=3.0)
    time.sleep(1.5)
    assert sent(client, 6) < 12 + 8 + 3


def test_sigterm_ends_it_promptly_and_another_takes_over_at_once(client, server, start):
    first = start(server.url, term=60)
    wait_for(lambda: leads(client, first))
    second = start(server.url, term=60)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=3) == 0
    assert wait_for(lambda: leads(client, second)) < 5  # of a term of 60 s


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_scheduler_that_is_told_to_stop_resigns(client, server, start, signum):
    process = start(server.url, term=60)
    wait_for(lambda: leads(client, process))
    process.send_signal(signum)
    assert process.wait(timeout=3) == 0
    assert leader(client) == ""


def test_a_killed_leader_is_followed_within_its_term(client, server, start):
    term = 1.0
    first = start(server.url, term)
    wait_for(lambda: leads(client, first))
    second = start(server.url, term)
    wait_for(lambda: len(client.client_list()) >= 3)  # both schedulers, and this test
    first.send_signal(signal.SIGKILL)
    took = wait_for(lambda: leads(client, second))
    assert took < term + CANDIDACY + 1
    id = sample_jobs.noop.options(delay=0).enqueue()
    wait_for(lambda: job_ids(client) == [id])


def test_a_paused_leader_that_wakes_up_promotes_nothing_twice(client, server, start):
    first = start(server.url, 1.0)
    wait_for(lambda: leads(client, first))
    first.send_signal(signal.SIGSTOP)
    second = start(server.url, 1.0)
    wait_for(lambda: leads(client, second))
    ids = sample_jobs.noop.options(delay=0.2).enqueue_many([()] * 1200)
    first.send_signal(signal.SIGCONT)
    wait_for(lambda: len(job_ids(client)) >= 1200)
    assert job_ids(client) == ids
    assert leads(client, second)


def test_redis_going_away_and_coming_back_does_not_end_it(spare_server, start, tmp_path, monkeypatch):
    spare = spare_server()
    process = start(spare.url)
    with connect(spare.url, tmp_path) as client:
        wait_for(lambda: leads(client, process))
        spare.stop()
        wait_for(lambda: b"redis is unavailable" in (tmp_path / "log").read_bytes())
        assert process.poll() is None
        spare.ensure()
        monkeypatch.setattr(registry, "_enqueue", Producer(client).enqueue)
        id = sample_jobs.noop.options(delay=0).enqueue()
        wait_for(lambda: job_ids(client) == [id])


def test_sigterm_ends_it_promptly_while_redis_is_away(spare_server, start, tmp_path):
    spare = spare_server()
    process = start(spare.url)
    with connect(spare.url, tmp_path) as client:
        wait_for(lambda: leads(client, process))
    spare.stop()
    wait_for(lambda: b"redis is unavailable" in (tmp_path / "log").read_bytes())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
