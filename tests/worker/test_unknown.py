"""Jobs whose function a worker doesn't know yet: they go back for another worker, for a bounded time."""

from __future__ import annotations

import time

import pytest
from redis import Redis

from packmule.jobs import keys, reader, wire
from packmule.scheduler.maintenance.promote import promote
from packmule.tests.pace import skewed
from packmule.tests.worker import limited_jobs, pool_jobs
from packmule.tests.worker.pools import drained, ended
from packmule.worker.order import Strict
from packmule.worker.process.call import Call
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Performer

pytestmark = pytest.mark.usefixtures("produce")

DATA = wire.encode_call("shop.tomorrow", (1,), {})


def performer(**options: float) -> Performer:
    return Performer(lambda *report: None, lambda *save: None, **options)


def tried(client: Redis, worker: str = "old") -> Outcome | Call | None:
    """What a worker makes of the next job, after it has acknowledged that; None if it gets none."""
    claims = Claims(client, worker, Strict(["default"]))
    (job,) = claims.finish_and_claim(claims.next_id(), [], 1).jobs or (None,)
    found = performer().prepare(job) if job else None
    if isinstance(found, Outcome):
        assert claims.finish_and_claim(claims.next_id(), [found], 0).stale == []
    return found


def fall_due(client: Redis, id: str) -> None:
    client.zadd("rq:scheduled:default", {id: 1})
    promote(client)


def test_an_unknown_job_goes_back_with_its_retries_untouched_and_a_newer_worker_performs_it(client, caplog):
    id = pool_jobs.add.options(retries=3).enqueue(1)
    known = client.hget(keys.job_key(id), "data")
    client.hset(keys.job_key(id), "data", DATA)
    before = time.time()
    assert tried(client).status == "scheduled"
    record = reader.read(client, id)
    assert (record.status, record.attempts, record.retries_left) == ("scheduled", 0, 3)
    assert before + 1 <= client.zscore("rq:scheduled:default", id) <= time.time() + 1
    fall_due(client, id)
    assert tried(client).status == "scheduled"
    assert caplog.text.count(f"job {id} goes back: shop.tomorrow is not a registered job") == 1
    fall_due(client, id)
    client.hset(keys.job_key(id), "data", known)  # as a worker sees it that knows the function
    assert isinstance(tried(client, "new"), Call)


def test_the_pauses_between_two_looks_grow_to_half_a_minute(client):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), "data", DATA)
    pauses = [tried(client).delay]
    for age in (4, 20, 300, 590):
        fall_due(client, id)
        client.hset(keys.job_key(id), "unknown_since", time.time() - age)
        pauses.append(tried(client).delay)
    bounds = ((1, 1), (3.9, 9), (19.9, 25), (30, 30), (5, 10.1))
    assert all(least <= pause <= most for pause, (least, most) in zip(pauses, bounds, strict=True)), pauses


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_worker_whose_clock_is_wrong_shows_no_less_and_no_more_patience(client, seconds):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), "data", DATA)
    with skewed(seconds):
        assert tried(client).status == "scheduled"
    assert float(client.hget(keys.job_key(id), "unknown_since")) == pytest.approx(time.time(), abs=60)
    for age, status in ((300, "scheduled"), (601, "failed")):
        fall_due(client, id)
        client.hset(keys.job_key(id), "unknown_since", time.time() - age)
        with skewed(seconds):
            assert tried(client).status == status


def test_a_job_that_nobody_knows_fails_after_a_while_with_its_retries_untouched(client):
    id = pool_jobs.add.options(retries=3).enqueue(1)
    client.hset(keys.job_key(id), mapping={"data": DATA, "unknown_since": time.time() - 601})
    tried(client)
    record = reader.read(client, id)
    assert (record.status, record.retries_left) == ("failed", 3)
    assert "shop.tomorrow is not a registered job" in record.reason


def test_with_no_patience_it_fails_at_once():
    assert performer(unknown_for=0).prepare(Claimed("j", "e", "default", DATA)).status == "failed"


def test_an_unknown_singleton_keeps_no_other_waiting(client):
    first, second = (limited_jobs.alone.enqueue("p", str(number)) for number in range(2))
    client.hset(keys.job_key(first), "data", DATA)
    assert tried(client).id == first
    found = tried(client)
    assert isinstance(found, Call)
    assert found.job.id == second


def test_a_pool_fails_an_unknown_job_when_its_patience_is_over(server, client):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), "data", DATA)
    assert drained(server, unknown_for=0) == 0
    assert ended(client, id).status == "failed"
