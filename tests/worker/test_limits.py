"""Limits of jobs: singletons, slots, rates and turns, in claims and in pools."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.coordination.locks.redlock import Redlock
from packmule.jobs import keys, reader
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import Counts
from packmule.jobs.control import NotRetried, cancel, retry
from packmule.jobs.slots import SlotNotReleased, release_slot
from packmule.observe import events
from packmule.scheduler.maintenance.promote import promote
from packmule.scheduler.maintenance.repair import GroupRepair
from packmule.tests.looks import looks
from packmule.tests.pace import pace
from packmule.tests.worker import limit_faults, limited_jobs, pool_jobs
from packmule.tests.worker.pools import DEADLINE, children_of, drained, ended, lines, pool, until
from packmule.worker.order import Strict
from packmule.worker.process import outcome, performer
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed
from packmule.worker.rescue import rescue
from packmule.worker.scoreboard import MAIN, RunningJob
from packmule.worker.started import Marks

pytestmark = pytest.mark.usefixtures("produce")

JOBS = limited_jobs.__name__


class Desk:
    """Two workers' claims, one call after the other."""

    def __init__(self, client: Redis) -> None:
        self.workers = {name: Claims(client, name, Strict(["default"])) for name in ("w1", "w2")}

    def claim(self, most: int = 10, worker: str = "w1") -> list[Claimed]:
        claims = self.workers[worker]
        return claims.finish_and_claim(claims.next_id(), [], most).jobs

    def finish(self, *jobs: Claimed, most: int = 0, worker: str = "w1") -> list[Claimed]:
        claims = self.workers[worker]
        outcomes = [performer.finished(job, b"1", 1.0, 2.0) for job in jobs]
        claim = claims.finish_and_claim(claims.next_id(), outcomes, most)
        assert claim.stale == []
        return claim.jobs


@pytest.fixture
def desk(client) -> Desk:
    return Desk(client)


def ids(jobs: list[Claimed]) -> list[str]:
    return [job.id for job in jobs]


def test_the_next_job_of_a_singleton_is_claimed_when_the_first_has_ended(desk):
    first, second, third = (limited_jobs.alone.enqueue("p", str(number)) for number in range(3))
    (job,) = desk.claim()
    assert job.id == first
    assert desk.claim(worker="w2") == []
    assert ids(desk.finish(job, most=5)) == [second]
    assert desk.claim(worker="w2") == []
    assert ids(desk.claim(worker="w2")) == []
    assert third not in ids(desk.claim())


def test_singletons_of_different_keys_do_not_wait_for_each_other(desk):
    enqueued = [
        limited_jobs.alone_by_account.enqueue("p", account, "x") for account in ("a", "b", "a", "c", "b")
    ]
    assert ids(desk.claim()) == [enqueued[0], enqueued[1], enqueued[3]]


def test_a_waiting_singleton_runs_before_jobs_that_were_enqueued_later(desk):
    limited_jobs.alone.enqueue("p", "1")
    second = limited_jobs.alone.enqueue("p", "2")
    (job,) = desk.claim()
    desk.claim()
    later = pool_jobs.add.enqueue(1)
    assert ids(desk.finish(job, most=5)) == [second, later]


def test_no_more_jobs_run_at_once_than_there_are_slots(client, desk):
    enqueued = [limited_jobs.two_a_tenant.enqueue("p", "t", str(number)) for number in range(5)]
    jobs = desk.claim()
    assert ids(jobs) == enqueued[:2]
    assert ids(desk.finish(jobs[0], most=5)) == enqueued[2:3]
    assert client.hlen(f"pm:holders:{JOBS}.two_a_tenant:t") == 2


def test_a_repeated_claim_takes_no_second_slot_after_a_lost_reply(desk):
    enqueued = [limited_jobs.two_a_tenant.enqueue("p", "t", str(number)) for number in range(5)]
    for _ in range(2):
        assert ids(desk.workers["w1"].finish_and_claim("same", [], 5).jobs) == enqueued[:2]


def test_a_rate_bounds_how_many_start_and_reports_when_the_next_may(client, desk):
    first, second = (limited_jobs.one_a_minute.enqueue("p", "d", str(number)) for number in range(2))
    other = limited_jobs.one_a_minute.enqueue("p", "e", "x")
    assert ids(desk.claim()) == [first, other]
    claim = desk.workers["w1"].finish_and_claim("empty", [], 5)
    assert claim.jobs == []
    assert claim.next_due is not None
    assert 0 < claim.next_due <= 60
    assert desk.workers["w2"].finish_and_claim("empty", [], 5).next_due is None  # w1 looks
    client.decrby(f"pm:rate:jobs:{JOBS}.one_a_minute:d", 60_000_000)  # as if these microseconds were over
    client.zincrby(keys.DUE, -60, client.zrange(keys.DUE, 0, 0)[0])
    assert ids(desk.claim()) == [second]


def test_a_job_that_is_returned_unperformed_gives_back_its_tokens_and_its_slot(desk):
    enqueued = limited_jobs.ten_a_second.enqueue("p", "d", "x")
    (job,) = desk.claim()
    claims = desk.workers["w1"]
    assert ids(claims.finish_and_claim("back", [outcome.returned(job)], 5).jobs) == [enqueued]


def test_keys_take_turns_however_many_jobs_one_has(client, desk):
    many = limited_jobs.in_turn.enqueue_many([("p", "a")] * 100)
    few = limited_jobs.in_turn.enqueue_many([("p", "b")] * 2)
    plain = pool_jobs.add.enqueue(1)
    assert ids(desk.claim(6)) == [many[0], few[0], plain, many[1], few[1], many[2]]
    assert client.llen("rq:queue:default") == 1  # the head of a
    assert ids(desk.claim(200)) == many[3:]
    assert client.exists("pm:groups:default") == 0


def test_a_group_has_one_head_in_the_list_after_a_retry_or_a_return(client, desk):
    limited_jobs.in_turn.enqueue_many([("p", "a")] * 10)
    for _ in range(5):
        (job,) = desk.claim(1)
        claims = desk.workers["w1"]
        claims.finish_and_claim(claims.next_id(), [outcome.returned(job)], 0)
    assert client.llen("rq:queue:default") == 2
    assert len(desk.claim(20)) == 10


@pytest.mark.parametrize("verdict", ["returned", "died", "overran", "stopped"])
def test_a_rescued_singleton_lets_the_next_one_run(client, desk, verdict):
    first, second = (limited_jobs.alone.enqueue("p", str(number)) for number in range(2))
    (job,) = desk.claim()
    desk.claim(worker="w2")
    rescue(client, "w1", verdict, "why", [job.execution])
    expected = [first] if verdict in ("returned", "died") else [second]
    assert ids(desk.claim(worker="w2")) == expected


def test_a_slot_whose_holder_vanished_without_a_trace_is_free(client, desk):
    limited_jobs.alone.enqueue("p", "1")
    second = limited_jobs.alone.enqueue("p", "2")
    desk.claim()
    assert desk.claim(worker="w2") == []
    client.delete(keys.claims_key("w1"))
    GroupRepair(client).repair()
    assert ids(desk.claim(worker="w2")) == [second]


@pytest.mark.parametrize("how", ["list emptied", "record deleted"])
def test_a_group_that_lost_its_head_gets_another(client, desk, how):
    enqueued = limited_jobs.in_turn.enqueue_many([("p", "a")] * 3)
    if how == "list emptied":
        client.delete("rq:queue:default")
    else:
        client.delete(keys.job_key(enqueued[0]))
        assert desk.claim() == []
    GroupRepair(client).repair()
    assert ids(desk.claim()) == enqueued[1:]


def test_a_blocked_job_can_be_canceled(client, desk):
    first, second, third = (limited_jobs.alone.enqueue("p", str(number)) for number in range(3))
    (job,) = desk.claim()
    assert job.id == first
    assert cancel(client, second) == "canceled"
    assert ids(desk.finish(job, most=5)) == [third]
    behind, last = (limited_jobs.in_turn.enqueue("p", "a") for _ in range(2))
    assert cancel(client, behind) == "canceled"
    assert ids(desk.claim()) == [last]


def test_a_job_of_a_group_that_rq_canceled_does_not_run(client, desk):
    first, second, third = limited_jobs.in_turn.enqueue_many([("p", "a")] * 3)
    for id in (first, second):
        Job.fetch(id, client, JSONSerializer).cancel()
    GroupRepair(client).repair()
    assert ids(desk.claim()) == [third]


def test_a_scheduled_job_joins_its_group_when_it_is_due(client, desk):
    limited_jobs.in_turn.enqueue_many([("p", "a")] * 3)
    for _ in range(3):
        limited_jobs.in_turn.options(delay=0.01).enqueue("p", "a")
    time.sleep(0.02)
    promote(client)
    assert client.llen("rq:queue:default") == 1
    assert len(desk.claim()) == 6


def test_the_scheduler_unblocks_a_job_whose_time_has_come(client, desk):
    limited_jobs.ten_a_second.enqueue("p", "d", "1")
    second = limited_jobs.ten_a_second.enqueue("p", "d", "2")
    desk.claim()
    time.sleep(0.1)
    promote(client)
    assert client.lrange("rq:queue:default", 0, -1) == [second.encode()]


def test_a_second_singleton_that_skips_is_not_enqueued_while_there_is_one(client, desk):
    first = limited_jobs.skips.enqueue("p", "1")
    assert limited_jobs.skips.enqueue("p", "2") == first
    (job,) = desk.claim()
    assert limited_jobs.skips.enqueue("p", "3") == first
    desk.finish(job)
    assert limited_jobs.skips.enqueue("p", "4") != first


def test_a_singleton_that_replaces_cancels_those_that_wait(client, desk):
    first, second, third = (limited_jobs.replaces.enqueue("p", str(number)) for number in range(3))
    assert [reader.read(client, id).status for id in (first, second)] == ["canceled"] * 2
    assert ids(desk.claim()) == [third]
    fourth, fifth = (limited_jobs.replaces.enqueue("p", str(number)) for number in range(2))
    assert desk.claim(worker="w2") == []
    assert reader.read(client, fourth).status == "canceled"
    assert reader.read(client, fifth).status == "queued"


def test_of_singletons_that_replace_each_other_in_one_call_the_last_runs(client, desk):
    with Batch.create() as batch:
        options = limited_jobs.replaces.options(batch=batch.id)
        *others, last = options.enqueue_many([("p", str(number)) for number in range(4)])
    assert batch.state().counts == Counts(4, 0, 0, 3)
    assert {reader.read(client, id).status for id in others} == {"canceled"}
    (job,) = desk.claim()
    assert job.id == last
    desk.finish(job)
    assert batch.state().counts == Counts(4, 1, 0, 3)
    assert batch.state().ended is not None


def test_a_delayed_singleton_replaces_others_when_it_is_queued(client, desk):
    first = limited_jobs.replaces.enqueue("p", "1")
    delayed = limited_jobs.replaces.options(delay=60).enqueue("p", "2")
    assert [reader.read(client, id).status for id in (first, delayed)] == ["queued", "scheduled"]
    client.zadd("rq:scheduled:default", {delayed: 1})
    promote(client)
    assert [reader.read(client, id).status for id in (first, delayed)] == ["canceled", "queued"]
    assert ids(desk.claim()) == [delayed]


def test_a_job_that_a_delayed_singleton_replaces_counts_in_its_batch(client):
    with Batch.create() as batch:
        limited_jobs.replaces.options(batch=batch.id).enqueue("p", "1")
    delayed = limited_jobs.replaces.options(delay=60).enqueue("p", "2")
    client.zadd("rq:scheduled:default", {delayed: 1})
    promote(client)
    assert batch.state().counts == Counts(1, 0, 0, 1)
    assert batch.state().ended


def test_a_singleton_that_no_worker_knew_replaces_no_newer_one_when_it_comes_back(client):
    older = limited_jobs.replaces.options(delay=60).enqueue("p", "1")
    newer = limited_jobs.replaces.enqueue("p", "2")
    client.hset(keys.job_key(older), "unknown_since", "1")
    client.zadd("rq:scheduled:default", {older: 1})
    promote(client)
    assert [reader.read(client, id).status for id in (older, newer)] == ["queued", "queued"]


def test_a_callback_replaces_other_singletons_when_it_is_called(client, desk):
    first = limited_jobs.replaces.enqueue("p", "1")
    batch = Batch.create(on_complete=limited_jobs.replaces.prepare("p", "2"))
    assert reader.read(client, first).status == "queued"
    batch.seal()
    assert reader.read(client, first).status == "canceled"
    (job,) = desk.claim()
    assert job.id != first
    assert desk.finish(job, most=5) == []


def test_a_job_that_a_callback_replaces_counts_in_its_batch(client):
    with Batch.create() as batch:
        limited_jobs.replaces.options(batch=batch.id).enqueue("p", "1")
    Batch.create(on_complete=limited_jobs.replaces.prepare("p", "2")).seal()
    assert batch.state().counts == Counts(1, 0, 0, 1)
    assert batch.state().ended


@pytest.mark.parametrize("delay", [0, 60])
def test_a_newer_singleton_replaces_an_older_one_that_waits_for_its_retry(client, desk, delay):
    retries = limited_jobs.replaces.options(retries=1, retry_intervals=[delay])
    older = retries.enqueue("p", "1")
    (job,) = desk.claim()
    claims = desk.workers["w1"]
    claims.finish_and_claim(claims.next_id(), [outcome.failed(job, "broken", 1.0, 2.0)], 0)
    assert reader.read(client, older).status in ("queued", "scheduled")
    newer = limited_jobs.replaces.enqueue("p", "2")
    assert reader.read(client, older).status == "canceled"
    client.zadd("rq:scheduled:default", {"nobody": 1})
    promote(client)
    (job,) = desk.claim()
    assert job.id == newer
    assert desk.finish(job, most=5) == []
    assert client.keys("pm:retrying:*") == []


@pytest.mark.parametrize("status", ["queued", "finished", "started", ""])
def test_a_singleton_replaces_nothing_that_does_not_wait_for_its_retry(client, desk, status):
    """A record that names no queue waits for nothing either."""
    if status:
        fields = {"status": status} | ({"origin": "default"} if status != "queued" else {})
        client.hset(keys.job_key("other"), mapping=fields)
    client.sadd(f"pm:retrying:{JOBS}.replaces", "other")
    client.rpush("rq:queue:default", "other")
    newer = limited_jobs.replaces.enqueue("p", "2")
    assert client.lrange("rq:queue:default", 0, -1) == [b"other", newer.encode()]
    assert client.hget(keys.job_key("other"), "status") == (status.encode() or None)


def test_a_singleton_does_not_cancel_an_older_one_whose_retry_was_claimed(client, desk):
    older = limited_jobs.replaces.options(retries=1, retry_intervals=[0]).enqueue("p", "1")
    (job,) = desk.claim()
    claims = desk.workers["w1"]
    claims.finish_and_claim(claims.next_id(), [outcome.failed(job, "broken", 1.0, 2.0)], 0)
    assert ids(desk.claim()) == [older]
    limited_jobs.replaces.enqueue("p", "2")
    assert reader.read(client, older).status == "queued"
    assert client.hget(keys.job_key(older), "replaced") == b"1", "it is stopped instead"


def test_a_singleton_brings_no_record_back_of_those_that_it_replaces(client, desk):
    deleted = [limited_jobs.replaces.enqueue("p", "1")]
    desk.claim()
    deleted.append(limited_jobs.replaces.enqueue("p", "2"))
    client.delete(*map(keys.job_key, deleted))
    newer = limited_jobs.replaces.enqueue("p", "3")
    assert client.lrange("rq:queue:default", 0, -1) == [newer.encode()]
    assert client.exists(*map(keys.job_key, deleted)) == 0


def test_a_newer_singleton_replaces_an_older_one_that_its_lost_worker_gave_back(client, desk):
    older = limited_jobs.replaces.enqueue("p", "1")
    desk.claim()
    rescue(client, "w1", "vanished")
    newer = limited_jobs.replaces.enqueue("p", "2")
    assert reader.read(client, older).status == "canceled"
    assert ids(desk.claim()) == [newer]


def test_a_newer_singleton_replaces_an_older_one_whose_callback_still_waits(client, desk):
    older = limited_jobs.replaces.options(retries=1, retry_intervals=[60]).enqueue("p", "1")
    client.hset(keys.job_key(older), "failure_callback_name", "shop.failed")
    (job,) = desk.claim()
    claims = desk.workers["w1"]
    ended = outcome.failed(job, "broken", 1.0, 2.0)
    (due,) = claims.finish_and_claim(claims.next_id(), [ended], 0).jobs
    claims.finish_and_claim(claims.next_id(), [outcome.returned(due)], 0)
    newer = limited_jobs.replaces.enqueue("p", "2")
    assert reader.read(client, older).status == "canceled"
    assert client.lrange("rq:queue:default", 0, -1) == [newer.encode()]


def test_a_retry_that_is_due_replaces_no_newer_singleton(client, desk):
    older = limited_jobs.replaces.options(retries=1, retry_intervals=[60]).enqueue("p", "1")
    (job,) = desk.claim()
    claims = desk.workers["w1"]
    claims.finish_and_claim(claims.next_id(), [outcome.failed(job, "broken", 1.0, 2.0)], 0)
    client.delete(*client.keys("pm:retrying:*"))  # or it would have been replaced by the newer one
    newer = limited_jobs.replaces.enqueue("p", "2")
    client.zadd("rq:scheduled:default", {older: 1})
    promote(client)
    assert [reader.read(client, id).status for id in (older, newer)] == ["queued", "queued"]


def test_a_singleton_that_was_replaced_while_it_ran_is_not_retried(client, desk):
    retries = limited_jobs.replaces.options(retries=1, retry_intervals=[0])
    older = retries.enqueue("p", "1")
    (job,) = desk.claim()
    newer = retries.enqueue("p", "2")
    claims = desk.workers["w1"]
    # It failed by itself before its worker got the command to stop it.
    claims.finish_and_claim(claims.next_id(), [outcome.failed(job, "broken", 1.0, 2.0)], 0)
    assert reader.read(client, older).status == "stopped"
    (job,) = desk.claim()
    assert job.id == newer
    assert desk.finish(job, most=5) == []


def test_a_singleton_that_finished_although_it_was_replaced_has_finished(client, desk):
    older = limited_jobs.replaces.enqueue("p", "1")
    (job,) = desk.claim()
    limited_jobs.replaces.enqueue("p", "2")
    desk.finish(job)
    assert reader.read(client, older).status == "finished"


@pytest.mark.parametrize("has_failed", [True, False])
def test_a_singleton_that_was_replaced_instead_of_retried_calls_back_as_stopped(client, desk, has_failed):
    older = limited_jobs.replaces.options(retries=1).enqueue("p", "1")
    client.hset(keys.job_key(older), "stopped_callback_name", "shop.stopped")
    (job,) = desk.claim()
    limited_jobs.replaces.enqueue("p", "2")
    asks = outcome.failed(job, "broken", 1.0, 2.0) if has_failed else outcome.again(job, "later", 1.0, 2.0, 0)
    claims = desk.workers["w1"]
    (due,) = claims.finish_and_claim(claims.next_id(), [asks], 0).jobs
    assert (due.id, due.due.kind) == (older, "stopped")


def test_the_worker_of_a_singleton_that_is_replaced_is_told_to_stop_it(client, desk):
    older = limited_jobs.replaces.enqueue("p", "1")
    desk.claim()
    with client.pubsub() as commands:
        commands.subscribe(keys.commands_channel("w1"))
        until(commands.get_message)
        limited_jobs.replaces.enqueue("p", "2")
        message = commands.get_message(timeout=DEADLINE)
    assert json.loads(message["data"]) == {"command": "stop-job", "job_id": older}


def test_a_singleton_replaces_all_that_wait_in_its_group_or_for_their_retry(client, desk):
    group, key = f"lock {JOBS}.replaces", f"{JOBS}.replaces"
    waiting = ["head", "behind", "further"]
    for id in [*waiting, "first", "second"]:
        fields = {"origin": "default", "status": "queued" if id in waiting else "scheduled", "group": group}
        client.hset(keys.job_key(id), mapping=fields)
    client.hset(keys.groups_key("default"), group, "head")
    client.rpush("rq:queue:default", "head")
    client.rpush(keys.group_key("default", group), "behind", "further")
    client.zadd("rq:scheduled:default", {"first": 1, "second": 1})
    client.sadd(f"pm:retrying:{key}", "first", "second")
    newer = limited_jobs.replaces.enqueue("p", "1")
    canceled = [*waiting, "first", "second"]
    assert {client.hget(keys.job_key(id), "status") for id in canceled} == {b"canceled"}
    assert client.lrange("rq:queue:default", 0, -1) == [newer.encode()]
    assert client.exists(keys.group_key("default", group), "rq:scheduled:default", f"pm:retrying:{key}") == 0


@pytest.mark.parametrize("verdict", ["died", "overran"])
def test_a_singleton_that_was_replaced_while_it_ran_is_stopped_if_it_comes_back(client, desk, verdict):
    older = limited_jobs.replaces.options(retries=1).enqueue("p", "1")
    (job,) = desk.claim()
    newer = limited_jobs.replaces.enqueue("p", "2")
    rescue(client, "w1", verdict, "why", [job.execution])
    record = reader.read(client, older)
    assert (record.status, record.deaths, record.retries_left) == ("stopped", verdict == "died", 1)
    assert ids(desk.claim()) == [newer]


def test_a_singleton_that_was_replaced_counts_as_canceled_if_its_worker_gives_it_back(client, desk):
    with Batch.create() as batch:
        older = limited_jobs.replaces.options(batch=batch.id).enqueue("p", "1")
    (job,) = desk.claim()
    newer = limited_jobs.replaces.enqueue("p", "2")
    claims = desk.workers["w1"]
    claims.finish_and_claim(claims.next_id(), [outcome.returned(job)], 0)
    assert reader.read(client, older).status == "canceled"
    assert batch.state().counts == Counts(1, 0, 0, 1)
    *_, event = events.read(client)
    assert (event.type, event.job, event.details) == ("canceled", older, {"reason": "replaced"})
    assert ids(desk.claim()) == [newer]


def test_a_singleton_that_was_replaced_before_it_ran_is_stopped_once_it_runs(client, desk):
    limited_jobs.replaces.enqueue("p", "1")
    (job,) = desk.claim()
    limited_jobs.replaces.enqueue("p", "2")  # nothing is on the scoreboard yet that could be stopped
    with client.pubsub() as commands:
        commands.subscribe(keys.commands_channel("w1"))
        until(commands.get_message)
        Marks(client).mark("w1", [RunningJob(MAIN, job.id, job.execution, 0.0, float("inf"), False)], 1.0)
        message = commands.get_message(timeout=DEADLINE)
    assert json.loads(message["data"]) == {"command": "stop-job", "job_id": job.id}


def test_a_retry_by_hand_replaces_no_newer_singleton(client, desk):
    older, newer = (limited_jobs.replaces.enqueue("p", str(number)) for number in range(2))
    with pytest.raises(NotRetried, match=f"{newer} holds its place"):
        retry(client, older)
    (job,) = desk.claim()
    with pytest.raises(NotRetried, match=f"{newer} holds its place"):
        retry(client, older)
    desk.finish(job)
    retry(client, older)
    assert ids(desk.claim()) == [older]


def test_a_retry_by_hand_replaces_no_newer_singleton_that_waits_for_a_time(client, desk):
    older = limited_jobs.replaces.enqueue("p", "1")
    cancel(client, older)
    newer = limited_jobs.replaces.enqueue("p", "2")
    (job,) = desk.claim()
    claims = desk.workers["w1"]
    claims.finish_and_claim(claims.next_id(), [outcome.postponed(job, 60)], 0)
    with pytest.raises(NotRetried, match=f"{newer} holds its place"):
        retry(client, older)


def test_a_retry_by_hand_replaces_no_newer_singleton_though_it_has_its_own_unique_key(client, desk):
    options = limited_jobs.replaces.options(unique=True)
    older = options.enqueue("p", "1")
    cancel(client, older)
    newer = options.enqueue("p", "2")
    with pytest.raises(NotRetried, match=f"{newer} holds its place"):
        retry(client, older)


def test_a_singleton_that_rqs_code_canceled_as_the_head_of_its_group_is_retried(client, desk):
    id = limited_jobs.replaces.enqueue("p", "1")
    Job.fetch(id, client, JSONSerializer).cancel()
    retry(client, id)
    assert ids(desk.claim()) == [id]
    assert desk.claim() == []


def test_a_singleton_is_retried_though_its_group_is_blocked_without_a_job(client, desk):
    id = limited_jobs.replaces.enqueue("p", "1")
    cancel(client, id)
    client.hset(keys.groups_key("default"), f"lock {JOBS}.replaces", "")
    retry(client, id)
    assert reader.read(client, id).status == "queued"


@pytest.mark.parametrize(("how", "wait"), [("failed", 1000), ("overran", 1000), ("vanished", 0)])
def test_jobs_of_a_singleton_that_go_back_are_remembered_a_week_longer_than_they_wait(
    client, desk, how, wait
):
    limited_jobs.replaces.options(retries=1, retry_intervals=[1000]).enqueue("p", "1")
    (job,) = desk.claim()
    claims = desk.workers["w1"]
    if how == "failed":
        claims.finish_and_claim(claims.next_id(), [outcome.failed(job, "broken", 1.0, 2.0)], 0)
    else:
        rescue(client, "w1", how, "why", [job.execution])
    kept = 604_800 + wait
    assert kept - 60 < client.ttl(f"pm:retrying:{JOBS}.replaces") <= kept


def test_a_singleton_that_waits_is_not_remembered_though_its_lock_is_called_replace(client, desk):
    id = limited_jobs.alone.options(retries=1, retry_intervals=[60]).enqueue("p", "1")
    client.hset(keys.job_key(id), "limits", '[["lock", "replace", 1, "wait"]]')
    (job,) = desk.claim()
    claims = desk.workers["w1"]
    claims.finish_and_claim(claims.next_id(), [outcome.failed(job, "broken", 1.0, 2.0)], 0)
    assert reader.read(client, id).status == "scheduled"
    assert client.keys("pm:retrying:*") == []


def test_a_singleton_replaces_a_bounded_number_of_those_that_wait(client, desk):
    members = keys.group_key("default", f"lock {JOBS}.replaces")
    client.rpush(members, *[f"job{number}" for number in range(510)])
    for number in (499, 500):
        client.hset(keys.job_key(f"job{number}"), mapping={"origin": "default", "status": "queued"})
    limited_jobs.replaces.enqueue("p", "1")
    assert client.lrange(members, 0, -1) == [f"job{number}".encode() for number in range(500, 510)]
    assert client.hget(keys.job_key("job499"), "status") == b"canceled"
    assert client.hget(keys.job_key("job500"), "status") == b"queued"


def test_garbage_that_holds_the_lock_of_a_singleton_is_told_nothing(client, desk):
    client.hset(f"pm:holders:{JOBS}.replaces", "other", "garbage")
    id = limited_jobs.replaces.enqueue("p", "1")
    assert ids(desk.claim()) == [id]


def test_a_singleton_that_is_replaced_while_it_is_blocked_leaves_no_blocked_group(client, desk):
    limited_jobs.replaces.enqueue("p", "1")
    desk.claim()
    limited_jobs.replaces.enqueue("p", "2")
    assert desk.claim() == []
    blocked = f"pm:blocked:{JOBS}.replaces"
    assert client.zcard(blocked) == 1
    limited_jobs.replaces.enqueue("p", "3")
    assert client.zcard(blocked) == 0


def test_a_singleton_whose_record_lost_its_group_is_retried(client, desk):
    id = limited_jobs.replaces.enqueue("p", "1")
    cancel(client, id)
    client.hdel(keys.job_key(id), "group")
    retry(client, id)
    assert reader.read(client, id).status == "queued"


def test_a_callback_whose_record_lost_its_group_is_called(client, desk):
    batch = Batch.create(on_complete=limited_jobs.replaces.prepare("p", "2"))
    callback = client.hget(keys.batch_key(batch.id), "on_complete").decode()
    client.hdel(keys.job_key(callback), "group")
    batch.seal()
    assert ids(desk.claim()) == [callback]


def test_a_retry_by_hand_replaces_no_newer_singleton_that_is_blocked(client, desk):
    older, newer = (limited_jobs.replaces.enqueue("p", str(number)) for number in range(2))
    group = f"lock {JOBS}.replaces"
    client.hset(keys.groups_key("default"), group, "")
    client.rpush(keys.group_key("default", group), newer)
    with pytest.raises(NotRetried, match=f"{newer} holds its place"):
        retry(client, older)


def test_one_call_looks_at_a_bounded_number_of_what_lies_at_the_keys_of_a_singleton(client, desk):
    older = limited_jobs.replaces.enqueue("p", "1")
    (job,) = desk.claim()
    (holders,) = client.keys("pm:holders:*")
    desk.finish(job, most=0)
    client.hset(keys.job_key(older), "status", "failed")
    retrying = holders.replace(b"holders", b"retrying")
    for first in range(0, 10_000, 1000):
        garbage = [f"nobody-{number}" for number in range(first, first + 1000)]
        client.hset(holders, mapping=dict.fromkeys(garbage, "w9 c9-1"))
        client.sadd(retrying, *garbage)
    with pytest.raises(NotRetried, match="holds its place"):
        retry(client, older)
    _, most = looks(client, lambda: limited_jobs.replaces.enqueue("p", "2"))
    assert most < 1000


def test_replaced_and_canceled_jobs_expire_and_leave_their_registry(client, desk):
    replaced = limited_jobs.replaces.enqueue("p", "1")
    limited_jobs.replaces.enqueue("p", "2")
    plain = pool_jobs.add.enqueue(1)
    cancel(client, plain)
    with Batch.create() as batch:
        counted = pool_jobs.add.options(batch=batch.id).enqueue(1)
        short = pool_jobs.add.options(batch=batch.id, failure_ttl=60).enqueue(1)
    batch.cancel()
    for id in (replaced, plain, counted):
        assert 86_000 < client.ttl(keys.job_key(id)) <= 86_400
        assert reader.read(client, id).ended_at
    assert 50 < client.ttl(keys.job_key(short)) <= 60
    retry(client, plain)
    assert client.ttl(keys.job_key(plain)) == -1


@pytest.mark.parametrize("settings", [{"singleton": "a"}, {"concurrency": "5 by a"}, {"unique": "a"}])
def test_an_argument_without_braces_is_no_key(settings):
    from packmule.jobs.job import job
    from packmule.jobs.job_type import InvalidJob

    with pytest.raises(InvalidJob, match=r"'a'.*the same key for all calls: put .* in braces"):
        job(**settings)(pool_jobs.add)


def test_a_job_that_plain_rq_enqueued_keeps_the_limits_of_its_type(server, client, tmp_path):
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    path = tmp_path / "notes"
    enqueued = [
        queue.enqueue("packmule.tests.worker.limited_jobs.alone", str(path), str(n), 0.05).id
        for n in range(4)
    ]
    with pool(server, 2):
        for id in enqueued:
            assert ended(client, id).status == "finished"
    assert_alone(lines(path))


def assert_alone(notes: list[str]) -> None:
    """Each begins when the one before has ended."""
    assert notes
    for begun, gone in zip(notes[::2], notes[1::2], strict=True):
        assert (begun[0], gone[0], begun[1:]) == ("+", "-", gone[1:])


def test_pools_perform_singletons_one_at_a_time_and_in_order(server, client, tmp_path):
    path = tmp_path / "notes"
    enqueued = limited_jobs.alone.enqueue_many([(str(path), str(number), 0.01) for number in range(30)])
    with pool(server, 2), pool(server, 2):
        for id in enqueued:
            assert ended(client, id).status == "finished"
    assert_alone(lines(path))
    assert [note[1:] for note in lines(path)[::2]] == [str(number) for number in range(30)]


def test_a_waiting_singleton_starts_at_once_when_another_worker_has_ended_the_first(server, client, tmp_path):
    path = tmp_path / "notes"
    with pool(server, 3):
        until(lambda: client.scard(keys.WORKERS) == 3)
        first, second = (limited_jobs.alone.enqueue(str(path), str(number), 0.5) for number in range(2))
        assert ended(client, first).status == ended(client, second).status == "finished"
    gap = float(client.hget(keys.job_key(second), "x") or 0)
    assert gap == 0
    assert_alone(lines(path))


def test_a_rate_is_kept_by_idle_pools_to_the_tenth_of_a_second(server, client, tmp_path):
    path = tmp_path / "notes"
    with pool(server, 2), pace() as second:
        until(lambda: client.scard(keys.WORKERS) == 2)
        began = time.monotonic()
        calls = [(str(path), "d", str(number)) for number in range(15)]
        for id in limited_jobs.ten_a_second.enqueue_many(calls):
            assert ended(client, id).status == "finished"
        assert 1.3 < time.monotonic() - began < 4 * second()  # 14 intervals of 0.1 s
    assert len(lines(path)) == 15


def test_the_next_singleton_runs_after_its_holder_was_killed(server, client, tmp_path):
    path = tmp_path / "notes"
    with pool(server, 2) as process:
        first = limited_jobs.alone_by_account.enqueue(str(path), "a", "1", 60)
        second = limited_jobs.alone_by_account.enqueue(str(path), "a", "2")
        until(lambda: lines(path) == ["+1"])
        worker = reader.read(client, first).worker or ""
        until(lambda: reader.read(client, first).worker)
        worker = reader.read(client, first).worker
        pid = int(client.hget(keys.worker_key(worker), "pid"))
        assert pid in children_of(process.pid)
        cancel(client, first)
        assert ended(client, second).status == "finished"


def test_burst_leaves_blocked_jobs(server, client, tmp_path):
    enqueued = limited_jobs.ten_a_second.enqueue_many([(str(tmp_path / "n"), "d", str(n)) for n in range(3)])
    assert drained(server, 1) == 0
    assert Counter(reader.read(client, id).status for id in enqueued)["finished"] >= 1


def test_a_singleton_that_replaces_stops_the_running_one(server, client, tmp_path):
    path = tmp_path / "notes"
    with pool(server, 2):
        first = limited_jobs.replaces.enqueue(str(path), "1", 60)
        until(lambda: lines(path) == ["+1"])
        second = limited_jobs.replaces.enqueue(str(path), "2")
        assert ended(client, first).status == "stopped"
        assert ended(client, second).status == "finished"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"singleton": "{nobody}"}, "nobody"),
        ({"singleton_policy": "skip"}, "add singleton=True"),
        ({"singleton": True, "singleton_policy": "hope"}, "give wait, skip or replace"),
        ({"concurrency": 0}, "give a number from 1"),
        ({"concurrency": "five"}, "give a number from 1"),
        ({"concurrency": "5 by {nobody}"}, "nobody"),
        ({"rate": "10/fortnight"}, "is not a rate"),
        ({"rate": "10/s by {nobody}"}, "nobody"),
        ({"fair": "everybody"}, "name an argument in braces"),
    ],
)
def test_an_invalid_limit_is_refused_when_the_job_is_defined(settings, says):
    from packmule.jobs.job import job
    from packmule.jobs.job_type import InvalidJob

    with pytest.raises(InvalidJob, match=says):
        job(**settings)(pool_jobs.not_registered)


@pytest.mark.parametrize("executor", ["fenced", "fenced_isolated", "fenced_async"])
def test_each_run_of_a_singleton_has_a_higher_token_than_the_one_before(server, client, executor):
    function = getattr(limited_jobs, executor)
    calls = [(1,)] * 5 if executor == "fenced_async" else [()] * 5
    enqueued = function.enqueue_many(calls)
    with pool(server, 2):
        tokens = [ended(client, id).result for id in enqueued]
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 5
    assert not client.keys("pm:lock:*")


def test_a_singleton_waits_while_another_holds_its_lock(server, client, tmp_path):
    path = tmp_path / "notes"
    lock = Redlock([client], longest_ttl=600).acquire(f"singleton {JOBS}.alone", ttl=600)
    id = limited_jobs.alone.enqueue(str(path), "1")
    companion = pool_jobs.add.enqueue(1)
    with pool(server, 1):
        assert ended(client, companion).status == "finished"
        assert lines(path) == []
        assert reader.read(client, id).status in ("scheduled", "queued")
        lock.release()
        until(lambda: promote(client) is None or lines(path))
        assert ended(client, id).status == "finished"


def test_a_singleton_whose_lock_is_lost_is_interrupted_and_runs_again(server, client, tmp_path):
    path = tmp_path / "notes"
    with pool(server, 1):
        id = limited_jobs.alone.enqueue(str(path), "1", 60)
        until(lambda: lines(path) == ["+1"])
        (key,) = client.keys("pm:lock:*")
        client.set(key, "another", px=4500)
        until(lambda: promote(client) is None and lines(path).count("+1") == 2)
        cancel(client, id)


@pytest.mark.parametrize(
    ("function", "options"), [("alone", {}), ("alone", {"threads": 3}), ("alone_async", {})]
)
def test_a_singleton_whose_process_was_killed_runs_again_before_its_lock_would_have_ended(
    server, client, tmp_path, function, options
):
    path = tmp_path / "notes"
    with pool(server, 1, **options) as process:
        id = getattr(limited_jobs, function).enqueue(str(path), "1", 60)
        until(lambda: lines(path) == ["+1"])
        (key,) = client.keys("pm:lock:*")
        before = client.get(key)
        os.kill(children_of(process.pid)[0], signal.SIGKILL)

        def runs_again() -> bool:
            if client.get(key) == before:
                client.pexpire(key, 10_000)  # so that it never ends by itself
            return lines(path) == ["+1"] * 2

        until(runs_again)
        assert client.get(key) not in (None, before)
        cancel(client, id)


def test_the_lock_of_an_isolated_singleton_whose_worker_was_killed_stays_until_its_end(
    server, client, tmp_path
):
    path = tmp_path / "notes"
    with pool(server, 1) as process:
        limited_jobs.alone_isolated.enqueue(str(path), "1", 60)
        until(lambda: lines(path) == ["+1"])
        (before,) = client.mget(client.keys("pm:lock:*"))
        killed = children_of(process.pid)
        os.kill(killed[0], signal.SIGKILL)
        until(lambda: children_of(process.pid) not in (killed, []))
        assert client.mget(client.keys("pm:lock:*")) == [before], "its process may still be on its way out"


def test_a_worker_finds_a_job_that_may_run_behind_many_that_may_not(client, desk):
    first = limited_jobs.alone.enqueue("p", "x")
    (job,) = desk.claim()
    assert job.id == first
    for number in range(20):
        (waiting,) = limited_jobs.alone_by_account.enqueue_many([("p", f"n{number}", "1")])
        client.hset(f"pm:holders:{JOBS}.alone_by_account:n{number}", "other", "w9 e-1")
        client.hset("pm:claims:w9", "other", "e-1")
        assert waiting
    plain = pool_jobs.add.enqueue(1)
    assert ids(desk.claim(1)) == [plain]


def test_a_slot_is_released_if_its_holder_is_not_claimed_any_more_or_by_force(client, desk):
    waiting = [limited_jobs.alone.enqueue("p", str(number)) for number in range(3)]
    key = f"{JOBS}.alone"
    (job,) = desk.claim()
    with pytest.raises(SlotNotReleased, match="holds no slot"):
        release_slot(client, key, waiting[1])
    with pytest.raises(SlotNotReleased, match="runs on worker w1"):
        release_slot(client, key, job.id)
    assert release_slot(client, key, job.id, force=True) == "w1"
    assert ids(desk.claim()) == [waiting[1]]
    client.hset(keys.claims_key("w1"), waiting[1], "another execution")
    assert release_slot(client, key, waiting[1]) == "w1"
    assert ids(desk.claim()) == [waiting[2]]


def test_a_slot_is_released_if_the_claims_of_its_worker_are_garbage(client):
    client.hset(keys.holders_key("k"), "job", "w1 c1-1")
    client.set(keys.claims_key("w1"), "garbage")
    release_slot(client, "k", "job")
    assert not client.exists(keys.holders_key("k"))


def test_garbage_that_holds_a_slot_is_released(client):
    client.hset(keys.holders_key("k"), "job", "garbage")
    assert release_slot(client, "k", "job") == ""
    client.set(keys.holders_key("k"), "no hash")
    with pytest.raises(SlotNotReleased, match="holds no slot"):
        release_slot(client, "k", "job")
    assert client.get(f"pm:broken:{keys.holders_key('k')}") == b"no hash"


def test_a_slot_of_a_lost_holder_is_not_free_while_others_hold_as_many_as_there_are(client, desk):
    client.hset(keys.claims_key("w2"), "alive", "e")
    client.hset(keys.holders_key("k"), mapping={"alive": "w2 e", "lost": "w9 e"})
    for number in range(12):
        id = pool_jobs.add.enqueue(number)
        fields = {"limits": '[["slots", "k", 1]]', "group": f"g{number}"}
        client.hset(keys.job_key(id), mapping=fields)
    assert desk.claim(20) == []
    assert client.hkeys(keys.holders_key("k")) == [b"alive"]


def test_a_returned_token_leaves_a_bucket_that_ends(client, desk):
    key = f"pm:rate:jobs:{JOBS}.slot_and_rate:d"
    for is_lost in (False, True):
        limited_jobs.slot_and_rate.enqueue("p", "d")
        (job,) = desk.claim()
        if is_lost:
            client.delete(key)
        claims = desk.workers["w1"]
        claims.finish_and_claim(claims.next_id(), [outcome.returned(job)], 0)
        assert bool(client.exists(key)) is not is_lost
        assert client.pttl(key) != -1


def test_one_worker_looks_when_the_next_group_is_due(client, desk):
    def next_due(worker: str) -> float | None:
        claims = desk.workers[worker]
        return claims.finish_and_claim(claims.next_id(), [], 1).next_due

    now = time.time()
    client.sadd(keys.PAUSED, "nowhere")
    assert next_due("w1") is None, "nothing is due"
    client.zadd(keys.DUE, {"default\ng": now + 9000})
    assert next_due("w1") == 3600.0
    assert 3_500_000 < client.pttl("pm:due-watcher") <= 3_600_000
    assert next_due("w2") is None, "w1 looks"
    assert next_due("w1") == 3600.0, "it must not forget"
    client.zadd(keys.DUE, {"default\nh": now + 600})
    assert next_due("w2") == pytest.approx(600, abs=60), "w1 would look too late"
    assert next_due("w1") is None
    for watcher in (f"{now - 1} w2", "nan w2", "garbage w2", "garbage"):
        client.set("pm:due-watcher", watcher)
        assert next_due("w1") == pytest.approx(600, abs=60), "w2 is late"


def test_a_job_of_a_group_that_waits_for_its_retry_blocks_no_group(client, desk):
    options = limited_jobs.alone_by_account.options(retry_intervals=[60])
    first, second = (options.enqueue("p", "a", str(number)) for number in range(2))
    (job,) = desk.claim()
    claims = desk.workers["w1"]
    claims.finish_and_claim(claims.next_id(), [outcome.failed(job, "broken", 1.0, 2.0)], 0)
    assert client.zrange("rq:scheduled:default", 0, -1) == [first.encode()]
    assert client.exists(keys.DUE) == 0
    assert ids(desk.claim()) == [second]


def test_a_free_slot_goes_to_one_group_before_other_jobs_whatever_lies_before_it(client, desk):
    waiting = [limited_jobs.fair_slot.enqueue("p", tenant) for tenant in "abc"]
    (job,) = desk.claim()
    plain = pool_jobs.add.enqueue(1)
    (blocked,) = client.keys("pm:blocked:*")
    client.zadd(blocked, {"garbage": -3, "default\nnobody": -2})
    client.zadd(keys.DUE, {"garbage": 1, "default\nnobody": 1})
    assert desk.finish(job) == []
    assert client.lrange("rq:queue:default", 0, -1) == [waiting[1].encode(), plain.encode()]
    assert client.zcard(blocked) == 1
    assert ids(desk.claim()) == [waiting[1], plain]
    assert client.exists(keys.DUE) == 0


def test_a_group_is_looked_at_within_the_hour_however_slow_its_rate(client, desk):
    day = 86_400_000_000
    for number in range(2):
        id = pool_jobs.add.enqueue(number)
        fields = {"limits": json.dumps([["rate", "k", day, day]]), "group": f"g{number}"}
        client.hset(keys.job_key(id), mapping=fields)
    assert len(desk.claim()) == 1
    ((_, due),) = client.zrange(keys.DUE, 0, -1, withscores=True)
    assert due == pytest.approx(time.time() + 3600, abs=60)


def test_the_group_that_has_waited_longest_gets_a_free_slot(client, desk):
    enqueued = [limited_jobs.fair_slot.enqueue("p", tenant) for tenant in "zyxabc"]
    (job,) = desk.claim()
    for expected in enqueued[1:]:
        desk.claim()
        (job,) = desk.finish(job, most=5)
        assert job.id == expected


def test_a_group_that_is_blocked_again_keeps_its_turn(client, desk):
    first, *_ = (limited_jobs.fair_slot.enqueue("p", tenant) for tenant in "zyx")
    second = limited_jobs.fair_slot.enqueue("p", "y")
    assert ids(desk.claim()) == [first]
    (blocked,) = client.keys("pm:blocked:*")
    before = client.zrange(blocked, 0, -1)
    assert len(before) == 2
    client.lrem("pm:group:default:" + before[0].decode().split("\n")[1], 1, second)
    client.lpush("rq:queue:default", second)  # as a rescue does
    assert desk.claim() == []
    assert client.zrange(blocked, 0, -1) == before
    GroupRepair(client).repair()
    assert client.zrange(blocked, 0, -1) == before


def test_a_job_that_waits_for_a_taken_lock_leaves_the_head_of_its_group_alone(client, desk):
    first, second, _ = limited_jobs.two_a_tenant.enqueue_many([("p", "a", str(n)) for n in range(3)])
    (job,) = desk.claim(1)
    assert job.id == first
    assert client.hvals("pm:groups:default") == [second.encode()]
    claims = desk.workers["w1"]
    claims.finish_and_claim(claims.next_id(), [outcome.postponed(job, 60)], 0)
    assert client.hvals("pm:groups:default") == [second.encode()]
    assert client.zcard("pm:due") == 0


def test_a_group_whose_head_waits_is_not_unblocked(client, desk):
    limited_jobs.in_turn.enqueue_many([("p", "a")] * 3)
    (group,) = client.hkeys("pm:groups:default")
    client.zadd("pm:due", {b"default\n" + group: 1})
    desk.claim(0)
    promote(client)
    assert client.llen("rq:queue:default") == 1
    assert client.zcard("pm:due") == 0


def test_a_slot_that_a_blocked_job_leaves_free_goes_to_the_next_at_once(client, desk):
    first, _, third = (limited_jobs.slot_and_rate.enqueue("p", domain) for domain in "abc")
    (job,) = desk.claim(1)
    assert job.id == first
    desk.claim()
    client.set(
        f"pm:rate:jobs:{JOBS}.slot_and_rate:b", int((time.time() + 3600) * 1_000_000)
    )  # no token is left
    limited_jobs.slot_and_rate.enqueue("p", "d")
    assert ids(desk.finish(job, most=1)) == [third]


@pytest.mark.parametrize("other", [["slots", "k", 1], ["rate", "k", 1_000_000, 1_000_000]])
def test_a_blocked_job_unblocks_no_group_for_a_slot_that_is_taken(client, desk, other):
    for key in ("lock", "k"):
        client.hset(keys.claims_key("w2"), f"holder of {key}", "e")
        client.hset(keys.holders_key(key), f"holder of {key}", "w2 e")
    client.hset(keys.groups_key("default"), "waits", "")
    client.rpush(keys.group_key("default", "waits"), "behind")
    client.zadd("pm:blocked:k", {"default\nwaits": 1})
    id = pool_jobs.add.enqueue(1)
    fields = {"limits": json.dumps([["lock", "lock", 1], other]), "group": "g"}
    client.hset(keys.job_key(id), mapping=fields)
    assert desk.claim() == []
    assert client.zrange("pm:blocked:k", 0, -1) == [b"default\nwaits"]


def test_deleted_jobs_block_their_group_until_its_repair(client, desk):
    enqueued = limited_jobs.in_turn.enqueue_many([("p", "a")] * 50)
    for id in enqueued[:-1]:
        client.delete(keys.job_key(id))
    assert desk.claim() == []
    GroupRepair(client).repair()
    assert ids(desk.claim()) == enqueued[-1:]


def test_a_repair_unblocks_no_group_before_its_time(client, desk):
    limited_jobs.alone.enqueue("p", "1")
    (job,) = desk.claim()
    claims = desk.workers["w1"]
    claims.finish_and_claim(claims.next_id(), [outcome.postponed(job, 60)], 0)
    GroupRepair(client).repair()
    assert client.llen("rq:queue:default") == 0
    assert client.zcard("pm:due") == 1


def test_a_repair_lets_a_group_wait_for_its_slot_again(client, desk):
    limited_jobs.alone.enqueue_many([("p", str(number)) for number in range(2)])
    desk.claim()
    (blocked,) = client.keys("pm:blocked:*")
    client.delete(blocked)
    GroupRepair(client).repair()
    assert client.llen("rq:queue:default") == 0
    assert client.zcard(blocked) == 1


def test_jobs_that_wait_for_a_taken_lock_do_not_all_retry_it(client, desk):
    enqueued = limited_jobs.alone.enqueue_many([("p", str(number)) for number in range(30)])
    (job,) = desk.claim()
    desk.claim()
    claims = desk.workers["w1"]
    claim = claims.finish_and_claim("postponed", [outcome.postponed(job, 0.1)], 5)
    assert claim.jobs == []
    assert client.llen(f"pm:group:default:lock {JOBS}.alone") == 30
    assert 0 < (claim.next_due or 0) <= 0.1
    time.sleep(0.1)
    assert ids(desk.claim()) == enqueued[:1]  # in order


def test_a_new_rate_caps_the_debt_that_a_slower_rate_left(client, desk):
    bucket = f"pm:rate:jobs:{JOBS}.ten_a_second:d"
    client.set(bucket, int((time.time() + 86_400) * 1_000_000))
    id = limited_jobs.ten_a_second.enqueue("p", "d", "x")
    assert desk.claim() == []
    assert -2 <= client.pttl(bucket) <= 100
    assert client.pttl(bucket) != -1
    time.sleep(0.11)
    assert ids(desk.claim()) == [id]


def test_a_failed_singleton_that_skips_keeps_others_out_while_it_waits_for_its_retry(client, desk):
    first = limited_jobs.skips.options(retries=1, retry_intervals=[1]).enqueue("p", "1")
    (job,) = desk.claim()
    claims = desk.workers["w1"]
    claims.finish_and_claim("failed", [outcome.failed(job, "why", 1.0, 2.0)], 0)
    assert limited_jobs.skips.enqueue("p", "2") == first
    assert client.exists(f"pm:holders:{JOBS}.skips") == 0
    client.zadd("rq:scheduled:default", {first: 1})
    promote(client)
    (job,) = desk.claim()
    assert job.id == first
    claims.finish_and_claim("for good", [outcome.failed(job, "why", 1.0, 2.0)], 0)
    assert limited_jobs.skips.enqueue("p", "3") != first


def test_a_killed_singleton_that_skips_runs_again_and_keeps_its_place(client, desk):
    first = limited_jobs.skips.enqueue("p", "1")
    (job,) = desk.claim()
    rescue(client, "w1", "died", "why", [job.execution])
    assert limited_jobs.skips.enqueue("p", "2") == first
    assert ids(desk.claim(worker="w2")) == [first]


def test_a_short_fault_run_keeps_every_limit():
    report = limit_faults.run(kills=8, seconds=15)
    assert report.acknowledged > 100
    assert report.broken() == [], report
