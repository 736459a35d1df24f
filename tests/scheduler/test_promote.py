"""Promotion: each due job goes to its queue once and in order, and corrupt keys stop nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.registry import ScheduledJobRegistry
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer

from packmule.coordination.redis.connection import connect
from packmule.jobs import keys, wire
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import Counts
from packmule.jobs.client import Client
from packmule.observe import events
from packmule.scheduler.maintenance.promote import JOBS_A_CALL, QUEUES_A_CALL, promote
from packmule.tests.jobs import sample_jobs
from packmule.tests.worker import limited_jobs
from packmule.worker.order import Strict
from packmule.worker.process import outcome
from packmule.worker.process.claim import Claims


@pytest.fixture(autouse=True)
def enqueueing(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "_default", Client(client))


def rq_queue(client: Redis, name: str = "default") -> Queue:
    return Queue(name, connection=client, serializer=JSONSerializer)


def scheduled(client: Redis, queue: str = "default") -> int:
    return int(client.zcard(keys.registry_key("scheduled", queue)))


def quarantine(client: Redis) -> list[dict[str, str]]:
    return [json.loads(entry) for entry in client.lrange(keys.QUARANTINE, 0, -1)]


def promote_all(client: Redis) -> float | None:
    """Promote until nothing more is due, as the scheduler does step by step."""
    due: float | None = 0.0
    while due is not None and due <= 0:
        due = promote(client)
    return due


def test_a_due_job_goes_to_its_queue_and_rq_reads_it_there(client):
    before = datetime.now(UTC)
    id = sample_jobs.add.options(delay=0, queue="high").enqueue(1, b=2)
    assert promote(client) is None
    assert rq_queue(client, "high").job_ids == [id]
    job = Job.fetch(id, client, JSONSerializer)
    assert job.get_status() is JobStatus.QUEUED
    assert before <= job.enqueued_at <= datetime.now(UTC)
    assert (job.args, job.kwargs) == ([1], {"b": 2})
    assert scheduled(client, "high") == 0


@pytest.mark.parametrize("delays", [(100, 50), (50, 100)])
def test_a_job_that_is_not_due_stays_and_its_time_is_returned(client, delays):
    for queue, delay in zip(("default", "low"), delays, strict=True):
        sample_jobs.noop.options(delay=delay, queue=queue).enqueue()
    assert 45 < promote(client) <= 50
    assert (scheduled(client), scheduled(client, "low")) == (1, 1)
    assert rq_queue(client).job_ids == []


def test_a_job_stays_that_is_due_later_than_others_of_its_queue(client):
    now, later = (sample_jobs.noop.options(delay=delay).enqueue() for delay in (0, 50))
    assert 45 < promote(client) <= 50
    assert rq_queue(client).job_ids == [now]
    assert ScheduledJobRegistry(queue=rq_queue(client)).get_job_ids() == [later]


def test_a_group_whose_time_has_come_goes_on(client):
    id = limited_jobs.alone.enqueue("p", "1")
    claims = Claims(client, "w", Strict(["default"]))
    (job,) = claims.finish_and_claim(claims.next_id(), [], 1).jobs
    claims.finish_and_claim(claims.next_id(), [outcome.postponed(job, 0.01)], 0)
    deadline = time.monotonic() + 60
    while rq_queue(client).job_ids != [id]:
        assert time.monotonic() < deadline
        promote(client)
    assert client.exists(keys.DUE) == 0


def test_the_time_of_the_next_blocked_group_is_returned(client):
    client.zadd("pm:due", {"default\ngroup": time.time() + 50})
    assert 45 < promote(client) <= 50


def test_with_nothing_scheduled_nothing_is_due(client):
    assert promote(client) is None
    sample_jobs.noop.enqueue()
    assert promote(client) is None


def test_a_job_is_promoted_when_its_time_has_come_and_not_before(client):
    due = time.monotonic() + 0.3
    id = sample_jobs.noop.options(delay=0.3).enqueue()
    deadline = time.monotonic() + 60
    while not rq_queue(client).job_ids:
        assert time.monotonic() < deadline
        promote(client)
    assert time.monotonic() >= due - 0.05
    assert rq_queue(client).job_ids == [id]


def test_due_jobs_keep_the_order_of_their_times(client):
    now = datetime.now(UTC)
    ids = [
        sample_jobs.noop.options(at=now - timedelta(seconds=ago), job_id=f"ago-{ago}").enqueue()
        for ago in (1, 3, 2, 5, 4)
    ]
    waiting = sample_jobs.noop.enqueue()
    promote(client)
    assert rq_queue(client).job_ids == [waiting, *sorted(ids, reverse=True)]


@pytest.mark.parametrize(("job", "args"), [(sample_jobs.noop, ()), (limited_jobs.in_turn, ("p", "a"))])
def test_a_delayed_job_can_go_to_the_front(client, job, args):
    waiting = sample_jobs.noop.enqueue()
    first = job.options(delay=0, at_front=True).enqueue(*args)
    promote(client)
    assert rq_queue(client).job_ids == [first, waiting]
    last = sample_jobs.noop.options(delay=0).enqueue()
    client.hset(keys.job_key(last), "enqueue_at_front", "0")  # as RQ writes it
    promote(client)
    assert rq_queue(client).job_ids == [first, waiting, last]


def test_more_jobs_than_a_call_takes_are_promoted_in_bounded_calls_and_in_order(client):
    ids = sample_jobs.noop.options(delay=0).enqueue_many([()] * (2 * JOBS_A_CALL + 1))
    assert promote(client) <= 0
    assert len(rq_queue(client).job_ids) == JOBS_A_CALL
    assert promote(client) <= 0
    assert promote(client) is None
    assert rq_queue(client).job_ids == ids


def test_a_queue_with_many_due_jobs_does_not_delay_the_others(client):
    many = sample_jobs.noop.options(delay=0, queue="a").enqueue_many([()] * 1200)
    id = sample_jobs.noop.options(delay=0, queue="b").enqueue()
    promote(client)
    assert rq_queue(client, "b").job_ids == [id]
    assert rq_queue(client, "a").job_ids == many[: JOBS_A_CALL // 2]


def test_each_queue_with_a_due_job_moves_one_at_least(client, monkeypatch):
    monkeypatch.setattr("packmule.scheduler.maintenance.promote.JOBS_A_CALL", 1)
    ids = [sample_jobs.noop.options(delay=0, queue=queue).enqueue() for queue in "ab"]
    promote(client)
    assert [rq_queue(client, queue).job_ids for queue in "ab"] == [[id] for id in ids]


def test_any_number_of_queues_share_a_call(client):
    names = [f"q{number}" for number in range(7)]
    for name in names:
        sample_jobs.noop.options(delay=0, queue=name).enqueue()
    assert promote(client) is None
    assert [len(rq_queue(client, name).job_ids) for name in names] == [1] * 7


def test_a_call_checks_some_of_many_queues_and_a_round_all(client):
    names = [f"q{number}" for number in range(5 * QUEUES_A_CALL)]
    client.sadd(keys.QUEUES, *map(keys.queue_key, names))
    sample_jobs.noop.options(delay=50, queue=names[1]).enqueue()
    for name in (names[0], names[700], names[-1]):
        sample_jobs.noop.options(delay=0, queue=name).enqueue_many([()] * 2)
    promote_all(client)
    client.config_resetstat()
    assert 45 < promote(client) <= 50
    assert 5 <= client.info("commandstats")["cmdstat_evalsha"]["calls"] <= 10
    assert [len(rq_queue(client, name).job_ids) for name in (names[0], names[700], names[-1])] == [2] * 3


def test_two_schedulers_at_the_same_time_promote_each_job_once(client, server):
    ids = sample_jobs.noop.options(delay=0).enqueue_many([()] * 3000)
    together = threading.Barrier(4, timeout=60)

    def run() -> None:
        with connect(None, server.data_dir) as own:
            together.wait()
            promote_all(own)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rq_queue(client).job_ids == ids
    assert scheduled(client) == 0


def test_a_full_memory_stops_no_promotion(spare_server, monkeypatch):
    with connect(None, spare_server().data_dir) as client:
        monkeypatch.setattr(Client, "_default", Client(client))
        id = sample_jobs.noop.options(delay=0).enqueue()
        client.hset(keys.LEADER, "term", "7")
        client.config_set("maxmemory", 1)
        assert promote(client, "7", 3.0) is None
        assert rq_queue(client).job_ids == [id]


def rq_scheduler(client: Redis) -> RQScheduler:
    return RQScheduler(["default"], client, serializer=JSONSerializer)


def test_rqs_scheduler_that_was_first_leaves_a_queue_before_ours_takes_it(client):
    theirs = rq_scheduler(client)
    assert theirs.acquire_locks() == {"default"}
    id = sample_jobs.noop.options(delay=0).enqueue()
    assert 2.5 < promote(client) <= 3
    assert 0 < promote(client) <= 3
    theirs.register_birth()
    theirs.heartbeat()
    theirs.enqueue_scheduled_jobs()
    assert theirs.acquired_locks == set()
    assert rq_queue(client).job_ids == []
    client.expire("rq:scheduler-lock:default", 60)  # the three seconds are over
    assert promote(client) is None
    assert rq_queue(client).job_ids == [id]


def test_rqs_scheduler_that_comes_later_gets_a_queue_only_after_ours_is_gone(client):
    sample_jobs.noop.enqueue()
    promote(client)
    theirs = rq_scheduler(client)
    assert theirs.acquire_locks() == set()
    assert 55 < client.ttl("rq:scheduler-lock:default") <= 60
    client.expire("rq:scheduler-lock:default", 50)
    promote(client)
    assert client.ttl("rq:scheduler-lock:default") <= 50, "an idle queue costs no write"
    client.expire("rq:scheduler-lock:default", 20)
    promote(client)
    assert 55 < client.ttl("rq:scheduler-lock:default") <= 60
    client.delete("rq:scheduler-lock:default")
    assert theirs.acquire_locks() == {"default"}


@pytest.mark.parametrize("comes_first", ["ours", "theirs"])
def test_beside_rqs_scheduler_each_job_is_enqueued_once(client, server, comes_first):
    ids = [sample_jobs.noop.options(delay=0).enqueue()]  # names the queue
    if comes_first == "ours":
        promote(client)
    theirs = rq_scheduler(client)
    theirs.acquire_locks()
    process = theirs.start()
    try:
        for number in range(100):
            ids.append(sample_jobs.noop.options(delay=0.02 * number).enqueue())
            # RQ schedules a job before it writes the record, and its scheduler forgets one without a record.
            ids.append(
                rq_queue(client)
                .enqueue_in(timedelta(seconds=3 + 0.02 * number), "packmule.tests.jobs.sample_jobs.noop")
                .id
            )
        deadline = time.monotonic() + 60
        while scheduled(client):
            assert time.monotonic() < deadline
            promote(client)
        time.sleep(1.5)  # so that RQ's scheduler finishes what it started
    finally:
        process.terminate()
        process.join()
    assert sorted(rq_queue(client).job_ids) == sorted(ids)


def test_a_retry_is_promoted_when_it_is_due(client):
    id = sample_jobs.noop.options(retries=1, retry_intervals=[0.01]).enqueue()
    claims = Claims(client, "w", Strict(["default"]))
    (job,) = claims.finish_and_claim(claims.next_id(), [], 1).jobs
    claims.finish_and_claim(claims.next_id(), [outcome.failed(job, "ValueError", 1, 2)], 0)
    assert Job.fetch(id, client, JSONSerializer).get_status() is JobStatus.SCHEDULED
    deadline = time.monotonic() + 60
    while rq_queue(client).job_ids != [id]:
        assert time.monotonic() < deadline
        promote(client)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda queue: queue.enqueue_at(datetime.now(UTC) - timedelta(seconds=1), "shop.send", "ada"),
        lambda queue: queue.enqueue_in(timedelta(0), "shop.send", "ada"),
    ],
    ids=["enqueue_at", "enqueue_in"],
)
def test_a_job_that_rq_scheduled_is_promoted_and_rq_reads_it(client, schedule: Callable[[Queue], Job]):
    queue = rq_queue(client, "mail")
    job = schedule(queue)
    assert ScheduledJobRegistry(queue=queue).get_job_ids() == [job.id]
    deadline = time.monotonic() + 60
    while not queue.job_ids:
        assert time.monotonic() < deadline
        promote(client)
    assert queue.job_ids == [job.id]
    job.refresh()
    assert (job.get_status(), job.args) == (JobStatus.QUEUED, ["ada"])
    assert ScheduledJobRegistry(queue=queue).get_job_ids() == []


def test_a_job_that_rq_schedules_before_it_writes_the_record_is_promoted(client):
    job = rq_queue(client).create_job("packmule.tests.jobs.sample_jobs.noop")
    client.sadd(keys.QUEUES, keys.queue_key("default"))
    ScheduledJobRegistry("default", client).schedule(job, datetime.now(UTC))  # as `enqueue_in` does first
    promote(client)
    assert (rq_queue(client).job_ids, scheduled(client)) == ([], 1)
    job.save()
    deadline = time.monotonic() + 60
    while rq_queue(client).job_ids != [job.id]:
        assert time.monotonic() < deadline
        promote(client)


def test_a_scheduled_id_without_a_record_is_forgotten_after_a_while(client):
    client.sadd(keys.QUEUES, keys.queue_key("default"))
    due = keys.registry_key("scheduled", "default")
    client.zadd(due, {"expired": 1})
    assert 0 < promote(client) <= 0.5
    assert 10 < client.ttl("pm:unwritten:expired") <= 60
    since = str(time.time() + 60)  # not long ago, however slow this machine is
    client.set("pm:unwritten:expired", since)
    client.zadd(due, {"expired": 1})
    promote(client)
    assert (scheduled(client), client.get("pm:unwritten:expired")) == (1, since.encode())
    client.set("pm:unwritten:expired", str(time.time() - 11))
    client.zadd(due, {"expired": 1})
    promote(client)
    assert (scheduled(client), rq_queue(client).job_ids, quarantine(client)) == (0, [], [])


# --- corrupt keys


def test_corrupt_entries_are_set_aside_with_their_reason_and_others_are_promoted(client):
    due = keys.registry_key("scheduled", "default")
    good = sample_jobs.noop.options(delay=0).enqueue_many([()] * 2)
    client.hset(keys.job_key("half"), "status", "scheduled")
    client.set(keys.job_key("text"), "no record")
    client.zadd(due, {"half": 1, "text": 2, "expired": 3, b"\xff": 4})
    promote(client)
    assert rq_queue(client).job_ids == good
    assert {entry["job_id"]: entry["reason"].split()[0] for entry in quarantine(client)} == {
        "half": "the",
        "text": "WRONGTYPE",
    }
    assert all(wire.time_seconds(entry["at"]) for entry in quarantine(client))
    assert client.zrange(due, 0, -1) == [b"expired", b"\xff"]  # records that may still be written
    assert client.get(keys.job_key("text")) == b"no record"


def test_a_corrupt_job_counts_as_failed_in_its_batch(client):
    with Batch.create() as batch:
        id = sample_jobs.noop.options(delay=0, batch=batch.id).enqueue()
    client.hdel(keys.job_key(id), "data")
    promote(client)
    assert batch.state().counts == Counts(1, 0, 1, 0)


def test_a_set_of_queues_of_another_type_is_moved_aside(client):
    client.set(keys.QUEUES, "in the way")
    assert promote(client) is None
    assert client.get(f"pm:broken:{keys.QUEUES}") == b"in the way"
    assert [(event.type, event.job) for event in events.read(client)] == [("quarantined", keys.QUEUES)]


def test_scheduled_jobs_of_another_type_are_moved_aside_and_stop_no_other_queue(client):
    client.sadd(keys.QUEUES, keys.queue_key("a"))
    client.set(keys.registry_key("scheduled", "a"), "in the way")
    id = sample_jobs.noop.options(delay=0, queue="b").enqueue()
    promote(client)
    assert rq_queue(client, "b").job_ids == [id]
    assert client.get("pm:broken:rq:scheduled:a") == b"in the way"
    assert [entry["job_id"] for entry in quarantine(client)] == ["rq:scheduled:a"]


def test_keys_of_another_type_beside_a_scheduled_job_stop_nothing(client):
    id = sample_jobs.noop.options(delay=0).enqueue()
    client.rpush("rq:scheduler-lock:default", "in the way")
    client.rpush("pm:unwritten:expired", "in the way")
    client.zadd(keys.registry_key("scheduled", "default"), {"expired": 1})
    assert 2.5 < promote(client) <= 3, "another scheduler may have had the lock"
    client.expire("rq:scheduler-lock:default", 60)
    promote(client)
    assert rq_queue(client).job_ids == [id]
    assert client.zrange(keys.registry_key("scheduled", "default"), 0, -1) == [b"expired"]


def test_a_queue_of_another_type_is_moved_aside_and_loses_no_job(client):
    id = sample_jobs.noop.options(delay=0).enqueue()
    client.set(keys.queue_key("default"), "in the way")
    promote(client)
    assert rq_queue(client).job_ids == [id]
    assert client.get("pm:broken:rq:queue:default") == b"in the way"
    assert "string instead of a list" in quarantine(client)[0]["reason"]


@pytest.mark.parametrize("score", ["-inf", "+inf"])
def test_an_infinite_due_time_does_no_harm(client, score):
    id = sample_jobs.noop.options(delay=60).enqueue()
    client.zadd(keys.registry_key("scheduled", "default"), {id: score})
    promote(client)
    assert rq_queue(client).job_ids == ([id] if score == "-inf" else [])


def test_the_quarantine_is_bounded(client):
    client.rpush(keys.QUARANTINE, *["{}"] * 10_000)
    client.hset(keys.job_key("half"), "status", "scheduled")
    sample_jobs.noop.options(delay=60).enqueue()
    client.zadd(keys.registry_key("scheduled", "default"), {"half": 1})
    promote(client)
    assert client.llen(keys.QUARANTINE) == 10_000
    assert quarantine(client)[-1]["job_id"] == "half"
