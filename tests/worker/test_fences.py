"""Fences: a worker that lost a job writes nothing of it any more, and what lies elsewhere is left alone."""

from __future__ import annotations

import time

import pytest
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys
from packmule.jobs.client import Client
from packmule.observe import events
from packmule.tests.worker import pool_jobs
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.performer import finished
from packmule.worker.rescue import rescue
from packmule.worker.scoreboard import MAIN, RunningJob
from packmule.worker.started import Marks

PAST = time.time() - 60
YEAR = 31_536_000


@pytest.fixture
def claims(client: Redis) -> Claims:
    Client(client).make_default()
    return Claims(client, "w1", Strict(["high", "default", "low"]))


def mark_started(client: Redis, job: Claimed) -> None:
    Marks(client).mark("w1", [RunningJob(MAIN, job.id, job.execution, 0.0, float("inf"), False)], 1.0)


def claimed(claims: Claims, name: str = "c1") -> Claimed:
    pool_jobs.add.enqueue(1)
    (job,) = claims.finish_and_claim(name, [], 1).jobs
    return job


def status_of(client: Redis, job: Claimed) -> bytes | None:
    return client.hget(keys.job_key(job.id), "status")


def test_a_long_job_is_marked_although_the_memory_is_full(client, claims):
    job = claimed(claims)
    client.config_set("maxmemory", 1)
    try:
        mark_started(client, job)
    finally:
        client.config_set("maxmemory", 0)
    assert status_of(client, job) == b"started"


@pytest.mark.parametrize("broken", ["rq:wip:default", "rq:executions:{0}", "rq:execution:{0}:{1}", "origin"])
def test_a_job_is_marked_whatever_lies_where_rqs_readers_look(client, claims, broken):
    job = claimed(claims)
    if broken == "origin":
        client.hdel(keys.job_key(job.id), "origin")
    else:
        client.set(broken.format(job.id, job.execution), "in the way")
    mark_started(client, job)
    assert status_of(client, job) == b"started"
    assert [event.type for event in events.read(client)] == ["enqueued", "started"]


KEPT = [("180", 195), ("7.9", 22), ("1", 16), *((text, YEAR) for text in ("-1", "0", "1e300", "nan", "x"))]


@pytest.mark.parametrize(("timeout", "kept"), KEPT)
def test_rqs_readers_see_an_execution_for_a_while_after_its_timeout(client, claims, timeout, kept):
    job = claimed(claims)
    client.hset(keys.job_key(job.id), "timeout", timeout)
    client.expire(keys.job_key(job.id), 60)
    mark_started(client, job)
    assert client.ttl(keys.job_key(job.id)) == -1
    for key in (keys.execution_key(job.id, job.execution), keys.executions_key(job.id)):
        assert kept - 5 < client.ttl(key) <= kept
    score = client.zscore(keys.executions_key(job.id), job.execution)
    assert score == pytest.approx(time.time() + kept, abs=5)


def test_a_marked_job_is_one_that_runs_in_the_eyes_of_rqs_readers(client, claims):
    marked = claimed(claims)
    mark_started(client, marked)
    job = Job.fetch(marked.id, client, JSONSerializer)
    (execution,) = job.get_executions()
    assert (job.worker_name, execution.id, execution.worker_name) == ("w1", marked.execution, "w1")
    assert client.hget(keys.execution_key(job.id, execution.id), "id") == marked.execution.encode()
    times = (job.started_at, job.last_heartbeat, execution.created_at, execution.last_heartbeat)
    assert [at.timestamp() for at in times if at] == [pytest.approx(time.time(), abs=60)] * 4
    *_, event = events.read(client)
    assert (event.type, event.job, event.queue, event.worker) == ("started", marked.id, "default", "w1")


def test_a_job_that_its_worker_lost_is_not_marked_as_started(client, claims):
    job = claimed(claims)
    rescue(client, "w1", "vanished")
    mark_started(client, job)
    assert status_of(client, job) == b"queued"
    assert client.zcard("rq:wip:default") == 0
    other = Claims(client, "w2", Strict(["default"])).finish_and_claim("c2", [], 1).jobs[0]
    mark_started(client, job)  # another worker has it now
    assert other.id == job.id
    assert status_of(client, job) == b"queued"
    assert client.zcard("rq:wip:default") == 0


@pytest.mark.parametrize("status", ["started", "canceled", "finished"])
def test_a_job_of_another_status_is_not_marked_as_started(client, claims, status):
    job = claimed(claims)
    client.hset(keys.job_key(job.id), "status", status)
    mark_started(client, job)
    assert status_of(client, job) == status.encode()
    assert client.hget(keys.job_key(job.id), "started_at") is None
    assert client.zcard("rq:wip:default") == 0


def test_a_job_of_another_execution_is_not_rescued_with_a_named_one(client, claims):
    first, second = claimed(claims, "c1"), claimed(claims, "c2")
    for job in (first, second):
        mark_started(client, job)
    rescue(client, "w1", "stopped", executions=[first.execution], scope="named")
    assert [status_of(client, job) for job in (first, second)] == [b"stopped", b"started"]
    assert set(client.hkeys(keys.claims_key("w1"))) >= {second.id.encode()}
    assert first.id.encode() not in client.hkeys(keys.claims_key("w1"))


def test_the_verdict_applies_to_named_executions_and_the_rest_goes_back(client, claims):
    first, second = claimed(claims, "c1"), claimed(claims, "c2")
    for job in (first, second):
        mark_started(client, job)
    rescue(client, "w1", "stopped", executions=[first.execution])
    assert [status_of(client, job) for job in (first, second)] == [b"stopped", b"queued"]
    assert client.exists(keys.claims_key("w1")) == 0


def test_a_job_that_may_not_have_begun_is_not_judged(client, claims):
    job = claimed(claims)
    rescue(client, "w1", "died")
    assert status_of(client, job) == b"queued"
    assert client.hget(keys.job_key(job.id), "deaths") is None


def test_a_living_worker_is_not_rescued_from(client, claims):
    job = claimed(claims)
    client.zadd(keys.LEASES, {"w1": time.time() + 60})
    assert rescue(client, "w1", "vanished", scope="expired").back == []
    assert job.id.encode() in client.hkeys(keys.claims_key("w1"))
    client.zadd(keys.LEASES, {"w1": PAST})
    assert rescue(client, "w1", "vanished", scope="expired").back == [job.id]


def test_a_worker_whose_lease_another_pool_has_ended_is_rescued_from(client, claims):
    job = claimed(claims)
    client.zrem(keys.LEASES, "w1")
    assert rescue(client, "w1", "vanished", scope="expired").back == [job.id]


def test_a_job_that_rq_canceled_while_it_ran_is_neither_called_back_nor_listed_as_ended(client, claims):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), "success_callback_name", "shop.jobs.celebrate")
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    client.hset(keys.job_key(id), "status", "canceled")
    client.zadd("rq:canceled:default", {id: 1})
    assert claims.finish_and_claim("c2", [finished(job, b"1", 1.0, 2.0)], 5).jobs == []
    assert status_of(client, job) == b"canceled"
    assert client.hget(keys.job_key(id), "callback_due") is None
    assert client.exists("rq:finished:default", "rq:failed:default") == 0


def test_a_job_whose_record_lost_its_status_goes_back(client, claims):
    job = claimed(claims)
    client.hdel(keys.job_key(job.id), "status")
    assert rescue(client, "w1", "vanished").back == [job.id]
    assert client.lrange("rq:queue:default", 0, -1) == [job.id.encode()]


def test_progress_of_a_lost_job_is_not_written(client, claims):
    write = Script("worker.process", "write")
    job = claimed(claims)
    progress = keys.progress_key(job.id)
    key_names = [keys.claims_key("w1"), progress]
    assert write(client, key_names, [job.id, "another", 60, "done", 1]) == 0
    assert client.exists(progress) == 0
    assert write(client, key_names, [job.id, job.execution, 60, "done", 1]) == 1
    rescue(client, "w1", "returned")
    assert write(client, key_names, [job.id, job.execution, 60, "done", 2]) == 0
    assert client.hget(progress, "done") == b"1"


def test_a_checkpoint_does_not_bring_a_record_back(client, claims):
    write = Script("worker.process", "write")
    job = claimed(claims)
    key_names = [keys.claims_key("w1"), keys.job_key(job.id)]
    assert write(client, key_names, [job.id, job.execution, 0, "checkpoint", "1"]) == 1
    client.delete(keys.job_key(job.id))
    assert write(client, key_names, [job.id, job.execution, 0, "checkpoint", "2"]) == 0
    assert client.exists(keys.job_key(job.id)) == 0


def test_what_the_claims_note_beside_jobs_is_no_job(client, claims):
    job = claimed(claims)
    client.hset(keys.job_key(".claim"), mapping={"status": "queued", "origin": "default", "data": "x"})
    assert rescue(client, "w1", "returned").back == [job.id]
    assert client.lrange(keys.queue_key("default"), 0, -1) == [job.id.encode()]


@pytest.mark.parametrize(
    ("has_signed_off", "verdict", "is_remembered"),
    [(True, "returned", True), (False, "returned", False), (True, "vanished", False)],
)
def test_a_worker_that_signed_off_is_remembered_and_another_is_forgotten(
    client, claims, has_signed_off, verdict, is_remembered
):
    claimed(claims)
    hash = keys.worker_key("w1")
    client.hset(
        hash, mapping={"birth": "x", "queues": "default"} | ({"death": "x"} if has_signed_off else {})
    )
    sets = (keys.workers_key("default"), keys.WORKERS)
    for each in sets:
        client.sadd(each, hash)
    rescue(client, "w1", verdict)
    assert bool(client.exists(hash)) is is_remembered
    assert [client.sismember(each, hash) for each in sets] == [is_remembered] * 2


def test_progress_is_kept_for_a_while_and_emitted_at_each_tenth(client, claims):
    write = Script("worker.process", "write")
    job = claimed(claims)
    key_names = [keys.claims_key("w1"), keys.progress_key(job.id)]

    def told(attempt: int, *fields: object) -> bool:
        before = client.xlen(keys.JOB_EVENTS)
        assert write(client, key_names, [job.id, job.execution, 60, "attempt", attempt, *fields]) == 1
        return client.xlen(keys.JOB_EVENTS) > before

    assert not told(1, "message", "begun")
    assert not told(1, "done", 5)
    client.delete(keys.progress_key(job.id))
    assert not told(1, "total", 100)
    assert not told(1, "done", 5)
    assert told(1, "message", "begun", "done", 10)
    assert not told(1, "done", 19)
    *_, event = events.read(client)
    assert (event.type, event.job, event.queue, event.worker) == ("progress", job.id, "default", "w1")
    assert event.details == {"done": 10, "total": 100, "message": "begun"}
    client.hdel(keys.job_key(job.id), "origin")
    assert told(2, "done", 19), "a new attempt begins at zero"
    *_, event = events.read(client)
    assert (event.queue, event.details["done"]) == ("", 19)
    assert not told(3, "done", 5, "total", 0)
    assert 50 < client.ttl(keys.progress_key(job.id)) <= 60


def test_a_job_is_rescued_into_a_queue_whose_key_is_of_another_type(client, claims):
    job = claimed(claims)
    client.set("rq:wip:default", "in the way")
    client.set(keys.queue_key("default"), "in the way")
    assert rescue(client, "w1", "vanished").back == [job.id]
    assert client.lrange(keys.queue_key("default"), 0, -1) == [job.id.encode()]
    assert client.get("pm:broken:rq:queue:default") == b"in the way"
