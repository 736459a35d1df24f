"""What a batch takes when it is canceled, has ended or is corrupt, and what is left of it then."""

from __future__ import annotations

import json
import math
import time

import pytest
from redis import Redis

from packmule.jobs import batch as batch_module
from packmule.jobs import control, keys, queues, reader, wire
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import Counts
from packmule.jobs.control import NotCanceled
from packmule.jobs.delivery import BatchClosed
from packmule.observe import events
from packmule.scheduler.maintenance.batch_settler import BatchSettler
from packmule.tests.worker import batch_jobs, limited_jobs
from packmule.tests.worker.pools import DEADLINE, lines
from packmule.tests.worker.test_claim import mark_started
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


@pytest.mark.parametrize(("lost", "status"), [("status", b"canceled"), ("origin", b"queued")])
def test_canceling_a_batch_counts_half_a_record(client, lost, status):
    with Batch.create() as batch:
        id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    client.hdel(keys.job_key(id), lost)
    batch.cancel()
    assert batch.state().counts == Counts(1, 0, 0, 1)
    assert batch.state().ended
    assert client.hget(keys.job_key(id), "status") == status
    work(client)
    assert batch.state().counts.done == 0


def test_canceling_a_batch_leaves_a_job_without_a_status_to_the_worker_that_claimed_it(client):
    with Batch.create() as batch:
        id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    claims = Claims(client, "w1", Strict(["default"]))
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    client.hdel(keys.job_key(id), "status")
    batch._changed("stop")
    assert batch._cancel_all() == 1
    claims.finish_and_claim("c2", [finished(job, b"2", 1.0, 2.0)], 0)
    assert batch.state().counts == Counts(1, 1, 0, 0)


def test_a_cancel_copes_with_another_type_where_a_batch_holds_jobs(client):
    with Batch.create() as batch:
        id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    batch.pause()
    work(client)
    held = f"{keys.batch_key(batch.id)}:held"
    client.delete(held)
    client.set(held, "in the way")
    with pytest.raises(NotCanceled, match="is still claimed"):
        control.cancel(client, id, timeout=0)
    assert client.get(f"pm:broken:{held}") == b"in the way"


@pytest.mark.parametrize("change", [Batch.pause, Batch.resume, Batch.cancel])
def test_a_batch_is_changed_although_the_set_of_paused_ones_is_of_another_type(client, change):
    batch = Batch.create()
    client.set(keys.PAUSED_BATCHES, "in the way")
    change(batch)
    assert client.smembers(keys.PAUSED_BATCHES) == ({batch.id.encode()} if change is Batch.pause else set())
    assert bool(batch.state().ended) == (change is Batch.cancel)


@pytest.mark.parametrize("collect", [False, True])
def test_an_end_that_comes_after_that_of_its_batch_ends_it_no_second_time(client, collect):
    with Batch.create(collect=collect, keep=60) as batch:
        id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    claims = Claims(client, "w1", Strict(["default"]))
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    client.delete(keys.job_key(id))
    BatchSettler(client).settle()
    ended = batch.state().ended
    claims.finish_and_claim("c2", [finished(job, b"2", 1.0, 2.0)], 0)
    assert batch.state().counts == Counts(1, 1, 0, 0)
    assert batch.state().ended == ended
    assert client.ttl(f"{keys.batch_key(batch.id)}:results") in (range(50, 61) if collect else [-2])


def test_a_job_is_retried_although_its_batch_is_of_another_type(client):
    with Batch.create() as batch:
        id = batch_jobs.double.options(batch=batch.id).enqueue(-1)
    work(client)
    client.delete(keys.batch_key(batch.id))
    client.set(keys.batch_key(batch.id), "in the way")
    control.retry(client, id)
    assert reader.read(client, id).status == "queued"


def test_a_batch_is_created_although_the_list_of_batches_is_of_another_type(client):
    client.set(keys.BATCHES, "in the way")
    batch = Batch.create()
    assert client.zrange(keys.BATCHES, 0, -1) == [batch.id.encode()]


def test_a_batch_is_canceled_although_its_jobs_are_of_another_type(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
    client.delete(f"{keys.batch_key(batch.id)}:jobs")
    client.set(f"{keys.batch_key(batch.id)}:jobs", "in the way")
    batch.cancel()
    assert batch.state().ended


def kept(client: Redis, batch: Batch) -> list[int]:
    """For how many seconds the keys of a batch are kept."""
    return [client.ttl(f"{keys.batch_key(batch.id)}{suffix}") for suffix in ("", ":jobs", ":results")]


def test_an_ended_batch_is_kept_for_its_time_and_holds_no_job(client):
    with Batch.create(collect=True, keep=60) as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
    claims = Claims(client, "w1", Strict(["default"]))
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    batch.pause()
    client.rpush(f"{keys.batch_key(batch.id)}:held", "gone")
    claims.finish_and_claim("c2", [finished(job, b"2", 1.0, 2.0)], 0)
    assert batch.state().ended
    assert all(0 < seconds <= 60 for seconds in kept(client, batch))
    assert not client.exists(f"{keys.batch_key(batch.id)}:held", keys.PAUSED_BATCHES)


def test_a_batch_that_goes_on_after_its_end_is_kept_and_pending_in_its_parent(client):
    with Batch.create() as parent, Batch.create(parent=parent, collect=True, keep=60) as batch:
        failed = batch_jobs.double.options(batch=batch.id).enqueue(-1)
    work(client)
    assert parent.state().counts == Counts(1, 0, 1, 0)
    assert parent.state().ended
    control.retry(client, failed)
    assert kept(client, batch) == [-1, -1, -1]
    for each in (parent, batch):
        assert each.state().counts == Counts(1, 0, 0, 0)
        assert not each.state().ended
    work(client)
    assert parent.state().counts == Counts(1, 0, 1, 0)
    assert all(0 < seconds <= 60 for seconds in kept(client, batch))


@pytest.mark.parametrize("callback", ["on_complete", "on_success"])
def test_a_batch_whose_callback_is_another_job_leaves_that_alone(client, callback):
    other = batch_jobs.double.enqueue(1)
    with Batch.create() as batch:
        failed = batch_jobs.double.options(batch=batch.id, delay=60).enqueue(2)
    client.hset(keys.batch_key(batch.id), callback, other)
    control.cancel(client, failed)
    assert batch.state().ended
    assert reader.read(client, other).status == "queued"
    assert client.lrange(keys.queue_key("default"), 0, -1) == [other.encode()]


@pytest.mark.parametrize("expires", ["x", ""])
def test_a_batch_ends_although_the_expiry_of_its_callback_is_garbage(client, expires):
    with Batch.create(on_complete=batch_jobs.double.options(expires=60).prepare(7)) as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
    callback = client.hget(keys.batch_key(batch.id), "on_complete").decode()
    client.hset(keys.job_key(callback), "expires", expires)
    work(client)
    assert batch.state().ended
    assert reader.read(client, callback).status == "finished"


def test_a_callback_that_names_no_queue_keeps_no_other_from_its_call(client):
    call = batch_jobs.double.prepare(7)
    with Batch.create(on_complete=call, on_success=call) as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
    broken, other = map(bytes.decode, client.hmget(keys.batch_key(batch.id), "on_complete", "on_success"))
    client.hdel(keys.job_key(broken), "origin")
    work(client)
    assert batch.state().ended
    assert client.hget(keys.job_key(broken), "status") == b"deferred"
    assert reader.read(client, other).status == "finished"


def test_a_callback_leaves_rqs_registry_and_its_queue_is_known(client):
    with Batch.create(on_complete=batch_jobs.double.options(queue="low").prepare(7)) as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
        client.srem(keys.QUEUES, keys.queue_key("low"))
    assert [score for _, score in client.zrange("rq:deferred:low", 0, -1, withscores=True)] == [math.inf]
    work(client)
    assert client.zcard("rq:deferred:low") == 0
    assert client.sismember(keys.QUEUES, keys.queue_key("low"))


@pytest.mark.parametrize("is_held", [False, True])
def test_a_purge_that_ends_a_batch_enqueues_its_callback(client, is_held):
    with Batch.create(on_complete=batch_jobs.double.options(queue="low").prepare(7)) as batch:
        id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    if is_held:
        batch.pause()
        work(client)
    before = time.time() - 1
    assert queues.purge(client, "default") == 1
    assert batch.state().ended
    callback = client.hget(keys.batch_key(batch.id), "on_complete").decode()
    assert reader.read(client, callback).status == "queued"
    assert wire.time_seconds(client.hget(keys.job_key(callback), "enqueued_at").decode()) >= before
    told = [(event.type, event.details) for event in events.read(client) if event.job == id]
    assert told == [("enqueued", {}), ("canceled", {"reason": "purged"})]


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


@pytest.mark.parametrize("field", ["total", "done"])
def test_the_end_of_its_last_job_ends_a_batch_whose_counter_is_garbage(client, field):
    with Batch.create(on_complete=batch_jobs.double.prepare(7)) as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
    client.hset(keys.batch_key(batch.id), field, "many")
    work(client)
    assert batch.state().counts == Counts(1, 1, 0, 0)
    assert batch.state().ended


def test_a_total_that_is_less_than_what_has_ended_ends_no_batch(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
        batch_jobs.double.options(batch=batch.id, delay=60).enqueue(2)
    client.hset(keys.batch_key(batch.id), "total", 0)
    work(client)
    assert batch.state().counts == Counts(2, 1, 0, 0)
    assert not batch.state().ended


def test_a_callback_waits_behind_others_of_its_group(client, tmp_path):
    notes = tmp_path / "notes"
    limited_jobs.alone.enqueue_many([(str(notes), "first"), (str(notes), "second")])
    claims = Claims(client, "w1", Strict(["default"]))
    (first,) = claims.finish_and_claim("c1", [], 9).jobs
    with Batch.create(on_complete=limited_jobs.alone.prepare(str(notes), "callback")):
        pass
    assert claims.finish_and_claim("c2", [], 9).jobs == []
    claims.finish_and_claim("c3", [finished(first, b"null", 1.0, 2.0)], 0)
    work(client)
    assert lines(notes) == ["+second", "-second", "+callback", "-callback"]


def test_a_batch_ends_although_what_lies_where_callbacks_wait_is_of_another_type(client):
    with Batch.create(on_complete=batch_jobs.double.prepare(7)) as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
    client.delete("rq:deferred:default")
    client.set("rq:deferred:default", "in the way")
    work(client)
    assert batch.state().ended
    callback = client.hget(keys.batch_key(batch.id), "on_complete").decode()
    assert reader.read(client, callback).status == "finished"


def test_a_batch_that_is_canceled_before_it_is_sealed_ends(client):
    batch = Batch.create()
    id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    batch.cancel()
    assert batch.state().counts == Counts(1, 0, 0, 1)
    assert batch.state().ended
    assert [event.type for event in events.read(client) if event.job == id] == ["enqueued", "canceled"]


def test_a_nested_batch_that_ends_when_it_is_sealed_or_canceled_counts_in_its_parent(client):
    with Batch.create() as parent:
        sealed, canceled = Batch.create(parent=parent), Batch.create(parent=parent)
    sealed.seal()
    assert parent.state().counts == Counts(2, 1, 0, 0)
    canceled.cancel()
    assert parent.state().counts == Counts(2, 2, 0, 0)
    assert parent.state().ended


@pytest.mark.parametrize("most", [0, 2])
def test_canceling_a_batch_counts_jobs_whose_records_are_gone(client, most):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,)])
    Claims(client, "w1", Strict(["default"])).finish_and_claim("c1", [], most)
    client.delete(*client.keys("rq:job:*"))
    batch._changed("stop")
    assert batch._cancel_all() == 0
    assert batch.state().counts == Counts(2, 0, 0, 2)
    assert batch.state().ended
    assert client.keys("rq:job:*") == []


def test_a_cancel_waits_once_for_the_jobs_of_all_nested_batches(client, monkeypatch):
    monkeypatch.setattr(batch_module, "CANCEL_SECONDS", 0.2)
    monkeypatch.setattr(batch_module, "STOP_INTERVAL", math.inf)
    with Batch.create() as parent:
        batches = [parent, Batch.create(parent=parent), Batch.create(parent=parent)]
        ids = [batch_jobs.nap.options(batch=each.id).enqueue(60) for each in batches]
    for job in Claims(client, "w1", Strict(["default"])).finish_and_claim("c1", [], 3).jobs:
        mark_started(client, job)
    with client.pubsub(ignore_subscribe_messages=True) as commands:
        commands.subscribe("rq:pubsub:w1")
        commands.get_message(timeout=DEADLINE)
        parent.cancel()
        sent = [commands.get_message(timeout=DEADLINE) for _ in ids]
        assert commands.get_message() is None, "each is told once"
    assert sorted(json.loads(each["data"])["job_id"] for each in sent) == sorted(ids)
    assert [each.state().is_paused for each in batches] == [False] * 3
