"""Verdicts: how a job ends, or where it goes, when its worker loses it."""

from __future__ import annotations

import math
import time

import msgspec
import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from packmule.jobs import keys, reader, registry, wire
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import Counts
from packmule.jobs.client import Client
from packmule.observe import events
from packmule.tests.worker import limited_jobs, pool_jobs
from packmule.tests.worker.test_callbacks import HERE, Desk, failed, with_callbacks
from packmule.worker.process import outcome
from packmule.worker.process.claimed import Claimed
from packmule.worker.rescue import rescue
from packmule.worker.scoreboard import MAIN, RunningJob
from packmule.worker.started import Marks

YEAR, LONGEST, WEEK = 31_536_000, 3_153_600_000, 604_800


@pytest.fixture
def desk(client: Redis) -> Desk:
    Client(client).make_default()
    return Desk(client)


@pytest.fixture
def queue(client: Redis) -> Queue:
    registry.load([HERE])
    return Queue("default", connection=client, serializer=JSONSerializer)


def claimed(desk: Desk) -> Claimed:
    pool_jobs.add.enqueue(1)
    (job,) = desk.exchange()
    return job


def mark_started(desk: Desk, job: Claimed) -> None:
    running = RunningJob(MAIN, job.id, job.execution, 0.0, float("inf"), False)
    Marks(desk.client).mark(desk.name, [running], 1.0)


def told(client: Redis, id: str) -> list[tuple[str, str, str]]:
    """The types of a job's events, with their workers and reasons, but for its enqueue and its errors."""
    return [
        (event.type, event.worker, event.details.get("reason", ""))
        for event in events.read(client)
        if event.job == id and event.type not in ("enqueued", "started", "error_new")
    ]


KEPT = [
    ("500", 500), ("12.7", 12), ("-1", -1), ("-5", -1), ("1e300", LONGEST), ("nan", YEAR), ("x", YEAR),
]  # fmt: skip


@pytest.mark.parametrize(("ttl", "kept"), KEPT)
def test_a_job_that_ends_with_its_worker_is_kept_for_its_failure_ttl(client, desk, ttl, kept):
    job = claimed(desk)
    client.hset(keys.job_key(job.id), "failure_ttl", ttl)
    client.expire(keys.job_key(job.id), 1000)  # as somebody else may have left it
    assert rescue(client, "w1", "overran", "why", [job.execution]).failed == [job.id]
    assert reader.read(client, job.id).status == "failed"
    for key in (keys.job_key(job.id), keys.results_key(job.id)):
        assert kept - 5 < client.ttl(key) <= kept
    score = client.zscore("rq:failed:default", job.id)
    assert score == (math.inf if kept < 0 else pytest.approx(time.time() + kept, abs=5))
    assert score in (math.inf, score // 1), "RQ's own are whole seconds"
    assert told(client, job.id) == [("failed", "w1", "overran")]
    assert client.exists(keys.PARENTS) == 0


@pytest.mark.parametrize("verdict", ["stopped", "overran"])
def test_the_results_of_a_job_that_was_lost_are_bounded(client, desk, verdict):
    job = claimed(desk)
    client.hset(keys.job_key(job.id), "retries_left", 1)
    for _ in range(300):
        client.xadd(keys.results_key(job.id), {"type": 4})
    rescue(client, "w1", verdict, "why", [job.execution])
    assert 10 <= client.xlen(keys.results_key(job.id)) < 200


@pytest.mark.parametrize(("verdict", "kind"), [("stopped", "stopped"), ("overran", "failure")])
def test_the_callback_of_a_job_that_ends_with_its_worker_is_due_at_the_next(
    client, desk, queue, verdict, kind
):
    job = with_callbacks(queue, "body", failure_ttl=100)
    (body,) = desk.exchange()
    rescue(client, "w1", verdict, "why", [body.execution])
    assert job.latest_result().type.name == {"stopped": "STOPPED", "failure": "FAILED"}[kind]
    assert WEEK < client.ttl(job.key) <= WEEK + 100
    other = Desk(client, "w2")
    (due,) = other.exchange()
    assert (due.id, due.due.kind) == (job.id, kind)
    other.exchange([outcome.settled(due)], want=0)
    assert 95 < client.ttl(job.key) <= 100


@pytest.mark.parametrize("verdict", ["died", "overran"])
def test_a_replaced_singleton_that_ends_with_its_worker_calls_back_as_stopped(client, desk, verdict):
    id = limited_jobs.replaces.options(retries=1).enqueue("p", "1")
    names = {f"{kind}_callback_name": f"{HERE}.{kind}" for kind in ("failure", "stopped")}
    client.hset(keys.job_key(id), mapping=names)
    (job,) = desk.exchange()
    limited_jobs.replaces.enqueue("p", "2")
    assert rescue(client, "w1", verdict, "why", [job.execution]).failed == [id]
    (due,) = Desk(client, "w2").exchange()
    assert (due.id, due.due.kind) == (id, "stopped")


def test_a_list_of_parents_that_is_none_keeps_no_job_from_its_end(client, desk):
    job = claimed(desk)
    client.sadd(f"{keys.job_key(job.id)}:dependents", "child")
    client.set(keys.PARENTS, "in the way")
    assert rescue(client, "w1", "stopped", "why", [job.execution]).failed == [job.id]
    assert client.zrange(keys.PARENTS, 0, -1) == [job.id.encode()]


@pytest.mark.parametrize("text", ["", "x", "-3"])
def test_a_job_without_sound_retries_ends_at_its_timeout(client, desk, text):
    job = claimed(desk)
    client.hset(keys.job_key(job.id), "retries_left", text)
    assert rescue(client, "w1", "overran", "why", [job.execution]).failed == [job.id]
    assert client.hget(keys.job_key(job.id), "status") == b"failed"


def test_a_job_may_use_its_last_retry_after_a_timeout(client, desk):
    job = claimed(desk)
    client.hset(keys.job_key(job.id), "retries_left", 1)
    assert rescue(client, "w1", "overran", "why", [job.execution]).back == [job.id]
    assert client.hget(keys.job_key(job.id), "retries_left") == b"0"


@pytest.mark.parametrize(
    ("verdict", "status"), [("died", "queued"), ("returned", "queued"), ("stopped", "stopped")]
)
def test_only_a_timeout_uses_up_a_retry(client, desk, verdict, status):
    job = claimed(desk)
    client.hset(keys.job_key(job.id), "retries_left", 1)
    rescue(client, "w1", verdict, "why", [job.execution])
    assert client.hmget(keys.job_key(job.id), "status", "retries_left") == [status.encode(), b"1"]


def overran(desk: Desk, **fields: str | int) -> Claimed:
    """A job with a retry that was killed for its timeout, and may call back."""
    job = claimed(desk)
    desk.client.hset(keys.job_key(job.id), mapping={"retries_left": 1} | fields)
    rescue(desk.client, "w1", "overran", "why", [job.execution])
    return job


WAITS = [("[60]", 1, 60), ("[5, 60]", 1, 60), ("[5, 60]", 2, 5), ("[5, 60]", 9, 5), ("[1e300]", 1, LONGEST)]


@pytest.mark.parametrize(("intervals", "left", "wait"), WAITS)
def test_a_job_that_overran_waits_for_its_next_interval(client, desk, intervals, left, wait):
    job = overran(desk, retries_left=left, retry_intervals=intervals, failure_ttl=300)
    score = client.zscore("rq:scheduled:default", job.id)
    assert score == pytest.approx(time.time() + wait, abs=5)
    record = client.hmget(keys.job_key(job.id), "status", "attempts", "worker_name")
    assert record == [b"scheduled", b"1", b""]
    assert wire.time_seconds(client.hget(keys.job_key(job.id), "ended_at").decode())
    ((_, result),) = client.xrange(keys.results_key(job.id))
    assert result[b"execution_id"] == job.execution.encode()
    assert 295 < client.ttl(keys.results_key(job.id)) <= 300
    event = next(each for each in events.read(client) if each.type == "retried")
    assert event.worker == "w1"
    assert event.details == {"reason": "overran", "delay": wait}


@pytest.mark.parametrize(("attempts", "most"), [(0, 1), (2, 4), (5000, 3600)])
@pytest.mark.parametrize("intervals", ["", "[]", "null", "[1"])
def test_a_job_that_overran_without_intervals_waits_longer_after_each_attempt(
    client, desk, attempts, most, intervals
):
    job = overran(desk, attempts=attempts, retry_intervals=intervals)
    ((name, _),) = client.xrange(keys.results_key(job.id))
    now = int(name.split(b"-")[0]) / 1000
    wait = client.zscore("rq:scheduled:default", job.id) - now
    assert wait == pytest.approx(most * (now % 1), abs=0.002 + most / 500), "the rest of the second is random"


@pytest.mark.parametrize("has_callback", [True, False])
@pytest.mark.parametrize("is_front", [True, False])
@pytest.mark.parametrize("intervals", ["[0]", "[-5]", '["soon"]'])
def test_a_job_that_overran_and_need_not_wait_goes_to_the_end_of_its_queue_that_it_asked_for(
    client, desk, has_callback, is_front, intervals
):
    other = pool_jobs.add.enqueue(0)
    client.lmove(keys.queue_key("default"), "aside", "LEFT", "RIGHT")
    job = claimed(desk)
    client.lmove("aside", keys.queue_key("default"), "LEFT", "RIGHT")
    fields = {"retries_left": 1, "retry_intervals": intervals, "enqueue_at_front_on_retry": int(is_front)}
    callback = {"failure_callback_name": f"{HERE}.failed"} if has_callback else {}
    client.hset(keys.job_key(job.id), mapping=fields | callback)
    rescue(client, "w1", "overran", "why", [job.execution])
    if has_callback:
        next_desk = Desk(client, "w2")
        next_desk.exchange([outcome.settled(due) for due in next_desk.exchange()], want=0)
    expected = [job.id, other] if is_front else [other, job.id]
    assert client.lrange(keys.queue_key("default"), 0, -1) == [id.encode() for id in expected]
    assert client.hget(keys.job_key(job.id), "status") == b"queued"


def test_a_timeout_uses_up_no_retry_of_the_jobs_beside(client, desk):
    pool_jobs.add.options(retries=1, retry_intervals=[60]).enqueue_many([(1,), (2,)])
    jobs = desk.exchange(want=2)
    rescue(client, "w1", "overran", "why", [jobs[0].execution])
    assert [client.hget(keys.job_key(job.id), "retries_left") for job in jobs] == [b"0", b"1"]


@pytest.mark.parametrize("count", ["x", "9" * 30, "2"])
def test_a_job_with_a_corrupt_count_of_deaths_dies_no_further_time(client, desk, count):
    job = claimed(desk)
    client.hset(keys.job_key(job.id), "deaths", count)
    assert rescue(client, "w1", "died", "why", [job.execution]).failed == [job.id]
    assert client.hget(keys.job_key(job.id), "crash") is None, "nobody knows how it died"


def test_a_callback_that_is_given_up_is_named_and_what_follows_it_comes(client, desk, queue):
    job = with_callbacks(queue, "body", webhooks=None)
    (body,) = desk.exchange()
    client.hset(job.key, "webhooks", "[]")
    (due,) = desk.exchange([failed(body)], want=0)
    assert due.due.step == "callback"
    rescue(client, "w1", "overran", "why", [due.execution])
    (note,) = client.lrange(keys.QUARANTINE, 0, -1)
    assert job.id.encode() in note
    assert b"its callback was given up, since its process was killed" in note
    (due,) = Desk(client, "w2").exchange()
    assert (due.id, due.due.step) == (job.id, "webhooks")
    rescue(client, "w2", "stopped", "why", [due.execution])
    assert (queue.job_ids, client.hget(job.key, "callback_due")) == ([], None)


@pytest.mark.parametrize(("verdict", "event"), [("vanished", "rescued"), ("returned", "returned")])
def test_only_a_job_that_had_started_is_told_as_taken_back(client, desk, verdict, event):
    waits, runs = pool_jobs.add.enqueue_many([(1,), (2,)])
    first, second = desk.exchange(want=2)
    mark_started(desk, second)
    assert rescue(client, "w1", verdict, "why").back == [runs, waits]
    assert told(client, first.id) == []
    assert told(client, second.id) == [(event, "w1", verdict)]
    seen = ("rq:wip:default", keys.executions_key(runs), keys.execution_key(runs, second.execution))
    assert client.exists(*seen) == 0, "RQ's readers would see it run"


@pytest.mark.parametrize("status", ["", "queued", "started", "created"])
@pytest.mark.parametrize("place", ["claims", "waiting list"])
def test_a_job_that_has_not_ended_goes_back(client, desk, status, place):
    id = pool_jobs.add.enqueue(1)
    if place == "claims":
        desk.exchange()
    else:
        client.lmove(keys.queue_key("default"), keys.waiting_key("w1"))
    client.hdel(keys.job_key(id), "status")
    record = {"worker_name": "w1", "callback_due": f"callback {status or 'queued'} failure end 1 e"}
    client.hset(keys.job_key(id), mapping=record | ({"status": status} if status else {}))
    assert rescue(client, "w1", "vanished", "why").back == [id]
    assert client.lrange(keys.queue_key("default"), 0, -1) == [id.encode()]
    assert client.hmget(keys.job_key(id), "status", "worker_name") == [b"queued", b""]
    is_told = (place, status) == ("claims", "started")
    assert told(client, id) == [("rescued", "w1", "vanished")] * is_told


@pytest.mark.parametrize("place", ["claims", "waiting list"])
@pytest.mark.parametrize(
    ("record", "is_set_aside", "counts"),
    [
        ("gone", False, Counts(1, 0, 0, 0)),
        ("another type", True, Counts(1, 0, 0, 0)),
        ("queued, names no queue", True, Counts(1, 0, 1, 0)),
        ("finished", False, Counts(1, 1, 0, 0)),
        ("finished, names no queue", False, Counts(1, 1, 0, 0)),
    ],
)
def test_what_is_no_job_does_not_go_back(client, desk, place, record, is_set_aside, counts):
    with Batch.create() as batch:
        id = pool_jobs.add.options(batch=batch.id).enqueue(1)
    innocent = pool_jobs.add.enqueue(2)
    if place == "claims":
        desk.exchange(want=2)
    else:
        for _ in range(2):
            client.lmove(keys.queue_key("default"), keys.waiting_key("w1"))
    key = keys.job_key(id)
    if record.endswith("no queue"):
        status = record.split(",")[0]
        client.hset(key, mapping={"status": status, "callback_due": f"callback {status} success end 100 e"})
        client.hdel(key, "origin")
    elif record == "finished":
        client.hset(key, "status", record)
    else:
        client.delete(key)
    if record == "another type":
        client.set(key, "in the way")
    assert rescue(client, "w1", "vanished", "why").back == [innocent]
    assert client.lrange(keys.queue_key("default"), 0, -1) == [innocent.encode()]
    assert [id.encode() in note for note in client.lrange(keys.QUARANTINE, 0, -1)] == [True] * is_set_aside
    assert batch.state().counts == counts


def test_a_job_that_another_execution_has_ended_does_not_run_again(client, desk, queue):
    job = with_callbacks(queue, "body")
    (old,) = desk.exchange()
    queue.push_job_id(job.id)  # somebody's code, while it runs
    other = Desk(client, "w2")
    (new,) = other.exchange()
    (due,) = other.exchange([failed(new)], want=0)
    assert rescue(client, "w1", "died", "why", [old.execution]).back == []
    assert queue.job_ids == []
    assert (due.id, job.get_status(refresh=True)) == (job.id, "failed")


def test_a_job_that_was_stopped_by_force_counts_as_stopped(client, desk):
    job = claimed(desk)
    rescue(client, "w1", "stopped", "why", [job.execution])
    assert reader.read(client, job.id).status == "stopped"


def test_a_verdict_is_about_no_execution_whose_name_begins_another(client, desk):
    enqueued = pool_jobs.add.enqueue_many([(number,) for number in range(12)])
    jobs = {job.execution: job.id for job in desk.exchange(want=12)}
    named = next(each for each in jobs if each.endswith("-12"))
    rescued = rescue(client, "w1", "overran", "why", [named])
    assert rescued.failed == [jobs[named]]
    assert set(rescued.back) == set(enqueued) - {jobs[named]}


def test_a_job_that_ended_is_kept_a_week_longer_while_its_callback_is_due(client, desk, queue):
    job = with_callbacks(queue, "body", failure_ttl=100)
    (body,) = desk.exchange()
    (due,) = desk.exchange([failed(body)], want=0)
    for key in (job.key, keys.results_key(job.id)):
        assert WEEK < client.ttl(key) <= WEEK + 100
    desk.exchange([outcome.settled(due)], want=0)
    for key in (job.key, keys.results_key(job.id)):
        assert 95 < client.ttl(key) <= 100


def test_a_callback_that_waited_for_a_worker_goes_back_as_one(client, desk, queue):
    job = with_callbacks(queue, "body")
    (body,) = desk.exchange()
    desk.exchange([failed(body)], want=0)
    rescue(client, "w1", "vanished")
    client.lmove(keys.queue_key("default"), keys.waiting_key("w2"))
    rescue(client, "w2", "vanished")
    (due,) = Desk(client, "w3").exchange()
    assert (due.id, due.due.kind) == (job.id, "failure")


def test_a_callback_of_another_end_is_neither_settled_nor_given_back(client, desk, queue):
    job = with_callbacks(queue, "body")
    (body,) = desk.exchange()
    (old,) = desk.exchange([failed(body)], want=0)
    client.hset(job.key, "status", "queued")
    queue.push_job_id(job.id)  # RQ's code enqueued it again
    mark_started(desk, old)
    assert job.get_status(refresh=True) == "queued"
    rescue(client, "w1", "vanished")
    client.hset(keys.claims_key("w1"), job.id, old.execution)
    desk.exchange([outcome.returned(old)], want=0)
    assert queue.job_ids == [job.id]
    other = Desk(client, "w2")
    (new,) = other.exchange()
    (due,) = other.exchange([failed(new)], want=0)
    for end in (
        lambda: desk.exchange([outcome.settled(old)], want=0),
        lambda: rescue(client, "w1", "overran", "why", [old.execution]),
    ):
        client.hset(keys.claims_key("w1"), job.id, old.execution)
        end()
        assert client.hget(job.key, "callback_due").decode().endswith(f" {due.execution}")
    assert queue.job_ids == []
    other.exchange([outcome.settled(due)], want=0)
    assert client.hget(job.key, "callback_due") is None


def test_a_job_that_goes_back_unperformed_expires_as_before(client, desk):
    job = claimed(desk)
    client.expire(keys.job_key(job.id), 1000)  # RQ's ttl of a job that waits
    desk.exchange([outcome.returned(job)], want=0)
    assert 990 < client.ttl(keys.job_key(job.id)) <= 1000
    assert client.exists(keys.results_key(job.id)) == 0


def test_a_job_that_runs_again_does_not_expire_meanwhile(client, desk):
    job = claimed(desk)
    client.expire(keys.job_key(job.id), 1000)
    desk.exchange([outcome.again(job, "later", 1.0, 2.0, 60)], want=0)
    assert client.ttl(keys.job_key(job.id)) == -1


def test_the_deaths_of_a_job_do_not_count_for_its_callback(client, desk, queue):
    job = with_callbacks(queue, "body")
    client.hset(job.key, "deaths", 2)
    (body,) = desk.exchange()
    (due,) = desk.exchange([failed(body)], want=0)
    rescue(client, "w1", "died", "why", [due.execution])
    (again,) = Desk(client, "w2").exchange()
    assert (again.id, again.due.kind) == (job.id, "failure")


@pytest.mark.parametrize(
    ("changes", "types"), [({}, ["returned"]), ({"is_marked": False}, []), ({"delay": 60.0}, [])]
)
def test_a_job_that_cannot_have_started_is_not_told_as_returned(client, desk, changes, types):
    job = claimed(desk)
    before = client.xlen(keys.JOB_EVENTS)
    desk.exchange([msgspec.structs.replace(outcome.returned(job), **changes)], want=0)
    assert told(client, job.id) == [(type, "w1", "") for type in types]
    assert client.xlen(keys.JOB_EVENTS) == before + len(types)


def test_only_a_job_that_runs_again_is_told_with_a_delay(client, desk):
    ends, again = claimed(desk), claimed(desk)
    desk.exchange([failed(ends), outcome.again(again, "later", 1.0, 2.0, 60)], want=0)
    delays = {event.type: event.details.get("delay") for event in events.read(client)}
    assert (delays["failed"], delays["retried"]) == (None, 60)
