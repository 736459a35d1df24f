"""What an operator does to jobs: retry ended ones, and purge waiting ones."""

from __future__ import annotations

import pytest
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from packmule.jobs import control, keys, reader
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import Counts
from packmule.jobs.control import NotCanceled, NotRetried, retry
from packmule.jobs.queues import PURGED_A_CALL, purge
from packmule.jobs.reader import NoSuchJob
from packmule.observe import events
from packmule.tests.looks import looks
from packmule.tests.worker import limited_jobs, pool_jobs
from packmule.tests.worker.pools import drained, ended, lines
from packmule.worker.order import Strict
from packmule.worker.process import performer
from packmule.worker.process.claim import Claims
from packmule.worker.scoreboard import MAIN, RunningJob
from packmule.worker.started import Marks

DAY = 86_400

pytestmark = pytest.mark.usefixtures("produce")


def test_a_failed_job_runs_again_with_its_count_of_attempts(server, client, tmp_path):
    notes = tmp_path / "notes"
    id = pool_jobs.fail.options(retries=0).enqueue(str(notes))
    assert drained(server) == 0
    retry(client, id)
    assert reader.read(client, id).status == "queued"
    assert client.ttl(keys.job_key(id)) == client.ttl(keys.results_key(id)) == -1
    assert FailedJobRegistry("default", client).get_job_ids() == []
    assert drained(server) == 0
    assert ended(client, id).status == "failed"
    assert len(lines(notes)) == 2


def test_a_canceled_job_runs_after_all(server, client):
    id = pool_jobs.add.enqueue(1)
    assert control.cancel(client, id) == "canceled"
    retry(client, id)
    assert drained(server) == 0
    assert ended(client, id).result == 2
    assert client.zcard("rq:canceled:default") == 0


@pytest.mark.parametrize(
    ("ttl", "kept"), [("500", 500), ("12.7", 12), ("0", DAY), ("-1", DAY), ("1e300", DAY), ("x", DAY)]
)
def test_a_canceled_job_is_kept_for_its_failure_ttl_but_for_a_day_at_most(client, ttl, kept):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), "failure_ttl", ttl)
    assert control.cancel(client, id) == "canceled"
    assert kept - 5 < client.ttl(keys.job_key(id)) <= kept


def test_only_jobs_that_failed_stopped_or_were_canceled_are_retried(server, client):
    id = pool_jobs.add.enqueue(1)
    with pytest.raises(NotRetried, match="is queued; only failed, stopped and canceled jobs"):
        retry(client, id)
    assert drained(server) == 0
    with pytest.raises(NotRetried, match="is finished"):
        retry(client, id)
    with pytest.raises(NoSuchJob):
        retry(client, "nobody")
    client.set(keys.job_key("text"), "no hash")
    with pytest.raises(NoSuchJob):
        retry(client, "text")
    client.hdel(keys.job_key(id), "status")
    with pytest.raises(NoSuchJob):
        retry(client, id)


def test_a_unique_job_is_not_retried_once_another_has_its_key(client):
    first = pool_jobs.add.options(unique=True).enqueue(1)
    control.cancel(client, first)
    second = pool_jobs.add.options(unique=True).enqueue(1)
    with pytest.raises(NotRetried, match=f"{second} holds its place"):
        retry(client, first)
    control.cancel(client, second)
    retry(client, first)
    assert pool_jobs.add.options(unique=True).enqueue(1) == first


@pytest.mark.parametrize("status", ["finished", "failed", "stopped"])
def test_a_unique_job_is_retried_once_the_other_that_had_its_key_has_ended(client, status):
    first = pool_jobs.add.options(unique=True).enqueue(1)
    control.cancel(client, first)
    second = pool_jobs.add.options(unique=True).enqueue(1)
    client.hset(keys.job_key(second), "status", status)
    retry(client, first)
    assert pool_jobs.add.options(unique=True).enqueue(1) == first


def test_a_retry_does_not_end_the_time_for_which_a_throttled_job_keeps_others_out(server, client, tmp_path):
    throttled = pool_jobs.fail.options(throttle=600, retries=0)
    id = throttled.enqueue(str(tmp_path / "notes"))
    assert drained(server) == 0
    retry(client, id)
    assert drained(server) == 0
    assert reader.read(client, id).status == "failed"
    assert throttled.enqueue(str(tmp_path / "notes")) == id


def test_a_job_that_rqs_code_canceled_is_not_retried_while_it_still_runs(client):
    id = pool_jobs.add.enqueue(1)
    claims = Claims(client, "w1", Strict(["default"]))
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    Marks(client).mark("w1", [RunningJob(MAIN, id, job.execution, 0.0, float("inf"), False)], 1.0)
    Job.fetch(id, client, JSONSerializer).cancel()
    with pytest.raises(NotRetried, match="worker w1 still runs it"):
        retry(client, id)
    claims.finish_and_claim("c2", [performer.finished(job, b"1", 1.0, 2.0)], 0)
    retry(client, id)
    assert client.lrange(keys.queue_key("default"), 0, -1) == [id.encode()]


def test_a_list_of_another_type_is_set_aside_and_the_job_is_retried(client):
    id = pool_jobs.add.enqueue(1)
    control.cancel(client, id)
    client.set(keys.queue_key("default"), "no list")
    retry(client, id)
    assert reader.read(client, id).status == "queued"
    assert client.lrange(keys.queue_key("default"), 0, -1) == [id.encode()]


def test_a_purge_deletes_the_jobs_that_wait_and_those_that_are_scheduled(client):
    ids = pool_jobs.add.enqueue_many([(n,) for n in range(1100)])
    later = pool_jobs.add.options(delay=60).enqueue(1)
    other = pool_jobs.add.options(queue="low").enqueue(1)
    assert purge(client, "default") == 1101
    assert purge(client, "default") == 0
    assert reader.read(client, other).status == "queued"
    assert client.exists("rq:scheduled:default") == 0
    with pytest.raises(NoSuchJob):
        reader.read(client, later)
    with pytest.raises(NoSuchJob):
        reader.read(client, ids[0])


def test_a_purge_also_deletes_jobs_behind_others_of_their_group(client):
    limited_jobs.in_turn.enqueue_many([("p", str(number % 3)) for number in range(30)])
    assert purge(client, "default") == 30
    assert client.keys("pm:group*") == []


def test_a_purge_ignores_ids_without_a_record(client):
    client.rpush(keys.queue_key("default"), "gone", b"\xff")
    assert purge(client, "default") == 0
    assert client.llen(keys.queue_key("default")) == 0


def test_a_purge_goes_on_behind_many_ids_without_a_record(client):
    client.rpush(keys.queue_key("default"), *(f"gone{number}" for number in range(1200)))
    client.zadd("rq:scheduled:default", {f"gone{number}": number for number in range(1200)})
    pool_jobs.add.enqueue(1)
    pool_jobs.add.options(delay=60).enqueue(2)
    assert purge(client, "default") == 2


def test_a_purge_deletes_a_job_whose_status_was_lost(client):
    id = pool_jobs.add.enqueue(1)
    client.hdel(keys.job_key(id), "status")
    client.sadd(f"{keys.job_key(id)}:dependents", "other")
    assert purge(client, "default") == 1
    assert client.keys(f"{keys.job_key(id)}*") == []


def claimed(client, most=10):
    claims = Claims(client, "w", Strict(["default"]))
    return claims.finish_and_claim(claims.next_id(), [], most).jobs


@pytest.mark.parametrize("status", ["started", "finished", "failed", "stopped", "canceled"])
def test_a_purge_deletes_no_job_that_runs_or_has_ended(client, status):
    with Batch.create() as batch:
        held = pool_jobs.add.options(batch=batch.id).enqueue(1)
    batch.pause()
    assert claimed(client) == []
    ids = [held, pool_jobs.add.enqueue(2), pool_jobs.add.options(delay=60).enqueue(3)]
    for id in ids:
        client.hset(keys.job_key(id), "status", status)
    assert purge(client, "default") == 0
    assert [reader.read(client, id).status for id in ids] == [status] * 3
    assert client.llen(keys.queue_key("default")) == client.zcard("rq:scheduled:default") == 0
    assert batch.state().counts == Counts(1, 0, 0, 0)


def test_a_purge_deletes_blocked_jobs_and_the_running_one_stays(client):
    first, *_ = limited_jobs.alone.enqueue_many([("p", str(number)) for number in range(4)])
    other = limited_jobs.alone.options(queue="low").enqueue("p", "other")
    assert [job.id for job in claimed(client)] == [first]
    assert claimed(client) == []
    assert client.llen(keys.queue_key("default")) == 0
    assert purge(client, "default") == 3
    assert client.keys("pm:group*:default*") == []
    assert sorted(client.keys("rq:job:*")) == sorted(keys.job_key(id).encode() for id in (first, other))
    assert reader.read(client, first).status == "queued"


def test_a_purge_deletes_more_blocked_jobs_of_a_group_than_one_call_takes(client):
    limited_jobs.alone.enqueue_many([("p", str(number)) for number in range(1201)])
    assert len(claimed(client)) == 1
    assert claimed(client) == []
    assert purge(client, "default") == 1200
    assert client.keys("pm:group*") == []


@pytest.mark.parametrize(("ids", "heads"), [(1200, 0), (0, 505), (0, 2000)])
def test_a_purge_deletes_a_blocked_job_behind_many_ids_without_a_record(client, ids, heads):
    limited_jobs.alone.enqueue_many([("p", "1"), ("p", "2")])
    assert len(claimed(client)) == 1
    assert claimed(client) == []
    groups = keys.groups_key("default")
    ((group, head),) = client.hgetall(groups).items()
    assert head == b""
    if ids:
        client.lpush(f"pm:group:default:{group.decode()}", *(f"gone{number}" for number in range(ids)))
    client.delete(groups)
    client.hset(groups, mapping={f"other{number}": f"gone{number}" for number in range(heads)} | {group: ""})
    assert purge(client, "default") == 1
    assert not client.hexists(groups, group)


def test_a_purge_keeps_the_head_of_a_group_that_a_worker_is_about_to_claim(client):
    head, *_ = limited_jobs.alone.enqueue_many([("p", str(number)) for number in range(3)])
    client.lmove(keys.queue_key("default"), keys.waiting_key("w"))
    assert purge(client, "default") == 2
    assert client.hvals(keys.groups_key("default")) == [head.encode()]
    assert [job.id for job in claimed(client)] == [head]


def test_a_purge_leaves_no_time_at_which_a_group_without_jobs_goes_on(client):
    limited_jobs.ten_a_second.enqueue("p", "d", "first")
    claimed(client)
    client.set(f"pm:rate:jobs:{limited_jobs.__name__}.ten_a_second:d", 10**18)  # far from full
    limited_jobs.ten_a_second.enqueue_many([("p", "d", str(number)) for number in range(3)])
    assert claimed(client) == []
    assert client.zcard("pm:due") == 1
    assert purge(client, "default") == 3
    assert client.zcard("pm:due") == 0


def test_a_purge_deletes_the_jobs_that_paused_batches_hold(client):
    batches = [Batch.create() for _ in range(3)]
    for batch in batches:
        pool_jobs.add.options(batch=batch.id).enqueue_many([(1,), (2,)])
        pool_jobs.add.options(batch=batch.id, queue="low").enqueue(3)
        batch.pause()
    claims = Claims(client, "w", Strict(["default", "low"]))
    assert claims.finish_and_claim(claims.next_id(), [], 50).jobs == []
    assert purge(client, "default") == 6
    for batch in batches:
        assert client.llen(f"{keys.batch_key(batch.id)}:held") == 1
        batch.resume()
        assert batch.state().counts == Counts(3, 0, 0, 2)
    assert client.llen(keys.queue_key("low")) == 3
    assert purge(client, "default") == 0


@pytest.mark.parametrize(("queue", "status"), [("default", "finished"), ("low", "queued")])
def test_a_purge_passes_over_no_held_job_behind_many_that_it_leaves(client, queue, status):
    batch = Batch.create()
    held = f"{keys.batch_key(batch.id)}:held"
    batch.pause()
    id = pool_jobs.add.enqueue(1)
    client.delete(keys.queue_key("default"))
    with client.pipeline() as pipeline:
        for number in range(PURGED_A_CALL):
            pipeline.hset(keys.job_key(f"job{number}"), mapping={"origin": queue, "status": status})
            pipeline.rpush(held, f"job{number}")
        pipeline.rpush(held, id)
        pipeline.execute()
    assert purge(client, "default") == 1
    left = [f"job{number}".encode() for number in range(PURGED_A_CALL)]
    assert client.lrange(held, 0, -1) == (left if queue == "low" else [])


def test_a_purge_copes_with_another_type_where_a_batch_holds_jobs(client):
    batch = Batch.create()
    batch.pause()
    client.set(f"{keys.batch_key(batch.id)}:held", "no list")
    assert purge(client, "default") == 0


def test_a_purge_frees_the_places_of_unique_jobs(client):
    kept = pool_jobs.add.options(unique_ttl=600)
    id = kept.enqueue(1)
    assert kept.enqueue(1) == id
    purge(client, "default")
    assert kept.enqueue(1) != id


def test_an_id_whose_job_was_canceled_can_be_enqueued_anew(server, client):
    once = pool_jobs.add.options(job_id="once")
    once.enqueue(1)
    control.cancel(client, "once")
    assert reader.read(client, "once").status == "canceled"
    once.enqueue(5)
    assert client.zcard("rq:canceled:default") == 0
    assert client.ttl(keys.job_key("once")) == -1
    assert [job.id for job in claimed(client)] == ["once"]
    assert claimed(client) == []


def test_an_id_whose_canceled_record_names_no_queue_can_be_enqueued_anew(client):
    once = pool_jobs.add.options(job_id="once")
    once.enqueue(1)
    control.cancel(client, "once")
    client.hdel(keys.job_key("once"), "origin")
    once.enqueue(5)
    assert [job.id for job in claimed(client)] == ["once"]


def test_a_canceled_batchs_id_that_is_enqueued_anew_runs_once(client):
    with Batch.create() as batch:
        pool_jobs.add.options(job_id="once", batch=batch.id).enqueue(1)
    batch.cancel()
    pool_jobs.add.options(job_id="once").enqueue(5)
    assert [job.id for job in claimed(client)] == ["once"]
    assert claimed(client) == []
    assert batch.state().counts == Counts(1, 0, 0, 1)


def test_an_id_is_not_enqueued_anew_while_the_job_that_rq_canceled_still_runs(client):
    pool_jobs.add.options(job_id="once").enqueue(1)
    claims = Claims(client, "w1", Strict(["default"]))
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    Marks(client).mark("w1", [RunningJob(MAIN, "once", job.execution, 0.0, float("inf"), False)], 1.0)
    Job.fetch("once", client, JSONSerializer).cancel()
    pool_jobs.add.options(job_id="once").enqueue(2)
    assert reader.read(client, "once").status == "canceled"
    claims.finish_and_claim("c2", [performer.finished(job, b"1", 1.0, 2.0)], 0)
    assert reader.read(client, "once").status == "canceled"
    pool_jobs.add.options(job_id="once").enqueue(2)
    assert reader.read(client, "once").status == "queued"
    assert client.lrange("rq:queue:default", 0, -1) == [b"once"]


def test_a_job_that_was_pushed_before_it_was_queued_can_be_canceled_and_purged(client):
    canceled, purged = pool_jobs.add.enqueue(1), pool_jobs.add.enqueue(2)
    for id in (canceled, purged):
        client.hset(keys.job_key(id), "status", "created")  # as RQ's Job.save and Queue.push_job_id leave it
    assert control.cancel(client, canceled, timeout=0) == "canceled"
    assert purge(client, "default") == 1
    assert client.exists(keys.job_key(purged)) == 0


@pytest.mark.parametrize("key", [keys.LEASES, keys.claims_key("w1")])
def test_garbage_at_the_keys_of_workers_keeps_no_job_from_its_retry(client, key):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), mapping={"status": "failed", "worker_name": "w1"})
    client.zadd(keys.LEASES, {"w1": 1})
    client.delete(key)
    client.set(key, "garbage")
    retry(client, id)
    assert reader.read(client, id).status == "queued"


def test_a_retried_job_waits_in_its_queue_alone_however_many_workers_there_are(client):
    id = pool_jobs.add.enqueue(1)
    client.delete(keys.queue_key("default"))
    client.hset(keys.job_key(id), "status", "failed")
    client.zadd(keys.LEASES, {f"w{number}": number for number in range(250)})
    for number in (0, 49, 50, 248, 249):
        client.rpush(keys.waiting_key(f"w{number}"), id)
    retry(client, id)
    assert client.keys(keys.waiting_key("*")) == []
    assert client.lrange(keys.queue_key("default"), 0, -1) == [id.encode()]


@pytest.mark.parametrize("has_name", [True, False])
def test_a_job_that_a_worker_claims_is_not_retried_whether_or_not_its_record_names_it(client, has_name):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), mapping={"status": "failed"} | ({"worker_name": "w1"} if has_name else {}))
    client.hset(keys.claims_key("w1"), id, "c1-1")
    client.zadd(keys.LEASES, {"w2": 2} if has_name else {"w1": 1, "w2": 2})
    with pytest.raises(NotRetried, match="w1"):
        retry(client, id)


def test_a_cancel_copes_with_a_queue_of_another_type(client):
    id = pool_jobs.add.enqueue(1)
    client.delete(keys.queue_key("default"))
    client.set(keys.queue_key("default"), "no list")
    with pytest.raises(NotCanceled, match="is still claimed"):
        control.cancel(client, id, timeout=0)
    assert client.get(f"pm:broken:{keys.queue_key('default')}") == b"no list"
    assert [event.type for event in events.read(client)] == ["enqueued", "quarantined"]


@pytest.mark.parametrize("status", ["failed", "stopped", "canceled"])
def test_a_job_that_is_retried_starts_afresh_but_for_its_attempts(client, status):
    id = pool_jobs.add.enqueue(1)
    client.delete(keys.queue_key("default"), keys.QUEUES)
    forgotten = ("deaths", "expires_at", "replaced", "unknown_since", "callback_due")
    record = dict.fromkeys(forgotten, "1") | {"status": status, "attempts": 3}
    client.hset(keys.job_key(id), mapping=record | {"ended_at": "then", "worker_name": "w1"})
    client.xadd(keys.results_key(id), {"type": 2})
    for key in (keys.job_key(id), keys.results_key(id)):
        client.expire(key, 100)
    for kind in ("failed", "canceled"):
        client.zadd(f"rq:{kind}:default", {id: 1, "other": 1})
    retry(client, id)
    after = client.hgetall(keys.job_key(id))
    assert not after.keys() & {name.encode() for name in forgotten}
    kept = [after[name] for name in (b"status", b"attempts", b"ended_at", b"worker_name")]
    assert kept == [b"queued", b"3", b"", b""]
    assert [client.ttl(key) for key in (keys.job_key(id), keys.results_key(id))] == [-1, -1]
    assert [client.zrange(f"rq:{kind}:default", 0, -1) for kind in ("failed", "canceled")] == [[b"other"]] * 2
    assert client.smembers(keys.QUEUES) == {b"rq:queue:default"}
    assert client.lrange(keys.queue_key("default"), 0, -1) == [id.encode()]
    assert [event.type for event in events.read(client)] == ["enqueued", "enqueued"]


@pytest.mark.parametrize("entry", ["{id} x", "another 9999999999.0"])
def test_a_job_that_is_retried_holds_its_place_until_it_has_ended(client, entry):
    """Whatever is entered there, unless another job is pending."""
    id = pool_jobs.add.options(unique=True).enqueue(1)
    (key,) = client.hkeys(keys.UNIQUE)
    client.hset(keys.job_key(id), "status", "failed")
    client.hset(keys.UNIQUE, key, entry.format(id=id))
    retry(client, id)
    assert client.hget(keys.UNIQUE, key) == f"{id} 0".encode()


@pytest.mark.parametrize("field", ["data", "origin"])
def test_half_a_record_is_not_retried(client, field):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), "status", "failed")
    client.hdel(keys.job_key(id), field)
    with pytest.raises(NoSuchJob):
        retry(client, id)


@pytest.mark.parametrize(
    ("field", "error"), [("data", NoSuchJob), ("status", NoSuchJob), ("origin", NotCanceled)]
)
def test_half_a_record_is_not_canceled(client, field, error):
    id = pool_jobs.add.enqueue(1)
    client.hdel(keys.job_key(id), field)
    with pytest.raises(error):
        control.cancel(client, id, timeout=0)
    assert not client.hexists(keys.job_key(id), "ended_at")


def test_a_scheduled_job_is_canceled_although_a_callback_seems_due(client):
    id = pool_jobs.add.options(delay=60).enqueue(1)
    client.hset(keys.job_key(id), "callback_due", "callback scheduled failure at 1 e")
    assert control.cancel(client, id, timeout=0) == "canceled"
    assert client.zcard("rq:scheduled:default") == 0


def test_a_job_that_is_retried_waits_behind_others_of_its_group(client):
    first = limited_jobs.alone.enqueue("p", "1")
    client.hset(keys.job_key(first), "status", "failed")
    client.delete(keys.queue_key("default"), keys.groups_key("default"))
    second = limited_jobs.alone.enqueue("p", "2")
    retry(client, first)
    assert client.lrange(keys.queue_key("default"), 0, -1) == [second.encode()]


def test_a_job_is_not_retried_while_a_worker_without_a_lease_still_claims_it(client):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), mapping={"status": "canceled", "worker_name": "w1"})
    client.hset(keys.claims_key("w1"), id, "e1")
    with pytest.raises(NotRetried, match="worker w1 still runs it"):
        retry(client, id)


def test_a_retry_finds_a_waiting_id_among_many_workers_and_looks_at_a_bounded_number(client):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), "status", "failed")
    client.delete(keys.queue_key("default"))
    client.zadd(keys.LEASES, {f"w{number}": number for number in range(2500)})
    client.rpush(keys.waiting_key("w2100"), id)
    client.set(keys.waiting_key("w2101"), "no list")
    client.set(keys.claims_key("w2102"), "no hash")
    cost, _ = looks(client, lambda: retry(client, id))
    assert client.exists(keys.waiting_key("w2100")) == 0
    assert cost < 2300
    assert client.lrange(keys.queue_key("default"), 0, -1) == [id.encode()]


def test_leases_of_another_type_keep_no_job_from_its_retry(client):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), "status", "failed")
    client.set(keys.LEASES, "no sorted set")
    retry(client, id)
    assert reader.read(client, id).status == "queued"
