"""Pausing a queue: by every worker, at once, for as long as it takes."""

from __future__ import annotations

import time

import lane_jobs
import pool_jobs
import pytest
from pools import ended, pool, until

from jobs import records, wire
from jobs.pause import pause, paused, resume
from worker.claim import Claims
from worker.order import Strict

pytestmark = pytest.mark.usefixtures("produce")


def test_nothing_is_claimed_from_a_paused_queue_and_from_others_it_is(client):
    waits = lane_jobs.where.options(queue="high").enqueue()
    runs = lane_jobs.where.enqueue()
    assert pause(client, "high")
    assert not pause(client, "high")
    claims = Claims(client, "w1", Strict(["high", "default"]))
    batch = claims.finish_and_claim("1", [], 5)
    assert [job.id for job in batch.jobs] == [runs]
    assert batch.paused == paused(client) == {"high"}
    assert resume(client, "high")
    assert not resume(client, "high")
    assert [job.id for job in claims.finish_and_claim("2", [], 5).jobs] == [waits]


def test_what_a_blocking_move_brings_from_a_paused_queue_goes_back_to_its_front(client):
    first, second = lane_jobs.where.enqueue_many([()] * 2)
    pause(client, "default")
    client.lmove("rq:queue:default", wire.waiting_key("w1"), "LEFT", "RIGHT")
    claims = Claims(client, "w1", Strict(["default"]))
    assert claims.claim_moved(0, "1").is_empty
    assert client.lrange("rq:queue:default", 0, -1) == [first.encode(), second.encode()]


def test_idle_workers_heed_a_pause_and_go_on_at_once_when_it_ends(server, client):
    with pool(server, 3):
        until(lambda: client.scard(wire.WORKERS) == 3)
        time.sleep(0.2)  # until all are waiting
        pause(client, "default")
        waits = pool_jobs.add.enqueue(1)
        runs = pool_jobs.add.options(queue="low").enqueue(1)
        assert ended(client, runs).status == "finished"
        time.sleep(0.3)
        assert records.read(client, waits).status == "queued"
        assert client.lrange("rq:queue:default", 0, -1) == [waits.encode()]
        resume(client, "default")
        before = time.monotonic()
        assert ended(client, waits).status == "finished"
        assert time.monotonic() - before < 2  # not the 5 s after which it would look by itself


def test_a_batch_in_hand_is_all_that_a_busy_worker_still_performs(server, client):
    lane_jobs.where.enqueue_many([(0.005,)] * 200)
    with pool(server, 1):
        until(lambda: client.llen("rq:queue:default") < 150)
        pause(client, "default")
        left = client.llen("rq:queue:default")
        time.sleep(0.3)
        assert client.llen("rq:queue:default") >= left
        resume(client, "default")
        until(lambda: client.zcard("rq:finished:default") == 200)
