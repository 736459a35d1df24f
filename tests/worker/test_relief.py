"""Relief: what a worker holds back goes to others, and nothing that it has begun."""

from __future__ import annotations

import pool_jobs
import pytest

from jobs import wire
from worker import relief
from worker.claim import Claims
from worker.order import Strict
from worker.outcome import finished
from worker.slot import MAIN, Slots

pytestmark = pytest.mark.usefixtures("produce")


def test_what_stands_behind_a_long_job_goes_back_and_what_was_before_it_does_not(client):
    ids = pool_jobs.add.enqueue_many([(number,) for number in range(3)])
    slots = Slots(1)
    jobs = Claims(client, "w1", Strict(["default"])).finish_and_claim("c1", [], 3).jobs
    slots.start(MAIN, jobs[1].id, jobs[1].execution, 10)
    assert relief.relieve(client, "w1", slots) == ids[2:]
    assert client.lrange("rq:queue:default", 0, -1) == [ids[2].encode()]


def test_what_a_call_claimed_has_ended_when_a_job_runs_that_was_moved_here(client):
    ids = pool_jobs.add.enqueue_many([(number,) for number in range(2)])
    slots = Slots(1)
    claims = Claims(client, "w1", Strict(["default"]))
    claims.finish_and_claim("c2", [], 1)
    client.lmove("rq:queue:default", wire.waiting_key("w1"), "LEFT", "RIGHT")
    (moved,) = claims.claim_moved(0, "c1").jobs
    assert moved.id == ids[1]
    slots.start(MAIN, moved.id, moved.execution, 10)
    assert relief.relieve(client, "w1", slots) == []


def test_a_worker_that_went_on_meanwhile_keeps_what_it_claimed_next(client, monkeypatch):
    pool_jobs.add.enqueue_many([(number,) for number in range(4)])
    slots = Slots(1)
    claims = Claims(client, "w1", Strict(["default"]))
    first, second = claims.finish_and_claim("c1", [], 2).jobs
    slots.start(MAIN, first.id, first.execution, 10)

    def go_on(*_: object) -> None:
        assert slots.end(first.execution)  # it is told to begin none of its batch, and hands them in
        outcomes = [finished(job, b"1", 1.0, 2.0) for job in (first, second)]
        third = claims.finish_and_claim("c2", outcomes, 2).jobs[0]
        slots.start(MAIN, third.id, third.execution, 10)

    monkeypatch.setattr(relief, "close_waiting", go_on)
    assert relief.relieve(client, "w1", slots) == []
    assert client.hlen(wire.claims_key("w1")) == 3  # two jobs and the claim's name
