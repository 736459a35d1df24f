"""Dependents of RQ's: they run when what they wait for has ended well enough, whatever became of others."""

from __future__ import annotations

import time

import pytest
from redis import Redis
from rq import Queue
from rq.job import Dependency, Job
from rq.registry import DeferredJobRegistry
from rq.serializers import JSONSerializer

from packmule.jobs import keys, registry
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import Counts
from packmule.jobs.client import Client
from packmule.observe import events
from packmule.tests.looks import looks
from packmule.tests.pace import skewed
from packmule.tests.worker import limited_jobs, pool_jobs
from packmule.tests.worker.pools import pool, until
from packmule.worker import Worker
from packmule.worker.dependents import FORGOTTEN_SECONDS, PARENTS_A_CALL, Dependents, _enqueue, _forgotten
from packmule.worker.order import Strict
from packmule.worker.process import outcome, performer
from packmule.worker.process.claim import Claims
from packmule.worker.process.performer import finished
from packmule.worker.rescue import rescue

ADD = "packmule.tests.worker.pool_jobs.add"


@pytest.fixture
def queue(client: Redis) -> Queue:
    Client(client).make_default()
    registry.load(
        ["packmule.tests.worker.pool_jobs"],
        [f"packmule.tests.worker.pool_jobs.{name}" for name in ("sleep_long", "cancels_itself")],
    )
    return Queue("default", connection=client, serializer=JSONSerializer)


def children_of(queue: Queue, parent: Job) -> tuple[Job, Job]:
    """A child that needs the parent's success, and one that allows failures."""
    allowing = Dependency([parent], allow_failure=True)
    return queue.enqueue(ADD, 1, depends_on=parent), queue.enqueue(ADD, 1, depends_on=allowing)


def test_a_child_that_allows_failures_runs_when_its_parent_died_three_times(queue, server, tmp_path):
    parent = queue.enqueue("packmule.tests.worker.pool_jobs.die", str(tmp_path / "notes"))
    strict, allowing = children_of(queue, parent)
    with pool(server):
        until(lambda: allowing.get_status(refresh=True) == "finished")
    assert (parent.get_status(refresh=True), strict.get_status(refresh=True)) == ("failed", "deferred")


@pytest.mark.parametrize("verdict", ["overran", "stopped"])
def test_a_child_that_allows_failures_runs_when_its_parents_process_was_killed(queue, client, verdict):
    parent = queue.enqueue(ADD, 1)
    strict, allowing = children_of(queue, parent)
    (claimed,) = Claims(client, "w1", Strict(["default"])).finish_and_claim("c1", [], 1).jobs
    rescue(client, "w1", verdict, "killed", [claimed.execution])
    assert Dependents(client).enqueue_forgotten() == 1
    assert [child.get_status(refresh=True) for child in (strict, allowing)] == ["deferred", "queued"]


def test_a_parent_that_rq_cancels_while_it_runs_stays_canceled(queue, client):
    parent = queue.enqueue("packmule.tests.worker.pool_jobs.cancels_itself")
    strict, allowing = children_of(queue, parent)
    Worker(["default"], connection=client).work(burst=True)
    assert parent.get_status(refresh=True) == "canceled"
    assert parent.latest_result().return_value == "done"
    assert [child.get_status(refresh=True) for child in (strict, allowing)] == ["deferred", "finished"]
    assert client.zcard("rq:finished:default") == 1
    assert client.hlen(keys.claims_key("mule")) == 0


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_pool_whose_clock_is_wrong_enqueues_what_was_forgotten_at_the_same_time(client, seconds):
    client.zadd(keys.PARENTS, {"long-ago": time.time() - FORGOTTEN_SECONDS - 1, "just-now": time.time() + 60})
    with skewed(seconds):
        assert Dependents(client).enqueue_forgotten() == 1
    assert client.zrange(keys.PARENTS, 0, -1) == [b"just-now"]


def test_what_somebody_may_still_be_at_is_not_forgotten(client):
    now = time.time()
    client.zadd(keys.PARENTS, {"begun": now - 1800, "forgotten": now - 7200})
    assert _forgotten(client, [keys.PARENTS], [10, 3600]) == [b"forgotten"]


def test_a_parent_is_remembered_until_the_last_page_of_its_dependents(client):
    client.zadd(keys.PARENTS, {"parent": 1})
    for is_last in (0, 1):
        args = ["parent", "now", is_last, "0", "gone"]
        _enqueue(client, ["rq:job:parent:dependents", keys.PARENTS], args)
        assert client.zcard(keys.PARENTS) == 1 - is_last


def test_one_call_takes_a_few_of_the_parents_that_were_forgotten(client):
    client.zadd(keys.PARENTS, {f"parent{number}": number for number in range(PARENTS_A_CALL + 2)})
    assert [Dependents(client).enqueue_forgotten() for _ in range(3)] == [PARENTS_A_CALL, 2, 0]


def test_a_list_of_parents_that_is_none_is_set_aside_and_told(client):
    client.set(keys.PARENTS, "in the way")
    assert Dependents(client).enqueue_forgotten() == 0
    assert [(event.type, event.job) for event in events.read(client)] == [("quarantined", keys.PARENTS)]


def test_a_bad_child_counts_as_failed_in_its_batch(queue, client):
    parent = queue.enqueue(ADD, 1)
    with Batch.create() as batch:
        id = pool_jobs.add.options(batch=batch.id).enqueue(1)
    client.hset(keys.job_key(id), "status", "deferred")
    client.hdel(keys.job_key(id), "origin")
    client.sadd(parent.dependents_key, id)
    client.hset(parent.key, "status", "finished")
    Dependents(client).enqueue_of([parent.id])
    assert batch.state().counts == Counts(1, 0, 1, 0)


def test_a_bad_child_is_named_and_its_siblings_run(queue, client):
    parent = queue.enqueue(ADD, 1)
    good = [queue.enqueue(ADD, n, depends_on=parent) for n in range(3)]
    client.set(keys.job_key("bad"), "no hash")
    client.hset(keys.job_key("headless"), "status", "deferred")
    client.hset(keys.job_key("lost"), mapping={"status": "deferred", "origin": "default", "data": "x"})
    client.set("rq:job::lost:dependencies", "no set")
    client.sadd(parent.dependents_key, "bad", "headless", "lost", "gone")
    Worker(["default"], connection=client).work(burst=True)
    assert [child.get_status(refresh=True) for child in good] == ["finished"] * 3
    named = b"\n".join(client.lrange(keys.QUARANTINE, 0, -1))
    assert all(f'"{name}"'.encode() in named for name in ("bad", "headless"))
    assert b'"gone"' not in named, "it was only deleted"
    assert b"lost:dependencies" in named.replace(b"\\/", b"/")
    assert client.zcard(keys.PARENTS) == 0
    assert client.scard(parent.dependents_key) == 0


def test_dependents_of_a_key_of_another_type_stop_nobody(queue, client):
    parent, other = queue.enqueue(ADD, 1), queue.enqueue(ADD, 2)
    client.set(parent.dependents_key, "no set")
    Worker(["default"], connection=client).work(burst=True)
    assert client.get(f"pm:broken:{parent.dependents_key}") == b"no set"
    assert [job.get_status(refresh=True) for job in (parent, other)] == ["finished", "finished"]
    assert client.zcard(keys.PARENTS) == 0


def test_a_child_waits_for_all_of_its_parents(queue, client):
    first, second = queue.enqueue(ADD, 1), queue.enqueue(ADD, 2)
    child = queue.enqueue(ADD, 3, depends_on=[first, second])
    Worker(["default"], connection=client).work(max_jobs=1)
    assert first.get_status(refresh=True) == "finished"
    assert second.get_status(refresh=True) == "queued"
    assert child.get_status(refresh=True) == "deferred"
    Worker(["default"], connection=client).work(burst=True)
    assert child.get_status(refresh=True) == "finished"
    assert DeferredJobRegistry(queue=queue).get_job_ids() == []


def test_many_dependents_are_looked_at_in_pages(queue, client):
    parent = queue.enqueue(ADD, 1)
    ids = [f"child-{number}" for number in range(1500)]
    with client.pipeline() as pipeline:
        for id in ids:
            record = {"status": "deferred", "origin": "elsewhere", "data": "x", "timeout": 9}
            pipeline.hset(keys.job_key(id), mapping=record)
            pipeline.sadd(f"rq:job::{id}:dependencies", parent.id)
            pipeline.zadd("rq:deferred:elsewhere", {id: 1})
        pipeline.sadd(parent.dependents_key, *ids)
        pipeline.execute()
    claims = Claims(client, "w1", Strict(["default"]))
    (claimed,) = claims.finish_and_claim("c1", [], 1).jobs
    assert claims.finish_and_claim("c2", [finished(claimed, b"2", 1.0, 2.0)], 0).parents == [parent.id]
    dependents = Dependents(client)
    _, most = looks(client, lambda: dependents.enqueue_of([parent.id]))
    assert most < 2500
    until(lambda: dependents.enqueue_forgotten() == 0)  # what took the worker too long
    assert client.llen("rq:queue:elsewhere") == 1500
    assert client.zcard("rq:deferred:elsewhere") == 0


def test_a_child_that_allows_failures_runs_when_its_parent_was_replaced_instead_of_retried(queue, client):
    options = limited_jobs.replaces.options(retries=1, retry_intervals=[0])
    parent = Job.fetch(options.enqueue("p", "1"), client, JSONSerializer)
    strict, allowing = children_of(queue, parent)
    claims = Claims(client, "w1", Strict(["default"]))
    (claimed,) = claims.finish_and_claim("c1", [], 1).jobs
    options.enqueue("p", "2")
    ended = claims.finish_and_claim("c2", [outcome.failed(claimed, "broken", 1.0, 2.0)], 0)
    assert (parent.get_status(refresh=True), ended.parents) == ("stopped", [parent.id])
    Dependents(client).enqueue_of(ended.parents)
    assert [child.get_status(refresh=True) for child in (strict, allowing)] == ["deferred", "queued"]


def test_one_call_looks_at_a_bounded_number_of_the_parents_of_a_child(queue, client):
    parent = queue.enqueue(ADD, 1)
    others = [f"parent-{number}" for number in range(5000)]
    with client.pipeline() as pipeline:
        for id in others:
            pipeline.hset(keys.job_key(id), "status", "finished")
        for child, siblings in (("ready", others), ("waiting", [*others, "pending"]), ("small", [])):
            record = {"status": "deferred", "origin": "elsewhere", "data": "x", "timeout": 9}
            pipeline.hset(keys.job_key(child), mapping=record)
            pipeline.sadd(f"rq:job::{child}:dependencies", parent.id, *siblings)
            pipeline.sadd(parent.dependents_key, child)
        pipeline.hset(keys.job_key("pending"), "status", "queued")
        pipeline.hset(keys.job_key(parent.id), "status", "finished")
        pipeline.execute()
    client.zadd(keys.PARENTS, {parent.id: 1})
    key_names = [parent.dependents_key, keys.PARENTS]
    looked_at, enqueued, _ = _enqueue(client, key_names, [parent.id, "now", 1, "0", "ready", "small"])
    assert (looked_at, enqueued) == (0, 0)
    assert client.zcard(keys.PARENTS) == 1, "these are not all"
    _, most = looks(client, lambda: Dependents(client).enqueue_of([parent.id]))
    assert most < 1500
    assert set(client.lrange("rq:queue:elsewhere", 0, -1)) == {b"ready", b"small"}
    assert client.smembers(parent.dependents_key) == {b"waiting"}


def test_a_child_without_a_list_of_parents_still_needs_the_one_that_ended(queue, client):
    parent = queue.enqueue(ADD, 1)
    strict, allowing = children_of(queue, parent)
    client.delete(strict.dependencies_key, allowing.dependencies_key)
    client.hset(strict.key, "allow_dependency_failures", 0)
    client.hset(parent.key, "status", "failed")
    Dependents(client).enqueue_of([parent.id])
    assert [child.get_status(refresh=True) for child in (strict, allowing)] == ["deferred", "queued"]


def test_an_end_that_is_acknowledged_again_leaves_nothing_to_a_pool(queue, client):
    parent = queue.enqueue(ADD, 1)
    child, canceled = queue.enqueue(ADD, 1, depends_on=parent), queue.enqueue(ADD, 1, depends_on=parent)
    client.hset(canceled.key, "status", "canceled")
    claims = Claims(client, "w1", Strict(["default"]))
    (claimed,) = claims.finish_and_claim("c1", [], 1).jobs
    ended = performer.finished(claimed, b"2", 1.0, 2.0)
    assert claims.finish_and_claim("c2", [ended], 0).parents == [parent.id]
    assert client.zrange(keys.PARENTS, 0, -1) == [parent.id.encode()], "the worker may die now"
    Dependents(client).enqueue_of([parent.id])
    claims._held[claimed.execution] = claimed  # the reply was lost
    assert claims.finish_and_claim("c2", [ended], 0).parents == [parent.id]
    assert client.zcard(keys.PARENTS) == 0
    assert queue.job_ids == [child.id]


def test_a_canceled_child_stays_among_the_dependents(queue, client):
    parent = queue.enqueue(ADD, 1)
    child, gone = queue.enqueue(ADD, 1, depends_on=parent), queue.enqueue(ADD, 1, depends_on=parent)
    client.hset(child.key, "status", "canceled")
    client.delete(gone.key)
    client.hset(parent.key, "status", "finished")
    Dependents(client).enqueue_of([parent.id])
    assert client.smembers(parent.dependents_key) == {child.id.encode()}
    assert child.get_status(refresh=True) == "canceled"


def test_a_child_that_somebody_enqueued_by_hand_is_enqueued_once(queue, client):
    parent = queue.enqueue(ADD, 1)
    children = children_of(queue, parent)
    for child, status in zip(children, ("queued", "started"), strict=True):
        client.hset(child.key, "status", status)
    client.hset(parent.key, "status", "finished")
    Dependents(client).enqueue_of([parent.id])
    assert client.lrange("rq:queue:default", 0, -1) == [parent.id.encode()]
    assert client.exists(parent.dependents_key) == 0


def test_a_parent_whose_record_is_gone_has_finished(queue, client):
    parent, gone = queue.enqueue(ADD, 1), queue.enqueue(ADD, 2)
    child = queue.enqueue(ADD, 3, depends_on=[parent, gone])
    client.delete(parent.key, gone.key)
    Dependents(client).enqueue_of([parent.id])
    assert child.get_status(refresh=True) == "queued"


def test_a_child_joins_a_queue_that_nobody_knew_at_the_end_that_it_asked_for(queue, client):
    parent = queue.enqueue(ADD, 1)
    child = queue.enqueue(ADD, 1, depends_on=parent)
    first = queue.enqueue(ADD, 1, depends_on=Dependency([parent], enqueue_at_front=True))
    client.hset(parent.key, "status", "finished")
    client.hset(child.key, "enqueue_at_front", 0)
    client.delete(keys.QUEUES)
    Dependents(client).enqueue_of([parent.id])
    assert queue.job_ids == [first.id, parent.id, child.id]
    child.refresh()
    assert child.enqueued_at and child.enqueued_at.timestamp() == pytest.approx(time.time(), abs=60)
    assert client.smembers(keys.QUEUES) == {b"rq:queue:default"}
    told = [(event.type, event.job, event.queue) for event in events.read(client)]
    assert sorted(told) == sorted(("enqueued", job.id, "default") for job in (first, child))


def test_children_of_one_group_wait_for_each_other(queue, client):
    parent = queue.enqueue(ADD, 1)
    children = [queue.enqueue(ADD, number, depends_on=parent) for number in range(2)]
    for child in children:
        client.hset(child.key, "group", "g")
    client.hset(parent.key, "status", "finished")
    Dependents(client).enqueue_of([parent.id])
    _, head = client.lrange(keys.queue_key("default"), 0, -1)
    assert client.hget(keys.groups_key("default"), "g") == head
    waiting = client.lrange(keys.group_key("default", "g"), 0, -1)
    assert {head, *waiting} == {child.id.encode() for child in children}


BREAKS = ["rq:queue:default", "rq:deferred:default", "rq:job:{}:dependents", keys.PARENTS]


@pytest.mark.parametrize("broken", BREAKS)
def test_a_key_of_another_type_keeps_no_child_from_its_queue(queue, client, broken):
    parent = queue.enqueue(ADD, 1)
    child = queue.enqueue(ADD, 1, depends_on=parent)
    client.hset(parent.key, "status", "finished")
    key = broken.format(parent.id)
    client.delete(key)
    client.set(key, "in the way")
    key_names = [parent.dependents_key, keys.PARENTS]
    looked_at, enqueued, _ = _enqueue(client, key_names, [parent.id, "now", 1, "0", child.id])
    assert (looked_at, enqueued) == (1, 1)
    assert queue.job_ids[-1] == child.id
    assert child.get_status(refresh=True) == "queued"
    assert client.get(f"pm:broken:{key}") == b"in the way"


def test_one_call_looks_at_a_bounded_number_of_children(queue, client):
    parent = queue.enqueue(ADD, 1)
    client.hset(parent.key, "status", "finished")
    others = [f"parent-{number}" for number in range(99)]
    with client.pipeline() as pipeline:
        for id in others:
            pipeline.hset(keys.job_key(id), "status", "finished")
        for number in range(20):
            record = {"status": "deferred", "origin": "elsewhere", "data": "x", "timeout": 9}
            pipeline.hset(keys.job_key(f"child-{number}"), mapping=record)
            pipeline.sadd(f"rq:job::child-{number}:dependencies", parent.id, *others)
        pipeline.execute()
    key_names = [parent.dependents_key, keys.PARENTS]
    for ids in ([f"child-{number}" for number in range(20)], [f"gone-{number}" for number in range(2000)]):
        looked_at, _, _ = _enqueue(client, key_names, [parent.id, "now", 0, "0", *ids])
        assert 5 < looked_at < 1100
        assert looked_at < len(ids)
