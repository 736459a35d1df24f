"""What a batch takes when it is canceled, has ended or is corrupt, and what is left of it then."""

from __future__ import annotations

import pytest
from redis import Redis

from packmule.jobs import keys, reader
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import Counts
from packmule.jobs.delivery import BatchClosed
from packmule.observe import events
from packmule.scheduler.maintenance.batch_settler import BatchSettler
from packmule.tests.worker import batch_jobs
from packmule.worker import Worker
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims
from packmule.worker.process.performer import finished

pytestmark = pytest.mark.usefixtures("produce")


def work(client: Redis) -> None:
    Worker(["default"], connection=client).work(burst=True)


def test_a_canceled_batch_whose_last_job_still_runs_takes_no_more(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
    claims = Claims(client, "w1", Strict(["default"]))
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    batch._changed("stop")
    with pytest.raises(BatchClosed, match="is canceled"):
        batch_jobs.double.options(batch=batch.id).enqueue(2)
    claims.finish_and_claim("c2", [finished(job, b"2", 1.0, 2.0)], 1)
    assert batch.state().counts == Counts(1, 1, 0, 0)
    assert batch.state().ended


def test_a_batch_that_has_ended_is_neither_paused_nor_canceled(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
    work(client)
    assert not batch.pause()
    assert not client.exists(keys.PAUSED_BATCHES)
    batch.cancel()
    assert not batch.state().is_canceled
    assert not batch.resume()


def test_a_job_that_outlives_its_batch_leaves_nothing_of_it(client):
    with Batch.create(collect=True) as batch:
        id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    client.delete(*client.keys("pm:batch:*"))
    work(client)
    assert reader.read(client, id).status == "finished"
    assert client.keys("pm:batch:*") == []


def test_results_of_a_batch_do_not_expire_before_it_ends(client):
    with Batch.create(collect=True, keep=60) as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
        batch_jobs.double.options(batch=batch.id, delay=60).enqueue(2)
    work(client)
    assert [result.value for result in batch.results()] == [2]
    assert client.ttl(f"{keys.batch_key(batch.id)}:results") == -1


@pytest.mark.parametrize("suffix", ["", ":jobs"])
def test_a_job_is_added_to_a_batch_whatever_its_counters_hold(client, suffix):
    batch = Batch.create()
    key = keys.batch_key(batch.id)
    if suffix:
        client.set(f"{key}{suffix}", "in the way")
    else:
        client.hset(key, "total", "many")
    id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    batch.seal()
    work(client)
    assert reader.read(client, id).status == "finished"
    BatchSettler(client).settle()
    assert batch.state().counts == Counts(1, 1, 0, 0)
    assert batch.state().ended


def test_a_callback_of_a_batch_is_told_as_enqueued_once_the_batch_ends(client):
    with Batch.create(on_complete=batch_jobs.double.prepare(7)) as batch:
        pass
    callback = client.hget(keys.batch_key(batch.id), "on_complete").decode()
    assert [event.type for event in events.read(client) if event.job == callback] == ["enqueued"]


def test_a_canceled_job_counts_once_beside_one_that_a_worker_is_about_to_start(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,)])
    claims = Claims(client, "w1", Strict(["default"]))
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    batch._changed("stop")
    assert batch._cancel_all() == 1
    assert batch.state().counts == Counts(2, 0, 0, 1)
    assert batch.state().ended is None
    claims.finish_and_claim("c2", [finished(job, b"2", 1.0, 2.0)], 1)
    assert batch.state().counts == Counts(2, 1, 0, 1)
    assert batch.state().ended
