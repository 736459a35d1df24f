"""The periodic enqueuer: each tick is decided once, whoever leads and however the clock is set."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule import job
from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.replies import as_text
from packmule.jobs import keys, schedule_ledger, schedule_store
from packmule.jobs.client import Client
from packmule.jobs.cron import shown
from packmule.jobs.keys import LEADER
from packmule.jobs.schedule import Schedule, schedule
from packmule.observe import events
from packmule.scheduler.leader import Leadership, NotLeading
from packmule.scheduler.scheduler import Scheduler
from packmule.scheduler.schedules.periodic_enqueuer import (
    FAILED_RETRY_INTERVAL,
    SCHEDULES_A_ROUND,
    TICKS_A_ROUND,
    PeriodicEnqueuer,
)
from packmule.scheduler.schedules.tick_policy import LATE
from packmule.tests.jobs import sample_jobs
from packmule.tests.looks import looks
from packmule.tests.pace import pace

NOOP = sample_jobs.noop.job.name
DAY = 86_400


@job(every=60, schedule={"name": "coded"})
def coded() -> None: ...


class Clockwork:
    """A leader's enqueuer whose clock the test moves."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.leadership = Leadership(client, term=300)
        assert self.leadership.hold()
        self.enqueuer = PeriodicEnqueuer(Client(client, ["default", "low"]))

    def put(self, name: str = "s", job: str = NOOP, **table: Any) -> Schedule:
        if not table.keys() & {"cron", "at"}:
            # Its ticks begin now, so that the clock reaches no other one while a slow machine works.
            table = {"every": 60, "start": int(self.now), **table}
        found = schedule(name, {"job": job, **table})
        schedule_store.put(self.client, found)
        self.round()
        return found

    def round(self) -> float | None:
        """Run rounds until nothing more is due; return the seconds until the next tick."""
        for _ in range(100):
            due = self.enqueuer.round(self.leadership.check())
            if due is None or due > 0:
                return due
        raise AssertionError("it found no end")

    def later(self, seconds: float) -> float | None:
        self.enqueuer.ahead += seconds
        return self.round()

    def until(self, found: Schedule, ticks: int = 1) -> int:
        """Move the clock to just after that many ticks; return the last of them."""
        now = self.now
        tick = int(now)
        for _ in range(ticks):
            tick = found.next(tick)
        self.later(tick - now + 0.2)
        return tick

    @property
    def now(self) -> float:
        seconds, microseconds = self.client.time()
        return seconds + microseconds / 1e6 + self.enqueuer.ahead


@pytest.fixture
def clock(client: Redis) -> Clockwork:
    return Clockwork(client)


def ids(client: Redis, queue: str = "default") -> list[str]:
    return [as_text(id) for id in client.lrange(keys.queue_key(queue), 0, -1)]


def did(client: Redis, name: str = "s") -> list[tuple[str, int]]:
    """What happened by the ledger, and how many seconds each entry covers."""
    return [
        (line["did"], line.get("to", line["tick"]) - line["tick"])
        for line in schedule_ledger.read(client, name)
    ]


def finish(client: Redis, id: str) -> None:
    client.hset(keys.job_key(id), "status", "finished")
    client.lrem(keys.queue_key("default"), 1, id)


def test_a_tick_enqueues_a_job_with_its_id_and_arguments_as_rq_reads_them(client, clock):
    found = clock.put(job=sample_jobs.echo.job.name, kwargs={"value": ["at {tick}"]}, tz="Asia/Kathmandu")
    assert ids(client) == []
    assert not client.exists(schedule_ledger.ticks_key("s")), "there was no tick"
    tick = clock.until(found)
    assert ids(client) == [found.job_id(tick)]
    job = Job.fetch(found.job_id(tick), client, JSONSerializer)
    assert job.kwargs == {"value": [f"at {shown(tick, 'Asia/Kathmandu')}"]}
    (line,) = schedule_ledger.read(client, "s")
    assert (line["tick"], line["did"], line["job"]) == (tick, "enqueued", found.job_id(tick))
    assert clock.round() > 50
    assert len(ids(client)) == 1


def test_ticks_go_to_the_schedules_queue(client, clock):
    clock.until(clock.put(queue="low"))
    assert len(ids(client, "low")) == 1


def test_a_round_that_decides_returns_the_seconds_until_the_next_tick(clock):
    clock.put()
    clock.enqueuer.ahead += 60
    assert clock.enqueuer.round(clock.leadership.check()) > 0


@pytest.mark.parametrize("flag", ["paused", "removed"])
def test_a_paused_or_removed_schedule_that_became_due_rests(client, clock, flag):
    clock.put()
    client.hset(schedule_store.state_key("s"), flag, "1")
    client.zadd(schedule_store.NEXT, {"s": 0})
    assert clock.round() is None
    assert client.zscore(schedule_store.NEXT, "s") is None


def test_a_round_returns_the_seconds_until_the_next_tick(clock):
    assert clock.round() is None
    found = clock.put()
    assert abs(clock.round() - (found.next(int(clock.now)) - clock.now)) < 5


def test_a_schedule_of_a_single_instant_ticks_once_and_ends(client, clock):
    at = int(clock.now) + 30
    clock.put(at=at)
    clock.later(31)
    assert len(ids(client)) == 1
    assert schedule_store.entry(client, "s").state == "ended"
    assert client.zscore(schedule_store.NEXT, "s") is None
    assert clock.later(DAY) is None
    assert len(ids(client)) == 1


def test_two_leaders_at_the_same_time_decide_a_tick_once(client, clock):
    found = clock.put(every=10)
    other = PeriodicEnqueuer(clock.enqueuer.client)
    for _ in range(5):
        clock.enqueuer.ahead += 10
        other.ahead = clock.enqueuer.ahead
        term = clock.leadership.check()
        clock.enqueuer.round(term)
        other.round(term)
    assert did(client) == [("enqueued", 0)] * len(ids(client))
    assert len(set(ids(client))) == len(ids(client)) == 5
    assert found.job_id(schedule_store.entry(client, "s").last) == ids(client)[-1]


def test_a_decision_on_what_was_read_before_another_decision_is_refused(client, clock, monkeypatch):
    clock.put(every=10)
    other = PeriodicEnqueuer(clock.enqueuer.client)
    clock.enqueuer.ahead = other.ahead = 10
    term = clock.leadership.check()
    send = clock.enqueuer._write

    def late(*args: Any, **kwargs: Any) -> Any:
        other.round(term)
        return (yield from send(*args, **kwargs))

    monkeypatch.setattr(clock.enqueuer, "_write", late)
    clock.enqueuer.round(term)
    assert len(ids(client)) == 1
    assert did(client) == [("enqueued", 0)]


def before_each_decision(clock: Clockwork, monkeypatch: pytest.MonkeyPatch, do: Callable[[], Any]) -> None:
    """Let something happen after a schedule was read."""
    send = clock.enqueuer._write

    def late(*args: Any, **kwargs: Any) -> Any:
        do()
        return (yield from send(*args, **kwargs))

    monkeypatch.setattr(clock.enqueuer, "_write", late)


@pytest.mark.parametrize("change", ["paused", "removed", "record", "deletion"])
def test_a_decision_on_a_schedule_that_was_changed_meanwhile_is_refused(client, clock, monkeypatch, change):
    clock.put(every=10)

    def make() -> None:
        match change:
            case "record":
                client.hset(schedule_store.SCHEDULES, "s", "another")
            case "deletion":
                client.hdel(schedule_store.SCHEDULES, "s")
            case flag:
                client.hset(schedule_store.state_key("s"), flag, "1")

    before_each_decision(clock, monkeypatch, make)
    clock.later(10)
    assert (ids(client), did(client)) == ([], [])


@pytest.mark.parametrize(
    ("key", "jobs"),
    [(schedule_store.state_key("s"), 0), (schedule_store.SCHEDULES, 0), (schedule_store.NEXT, 1)],
)
def test_a_decision_sets_a_key_aside_that_became_garbage_meanwhile(client, clock, monkeypatch, key, jobs):
    clock.put(at=int(clock.now) + 30)
    before_each_decision(clock, monkeypatch, lambda: client.delete(key) and client.set(key, "in the way"))
    clock.later(31)
    assert len(ids(client)) == jobs
    assert [event.job for event in events.read(client) if event.type == "quarantined"] == [key]


def test_a_decision_sent_again_after_a_lost_reply_changes_nothing(client, clock, monkeypatch):
    clock.put(every=10)
    send = clock.enqueuer._write

    def twice(due: Any, *args: Any, **kwargs: Any) -> Any:
        before = due.last
        reply = yield from send(due, *args, **kwargs)
        due.last = before
        assert (yield from send(due, *args, **kwargs)) is None
        due.last = str(args[0].last)
        return reply

    monkeypatch.setattr(clock.enqueuer, "_write", twice)
    clock.later(10)
    assert len(ids(client)) == 1
    assert did(client) == [("enqueued", 0)]


def test_a_tick_whose_job_is_long_gone_is_not_enqueued_again(client, clock):
    found = clock.put(every=10)
    clock.until(found)
    client.delete(keys.job_key(ids(client)[0]), keys.queue_key("default"))
    clock.enqueuer.ahead -= 3600
    client.zadd(schedule_store.NEXT, {"s": 0})
    clock.round()
    assert ids(client) == []


def test_a_former_leader_decides_nothing(client, clock):
    found = clock.put()
    stale = clock.leadership.check()
    clock.leadership.resign()
    other = Leadership(client, term=30)
    assert other.hold()
    clock.enqueuer.ahead += found.next(int(clock.now)) - clock.now + 0.2
    with pytest.raises(NotLeading):
        clock.enqueuer.round(stale)
    assert (ids(client), did(client)) == ([], [])
    clock.enqueuer.round(other.check())
    assert len(ids(client)) == 1


# --- late ticks


@pytest.mark.parametrize(
    ("misfire", "window", "expected"),
    [
        ("once", "1h", [("skipped", 540), ("enqueued", 0)]),
        ("once", 0, [("skipped", 600)]),
        ("skip", "1h", [("skipped", 600)]),
        ("all", "1d", [("enqueued", 0)] * 11),
        ("all", 200, [("skipped", 360), *[("enqueued", 0)] * 4]),
    ],
)
def test_missed_ticks_follow_the_misfire_policy(client, clock, misfire, window, expected):
    found = clock.put(misfire=misfire, window=window)
    first = found.next(int(clock.now))
    clock.later(first + 600 - clock.now + LATE + 2)  # eleven ticks, all of them missed
    assert did(client) == expected
    skipped = [line for line in schedule_ledger.read(client, "s") if line["did"] == "skipped"]
    assert all("missed" in line["why"] for line in skipped)
    clock.until(found)
    assert did(client)[len(expected) :] == [("enqueued", 0)]


def test_a_tick_that_is_only_a_little_late_is_not_missed(client, clock):
    found = clock.put(misfire="skip")
    clock.later(found.next(int(clock.now)) - clock.now + LATE / 2)
    assert did(client) == [("enqueued", 0)]


@pytest.mark.parametrize("misfire", ["once", "skip"])
def test_a_clock_a_day_ahead_causes_no_storm_and_an_hour_back_no_duplicates(client, clock, misfire):
    found = clock.put(cron="* * * * * *", misfire=misfire)
    began = time.monotonic()
    with pace() as second:
        clock.later(DAY)
    assert time.monotonic() - began < 3 * second()
    many = ids(client)
    assert len(many) <= LATE + 2
    clock.later(-3600)
    for _ in range(5):
        clock.later(1)
    assert ids(client) == many
    clock.later(3600)
    assert len(set(ids(client))) == len(ids(client)) <= 2 * (LATE + 4)
    covered = [
        range(line["tick"], line.get("to", line["tick"]) + 1) for line in schedule_ledger.read(client, "s")
    ]
    assert all(later.start == sooner.stop for sooner, later in pairwise(covered))
    assert found


def test_catching_up_is_bounded_per_round_and_delays_no_other_schedule(client, clock):
    clock.put("many", cron="* * * * * *", misfire="all", window="1d")
    other = clock.put("other")
    clock.enqueuer.ahead += 300
    assert clock.enqueuer.round(clock.leadership.check()) <= 0
    assert len(ids(client)) <= TICKS_A_ROUND + 2
    assert any(id.startswith("cron-other") for id in ids(client))
    clock.round()
    assert len([id for id in ids(client) if id.startswith("cron-many")]) >= 300
    assert other


def test_schedules_beyond_a_rounds_bound_are_decided_at_once_in_the_next(client, clock):
    names = [f"s{number}" for number in range(SCHEDULES_A_ROUND * 2 + 50)]
    record = '{"name":"%s","job":"' + NOOP + '","every":60,"start":' + f"{int(clock.now)}}}"
    client.hset(schedule_store.SCHEDULES, mapping={name: record % name for name in names})
    client.zadd(schedule_store.NEXT, dict.fromkeys(names, 0))
    clock.round()
    pauses = []
    clock.enqueuer.ahead += 60
    while not pauses or pauses[-1] <= 0:
        pauses.append(clock.enqueuer.round(clock.leadership.check()))
    assert len(ids(client)) == len(names)
    assert pauses[:2] == [0, 0]


def test_of_many_schedules_decided_together_each_gets_its_own_reply(client, clock):
    names = [f"s{number}" for number in range(20)]
    for name in names:
        clock.put(name, job=sample_jobs.invoice.job.name, kwargs={"account": 1}, every=300)
    clock.put("other", every=300)
    clock.later(300)
    (first,) = [name for name in names if did(client, name) == [("enqueued", 0)]]
    held = [did(client, name) for name in names if name != first]
    assert held == [[("skipped", 0)]] * 19
    assert (
        f"cron-{first}-"
        in schedule_ledger.read(client, names[-1] if first != names[-1] else names[0])[-1]["why"]
    )
    assert did(client, "other") == [("enqueued", 0)]


def test_a_round_out_of_time_leaves_the_rest_to_the_next_and_loses_nothing(client, clock, monkeypatch):
    for number in range(30):
        clock.put(f"s{number}", misfire="all", window="1d")
    monkeypatch.setattr("packmule.scheduler.schedules.periodic_enqueuer.LONGEST_ROUND", 0)
    clock.enqueuer.ahead += 125
    rounds = 1
    while clock.enqueuer.round(clock.leadership.check()) == 0:
        rounds += 1
    assert rounds > 30
    for number in range(30):
        lines = schedule_ledger.read(client, f"s{number}")
        assert [line["did"] for line in lines] in (["enqueued"] * 2, ["enqueued"] * 3)
        assert [line["tick"] for line in lines] == list(range(lines[0]["tick"], lines[-1]["tick"] + 1, 60))


# --- overlap


def test_an_overlapping_tick_is_skipped_and_the_ledger_names_the_job(client, clock):
    found = clock.put(overlap="skip")
    first = clock.until(found)
    clock.until(found)
    assert did(client) == [("enqueued", 0), ("skipped", 0)]
    assert found.job_id(first) in schedule_ledger.read(client, "s")[-1]["why"]
    finish(client, found.job_id(first))
    clock.until(found)
    assert did(client)[-1] == ("enqueued", 0)


@pytest.mark.parametrize("entry", [b"{", b'{"did": "\xff"}', b'{"did": ' + b"[" * 100_000])
def test_corrupt_entries_of_a_ledger_are_passed_over(client, entry):
    schedule_ledger.append(client, "s", {"tick": 1, "did": "enqueued"})
    client.rpush(schedule_ledger.ticks_key("s"), entry)
    assert [line["did"] for line in schedule_ledger.read(client, "s")] == ["enqueued"]


def test_by_default_ticks_overlap(client, clock):
    found = clock.put()
    clock.until(found)
    clock.until(found)
    assert len(ids(client)) == 2


def test_a_waiting_tick_is_enqueued_when_the_previous_job_has_ended(client, clock):
    found = clock.put(overlap="wait", misfire="skip")
    first = clock.until(found)
    second = clock.until(found)
    assert len(ids(client)) == 1
    assert 0 < clock.later(LATE + 10) <= 1  # late, but not missed
    assert client.hget(schedule_store.state_key("s"), "held")
    finish(client, found.job_id(first))
    clock.later(1)
    assert ids(client) == [found.job_id(second)]
    assert client.hget(schedule_store.state_key("s"), "held") is None


def test_of_several_waiting_ticks_the_latest_remains(client, clock):
    found = clock.put(overlap="wait")
    first = clock.until(found)
    clock.until(found)
    third = clock.until(found)
    assert did(client) == [("enqueued", 0), ("skipped", 0)]
    finish(client, found.job_id(first))
    clock.later(1)
    assert ids(client) == [found.job_id(third)]


def test_a_tick_can_cancel_the_previous_job(client, clock):
    found = clock.put(overlap="cancel")
    first = clock.until(found)
    second = clock.until(found)
    clock.later(1)
    assert Job.fetch(found.job_id(first), client, JSONSerializer).get_status().value == "canceled"
    assert ids(client) == [found.job_id(second)]


def test_a_tick_whose_unique_job_already_exists_is_skipped(client, clock):
    found = clock.put(job=sample_jobs.invoice.job.name, kwargs={"account": 1})
    first = clock.until(found)
    clock.until(found)
    assert ids(client) == [found.job_id(first)]
    assert did(client) == [("enqueued", 0), ("skipped", 0)]
    assert found.job_id(first) in schedule_ledger.read(client, "s")[-1]["why"]


# --- faults


def test_a_faulty_schedule_is_set_aside_with_its_fault_and_stops_no_other(client, clock):
    clock.put("unknown", job="nobody.knows")
    clock.put("ill", job=sample_jobs.add.job.name, kwargs={"a": "x"})
    clock.put("lost", queue="nowhere")
    clock.put("odd", job=sample_jobs.refresh.job.name, kwargs={"account": 1})
    client.hset(schedule_store.SCHEDULES, "broken", "{")
    client.hset(schedule_store.SCHEDULES, "ü\n", b"\xff")
    client.hset(schedule_store.SCHEDULES, "alias", client.hget(schedule_store.SCHEDULES, "ill"))
    client.zadd(schedule_store.NEXT, {"alias": 0, "broken": 0, "gone": 0, "ü\n": 0})
    client.set(schedule_store.state_key("broken"), "a string")
    good = clock.put("good")
    client.hset(schedule_store.state_key("good"), mapping={"last": "9" * 40})
    clock.later(60)
    clock.until(good)
    assert len(ids(client)) == 1
    found = {entry.name: (entry.state, entry.fault or "") for entry in schedule_store.entries(client)}
    assert found["good"] == ("active", "")
    faults = {"unknown": "not a registered job", "ill": "argument a", "lost": "no queue is called 'nowhere'"}
    faults |= {"odd": "debounce", "broken": "", "alias": "schedule ill"}
    for name, reason in faults.items():
        state, fault = found[name]
        assert state == "faulty", name
        assert reason in fault
    assert client.zscore(schedule_store.NEXT, "gone") is None


def test_a_schedule_whose_name_is_not_text_is_removed_and_named_once(client, clock, caplog):
    clock.put("innocent")
    client.hset(schedule_store.SCHEDULES, b"\xff\xfe", b"{}")
    client.zadd(schedule_store.NEXT, {b"\xff\xfe": 1})
    for _ in range(3):
        clock.round()
    assert client.hkeys(schedule_store.SCHEDULES) == [b"innocent"]
    assert client.zscore(schedule_store.NEXT, b"\xff\xfe") is None
    assert caplog.text.count("its name is not text") == 1
    clock.later(61)
    assert len(ids(client)) == 1


def test_a_faulty_schedule_that_was_corrected_works_again(client, clock):
    clock.put("s", job="nobody.knows")
    clock.later(60)
    assert schedule_store.entry(client, "s").state == "faulty"
    found = schedule("s", {"job": NOOP, "every": 60})
    clock.enqueuer.ahead = 0
    assert schedule_store.put(client, found, replace=True) == "changed"
    clock.round()
    clock.until(found)
    assert schedule_store.entry(client, "s").state == "active"
    assert len(ids(client)) == 1


def test_a_queue_of_another_type_is_set_aside_and_the_tick_enqueued(client, clock):
    client.set(keys.queue_key("low"), "x")
    found = clock.put(queue="low")
    clock.until(found)
    assert did(client) == [("enqueued", 0)]
    assert len(ids(client, "low")) == 1
    assert client.get("pm:broken:rq:queue:low") == b"x"


@pytest.mark.parametrize(
    "key",
    [
        schedule_store.SCHEDULES,
        schedule_store.NEXT,
        schedule_store.state_key("s"),
        schedule_ledger.ticks_key("s"),
        LEADER,
    ],
)
def test_a_key_of_another_type_stops_nothing(client, clock, key):
    clock.put()
    client.delete(key)
    client.set(key, "x")
    other = Scheduler(client, enqueuer=clock.enqueuer)
    other.leadership = clock.leadership
    for _ in range(3):
        other.expedite()
        other.step()
        clock.leadership.announce_again()
    schedule_store.put(client, schedule("new", {"job": NOOP, "every": 60}), replace=True)
    for _ in range(2):
        clock.enqueuer.ahead += 61
        other.expedite()
        other.step()
    assert any(id.startswith("cron-new") for id in ids(client))
    moved = {event.job for event in events.read(client) if event.type == "quarantined"}
    assert moved == {key} - {LEADER}


@pytest.mark.parametrize(
    "key", [schedule_store.SCHEDULES, schedule_store.NEXT, schedule_store.state_key("s")]
)
def test_a_round_sets_a_key_of_another_type_aside(client, clock, key):
    clock.put(every=10)
    client.delete(key)
    client.set(key, "in the way")
    clock.later(10)
    assert [event.job for event in events.read(client) if event.type == "quarantined"] == [key]


def test_schedules_that_lost_their_next_tick_get_it_back(client, clock):
    for number in range(600):  # a hash of 512 short fields comes whole
        schedule_store.put(client, schedule(f"s{number}", {"job": NOOP, "every": 60}))
    clock.round()
    client.delete(schedule_store.NEXT)
    for _ in range(10):
        clock.enqueuer.repair(clock.leadership.check())
    clock.round()
    assert client.zcard(schedule_store.NEXT) == 600


def test_a_repair_leaves_schedules_alone_that_have_their_next_tick(client, clock):
    clock.put()
    due = client.zscore(schedule_store.NEXT, "s")
    assert clock.enqueuer.repair(clock.leadership.check()) == 0
    assert client.zscore(schedule_store.NEXT, "s") == due


@pytest.mark.parametrize(
    "key", [schedule_store.SCHEDULES, schedule_store.NEXT, schedule_store.state_key("s")]
)
def test_a_repair_sets_a_key_of_another_type_aside(client, clock, key):
    clock.put()
    client.delete(key, schedule_store.NEXT)
    client.set(key, "in the way")
    clock.enqueuer.repair(clock.leadership.check())
    assert [event.job for event in events.read(client) if event.type == "quarantined"] == [key]


def test_one_repair_looks_at_a_bounded_number_of_schedules(client, clock):
    for number in range(2000):
        client.hset(schedule_store.SCHEDULES, f"s{number}", "x" * 100)
    commands, _ = looks(client, lambda: clock.enqueuer.repair(clock.leadership.check()))
    assert commands < 1500


def test_only_the_leader_repairs_and_only_schedules_that_do_not_rest(client, clock):
    clock.put()
    client.delete(schedule_store.NEXT)
    for flag in ("paused", "removed", "ended"):
        client.hset(schedule_store.state_key("s"), flag, "1")
        assert clock.enqueuer.repair(clock.leadership.check()) == 0
        client.hdel(schedule_store.state_key("s"), flag)
    with pytest.raises(NotLeading):
        clock.enqueuer.repair("7")
    assert clock.enqueuer.repair(clock.leadership.check()) == 1
    assert clock.enqueuer.repair(clock.leadership.check()) == 0


@pytest.mark.parametrize("loss", ["deleted", "of another type"])
def test_lost_schedules_of_code_are_stored_again_without_a_restart(client, clock, loss, caplog):
    scheduler = Scheduler(client, enqueuer=clock.enqueuer)
    scheduler.leadership = clock.leadership
    scheduler.step()
    last = schedule_store.entry(client, "coded").last
    client.delete(schedule_store.SCHEDULES)
    if loss == "of another type":
        client.set(schedule_store.SCHEDULES, "no hash")
    for _ in range(3):
        for duty in scheduler._duties:
            duty.due_at = 0
        scheduler.step()
    assert schedule_store.entry(client, "coded").last >= last
    assert client.zscore(schedule_store.NEXT, "coded") > 0
    assert caplog.text.count("all schedules were lost") == 1


# --- operators and deploys


def test_a_paused_schedule_resumes_without_the_ticks_in_between(client, clock):
    found = clock.put(misfire="all", window="1d")
    assert schedule_store.pause(client, "s")
    assert not schedule_store.pause(client, "s")
    clock.enqueuer.ahead = 0
    assert clock.round() is None
    client.hset(schedule_store.state_key("s"), "last", str(int(clock.now) - 1000))
    assert schedule_store.resume(client, "s")
    assert not schedule_store.resume(client, "s")
    clock.round()
    assert did(client) == []
    clock.until(found)
    assert did(client) == [("enqueued", 0)]


def code(name: str, **table: Any) -> Schedule:
    return schedule(name, {"job": NOOP, "every": 60, "owner": "code", **table})


def states(client: Redis) -> dict[str, str]:
    return {entry.name: entry.state for entry in schedule_store.entries(client)}


def test_a_deploy_adds_changes_and_drops_only_its_own_schedules(client):
    schedule_store.put(client, schedule("mine", {"job": NOOP, "every": 60}))
    assert schedule_store.sync(client, [code("a"), code("b"), code("c", paused=True)], "code") == []
    assert states(client) == {"a": "active", "b": "active", "c": "paused", "mine": "active"}
    (fault,) = schedule_store.sync(client, [code("b", every=30), code("mine"), code("c")], "code")
    assert "mine" in fault
    assert states(client) == {"b": "active", "c": "active", "mine": "active"}
    assert schedule_store.entry(client, "b").schedule.every == 30
    assert schedule_store.sync(client, [], "code", may_go=lambda found: found.name != "b") == []
    assert states(client) == {"b": "active", "mine": "active"}


def test_added_changed_and_dropped_schedules_are_logged_on_a_line_each(client, caplog):
    caplog.set_level("INFO", "packmule.scheduler")
    many = [code(f"s{number:02}") for number in range(13)]
    schedule_store.sync(client, many, "code")
    schedule_store.sync(client, many, "code")
    schedule_store.sync(client, [code("s00", every=30), code("s01", every=30), code("late")], "code")
    first, more = (
        ", ".join(f"s{number:02}" for number in range(10)),
        ", ".join(f"s{n:02}" for n in range(2, 12)),
    )
    assert caplog.messages == [
        f"schedules of the code, new: {first} and 3 more",
        "schedules of the code, new: late",
        "schedules of the code, changed: s00, s01",
        f"schedules of the code, dropped: {more} and 1 more",
    ]


def test_a_file_drops_only_its_own_schedules(client):
    one, two = (code(name, owner="file", source=f"{name}.toml") for name in "ab")
    schedule_store.sync(client, [one], "file", "a.toml")
    schedule_store.sync(client, [two], "file", "b.toml")
    schedule_store.sync(client, [], "file", "a.toml")
    assert states(client) == {"b": "active"}


def test_a_definition_pauses_and_resumes_a_schedule_unless_an_operator_did(client):
    def deployed(**table: Any) -> str:
        schedule_store.sync(client, [code("a", **table)], "code")
        state = states(client)["a"]
        assert (client.zscore(schedule_store.NEXT, "a") is None) == (state != "active")
        return state

    assert deployed() == "active"
    assert deployed(paused=True) == "paused"
    assert deployed(paused=True, every=30) == "paused"
    assert deployed() == "active"
    schedule_store.pause(client, "a")
    assert deployed(paused=True) == "paused"
    assert deployed() == "paused"
    schedule_store.remove(client, "a")
    client.hdel(schedule_store.state_key("a"), "paused")
    assert deployed(every=30) == "removed"


def test_the_leader_is_woken_by_a_new_schedule(client):
    with client.pubsub() as listening:
        listening.subscribe(keys.SCHEDULER)
        schedule_store.put(client, schedule("s", {"job": NOOP, "every": 60}))
        found = [message["data"] for _, message in zip(range(2), listening.listen(), strict=False)]
    assert found == [1, b"0"]


def test_a_schedule_is_stored_without_permission_to_publish(spare_server):
    spare = spare_server()
    with connect(spare.url, Path("unused")) as mighty:
        mighty.acl_setuser("mute", True, passwords="+x", commands=["+@all"], keys=["*"])
        mighty.execute_command("ACL", "SETUSER", "mute", "resetchannels")
    with connect(spare.url.replace("://", "://mute:x@"), Path("unused")) as own:
        assert schedule_store.put(own, code("a")) == "new"
        assert own.zscore(schedule_store.NEXT, "a")


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize(
    "key", [schedule_store.SCHEDULES, schedule_store.NEXT, schedule_store.state_key("a")]
)
def test_a_key_of_another_type_keeps_no_schedule_from_being_stored(client, key, paused):
    client.set(key, "in the way")
    assert schedule_store.put(client, code("a", paused=paused)) == "new"
    assert states(client) == {"a": "paused" if paused else "active"}
    assert [(event.type, event.job) for event in events.read(client)] == [("quarantined", key)]


def test_a_deploy_pauses_no_schedule_that_was_resumed_by_hand(client):
    schedule_store.sync(client, [code("a", paused=True)], "code")
    schedule_store.resume(client, "a")
    schedule_store.sync(client, [code("a", paused=True, every=30)], "code")
    assert states(client) == {"a": "active"}


def test_a_deploy_neither_unpauses_nor_resurrects(client, clock):
    schedule_store.sync(client, [code("a"), code("b")], "code")
    schedule_store.pause(client, "a")
    assert schedule_store.remove(client, "b") == {"b": "code"}
    for deployed in ([code("a", every=30), code("b", every=30)], [], [code("a"), code("b")]):
        schedule_store.sync(client, deployed, "code")
        clock.later(100)
    assert states(client) == {"a": "paused", "b": "removed"}
    assert ids(client) == []
    clock.enqueuer.ahead = 0
    assert schedule_store.resume(client, "b")
    clock.round()
    clock.until(schedule_store.entry(client, "b").schedule)
    assert len(ids(client)) == 1


@pytest.mark.parametrize("record", ["{", "5", '"text"'])
def test_a_deploy_replaces_a_record_that_cannot_be_read(client, record):
    client.hset(schedule_store.SCHEDULES, "a", record)
    assert schedule_store.sync(client, [code("a")], "code") == []
    assert states(client) == {"a": "active"}


def test_a_deploy_gets_no_name_that_another_owner_has_although_it_was_removed(client):
    schedule_store.sync(client, [code("a", owner="file", source="a.toml")], "file", "a.toml")
    schedule_store.remove(client, "a")
    (fault,) = schedule_store.sync(client, [code("a")], "code")
    assert "the file has that name" in fault


@pytest.mark.parametrize("ahead", [-1000, 1000])
def test_a_changed_schedule_keeps_nothing_of_the_old_one_but_its_last_tick(client, ahead):
    schedule_store.put(client, schedule("s", {"job": NOOP, "every": 60}))
    state, now = schedule_store.state_key("s"), int(client.time()[0])
    client.hset(state, mapping={"ended": "1", "held": "5", "fault": "odd", "last": now + ahead})
    client.expire(state, 100)
    schedule_store.put(client, schedule("s", {"job": NOOP, "every": 30}), replace=True)
    assert client.hmget(state, "ended", "held", "fault") == [None] * 3
    assert int(client.hget(state, "last")) >= now + max(0, ahead)
    assert client.ttl(state) == -1


def test_a_schedule_that_is_stored_again_as_it_is_keeps_its_state(client):
    found = schedule("s", {"job": NOOP, "every": 60})
    schedule_store.put(client, found)
    client.hset(schedule_store.state_key("s"), "held", "5")
    assert [schedule_store.put(client, found, replace) for replace in (False, True)] == ["same"] * 2
    assert client.hget(schedule_store.state_key("s"), "held") == b"5"


def test_an_operator_may_replace_only_a_removed_schedule(client):
    schedule_store.sync(client, [code("a")], "code")
    mine = schedule("a", {"job": NOOP, "every": 5})
    for replace in (False, True):
        with pytest.raises(schedule_store.NameTaken, match=r"belongs to the code|already exists"):
            schedule_store.put(client, mine, replace)
    schedule_store.remove(client, "a")
    assert schedule_store.put(client, mine) == "changed"
    assert states(client) == {"a": "active"}
    schedule_store.sync(client, [code("a")], "code")
    assert schedule_store.entry(client, "a").schedule == mine
    assert schedule_store.remove(client, "a") == {"a": "operator"}
    schedule_store.sync(client, [code("a")], "code")
    assert states(client) == {"a": "removed"}


def test_a_removed_schedule_is_gone_and_its_state_is_kept_for_a_while(client, clock):
    found = clock.put()
    last = clock.until(found)
    assert schedule_store.remove(client, "s") == {"s": "operator"}
    assert states(client) == {}
    assert client.ttl(schedule_store.state_key("s")) > DAY
    with pytest.raises(schedule_store.NoSuchSchedule):
        schedule_store.remove(client, "s")
    schedule_store.put(client, found)
    assert schedule_store.entry(client, "s").last >= last
    assert client.ttl(schedule_store.state_key("s")) == -1


def test_schedules_of_code_and_file_are_stored_and_a_bad_file_changes_nothing(
    client, clock, tmp_path, caplog
):
    path = tmp_path / "schedules.toml"
    path.write_text(f'[filed]\njob = "{NOOP}"\nevery = 60\n')
    clock.enqueuer.file = path
    clock.enqueuer.sync()
    assert {"coded", "filed"} <= states(client).keys()
    path.write_text("[filed]\njob = 5\n")
    clock.enqueuer.sync()
    assert "filed" in states(client)
    assert "line 2" in caplog.text


def test_faults_of_a_schedule_are_logged_when_it_is_stored(client, clock, tmp_path, caplog):
    file = tmp_path / "schedules.toml"
    tables = {"bad": sample_jobs.add.job.name, "good": NOOP}
    file.write_text("".join(f'[{name}]\njob = "{job}"\nevery = "1h"\n' for name, job in tables.items()))
    PeriodicEnqueuer(clock.enqueuer.client, file).sync()
    messages = [record.getMessage() for record in caplog.records if "schedule bad" in record.getMessage()]
    assert len(messages) == 1
    assert "missing a required argument" in messages[0]
    assert "schedule good" not in caplog.text
    assert schedule_store.entry(client, "good").schedule.source == str(file)


def test_schedules_are_stored_after_a_transient_error(client, clock, monkeypatch):
    monkeypatch.setattr("packmule.scheduler.scheduler.RETRY_INTERVAL", 0)
    sync = Mock(side_effect=[OutOfMemoryError("OOM"), RedisConnectionError("away"), None])
    monkeypatch.setattr(clock.enqueuer, "sync", sync)
    scheduler = Scheduler(client, enqueuer=clock.enqueuer)
    scheduler.leadership = clock.leadership
    for _ in range(5):
        scheduler.step()
    assert sync.call_count == 3


def test_a_step_that_redis_refuses_is_soon_tried_again(client, clock, monkeypatch):
    found = clock.put()
    refused = Mock(each=lambda client, calls: [ResponseError("OOM")] * len(calls))
    monkeypatch.setattr("packmule.scheduler.schedules.periodic_enqueuer._decide", refused)
    clock.enqueuer.ahead = found.next(int(clock.now)) - clock.now + 0.2
    assert clock.enqueuer.round(clock.leadership.check()) == FAILED_RETRY_INTERVAL


@pytest.mark.parametrize("last", ["²", "9" * 5000, "-1", "1e9", "3e9", ""])
def test_an_invalid_last_tick_stops_nothing(client, clock, last):
    found = clock.put()
    client.hset(schedule_store.state_key("s"), "last", last)
    client.zadd(schedule_store.NEXT, {"s": 0})
    assert schedule_store.entry(client, "s").last is None
    clock.round()
    clock.until(found)
    assert ids(client)


@pytest.mark.parametrize("end", [10**12, 10**18, 10**30])
def test_a_record_with_times_beyond_the_calendar_is_faulty_and_stops_nothing(client, clock, end):
    record = {"name": "odd", "job": NOOP, "every": 60, "start": end * 10, "end": end}
    client.hset(schedule_store.SCHEDULES, "odd", json.dumps(record))
    client.zadd(schedule_store.NEXT, {"odd": 0})
    clock.enqueuer.sync()
    clock.round()
    assert schedule_store.entry(client, "odd").state == "faulty"


def test_schedules_that_lost_their_next_tick_are_due_at_once(client, clock):
    found = clock.put()
    scheduler = Scheduler(client, enqueuer=clock.enqueuer)
    scheduler.leadership = clock.leadership
    scheduler.step()
    client.delete(schedule_store.NEXT)
    for duty in scheduler._duties[2:]:
        duty.due_at = 0
    assert scheduler.step() == 0
    scheduler.step()
    assert schedule_store.entry(client, "s").due_at == pytest.approx(found.next(int(clock.now)), abs=1)


def test_schedules_that_cannot_be_stored_stop_no_other_duty(client, clock, monkeypatch):
    def full() -> None:
        raise ResponseError("OOM command not allowed")

    monkeypatch.setattr(clock.enqueuer, "sync", full)
    scheduler = Scheduler(client, enqueuer=clock.enqueuer)
    scheduler.leadership = clock.leadership
    id = sample_jobs.noop.options(delay=0).enqueue()
    scheduler.step()
    assert ids(client) == [id]


def test_the_ledger_is_bounded(client, clock, monkeypatch):
    monkeypatch.setattr(schedule_ledger, "MOST_ENTRIES", 5)
    clock.put(every=1, overlap="skip")
    for _ in range(20):
        clock.later(1)
    assert client.llen(schedule_ledger.ticks_key("s")) == 5


# --- cost


def test_ten_thousand_schedules_cost_one_round_trip_per_round(client, clock):
    names = [f"s{number}" for number in range(10_000)]
    record = '{"name":"%s","job":"' + NOOP + '","cron":"0 0 1 1 *"}'
    client.hset(schedule_store.SCHEDULES, mapping={name: record % name for name in names})
    client.zadd(schedule_store.NEXT, dict.fromkeys(names, clock.now + 10_000))
    found = clock.put("s")
    clock.enqueuer.ahead = found.next(int(clock.now)) - clock.now + 0.2
    before = client.info("stats")["total_commands_processed"]
    began = time.thread_time()
    clock.enqueuer.round(clock.leadership.check())
    took = time.thread_time() - began
    assert len(ids(client)) == 1
    assert took < 0.05  # of the processor: it takes 1 ms
    assert clock.enqueuer.round(clock.leadership.check()) > 0
    assert client.info("stats")["total_commands_processed"] - before < 60


@pytest.fixture(autouse=True)
def enqueueing(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "_default", Client(client))
