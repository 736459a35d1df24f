"""The scheduler: one leads at a time, another follows a dead one, and it waits while Redis is unavailable."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from unittest.mock import Mock

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from rq import Queue
from rq.serializers import JSONSerializer

from packmule.coordination.locks.redlock import Redlock
from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import ServerFailed
from packmule.coordination.streams.pubsub import MISSED, Message, Subscriber, publish
from packmule.jobs import keys
from packmule.jobs.client import Client
from packmule.jobs.keys import LEADER
from packmule.observe.leadership import candidates
from packmule.observe.leadership import leader as who_leads
from packmule.scheduler.leader import (
    CANDIDACY,
    LOCK,
    LONGEST_STANDBY,
    Leadership,
    NotLeading,
)
from packmule.scheduler.maintenance.promote import JOBS_A_CALL, promote
from packmule.scheduler.scheduler import JOBS_INTERVAL, RETRY_INTERVAL, Scheduler
from packmule.tests.fork_server import Forked
from packmule.tests.jobs import sample_jobs
from packmule.tests.pace import pace
from packmule.worker.order import Strict
from packmule.worker.process import outcome
from packmule.worker.process.claim import Claims
from packmule.worker.rescue import rescue


class Start(Protocol):
    def __call__(self, url: str, term: float = 5.0) -> subprocess.Popen[bytes]: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start schedulers as processes; they log to the file `log` in the test's folder."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(url: str, term: float = 5.0) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            command = ["packmule.tests.scheduler.run_scheduler", url, str(term)]
            process = Forked(command, stdout=log, stderr=log)
        started.append(process)
        return process

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def enqueueing(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "_default", Client(client))


def wait_for(condition: Callable[[], object], seconds: float = 60) -> float:
    """Wait until `condition` holds; return the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, "the condition did not hold in time"
        time.sleep(0.01)
    return time.monotonic() - began


def ended_after(process: subprocess.Popen[bytes], signum: signal.Signals) -> float:
    """Send `signum`; return the seconds until `process` has ended in order."""
    began = time.monotonic()
    process.send_signal(signum)
    assert process.wait(timeout=60) == 0
    return time.monotonic() - began


def leader(client: Redis) -> str:
    """The leader's name (host, process id and a random part), empty if nobody leads."""
    found = who_leads(client)
    return found.name if found else ""


def leads(client: Redis, process: subprocess.Popen[bytes]) -> bool:
    return f".{process.pid}." in leader(client)


def job_ids(client: Redis) -> list[str]:
    return Queue(connection=client, serializer=JSONSerializer).job_ids


# --- leadership


def test_one_candidate_leads_at_a_time(client):
    candidates = [Leadership(client, term=60) for _ in range(5)]
    for _ in range(3):
        assert [candidate.hold() for candidate in candidates] == [True, False, False, False, False]
    assert leader(client) == candidates[0].name


def test_a_leader_announces_its_name_and_the_end_of_its_time(client):
    leadership = Leadership(client, term=20)
    assert who_leads(client) is None
    assert leadership.hold()
    found = who_leads(client)
    assert (found.name, found.term) == (leadership.name, leadership.term)
    assert 10 < found.until - found.since <= 20


def test_extending_the_lock_keeps_the_term(client, monkeypatch):
    monkeypatch.setattr("packmule.scheduler.leader.EXTEND", 0.05)  # so that a slow machine loses no term
    leadership = Leadership(client, term=4.0)
    wait_for(leadership.hold)
    term = leadership.term
    began = time.monotonic()
    while time.monotonic() < began + 4.1:
        assert leadership.hold()
        promote(client, leadership.check(), leadership.held_for)  # its sign of life
        time.sleep(0.02)
    assert leadership.term == term
    assert who_leads(client).term == term


def test_another_leads_at_once_after_a_resignation_with_a_higher_term(client):
    first, second = Leadership(client), Leadership(client)
    assert first.hold()
    assert not second.hold()
    before = int(first.term)
    first.resign()
    assert leader(client) == ""
    second.attempt_soon()  # as it does after the message
    wait_for(second.hold)
    assert not first.hold()
    assert int(second.term) > before


def test_a_candidate_follows_a_silent_leader_and_ignores_an_absurd_end(client):
    first, second = Leadership(client, term=10), Leadership(client, term=10)
    first.hold()
    assert not second.hold()
    assert 0.5 < second.next_attempt_in <= LONGEST_STANDBY
    first.close()
    client.hset(LEADER, "until", "99999999999")
    client.delete(f"pm:lock:{LOCK}")
    wait_for(second.hold)


@pytest.mark.parametrize("term", ["inf", "1e300", "nan", "-5", "9" * 400, "9007199254740000", ""])
def test_an_invalid_stored_term_prevents_nobody_from_leading(client, term):
    client.hset(LEADER, mapping={"name": "odd", "term": term, "since": "x", "until": term})
    leadership = Leadership(client)
    wait_for(leadership.hold)
    assert promote(client, leadership.check(), leadership.held_for) is None
    assert who_leads(client).name == leadership.name


@pytest.mark.parametrize("key", [f"pm:lock:{LOCK}", f"pm:fence:{LOCK}", LEADER])
@pytest.mark.parametrize("garbage", [b"\xff\x00", "9" * 40, ["a list"]])
def test_garbage_in_the_leaders_keys_prevents_nobody_from_leading(client, key, garbage):
    if isinstance(garbage, list):
        client.rpush(key, *garbage)
    else:
        client.set(key, garbage)
    first, second = Leadership(client), Leadership(client)
    wait_for(first.hold)
    assert promote(client, first.check(), first.held_for) is None
    assert not second.hold()
    first.resign()
    wait_for(second.hold)
    assert int(second.check()) > 0
    first.close()
    second.close()


def test_a_leader_that_cannot_reach_the_job_server_gets_no_new_term(client, spare_server, monkeypatch):
    with connect(spare_server().url, Path("unused")) as node:
        wait_for(lambda: not Redlock([node], longest_ttl=1).faults())
        first, second = Scheduler(client, [node], term=1), Leadership(client, [node], term=1)
        wait_for(lambda: first.step() is not None and first.leadership.term)
        monkeypatch.setattr(
            "packmule.scheduler.scheduler.promote", Mock(side_effect=RedisConnectionError("cut off"))
        )
        monkeypatch.setattr("packmule.scheduler.scheduler.RETRY_INTERVAL", 0.01)
        wait_for(lambda: [first.step(), second.hold()][1])
        assert leader(client) == second.name


def test_the_scheduler_waits_for_an_embedded_server_that_cannot_start(client, monkeypatch):
    scheduler = Scheduler(client)
    monkeypatch.setattr(scheduler.leadership, "hold", Mock(side_effect=ServerFailed("its file is broken")))
    assert scheduler.step() == RETRY_INTERVAL


def test_candidates_are_notified_when_the_leader_resigns(client, monkeypatch):
    monkeypatch.setattr("packmule.scheduler.leader.LONGEST_STANDBY", 60.0)
    first, second = Scheduler(client, term=60), Scheduler(client, term=60)
    with Subscriber(client, [keys.SCHEDULER]) as second._messages:
        first.step()
        second.step()
        assert second._messages.wait(60) is MISSED  # it listens
        first.leadership.resign()
        began = time.monotonic()
        second._sleep(60)
        assert time.monotonic() - began < 30
        wait_for(second.leadership.hold)
    assert leader(client) == second.leadership.name


def test_only_the_leader_can_resign(client):
    first, second = Leadership(client), Leadership(client)
    first.hold()
    second.resign()
    assert leader(client) == first.name


def test_another_follows_a_silent_leader_after_its_term_for_good(client):
    first, second = Leadership(client, term=0.4), Leadership(client, term=0.4)
    began = time.monotonic()
    first.hold()
    wait_for(second.hold)
    assert time.monotonic() - began > 0.39
    assert first.term == ""
    assert not first.hold()


def test_a_leader_stops_shortly_before_its_term_ends(client, monkeypatch):
    leadership = Leadership(client, term=60)
    leadership.hold()
    clock = Mock(monotonic=Mock(return_value=leadership._lock.until - 6.5))
    monkeypatch.setattr("packmule.scheduler.leader.time", clock)
    assert leadership.check()
    clock.monotonic.return_value += 1
    assert leadership.held_for == pytest.approx(5.5)
    with pytest.raises(NotLeading):
        leadership.check()


def test_what_a_former_leader_sends_is_refused(client):
    first, second = Leadership(client), Leadership(client)
    first.hold()
    stale = first.check()
    first.resign()
    wait_for(second.hold)
    id = sample_jobs.noop.options(delay=0).enqueue()
    with pytest.raises(NotLeading):
        promote(client, stale)
    assert job_ids(client) == []
    promote(client, second.check())
    assert job_ids(client) == [id]


def test_a_leader_announces_itself_again_if_the_server_forgot_it(client):
    scheduler = Scheduler(client)
    scheduler.step()
    id = sample_jobs.noop.options(delay=0).enqueue()
    client.set(LEADER, "not a hash")
    wait_for(lambda: scheduler.step() is not None and job_ids(client) == [id])
    assert leader(client) == scheduler.leadership.name


@pytest.mark.parametrize("ahead", [1, 3_600_000_000])  # as if a lock node's clock were an hour ahead
def test_a_leader_gives_up_if_the_server_knows_a_later_one(client, ahead):
    leadership = Leadership(client, term=60)
    wait_for(leadership.hold)
    client.hset(LEADER, mapping={"name": "later", "term": int(leadership.term) + ahead, "until": "1"})
    leadership.announce_again()
    assert not leadership.hold()
    assert client.hget(LEADER, "until") == b"1"


def test_a_former_leader_that_resigns_ends_no_other_term(client):
    leadership = Leadership(client, term=60)
    wait_for(leadership.hold)
    client.hset(LEADER, mapping={"name": "later", "term": int(leadership.term) + 1})
    before = client.hget(LEADER, "until")
    leadership.resign()
    assert client.hget(LEADER, "until") == before


def test_a_resignation_that_the_server_refuses_to_record_raises_nothing(spare_server):
    with connect(None, spare_server().data_dir) as client:
        first, second = Leadership(client, term=60), Leadership(client, term=60)
        wait_for(first.hold)
        client.config_set("maxmemory", 1)
        first.resign()
        client.config_set("maxmemory", 0)
        client.delete(LEADER)
        wait_for(second.hold)
        client.delete(LEADER)
        client.set(LEADER, "no hash")
        second.resign()


def test_a_leader_that_announces_itself_again_has_led_since_its_first_time(client):
    leadership = Leadership(client, term=60)
    wait_for(leadership.hold)
    client.hset(LEADER, mapping={"since": "1.000", "until": "1"})
    leadership.announce_again()
    wait_for(leadership.hold)
    assert who_leads(client).since == 1.0


@pytest.mark.parametrize("lost", ["name", "term", "since", "until"])
def test_nobody_leads_by_a_record_that_lost_a_field(client, lost):
    leadership = Leadership(client, term=60)
    wait_for(leadership.hold)
    client.hdel(LEADER, lost)
    assert who_leads(client) is None


def test_leadership_needs_a_majority_of_the_lock_nodes(client, spare_server):
    with contextlib.ExitStack() as opened:
        nodes = [opened.enter_context(connect(spare_server().url, Path("unused"))) for _ in range(3)]
        leadership = Leadership(client, nodes, term=5)
        wait_for(leadership.hold)  # each node votes when it has been up for a term
        other = Leadership(client, nodes, term=5)
        assert not other.hold()
        for node in nodes[:2]:
            node.set(f"pm:lock:{LOCK}", "another", px=60_000)
        wait_for(lambda: not leadership.hold())


def test_lock_nodes_that_are_one_server_elect_nobody_and_end_no_scheduler(client, server):
    with contextlib.ExitStack() as opened:
        nodes = [opened.enter_context(connect(server.url, Path("unused"))) for _ in range(3)]
        scheduler = Scheduler(client, nodes)
        assert 0 < scheduler.step() <= CANDIDACY
        assert leader(client) == ""


# --- steps


def test_only_the_leader_promotes(client):
    first, second = Scheduler(client, term=60), Scheduler(client, term=60)
    assert first.step() <= JOBS_INTERVAL
    id = sample_jobs.noop.options(delay=0).enqueue()
    assert second.step() <= LONGEST_STANDBY
    assert job_ids(client) == []
    first.expedite()
    first.step()
    assert job_ids(client) == [id]


def test_a_step_returns_the_seconds_until_the_next_job_is_due(client):
    scheduler = Scheduler(client)

    def pause() -> float:
        sample_jobs.noop.options(delay=0.1).enqueue()
        return scheduler.step()

    wait_for(lambda: 0 < pause() <= 0.1)  # at once, unless the job is due before the machine gets to it
    sample_jobs.noop.options(delay=3600).enqueue()
    wait_for(lambda: scheduler.step() > 0.5)


@pytest.fixture
def received(client: Redis) -> Iterator[Callable[[], list[float]]]:
    """Returns the messages that schedulers have received since its last call."""
    with Subscriber(client, [keys.SCHEDULER]) as subscriber:
        assert subscriber.wait(60) is MISSED  # it listens

        def messages() -> list[float]:
            publish(client, keys.SCHEDULER, "the last")
            return [
                message.value
                for message in iter(lambda: subscriber.wait(60), Message(keys.SCHEDULER, "the last"))
            ]

        yield messages


def test_schedulers_are_notified_of_jobs_due_before_their_next_check(received):
    sample_jobs.noop.options(delay=2).enqueue()
    assert received() == []
    sample_jobs.noop.options(delay=0.5).enqueue_many([()] * 100)
    assert received() == [0.5]
    sample_jobs.noop.options(delay=0.8).enqueue()
    assert received() == []
    sample_jobs.noop.options(delay=0.8, queue="low").enqueue()
    assert received() == [0.8]
    sample_jobs.noop.options(at=datetime.now(UTC) - timedelta(days=1)).enqueue()
    assert received() == [0]


def test_schedulers_are_notified_of_retries(client, received):
    sample_jobs.noop.options(retries=3).enqueue_many([()] * 2)
    claims = Claims(client, "w", Strict(["default"]))
    jobs = claims.finish_and_claim(claims.next_id(), [], 2).jobs
    failed = [outcome.failed(job, "ValueError", 1, 2) for job in jobs]
    claims.finish_and_claim(claims.next_id(), failed, 0)
    assert received() == [pytest.approx(min(each.delay for each in failed), abs=0.001)]


def test_schedulers_are_notified_of_the_retry_of_a_killed_job(client, received):
    id = sample_jobs.noop.enqueue()
    client.hset(keys.job_key(id), mapping={"retries_left": 1, "retry_intervals": "[0.5]"})
    claims = Claims(client, "w", Strict(["default"]))
    (job,) = claims.finish_and_claim(claims.next_id(), [], 1).jobs
    rescue(client, "w", "overran", "too long", [job.execution])
    assert received() == [0.5]


def test_a_message_ends_a_schedulers_sleep(client):
    scheduler = Scheduler(client)
    with Subscriber(client, [keys.SCHEDULER]) as scheduler._messages:
        scheduler.step()
        assert scheduler._messages.wait(60) is MISSED  # it listens
        assert scheduler.step() >= 0
        for message in ('"nonsense"', "no json", "[]", "null", "true", "-1", "1" * 400, "1e308", "0.1"):
            client.publish(keys.SCHEDULER, message)
        began = time.monotonic()
        scheduler._sleep(30)
        assert time.monotonic() < began + 15
        scheduler.step()
        client.publish(keys.SCHEDULER, "0")
        scheduler._sleep(30)
        assert scheduler._do_due() >= 0


@pytest.mark.parametrize(
    "message", [b"\xff\xfe", b"[" * 100_000, b'{"a":' * 990, b"1e999", b"NaN", b'"resigned', b"", b"\x00"]
)
def test_no_message_ends_a_schedulers_sleep_for_good(client, message):
    scheduler = Scheduler(client)
    with Subscriber(client, [keys.SCHEDULER]) as scheduler._messages:
        wait_for(lambda: scheduler.step() is not None and scheduler._led)
        assert scheduler._messages.wait(60) is MISSED  # it listens
        assert client.publish(keys.SCHEDULER, message) == 1
        scheduler._sleep(0.05)
        id = sample_jobs.noop.options(delay=0.1).enqueue()
        wait_for(lambda: [scheduler.step(), scheduler._sleep(0.02), id in job_ids(client)][2])
    scheduler.leadership.close()


def test_without_permission_to_publish_or_subscribe_jobs_are_only_a_little_late(
    spare_server, monkeypatch, caplog
):
    spare = spare_server()
    with connect(spare.url, Path("unused")) as mighty:
        mighty.acl_setuser("mute", True, passwords="+x", commands=["+@all"], keys=["*"])
        mighty.execute_command("ACL", "SETUSER", "mute", "resetchannels")
    with connect(spare.url.replace("://", "://mute:x@"), Path("unused")) as own:
        monkeypatch.setattr(Client, "_default", Client(own))
        scheduler = Scheduler(own)
        with Subscriber(own, [keys.SCHEDULER]) as scheduler._messages:
            scheduler.step()
            id = sample_jobs.noop.options(delay=0.2).enqueue()
            wait_for(lambda: [scheduler._sleep(0.05), "late" in caplog.text][1])
            scheduler._sleep(0.05)
            wait_for(lambda: scheduler.step() > 0 and job_ids(own) == [id])
            assert [record.levelname for record in caplog.records].count("ERROR") == 1
            assert "late" in caplog.text
        scheduler.leadership.resign()
        scheduler.leadership.close()
        assert leader(own) == ""


def test_the_scheduler_does_not_sleep_while_more_is_due(client, monkeypatch):
    monkeypatch.setattr("packmule.scheduler.scheduler.JOBS_INTERVAL", 9.0)  # a slow machine has used up less
    scheduler = Scheduler(client, term=60)
    ids = sample_jobs.noop.options(delay=0).enqueue_many([()] * 1200)
    pauses = [scheduler.step() for _ in range(1200 // JOBS_A_CALL)]
    assert pauses[:-1] == [0] * (1200 // JOBS_A_CALL - 1)
    assert 0.5 < pauses[-1] <= 9
    assert job_ids(client) == ids


# --- processes


def test_a_running_scheduler_promotes_jobs_when_they_are_due(client, server, start):
    process = start(server.url)
    wait_for(lambda: leads(client, process))
    ids = sample_jobs.noop.options(delay=0.5).enqueue_many([()] * 1200)
    with pace() as second:
        assert wait_for(lambda: len(job_ids(client)) == 1200) < 2 * second()
    assert job_ids(client) == ids


def sent(client: Redis, seconds: float) -> int:
    """How many commands the server receives in that time, without those that scripts call."""
    count, ends_at = 0, time.monotonic() + seconds
    with client.monitor() as monitor:
        while (left := ends_at - time.monotonic()) > 0:
            if monitor.connection.can_read(timeout=left):
                count += monitor.next_command()["client_type"] != "lua"
    return count


def test_an_idle_leader_sends_fewer_than_two_commands_a_second_and_a_candidate_one(client, server, start):
    process = start(server.url, term=3.0)
    wait_for(lambda: leads(client, process))
    wait_for(lambda: sent(client, 1) <= 3)  # until its first duties are done
    assert 0 < sent(client, 5) < 10 + 3  # as many as may coincide
    start(server.url, term=3.0)
    wait_for(lambda: candidates(client) == 2)
    wait_for(lambda: sent(client, 1) <= 5)
    assert sent(client, 4) < 8 + 5 + 3


def test_sigterm_ends_a_scheduler_promptly_and_another_takes_over_at_once(client, server, start):
    first = start(server.url, term=60)
    wait_for(lambda: leads(client, first))
    second = start(server.url, term=60)
    wait_for(lambda: candidates(client) == 2)
    with pace() as second_now:
        assert ended_after(first, signal.SIGTERM) < 3 * second_now()
        assert wait_for(lambda: leads(client, second)) < 5 * second_now()  # of a term of 60 s


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_scheduler_resigns_on_sigterm_and_sigint(client, server, start, signum):
    process = start(server.url, term=60)
    wait_for(lambda: leads(client, process))
    with pace() as second:
        assert ended_after(process, signum) < 3 * second()
    assert leader(client) == ""


def test_another_follows_a_killed_leader_within_its_term(client, server, start):
    term = 1.0
    first = start(server.url, term)
    wait_for(lambda: leads(client, first))
    second = start(server.url, term)
    wait_for(lambda: candidates(client) == 2)
    first.send_signal(signal.SIGKILL)
    with pace() as second_now:
        assert wait_for(lambda: leads(client, second)) < (term + CANDIDACY + 1) * second_now()
    id = sample_jobs.noop.options(delay=0).enqueue()
    wait_for(lambda: job_ids(client) == [id])


def test_a_leader_that_was_frozen_promotes_nothing_twice(client, server, start):
    first = start(server.url, 1.0)
    wait_for(lambda: leads(client, first))
    first.send_signal(signal.SIGSTOP)
    second = start(server.url, 60)  # on a slow machine, too, it goes on to lead
    wait_for(lambda: leads(client, second))
    ids = sample_jobs.noop.options(delay=0.2).enqueue_many([()] * 1200)
    first.send_signal(signal.SIGCONT)
    wait_for(lambda: len(job_ids(client)) >= 1200)
    assert job_ids(client) == ids
    assert leads(client, second)


def test_a_scheduler_survives_an_outage_of_redis(spare_server, start, tmp_path, monkeypatch):
    spare = spare_server()
    process = start(spare.url)
    with connect(spare.url, tmp_path) as client:
        wait_for(lambda: leads(client, process))
        spare.stop()
        wait_for(lambda: b"redis is away" in (tmp_path / "log").read_bytes())
        assert process.poll() is None
        spare.ensure()
        monkeypatch.setattr(Client, "_default", Client(client))
        id = sample_jobs.noop.options(delay=0).enqueue()
        wait_for(lambda: job_ids(client) == [id])


def test_sigterm_ends_a_scheduler_promptly_while_redis_is_unavailable(spare_server, start, tmp_path):
    spare = spare_server()
    process = start(spare.url)
    with connect(spare.url, tmp_path) as client:
        wait_for(lambda: leads(client, process))
    spare.stop()
    wait_for(lambda: b"redis is away" in (tmp_path / "log").read_bytes())
    with pace() as second:
        assert ended_after(process, signal.SIGTERM) < 10 * second()


def test_a_duty_that_fails_is_named_once_until_its_error_changes(client, caplog):
    scheduler = Scheduler(client)
    errors = iter(["WRONGTYPE a", "WRONGTYPE a", "WRONGTYPE b", None, "WRONGTYPE b"])

    def settle(term: str) -> float:
        if error := next(errors):
            raise ResponseError(error)
        return 1.0

    (duty,) = (each for each in scheduler._duties if each.name == "settle batches")
    duty.do = settle
    assert scheduler.leadership.hold()
    for _ in range(5):
        duty.due_at = 0.0
        scheduler._do_due()
    said = [record.getMessage() for record in caplog.records if "settle batches" in record.getMessage()]
    assert said == [f"the scheduler can't settle batches: WRONGTYPE {each}" for each in "abb"]
