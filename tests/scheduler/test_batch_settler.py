"""The batch settler: what ended elsewhere counts once, and what has not ended stays pending."""

from __future__ import annotations

import time
from itertools import islice

import pytest

from packmule.jobs import keys, wire
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import Counts
from packmule.observe import events
from packmule.scheduler.leader import NotLeading
from packmule.scheduler.maintenance.batch_settler import BatchSettler
from packmule.tests.looks import monitored
from packmule.tests.worker import batch_jobs
from packmule.tests.worker.batches import settle
from packmule.worker import Worker

pytestmark = pytest.mark.usefixtures("produce")


def test_a_former_leader_settles_nothing(client):
    with Batch.create() as batch:
        id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    client.delete(keys.job_key(id))
    client.hset("pm:leader", "term", "8")
    with pytest.raises(NotLeading):
        BatchSettler(client).settle("7")
    assert batch.state().counts == Counts(1, 0, 0, 0)


def test_a_list_of_batches_of_another_type_is_set_aside_and_later_batches_are_settled(client):
    client.set(keys.BATCHES, "in the way")
    settle(client)
    assert client.get(f"pm:broken:{keys.BATCHES}") == b"in the way"
    with Batch.create() as batch:
        id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    client.delete(keys.job_key(id))
    settle(client)
    assert batch.state().counts == Counts(1, 0, 0, 1)


def test_all_batches_are_listed_once(client, monkeypatch):
    monkeypatch.setattr("packmule.scheduler.maintenance.batch_settler.BATCHES_A_TRIP", 2)
    ids = [Batch.create().id for _ in range(5)]
    assert list(islice(BatchSettler(client)._open(), 10)) == ids


@pytest.mark.parametrize("of", ["jobs", "paused", "all"])
def test_a_key_of_another_type_is_reported(client, of):
    batch = Batch.create()
    key = {"jobs": f"{keys.batch_key(batch.id)}:jobs", "paused": keys.PAUSED_BATCHES, "all": keys.BATCHES}[of]
    client.delete(key)
    client.set(key, "in the way")
    settle(client)
    assert ("quarantined", key) in {(event.type, event.job) for event in events.read(client)}


def test_a_batch_whose_counters_are_sound_is_not_counted_again(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
    with monitored(client) as commands:
        settle(client)
    assert not [command for command in commands if ":recount" in command]


def test_a_callback_says_when_it_was_enqueued(client):
    with Batch.create(on_complete=batch_jobs.double.prepare(1)) as batch:
        id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    client.delete(keys.job_key(id))
    before = time.time() - 1
    callback = client.hget(keys.batch_key(batch.id), "on_complete").decode()
    client.hset(keys.job_key(callback), "enqueued_at", wire.time_text(before - 60))
    settle(client)
    assert wire.time_seconds(client.hget(keys.job_key(callback), "enqueued_at").decode()) >= before


def test_a_nested_batch_is_pending_while_it_goes_on_and_failed_when_it_is_lost(client):
    with Batch.create() as parent:
        child = Batch.create(parent=parent)
    settle(client)
    assert parent.state().counts == Counts(1, 0, 0, 0)
    client.delete(keys.batch_key(child.id))
    settle(client)
    assert parent.state().counts == Counts(1, 0, 1, 0)
    assert parent.state().ended


def test_a_nested_batch_that_ends_only_when_it_is_settled_counts_in_its_parent(client):
    with Batch.create() as parent:
        child = Batch.create(parent=parent)
    client.hset(keys.batch_key(child.id), "sealed", "1")
    settle(client)
    assert child.state().ended
    assert parent.state().counts == Counts(1, 1, 0, 0)
    assert parent.state().ended


def test_a_record_without_a_status_is_pending_and_a_key_that_is_no_record_has_failed(client):
    with Batch.create() as batch:
        ids = batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,)])
    client.hdel(keys.job_key(ids[0]), "status")
    client.delete(keys.job_key(ids[1]))
    client.set(keys.job_key(ids[1]), "no record")
    settle(client)
    assert batch.state().counts == Counts(2, 0, 1, 0)


def test_an_end_that_was_counted_stays_when_the_record_is_gone(client):
    with Batch.create() as batch:
        done = batch_jobs.double.options(batch=batch.id).enqueue(1)
        batch_jobs.double.options(batch=batch.id, delay=60).enqueue(2)
    Worker(["default"], connection=client).work(burst=True)
    assert batch.state().counts == Counts(2, 1, 0, 0)
    client.delete(keys.job_key(done))
    settle(client)
    assert batch.state().counts == Counts(2, 1, 0, 0)


@pytest.mark.parametrize("results", ["none", "another type"])
def test_a_job_that_ended_without_a_result_counts(client, results):
    with Batch.create(collect=True) as batch:
        id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    client.hset(keys.job_key(id), "status", "finished")
    if results == "another type":
        client.set(f"rq:results:{id}", "in the way")
    settle(client)
    assert batch.state().counts == Counts(1, 1, 0, 0)
