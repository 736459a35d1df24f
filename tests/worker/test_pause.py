"""Pausing a queue, and its rate: every worker obeys at once."""

from __future__ import annotations

import time

import pytest

from packmule.coordination.limits.rate import Rate
from packmule.jobs import keys, reader
from packmule.jobs.queues import pause, paused, rates, resume, set_rate
from packmule.tests.pace import pace
from packmule.tests.worker import executor_jobs, pool_jobs
from packmule.tests.worker.pools import ended, pool, until
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims

pytestmark = pytest.mark.usefixtures("produce")


def test_jobs_are_claimed_from_all_queues_but_the_paused_one(client):
    waits = executor_jobs.where.options(queue="high").enqueue()
    runs = executor_jobs.where.enqueue()
    assert pause(client, "high")
    assert not pause(client, "high")
    claims = Claims(client, "w1", Strict(["high", "default"]))
    claim = claims.finish_and_claim("1", [], 5)
    assert [job.id for job in claim.jobs] == [runs]
    assert claim.paused == paused(client) == {"high"}
    assert resume(client, "high")
    assert not resume(client, "high")
    assert [job.id for job in claims.finish_and_claim("2", [], 5).jobs] == [waits]


def test_a_job_that_a_blocking_move_brings_from_a_paused_queue_goes_back_to_its_front(client):
    first, second, third = executor_jobs.where.enqueue_many([()] * 3)
    other = executor_jobs.where.options(queue="low").enqueue()
    pause(client, "default")
    for queue in ("low", "default", "default"):
        client.lmove(keys.queue_key(queue), keys.waiting_key("w1"), "LEFT", "RIGHT")
    claims = Claims(client, "w1", Strict(["default"]))
    assert [job.id for job in claims.claim_moved(0, "1").jobs] == [other]
    assert client.lrange("rq:queue:default", 0, -1) == [id.encode() for id in (first, second, third)]
    assert claims.claim_moved(0, "2").is_empty


def test_idle_workers_obey_a_pause_and_continue_at_once_when_it_ends(server, client):
    with pool(server, 3):
        until(lambda: client.scard(keys.WORKERS) == 3)
        time.sleep(0.2)  # until all are waiting
        pause(client, "default")
        waits = pool_jobs.add.enqueue(1)
        runs = pool_jobs.add.options(queue="low").enqueue(1)
        assert ended(client, runs).status == "finished"
        time.sleep(0.3)
        assert reader.read(client, waits).status == "queued"
        assert client.lrange("rq:queue:default", 0, -1) == [waits.encode()]
        resume(client, "default")
        with pace() as second:
            before = time.monotonic()
            assert ended(client, waits).status == "finished"
        assert time.monotonic() - before < 2 * second()  # not the 5 s after which it would look by itself


def test_a_busy_worker_performs_only_what_it_has_claimed_once_its_queue_is_paused(server, client):
    executor_jobs.where.enqueue_many([(0.005,)] * 200)
    with pool(server, 1):
        until(lambda: client.llen("rq:queue:default") < 150)
        pause(client, "default")
        left = client.llen("rq:queue:default")
        time.sleep(0.3)
        assert client.llen("rq:queue:default") >= left
        resume(client, "default")
        until(lambda: client.zcard("rq:finished:default") == 200)


def test_a_worker_waits_for_the_queue_whose_rate_lets_a_job_start_first(client):
    for queue, rate in (("default", "1/h burst 1"), ("low", "1/m burst 1"), ("high", "1/d burst 1")):
        set_rate(client, queue, Rate.parse(rate))
        pool_jobs.add.options(queue=queue).enqueue_many([(1,), (2,)])
    set_rate(client, "elsewhere", Rate.parse("1/s"))  # has no jobs
    claims = Claims(client, "w1", Strict(["default", "low", "high", "elsewhere"]))
    assert len(claims.finish_and_claim("1", [], 10).jobs) == 3
    claim = claims.finish_and_claim("2", [], 10)
    assert (claim.jobs, claim.paused) == ([], {"default", "low", "high"})
    assert claim.next_due == pytest.approx(60, abs=10)
    assert client.keys("pm:rate:jobs:queue:elsewhere") == []


@pytest.mark.parametrize("rate", ["0 5", "5 0", "x", "", " ", "-1 5", "5"])
def test_a_corrupt_rate_of_a_queue_limits_nothing(client, rate):
    ids = pool_jobs.add.enqueue_many([(number,) for number in range(8)])
    client.hset(keys.QUEUE_RATES, "default", rate)
    claims = Claims(client, "w1", Strict(["default"]))
    assert [job.id for job in claims.finish_and_claim("1", [], 10).jobs] == ids


@pytest.mark.parametrize("retries", [0, 1])
def test_a_queues_rate_limits_how_many_jobs_start(client, retries):
    set_rate(client, "default", Rate.parse("10/h burst 3"))
    assert rates(client) == {"default": "10/h burst 3"}
    enqueued = pool_jobs.add.options(retries=retries).enqueue_many([(number,) for number in range(8)])
    other = pool_jobs.add.options(queue="low").enqueue(1)
    claims = Claims(client, "w1", Strict(["default", "low"]))
    assert [job.id for job in claims.finish_and_claim("1", [], 10).jobs] == [*enqueued[:3], other]
    claim = claims.finish_and_claim("2", [], 10)
    assert (claim.jobs, claim.paused) == ([], {"default"})
    assert claim.next_due is not None
    assert 300 < claim.next_due <= 360
    assert Claims(client, "w2", Strict(["default"])).finish_and_claim("1", [], 1).next_due is None  # w1 looks
    client.decrby("pm:rate:jobs:queue:default", 360_000_000)  # as if these microseconds were over
    assert [job.id for job in claims.finish_and_claim("3", [], 10).jobs] == enqueued[3:4]
    set_rate(client, "default", None)
    assert [job.id for job in claims.finish_and_claim("4", [], 10).jobs] == enqueued[4:]


def test_a_push_to_a_queue_whose_rate_is_used_up_waits_in_its_list(client):
    set_rate(client, "default", Rate.parse("1/h"))
    claims = Claims(client, "w1", Strict(["default"]))
    for moved in (1, 0):
        id = pool_jobs.add.enqueue(1)
        client.lmove("rq:queue:default", keys.waiting_key("w1"), "LEFT", "RIGHT")
        assert len(claims.claim_moved(0, claims.next_id()).jobs) == moved
    assert client.lrange("rq:queue:default", 0, -1) == [id.encode()]


def test_idle_pools_keep_a_queues_rate(server, client, tmp_path):
    path = tmp_path / "notes"
    set_rate(client, "default", Rate.parse("10/s burst 1"))
    with pool(server, 2), pace() as second:
        until(lambda: client.scard(keys.WORKERS) == 2)
        began = time.monotonic()
        enqueued = pool_jobs.note.enqueue_many([(str(path), str(number)) for number in range(15)])
        for id in enqueued:
            assert ended(client, id).status == "finished"
    assert 1.3 < time.monotonic() - began < 4 * second()


@pytest.mark.parametrize("value", ["", "x", "0 0", "1e3 5", "-1 5"])
def test_a_corrupt_rate_limits_nothing(client, value):
    client.hset(keys.QUEUE_RATES, "default", value)
    pool_jobs.add.enqueue(1)
    assert len(Claims(client, "w1", Strict(["default"])).finish_and_claim("1", [], 5).jobs) == 1
