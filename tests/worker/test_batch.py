"""Batches: each job counts once, by its last end, and the callbacks are enqueued once."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from redis import Redis
from rq import Callback, Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.coordination.redis.replies import as_text
from packmule.errors import UsageError
from packmule.jobs import control, keys, reader, registry, wire
from packmule.jobs.batch import Batch, _change
from packmule.jobs.batch_state import Counts, NoSuchBatch, latest
from packmule.jobs.control import retry
from packmule.jobs.delivery import BatchClosed, ServerFull
from packmule.jobs.options import InvalidOption
from packmule.jobs.queues import purge
from packmule.scheduler.maintenance.batch_settler import BatchSettler
from packmule.tests.looks import looks, monitored
from packmule.tests.worker import batch_jobs, limited_jobs, pool_jobs
from packmule.tests.worker.batches import settle
from packmule.tests.worker.pools import DEADLINE, children_of, drained, ended, lines, pool, until
from packmule.worker import Worker
from packmule.worker.order import Strict
from packmule.worker.process import outcome
from packmule.worker.process.claim import Claims
from packmule.worker.process.performer import finished
from packmule.worker.rescue import rescue

pytestmark = pytest.mark.usefixtures("produce")


def work(client: Redis) -> None:
    Worker(["high", "default", "low"], connection=client).work(burst=True)


def test_a_batch_counts_its_jobs_and_calls_back_once(server, client, tmp_path):
    notes = tmp_path / "notes"
    done = batch_jobs.report.prepare(str(notes), "done")
    well = batch_jobs.report.prepare(str(notes), "well")
    with Batch.create("numbers", on_complete=done, on_success=well) as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(n,) for n in range(300)])
        assert batch.state().counts == Counts(300, 0, 0, 0)
    assert drained(server, 2) == 0
    assert batch.wait(60).counts == Counts(300, 300, 0, 0)
    assert sorted(lines(notes)) == [
        "done: 300 done, 0 failed, 0 canceled",
        "well: 300 done, 0 failed, 0 canceled",
    ]
    assert client.ttl(keys.batch_key(batch.id)) > 600_000
    assert [state.name for state in latest(client)] == ["numbers"]


def test_a_batch_with_a_failed_job_calls_no_success_callback(client, tmp_path):
    notes = tmp_path / "notes"
    done, well = (batch_jobs.report.prepare(str(notes), title) for title in ("done", "well"))
    with Batch.create(on_complete=done, on_success=well) as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (-1,)])
    work(client)
    assert lines(notes) == ["done: 1 done, 1 failed, 0 canceled"]
    assert len(list(batch.failed())) == 1
    assert client.zcard("rq:deferred:default") == 0
    assert len(client.keys("rq:job:*")) == 3


def test_an_empty_batch_succeeds_when_it_is_sealed(client, tmp_path):
    with Batch.create(on_success=batch_jobs.report.prepare(str(tmp_path / "notes"), "well")) as batch:
        assert batch.state().ended is None
    assert batch.state().ended is not None
    work(client)
    assert lines(tmp_path / "notes") == ["well: 0 done, 0 failed, 0 canceled"]


def test_a_batch_does_not_end_before_it_is_sealed(client):
    batch = Batch.create()
    batch_jobs.double.options(batch=batch.id).enqueue(1)
    work(client)
    assert (batch.state().counts.pending, batch.state().ended) == (0, None)
    assert batch.seal()
    assert not batch.seal()
    assert batch.state().ended is not None


def test_a_retried_job_counts_when_its_last_attempt_ends(client, tmp_path):
    with Batch.create() as batch:
        id = batch_jobs.fail_once.options(batch=batch.id).enqueue(str(tmp_path / "once"))
    work(client)
    assert reader.read(client, id).status == "finished"
    assert batch.state().counts == Counts(1, 1, 0, 0)


def test_jobs_of_a_batch_may_add_jobs_to_it(server, client):
    with Batch.create() as batch:
        batch_jobs.split.options(batch=batch.id).enqueue(5)
    assert drained(server, 2) == 0
    assert batch.wait(60).counts == Counts(63, 63, 0, 0)


def test_a_batch_that_has_ended_accepts_no_more_jobs(client):
    with Batch.create() as batch:
        pass
    with pytest.raises(BatchClosed, match="has ended"):
        batch_jobs.double.options(batch=batch.id).enqueue(1)
    with pytest.raises(NoSuchBatch, match="no batch has the id nobody"):
        batch_jobs.double.options(batch="nobody").enqueue(1)
    assert client.keys("rq:*") == []


def test_an_enqueue_sent_again_counts_once(client):
    batch = Batch.create()
    for _ in range(2):
        batch_jobs.double.options(batch=batch.id, job_id="chosen").enqueue(1)
    assert batch.state().counts.total == 1
    batch.seal()
    work(client)
    assert batch.wait(60).counts == Counts(1, 1, 0, 0)
    # Its reply lost, it may even come after the batch has ended.
    assert batch_jobs.double.options(batch=batch.id, job_id="chosen").enqueue(1) == "chosen"


def test_outcomes_acknowledged_again_count_once(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,)])
    claims = Claims(client, "w1", Strict(["default"]))
    jobs = claims.finish_and_claim("c1", [], 1).jobs
    for _ in range(2):
        claims.finish_and_claim("c2", [finished(job, b"2", 1.0, 2.0) for job in jobs], 1)
    assert batch.state().counts == Counts(2, 1, 0, 0)
    claims.finish_and_claim("c3", [finished(job, b"2", 1.0, 2.0) for job in jobs], 1)  # stale
    assert batch.state().counts == Counts(2, 1, 0, 0)


def test_results_are_collected_for_the_callback(client, tmp_path):
    notes = tmp_path / "notes"
    with Batch.create(collect=True, on_complete=batch_jobs.add_up.prepare(str(notes))) as batch:
        batch_jobs.double.options(batch=batch.id, result_ttl=0).enqueue_many([(n,) for n in range(10)])
        batch_jobs.double_isolated.options(batch=batch.id).enqueue(5)
        wrong = batch_jobs.double.options(batch=batch.id).enqueue(-1)
        too_large = batch_jobs.large.options(batch=batch.id).enqueue(100_000)
    work(client)
    assert lines(notes) == ["100 by 13"]
    results = {result.job: result for result in batch.results()}
    assert results[wrong].error.endswith("ValueError: -1 is less than nothing\n")
    assert results[too_large].error == "the result was too large to be collected"


def test_an_end_that_rqs_code_recorded_counts(client):
    batch = Batch.create(collect=True)
    queue = Queue("default", client, serializer=JSONSerializer)
    job = queue.enqueue(
        "packmule.tests.worker.batch_jobs.double",
        1,
        on_success=Callback("packmule.tests.worker.pool_jobs.callback"),
    )
    registry.load([], ["packmule.tests.worker.pool_jobs.callback"])
    client.hset(job.key, "batch", batch.id)
    client.hset(f"{keys.batch_key(batch.id)}:jobs", job.id, "p")
    client.hset(keys.batch_key(batch.id), "total", 1)
    batch.seal()
    work(client)
    assert batch.wait(60).counts == Counts(1, 1, 0, 0)


def test_canceling_one_job_counts_it(client):
    with Batch.create() as batch:
        ids = batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,)])
    assert control.cancel(client, ids[0]) == "canceled"
    work(client)
    assert batch.state().counts == Counts(2, 1, 0, 1)


def test_a_canceled_batch_ends_and_its_waiting_jobs_never_run(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    done, well = (batch_jobs.report.prepare(str(tmp_path / "end"), title) for title in ("done", "well"))
    with pool(server) as process:
        with Batch.create(on_complete=done, on_success=well) as batch:
            options = {"batch": batch.id}
            running = batch_jobs.nap.options(**options).enqueue(60)
            until(lambda: reader.read(client, running).status == "started")
            pool_jobs.note.options(**options).enqueue_many([(str(notes), str(n)) for n in range(600)])
            pool_jobs.note.options(**options, delay=0.1).enqueue(str(notes))
        batch.cancel()
        assert batch.wait(60).counts == Counts(602, 0, 1, 601)
        assert ended(client, running).status == "stopped"
        until(lambda: lines(tmp_path / "end"))
        assert lines(tmp_path / "end") == ["done: 0 done, 1 failed, 601 canceled"]
        until(lambda: client.llen("rq:queue:default") == 0)
        process.terminate()
        process.wait()
    assert lines(notes) == []
    assert not gate.exists()
    with pytest.raises(BatchClosed, match="has ended"):
        batch_jobs.nap.options(batch=batch.id).enqueue(0)


def test_a_job_of_a_canceled_batch_whose_process_dies_before_it_stops_does_not_run_again(
    server, client, tmp_path
):
    notes = tmp_path / "notes"
    with pool(server) as process:
        with Batch.create(client=client) as batch:
            call = str(notes), str(tmp_path / "gate"), "a"
            id = pool_jobs.note_when_told.options(batch=batch.id).enqueue(*call)
        until(lambda: lines(notes) == ["begin a"] and reader.read(client, id).status == "started")
        (worker,) = children_of(process.pid)
        os.kill(process.pid, signal.SIGSTOP)  # so that the job is not stopped before
        with client.pubsub(ignore_subscribe_messages=True) as commands:
            commands.psubscribe("rq:pubsub:*")
            canceling = threading.Thread(target=batch.cancel)
            canceling.start()
            until(commands.get_message)
        os.kill(worker, signal.SIGKILL)
        os.kill(process.pid, signal.SIGCONT)
        canceling.join()
        assert batch.wait(DEADLINE).counts.canceled == 1
    assert lines(notes) == ["begin a"]


def test_a_job_that_cancels_a_batch_on_the_event_loop_of_its_jobs_lets_them_stop(server, client):
    with pool(server):
        with Batch.create() as batch:
            napping = batch_jobs.nap_async.options(batch=batch.id).enqueue(60)
        until(lambda: reader.read(client, napping).status == "started")
        canceling = batch_jobs.cancel_async.enqueue(batch.id)
        assert ended(client, napping).status == "stopped"
        # Their process was not killed, which would have sent the canceling job to another one.
        assert ended(client, canceling).worker == ended(client, napping).worker


def test_canceling_a_batch_changes_no_job_whose_end_rqs_code_recorded(client):
    with Batch.create() as batch:
        ended, waiting, later = (
            batch_jobs.double.options(batch=batch.id, delay=delay).enqueue(1) for delay in (None, None, 60)
        )
    client.hset(keys.job_key(ended), "status", "finished")
    batch.cancel()
    assert [reader.read(client, id).status for id in (ended, waiting, later)] == [
        "finished",
        "canceled",
        "canceled",
    ]
    assert batch.state().counts == Counts(3, 1, 0, 2)
    assert client.zcard("rq:scheduled:default") == 0


def test_an_error_in_the_with_block_cancels_the_batch(client):
    with pytest.raises(RuntimeError), Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
        raise RuntimeError
    assert batch.state().counts == Counts(1, 0, 0, 1)
    assert batch.state().is_canceled


def test_a_paused_batch_waits_and_others_pass(client, tmp_path):
    notes = str(tmp_path / "notes")
    with Batch.create() as batch:
        pool_jobs.note.options(batch=batch.id).enqueue_many([(notes, str(n)) for n in range(5)])
    pool_jobs.note.enqueue(notes, "other")
    assert batch.pause()
    assert not batch.pause()
    work(client)
    assert lines(tmp_path / "notes") == ["other"]
    assert batch.state().is_paused
    pool_jobs.note.enqueue(notes, "last")
    assert batch.resume()
    assert not batch.resume()
    work(client)
    assert lines(tmp_path / "notes") == ["other", *"01234", "last"]
    assert batch.state().counts.done == 5
    assert client.keys("pm:batch:*:held") == []


def test_a_batch_that_goes_on_gives_back_all_that_still_wait_and_no_others(client):
    batch = Batch.create()
    batch.pause()
    ids = [f"job{number}" for number in range(600)]
    queued = {"origin": "default", "status": "queued", "data": "x"}
    records = dict.fromkeys(ids, queued) | {
        "canceled": queued | {"status": "canceled"},
        "headless": {"status": "queued"},
        "behind": queued | {"group": "g"},
        "head": queued | {"group": "g"},
    }
    with client.pipeline() as pipeline:
        for id, record in records.items():
            pipeline.hset(keys.job_key(id), mapping=record)
        pipeline.rpush(f"{keys.batch_key(batch.id)}:held", *records, "gone")
        pipeline.execute()
    batch.resume()
    assert [id.decode() for id in client.lrange("rq:queue:default", 0, -1)] == [*ids, "head"]
    assert client.lrange(keys.group_key("default", "g"), 0, -1) == [b"behind"]
    assert client.exists(f"{keys.batch_key(batch.id)}:held") == 0


def test_a_batch_goes_on_although_what_it_holds_is_of_another_type(client):
    batch = Batch.create()
    batch.pause()
    client.set(f"{keys.batch_key(batch.id)}:held", "no list")
    assert batch.resume()
    assert not batch.state().is_paused


def test_a_callback_expires_counted_from_when_it_is_called(client):
    batch = Batch.create(on_complete=pool_jobs.add.options(expires=60).prepare(1))
    (id,) = (as_text(id) for id in client.zrange("rq:deferred:default", 0, -1))
    assert client.hmget(keys.job_key(id), "expires_at", "expires") == [None, b"60.000000"]
    assert client.exists(keys.JOB_EVENTS) == 0, "it is not enqueued yet"
    before = time.time()
    batch.seal()
    assert float(client.hget(keys.job_key(id), "expires_at")) == pytest.approx(before + 60, abs=30)


@pytest.mark.parametrize("began", [False, True])
def test_a_singleton_that_a_paused_batch_holds_is_replaced_by_a_newer_one(client, tmp_path, began):
    notes = tmp_path / "notes"
    claims = Claims(client, "w1", Strict(["default"]))
    with Batch.create() as batch:
        older = limited_jobs.replaces.options(batch=batch.id, retries=1).enqueue(str(notes), "older")
    if began:
        (job,) = claims.finish_and_claim("c1", [], 1).jobs
        again = outcome.again(job, "later", time.time(), time.time(), 0.0)
        claims.finish_and_claim("c2", [again], 0)
    batch.pause()
    assert claims.finish_and_claim("c3", [], 1).jobs == []
    limited_jobs.replaces.enqueue(str(notes), "newer")
    assert reader.read(client, older).status == "canceled"
    assert batch.state().counts == Counts(1, 0, 0, 1)
    batch.resume()
    work(client)
    assert lines(notes) == ["+newer", "-newer"]


def test_a_job_of_a_paused_batch_can_be_canceled_alone(client):
    with Batch.create() as batch:
        ids = batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,)])
    batch.pause()
    work(client)
    assert control.cancel(client, ids[0]) == "canceled"
    batch.resume()
    work(client)
    assert batch.state().counts == Counts(2, 1, 0, 1)


def test_a_second_cancel_finishes_one_that_was_cut_off(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,)])
    assert batch._changed("stop")  # and then its process died
    work(client)
    assert batch.state().counts.pending == 2
    batch.cancel()
    work(client)
    assert batch.state().counts == Counts(2, 0, 0, 2)


def test_a_paused_batch_can_be_canceled(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,)])
    batch.pause()
    work(client)
    batch.cancel()
    work(client)
    assert batch.state().counts == Counts(2, 0, 0, 2)
    assert client.scard(keys.PAUSED_BATCHES) == 0


def test_a_batch_that_was_canceled_while_paused_leaves_no_held_ids(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(n,) for n in range(5)])
    batch.pause()
    work(client)
    assert len(client.keys("pm:batch:*:held")) == 1
    batch.cancel()
    assert client.keys("pm:batch:*:held") == []


def test_a_batch_ends_once_though_it_is_settled_again(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
    work(client)
    client.hset(keys.batch_key(batch.id), "ended", "1.5")
    settler = BatchSettler(client)
    settler._ahead.append((batch.id, "0"))  # it had not ended when the round began
    settler.settle()
    assert client.hget(keys.batch_key(batch.id), "ended") == b"1.5"


def test_a_batch_in_a_batch_counts_as_one(client, tmp_path):
    notes = tmp_path / "notes"
    with Batch.create("all", on_complete=batch_jobs.report.prepare(str(notes), "all")) as parent:
        with Batch.create("well", parent=parent) as well:
            batch_jobs.double.options(batch=well.id).enqueue_many([(1,), (2,)])
        with Batch.create("badly", parent=parent) as badly:
            batch_jobs.double.options(batch=badly.id).enqueue(-1)
            with pytest.raises(BatchClosed, match="nest no deeper"):
                Batch.create(parent=badly)
        batch_jobs.double.options(batch=parent.id).enqueue(1)
    work(client)
    assert parent.state().counts == Counts(3, 2, 1, 0)
    assert list(parent.failed()) == [f"batch:{badly.id}"]
    assert lines(notes) == ["all: 2 done, 1 failed, 0 canceled"]
    with pytest.raises(BatchClosed, match="has ended"):
        Batch.create(parent=parent)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ({"on_complete": batch_jobs.report}, r"^on_complete=<function report .*give a prepared call"),
        ({"on_success": "report"}, "^on_success='report': give a prepared call"),
        ({"parent": "f00"}, "^parent='f00': give a Batch$"),
        ({"keep": "soon"}, "^keep='soon': give seconds, a timedelta, or a text"),
    ],
)
def test_an_argument_of_the_wrong_type_makes_no_batch(client, argument, says):
    with pytest.raises(UsageError, match=says):
        Batch.create(**argument)
    assert client.dbsize() == 0


def test_a_batch_whose_creation_is_sent_again_counts_once_in_its_parent(client, monkeypatch):
    parent = Batch.create()
    monkeypatch.setattr(keys, "new_job_id", lambda: "same")
    for _ in range(2):
        Batch.create(parent=parent)
    assert parent.state().counts == Counts(1, 0, 0, 0)


def test_the_newest_ten_thousand_batches_are_listed(client):
    client.zadd(keys.BATCHES, {f"old{number}": number for number in range(10_000)})
    batch = Batch.create()
    assert client.zcard(keys.BATCHES) == 10_000
    assert client.zrange(keys.BATCHES, -1, -1) == [batch.id.encode()]
    assert client.zscore(keys.BATCHES, "old0") is None


def test_no_batch_is_created_while_the_server_is_too_full(client):
    client.set(keys.FULL, "2 1")
    with pytest.raises(ServerFull):
        Batch.create()
    assert client.keys("pm:batch*") == []


def test_a_parent_whose_key_is_of_another_type_is_no_batch(client):
    client.set(keys.batch_key("odd"), "x")
    with pytest.raises(NoSuchBatch, match="no batch has the id odd"):
        Batch.create(parent=Batch(client, "odd"))


def test_a_wait_for_a_batch_says_what_is_missing(client):
    batch = Batch.create()
    batch_jobs.double.options(batch=batch.id).enqueue(1)
    with pytest.raises(TimeoutError, match=r"has not ended after 0 s: it is not sealed$"):
        batch.wait(timeout=0)
    batch.seal()
    with pytest.raises(TimeoutError, match=r"has not ended after 0 s: jobs pending: 1$"):
        batch.wait(timeout=0)


def test_canceling_and_pausing_affect_a_nested_batch(client):
    with Batch.create() as parent, Batch.create(parent=parent) as child:
        batch_jobs.double.options(batch=child.id).enqueue(1)
    parent.pause()
    assert child.state().is_paused
    work(client)
    parent.resume()
    parent.cancel()
    assert child.state().counts == Counts(1, 0, 0, 1)
    assert parent.state().counts == Counts(1, 0, 1, 0)
    assert parent.state().ended


def test_a_job_that_keeps_killing_its_process_counts_as_failed(client):
    with Batch.create(collect=True) as batch:
        id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    for death in range(3):
        Claims(client, "w1", Strict(["default"])).finish_and_claim(f"c{death}", [], 1)
        running = [as_text(each) for id, each in client.hgetall("pm:claims:w1").items() if id[:1] != b"."]
        rescue(client, "w1", "died", "why", running)
    assert batch.state().counts == Counts(1, 0, 1, 0)
    assert list(batch.results()) == [(id, None, "why")]


def test_purged_and_corrupt_jobs_count_too(client):
    with Batch.create() as batch:
        ids = batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,), (3,)])
    client.hdel(keys.job_key(ids[0]), "data")
    Claims(client, "w1", Strict(["default"])).finish_and_claim("c1", [], 1)
    assert purge(client, "default") == 1
    assert batch.state().counts == Counts(3, 0, 1, 1)
    rescue(client, "w1", "returned", "why", [])
    assert purge(client, "default") == 1
    assert batch.state().counts == Counts(3, 0, 1, 2)


def test_a_retried_job_counts_by_its_new_end_and_no_callback_runs_twice(client, tmp_path):
    notes, once = tmp_path / "notes", tmp_path / "once"
    with Batch.create(on_complete=batch_jobs.report.prepare(str(notes), "end")) as batch:
        id = batch_jobs.fail_once.options(batch=batch.id, retries=0).enqueue(str(once))
    work(client)
    assert batch.state().counts == Counts(1, 0, 1, 0)
    retry(client, id)
    assert batch.state().counts == Counts(1, 0, 0, 0)
    work(client)
    assert batch.state().counts == Counts(1, 1, 0, 0)
    assert lines(notes) == ["end: 0 done, 1 failed, 0 canceled"]


def test_a_killed_worker_leaves_the_counts_exact(server, client, tmp_path):
    notes = tmp_path / "notes"
    with pool(server, 2) as process:
        with Batch.create(on_complete=batch_jobs.report.prepare(str(notes), "end")) as batch:
            batch_jobs.nap.options(batch=batch.id).enqueue_many([(0.01,)] * 200)
        for done in (20, 60, 120):
            until(lambda done=done: batch.state().counts.done > done)
            os.kill(children_of(process.pid)[0], signal.SIGKILL)
        assert batch.wait(60).counts == Counts(200, 200, 0, 0)
        until(lambda: lines(notes))
    assert lines(notes) == ["end: 200 done, 0 failed, 0 canceled"]


@pytest.mark.parametrize("key", ["", ":jobs", ":results", ":held"])
def test_corrupt_keys_of_a_batch_stop_no_worker_and_lose_no_job(client, key):
    with Batch.create(collect=True, on_complete=batch_jobs.double.prepare(7)) as batch:
        ids = batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,)])
    client.delete(keys.batch_key(batch.id) + key)
    client.set(keys.batch_key(batch.id) + key, "nothing of ours")
    if key == ":held":
        client.sadd(keys.PAUSED_BATCHES, batch.id)
        work(client)
        batch.resume()
    work(client)
    assert {reader.read(client, id).status for id in ids} == {"finished"}
    if not key:
        with pytest.raises(NoSuchBatch):
            batch.state()


def test_jobs_that_a_worker_is_about_to_start_are_not_canceled_behind_its_back(client):
    with Batch.create(on_complete=batch_jobs.double.prepare(7)) as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,)])
    claims = Claims(client, "w1", Strict(["default"]))
    jobs = claims.finish_and_claim("c1", [], 2).jobs
    assert batch._changed("stop")
    assert batch._cancel_all() == 2
    assert batch.state().ended is None
    claims.finish_and_claim("c2", [finished(job, b"2", 1.0, 2.0) for job in jobs], 0)
    assert batch.state().counts == Counts(2, 2, 0, 0)
    assert client.zcard("rq:canceled:default") == 0


def test_an_end_that_rqs_code_recorded_counts_even_if_the_worker_died_then(client):
    with Batch.create() as batch:
        ids = batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,)])
    Claims(client, "w1", Strict(["default"])).finish_and_claim("c1", [], 1)
    client.hset(keys.job_key(ids[0]), "status", "finished")
    running = [as_text(each) for id, each in client.hgetall("pm:claims:w1").items() if id[:1] != b"."]
    rescue(client, "w1", "died", "why", running)
    assert batch.state().counts == Counts(2, 1, 0, 0)
    Job.fetch(ids[1], client, JSONSerializer).cancel()
    batch.cancel()
    assert batch.state().counts == Counts(2, 1, 0, 1)


def test_results_of_rqs_code_are_collected(client):
    batch = Batch.create(collect=True)
    id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    registry.load([], ["packmule.tests.worker.pool_jobs.callback"])
    client.hset(keys.job_key(id), "success_callback_name", "packmule.tests.worker.pool_jobs.callback")
    batch.seal()
    work(client)
    assert [result.value for result in batch.results()] == [2]


def test_results_of_a_job_that_ran_again_expire_with_the_batch(client):
    with Batch.create(collect=True) as batch:
        id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    control.cancel(client, id)
    retry(client, id)
    work(client)
    assert client.ttl(f"{keys.batch_key(batch.id)}:results") > 0


@pytest.mark.parametrize("keep", ["1e99", "inf", "nan", "many", "0.4", "700000.5"])
def test_a_corrupt_ttl_counts_as_the_default(client, keep):
    with Batch.create(on_complete=batch_jobs.double.prepare(7)) as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
    client.hset(keys.batch_key(batch.id), "keep", keep)
    work(client)
    assert client.ttl(keys.batch_key(batch.id)) > 600_000


def test_a_batch_ends_even_if_its_callback_is_corrupt(client):
    with Batch.create(on_complete=batch_jobs.double.prepare(7)) as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
    callback = as_text(client.hget(keys.batch_key(batch.id), "on_complete"))
    client.hdel(keys.job_key(callback), "origin")
    work(client)
    assert batch.state().ended


@pytest.mark.parametrize("field", ["done", "failed", "total"])
def test_corrupt_counts_start_again(client, field):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,), (-1,)])
    client.hset(keys.batch_key(batch.id), field, "many")
    work(client)
    batch.cancel()
    assert batch.state().counts == Counts(3, 2, 1, 0)
    assert batch.state().ended


@pytest.mark.parametrize("field", ["done", "failed", "canceled"])
def test_no_garbage_in_a_count_ends_a_batch_early(client, field):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,)])
    for garbage in ("nan", "inf", "-inf"):
        client.hset(keys.batch_key(batch.id), field, garbage)
        settle(client)
        assert batch.state().counts == Counts(2, 0, 0, 0)
        assert not batch.state().ended


def test_a_full_memory_and_a_corrupt_total_keep_no_script_running(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue(1)
    client.hset(keys.batch_key(batch.id), "total", "many")
    client.config_set("maxmemory", "1")
    try:
        settle(client)
    finally:
        client.config_set("maxmemory", "0")
    settle(client)
    assert batch.state().counts == Counts(1, 0, 0, 0)


def test_a_batch_whose_jobs_are_forgotten_can_be_ended(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,)])
    client.delete(f"{keys.batch_key(batch.id)}:jobs")
    work(client)
    batch.cancel()
    assert batch.state().ended


def test_unknown_batches_and_invalid_options_are_refused(client):
    with pytest.raises(NoSuchBatch, match="no batch has the id nobody"):
        Batch(client, "nobody").state()
    with pytest.raises(NoSuchBatch):
        Batch(client, "nobody").cancel()
    with pytest.raises(ValueError, match="keep=0"):
        Batch.create(keep=0)
    with pytest.raises(InvalidOption, match="batch"):
        batch_jobs.double.options(batch="a b")
    with pytest.raises(InvalidOption, match="debounced"):
        batch_jobs.double.options(batch="a", debounce=5)
    with pytest.raises(InvalidOption, match="omit delay"):
        Batch.create(on_complete=batch_jobs.double.options(delay=5).prepare(1))
    with pytest.raises(TypeError, match="missing"):
        Batch.create(on_complete=batch_jobs.double.prepare())
    assert client.keys("pm:batch*") == []


def test_only_the_batchs_own_jobs_know_its_id(client):
    assert Batch.current() is None


# --- jobs that end elsewhere, or run again after their end


def claim(client: Redis, worker: str, most: int = 50) -> list[str]:
    claims = Claims(client, worker, Strict(["default"]))
    return [job.id for job in claims.finish_and_claim(claims.next_id(), [], most).jobs]


def test_jobs_of_a_canceled_batch_run_once_each_when_they_are_retried(client):
    with Batch.create() as batch:
        ids = batch_jobs.double.options(batch=batch.id).enqueue_many([(n,) for n in range(10)])
    batch.cancel()
    for id in ids:
        retry(client, id)
    assert sorted(claim(client, "w1", 7) + claim(client, "w2") + claim(client, "w1")) == sorted(ids)
    assert claim(client, "w1") == claim(client, "w2") == []


def test_jobs_that_a_paused_and_canceled_batch_held_run_once_each_when_they_are_retried(client):
    with Batch.create() as batch:
        ids = batch_jobs.double.options(batch=batch.id).enqueue_many([(n,) for n in range(4)])
    batch.pause()
    assert claim(client, "w1") == []
    batch.cancel()
    for id in ids:
        retry(client, id)
    assert sorted(claim(client, "w1") + claim(client, "w2")) == sorted(ids)


def test_a_job_behind_others_of_its_group_that_rq_canceled_runs_once_when_it_is_retried(client):
    first, second = (limited_jobs.two_a_tenant.enqueue("p", "t", str(n)) for n in range(2))
    Job.fetch(second, client, JSONSerializer).cancel()
    retry(client, second)
    assert sorted(claim(client, "w1") + claim(client, "w2")) == sorted([first, second])


@pytest.mark.parametrize(
    "status", ["canceled", "finished", "failed", "stopped", "started", "deferred", "scheduled"]
)
def test_a_claim_takes_only_a_record_whose_status_is_queued(client, status):
    other, again, last = (batch_jobs.double.enqueue(n) for n in range(3))
    client.hset(keys.job_key(again), "status", status)
    assert claim(client, "w1") == [other, last]
    assert reader.read(client, again).status == status


def rq_job(client: Redis, id: str) -> Job:
    return Job.fetch(id, client, JSONSerializer)


def test_a_batch_ends_when_rq_cancels_and_deletes_its_jobs(client):
    with Batch.create() as batch:
        ids = batch_jobs.double.options(batch=batch.id).enqueue_many([(n,) for n in range(3)])
        batch_jobs.double.options(batch=batch.id, delay=60).enqueue(4)
    rq_job(client, ids[0]).cancel()
    rq_job(client, ids[1]).delete()
    settle(client)
    assert batch.state().counts == Counts(4, 0, 0, 2)
    assert batch.state().ended is None
    rq_job(client, ids[2]).cancel()
    client.delete(*client.keys("rq:job:*"))
    settle(client)
    assert batch.state().counts == Counts(4, 0, 0, 4)
    assert batch.state().ended is not None


def test_a_batch_ends_when_a_stock_worker_of_rqs_performs_its_jobs(client):
    with Batch.create(collect=True) as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (-1,)])
    SimpleWorker(["default"], connection=client, serializer=JSONSerializer).work(burst=True)
    settle(client)
    assert batch.state().counts == Counts(2, 1, 1, 0)
    assert batch.state().ended is not None
    assert sorted(str(result.value) for result in batch.results()) == ["2", "None"]


def test_running_and_waiting_jobs_are_left_pending(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(1,), (2,)])
    claim(client, "w1", 1)
    settle(client)
    assert batch.state().counts == Counts(2, 0, 0, 0)


def test_a_batch_with_a_job_that_runs_again_has_not_ended(client, tmp_path):
    notes = tmp_path / "notes"
    with (
        Batch.create() as parent,
        Batch.create(on_complete=batch_jobs.report.prepare(str(notes), "done"), parent=parent) as batch,
    ):
        id = batch_jobs.fail_once.options(batch=batch.id, retries=0).enqueue(str(tmp_path / "once"))
    work(client)
    assert batch.state().counts == Counts(1, 0, 1, 0)
    assert parent.state().ended is not None
    retry(client, id)
    for each in (batch, parent):
        assert each.state().ended is None
        assert each.state().counts == Counts(1, 0, 0, 0)
        assert client.ttl(keys.batch_key(each.id)) == -1
        with pytest.raises(TimeoutError, match="jobs pending: 1"):
            each.wait(timeout=0)
    work(client)
    for each in (batch, parent):
        assert each.wait(timeout=0).counts == Counts(1, 1, 0, 0)
        assert client.ttl(keys.batch_key(each.id)) > 600_000
    assert lines(notes) == ["done: 0 done, 1 failed, 0 canceled"], "a callback comes once"


def test_jobs_that_a_batch_holds_go_on_though_the_process_died_that_resumed_it(client):
    with Batch.create() as batch:
        ids = batch_jobs.double.options(batch=batch.id).enqueue_many([(n,) for n in range(600)])
    batch.pause()
    work(client)
    settle(client)
    assert client.llen(f"{keys.batch_key(batch.id)}:held") == 600
    args = [batch.id, "resume", wire.time_text(time.time())]
    assert _change(client, [keys.batch_key(batch.id), keys.PAUSED_BATCHES], args) == b"more"
    settle(client)
    assert [as_text(id) for id in client.lrange("rq:queue:default", 0, -1)] == ids


# --- bounds


def test_paused_batches_cost_a_claim_nothing(client):
    client.sadd(keys.PAUSED_BATCHES, *(f"other-{n}" for n in range(10_000)))
    with Batch.create() as batch:
        ids = batch_jobs.double.options(batch=batch.id).enqueue_many([(n,) for n in range(5)])
    claims = Claims(client, "w1", Strict(["default"]))
    claims.finish_and_claim(claims.next_id(), [], 0)
    with monitored(client) as commands:
        assert [job.id for job in claims.finish_and_claim(claims.next_id(), [], 10).jobs] == ids
    assert not [command for command in commands if command.startswith("SMEMBERS pm:batches-paused")]


def test_canceling_a_batch_looks_at_each_worker_once(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(n,) for n in range(1000)])
    for worker in range(1000):
        client.zadd(keys.LEASES, {f"w{worker}": time.time() + 60})
        client.hset(keys.claims_key(f"w{worker}"), f"job-{worker}", "e")
    _, most = looks(client, batch.cancel)
    assert client.info("commandstats")["cmdstat_hkeys"]["calls"] == 1000
    assert batch.state().counts == Counts(1000, 0, 0, 1000)
    assert most < 2500


def test_one_call_that_settles_looks_at_a_bounded_number_of_jobs(client):
    with Batch.create() as batch:
        batch_jobs.double.options(batch=batch.id).enqueue_many([(n,) for n in range(3000)])
    client.delete(*client.keys("rq:job:*"))
    _, most = looks(client, lambda: settle(client))
    assert most < 1500
    assert batch.state().counts.canceled == 3000
