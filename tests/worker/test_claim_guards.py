"""What a claim must not take or count: calls sent again, jobs of other statuses, and bounds of its looks."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.jobs import control, keys, reader, wire
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import Counts
from packmule.jobs.client import Client
from packmule.observe import events
from packmule.tests.looks import looks, monitored
from packmule.tests.worker import limited_jobs, pool_jobs
from packmule.worker import Worker
from packmule.worker.order import Strict
from packmule.worker.process import claim as claiming
from packmule.worker.process import outcome, performer
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.statistics import Statistics
from packmule.worker.rescue import rescue


@pytest.fixture
def claims(client: Redis) -> Claims:
    Client(client).make_default()
    return Claims(client, "w1", Strict(["high", "default", "low"]))


def finished(job: Claimed) -> outcome.Outcome:
    return performer.finished(job, b"1", time.time() - 1, time.time())


def ids_of(jobs: Sequence[Claimed]) -> list[str]:
    return [job.id for job in jobs]


@pytest.mark.parametrize("end", ["finished", "failed", "returned"])
def test_the_end_of_a_job_whose_record_became_garbage_is_no_result(client, claims, end):
    pool_jobs.add.enqueue(1)
    innocent = pool_jobs.add.enqueue(2)
    first, second = claims.finish_and_claim("c1", [], 2).jobs
    client.delete(keys.job_key(first.id))
    client.set(keys.job_key(first.id), "in the way")
    ends = {
        "finished": finished,
        "failed": lambda job: outcome.failed(job, "broken", 1.0, 2.0),
        "returned": outcome.returned,
    }
    claims.finish_and_claim("c2", [ends[end](first), ends[end](second)], 0)
    ids = client.lrange(keys.queue_key("default"), 0, -1)
    for registry in ("rq:finished:default", "rq:failed:default"):
        ids += client.zrange(registry, 0, -1)
    assert ids == [innocent.encode()]
    assert client.exists(keys.results_key(first.id)) == 0
    assert [each for each in client.lrange(keys.QUARANTINE, 0, -1) if first.id.encode() in each]
    assert first.id.encode() not in client.hkeys(keys.claims_key("w1"))


def test_a_claim_sent_again_returns_what_its_rate_would_refuse_by_now(client, claims):
    limited_jobs.slot_and_rate.enqueue("/nowhere", "example.org")
    limited_jobs.slot_and_rate.enqueue("/nowhere", "example.org")
    (job,) = claims.finish_and_claim("c1", [], 2).jobs
    assert ids_of(claims.finish_and_claim("c1", [], 2).jobs) == [job.id]


@pytest.mark.parametrize("status", ["canceled", "finished", "failed", "scheduled", "started"])
def test_a_job_that_is_not_queued_is_not_claimed(client, claims, status):
    id, innocent = pool_jobs.add.enqueue(1), pool_jobs.add.enqueue(2)
    client.hset(keys.job_key(id), "status", status)
    assert ids_of(claims.finish_and_claim("c1", [], 2).jobs) == [innocent]
    assert client.hget(keys.job_key(id), "status") == status.encode()
    assert client.hkeys(keys.claims_key("w1")) == [b".claim", innocent.encode()]


def test_a_job_whose_record_lost_its_status_is_performed(client, claims):
    id = pool_jobs.add.enqueue(1)
    client.hdel(keys.job_key(id), "status")
    jobs = claims.finish_and_claim("c1", [], 1).jobs
    assert ids_of(jobs) == [id]
    claims.finish_and_claim("c2", [finished(jobs[0])], 0)
    assert (reader.read(client, id).status, reader.read(client, id).result) == ("finished", 1)


def test_a_claim_takes_just_the_ids_that_are_valid_utf_8(client, claims):
    leads, seconds = (
        b"\xc1\xc2\xdf\xe0\xe1\xec\xed\xee\xef\xf0\xf1\xf3\xf4\xf5",
        b"\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0",
    )
    each = [
        bytes((lead, second)) + b"\x80" * more for lead in leads for second in seconds for more in (0, 1, 2)
    ]
    with client.pipeline() as pipeline:
        for id in each:
            pipeline.hset(b"rq:job:" + id, mapping={"origin": "default", "status": "queued", "data": "x"})
            pipeline.rpush(keys.queue_key("default"), id)
        pipeline.execute()
    taken = [id.encode() for id in ids_of(claims.finish_and_claim("c1", [], len(each)).jobs)]
    assert taken == [id for id in each if id.decode(errors="ignore").encode() == id]
    assert client.llen(keys.QUARANTINE) == len(each) - len(taken)


def test_a_claim_sets_a_queue_of_another_type_aside(client, claims):
    client.set(keys.queue_key("default"), "no list")
    assert claims.finish_and_claim("c1", [], 1).jobs == []
    assert client.get(f"pm:broken:{keys.queue_key('default')}") == b"no list"


def test_streams_that_have_no_id_left_stop_no_worker(client, claims):
    streams = [keys.JOB_EVENTS, *keys.INDEXES.values()]
    for stream in streams:
        client.xadd(stream, {"a": "b"}, "18446744073709551615-18446744073709551615")
    ids = [pool_jobs.add.enqueue(number) for number in range(2)]
    one, two = claims.finish_and_claim("c1", [], 2).jobs
    claims.finish_and_claim("c2", [finished(one)], 0)
    rescue(client, "w1", "stopped", executions=[two.execution])
    assert [client.hget(keys.job_key(id), "status") for id in ids] == [b"finished", b"stopped"]
    for stream in streams:
        assert client.exists(f"pm:broken:{stream}") == 1
        assert client.xlen(stream) >= 1


def test_a_claim_looks_at_a_bounded_number_of_ids_that_may_not_run(client, claims):
    client.rpush(keys.queue_key("default"), *(f"gone{number}" for number in range(1_000)))
    assert claims.finish_and_claim("c1", [], 1).jobs == []
    assert 900 <= client.llen(keys.queue_key("default")) < 1_000
    client.delete(keys.queue_key("default"))
    id = pool_jobs.add.enqueue(1)
    assert ids_of(claims.finish_and_claim("c2", [], 1).jobs) == [id]


def test_outcomes_sent_again_or_too_late_are_not_counted_in_the_statistics(client, claims):
    pool_jobs.add.enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs

    def counted() -> int:
        counts = client.hgetall(f"{keys.STATISTICS}total")
        return sum(int(count) for field, count in counts.items() if field.endswith(b"k1"))

    lost = Claims(client, "w1", Strict(["default"]))
    lost._held = dict(claims._held)
    claims.finish_and_claim("c2", [finished(job)], 0)
    assert counted() == 1
    lost.finish_and_claim("c2", [finished(job)], 0)  # the reply was lost
    assert counted() == 1
    lost._held = {job.execution: job}
    lost.statistics = Statistics()  # which sends what it adds up at once
    assert lost.finish_and_claim("c3", [finished(job)], 0).stale == [job.id]
    assert counted() == 1


def test_a_claim_sent_again_does_not_return_the_jobs_of_another(client, claims):
    first, second = pool_jobs.add.enqueue(1), pool_jobs.add.enqueue(2)
    assert ids_of(claims.finish_and_claim("c1", [], 1).jobs) == [first]
    assert ids_of(claims.finish_and_claim("c2", [], 1).jobs) == [second]
    assert ids_of(claims.finish_and_claim("c2", [], 1).jobs) == [second]


def test_a_claim_sent_again_says_nothing_of_lost_history(client, claims):
    pool_jobs.add.enqueue(1)
    assert not claims.finish_and_claim("c1", [], 1).history_is_lost
    assert not claims.finish_and_claim("c2", [], 1).history_is_lost
    claims._last = "c1"  # the reply was lost
    assert not claims.finish_and_claim("c2", [], 1).history_is_lost
    claims._last = "c1"
    assert claims.finish_and_claim("c3", [], 1).history_is_lost


def test_nothing_is_claimed_while_all_workers_are_suspended(client, claims):
    id = pool_jobs.add.enqueue(1)
    client.set(keys.SUSPENDED, 1)
    claim = claims.finish_and_claim("c1", [], 1)
    assert (claim.jobs, claim.suspended) == ([], True)
    client.delete(keys.SUSPENDED)
    assert ids_of(claims.finish_and_claim("c2", [], 1).jobs) == [id]


def test_only_jobs_of_paused_queues_go_back_from_the_waiting_list(client, claims):
    paused = pool_jobs.add.options(queue="high").enqueue(1)
    first, second = pool_jobs.add.enqueue(1), pool_jobs.add.enqueue(2)
    for queue in ("high", "default", "default"):
        client.lmove(keys.queue_key(queue), keys.waiting_key("w1"), "LEFT", "RIGHT")
    client.sadd(keys.PAUSED, "high")
    assert ids_of(claims.finish_and_claim("c1", [], 1).jobs) == [first]
    assert client.lrange(keys.waiting_key("w1"), 0, -1) == [second.encode()]
    assert client.lrange(keys.queue_key("high"), 0, -1) == [paused.encode()]


def test_a_job_that_still_has_its_slot_may_run_although_all_are_taken(client, claims):
    holders = keys.holders_key("k")
    for other in range(7):
        client.hset(keys.claims_key("w2"), f"other{other}", "e")
        client.hset(holders, f"other{other}", "w2 e")
    for number in range(3):
        id = pool_jobs.add.enqueue(number)
        client.hset(keys.job_key(id), mapping={"limits": '[["slots", "k", 8]]', "group": "g"})
        client.hset(keys.groups_key("default"), "g", id)
        client.hset(holders, id, "w9 e")
        assert ids_of(claims.finish_and_claim(f"c{number}", [], 1).jobs) == [id]
        client.hdel(holders, id)


def test_a_burst_goes_on_behind_ids_that_may_not_run(client, claims):
    canceled = pool_jobs.add.enqueue_many([(number,) for number in range(300)])
    id = pool_jobs.add.enqueue(1)
    for each in canceled:
        client.hset(keys.job_key(each), "status", "canceled")  # as a cancel of their batch does
    Worker(["default"], name="mule", connection=client).work(burst=True)
    assert reader.read(client, id).status == "finished"


def test_jobs_behind_one_that_a_paused_batch_holds_are_claimed_with_it(client, claims):
    with Batch.create() as batch:
        limited_jobs.alone.options(batch=batch.id).enqueue("p", "1")
    id = limited_jobs.alone.enqueue("p", "2")
    batch.pause()
    assert ids_of(claims.finish_and_claim("c1", [], 10).jobs) == [id]


@pytest.mark.parametrize("between", ["blocked", "held", "canceled"])
def test_jobs_that_follow_others_are_claimed_with_them_though_one_between_may_not_run(
    client, claims, between
):
    if between == "blocked":
        _, id = (limited_jobs.alone.enqueue("p", name) for name in "12")
        assert len(claims.finish_and_claim("c1", [], 1).jobs) == 1
    else:
        with Batch.create() as batch:
            _, id = limited_jobs.in_turn.options(batch=batch.id).enqueue_many([("p", "b")] * 2)
        if between == "held":
            batch.pause()
        else:
            client.hset(keys.job_key(id), "status", "canceled")
    client.delete(keys.queue_key("default"))
    first, second = limited_jobs.in_turn.enqueue_many([("p", "a")] * 2)
    client.rpush(keys.queue_key("default"), id)
    assert ids_of(claims.finish_and_claim("c2", [], 10).jobs) == [first, second]


GUARDED = [keys.waiting_key("w1"), keys.PAUSED, keys.PAUSED_BATCHES, keys.QUEUE_RATES, keys.DUE]


@pytest.mark.parametrize("key", GUARDED)
def test_a_key_of_another_type_stops_no_claim_while_a_queue_is_paused(client, claims, key):
    with Batch.create() as batch:
        id = pool_jobs.add.options(batch=batch.id).enqueue(1)
    client.sadd(keys.PAUSED, "high")
    client.set(key, "in the way")
    assert ids_of(claims.finish_and_claim("c1", [], 1).jobs) == [id]
    assert client.get(f"pm:broken:{key}") == b"in the way"


def test_a_claim_looks_at_no_pauses_and_rates_of_queues_that_it_does_not_serve(client, claims, monkeypatch):
    monkeypatch.setattr(claiming, "LEASE_INTERVAL", 600.0)
    pool_jobs.add.enqueue_many([(number, 0) for number in range(8)])

    def claim(id: str) -> None:
        assert len(claims.finish_and_claim(id, [], 1).jobs) == 1

    claim("c1")
    client.sadd(keys.PAUSED, "high", "elsewhere")
    client.hset(keys.QUEUE_RATES, "default", "1000000 9000000")
    claim("c2")  # which renews no lease, nor do the following
    few = looks(client, lambda: claim("c3"))[0]
    client.sadd(keys.PAUSED, *(f"q{number}" for number in range(1000)))
    client.hset(keys.QUEUE_RATES, mapping={f"q{number}": "1000000 1000000" for number in range(1000)})
    assert looks(client, lambda: claim("c4"))[0] == few
    assert not {"cmdstat_smembers", "cmdstat_hgetall"} & client.info("commandstats").keys()


def test_a_claim_looks_at_no_pauses_because_of_canceled_jobs(client, claims):
    pool_jobs.add.enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    client.zadd("rq:canceled:default", {"other": 1})
    with monitored(client) as commands:
        assert claims.finish_and_claim("c2", [finished(job)], 1).jobs == []
    assert [command for command in commands if command.startswith("ZMSCORE rq:canceled:default")]
    assert not [command for command in commands if command.startswith("SMISMEMBER")]


def test_canceled_jobs_of_all_queues_of_a_call_stay_canceled(client, claims):
    queues = ("default", "high", "low")
    enqueued = [pool_jobs.add.options(queue=queue).enqueue(1) for queue in queues]
    jobs = claims.finish_and_claim("c1", [], 3).jobs
    for id in enqueued[1:]:
        Job.fetch(id, client, JSONSerializer).cancel()
    claims.finish_and_claim("c2", [finished(job) for job in sorted(jobs, key=lambda job: job.queue)], 0)
    assert [reader.read(client, id).status for id in enqueued] == ["finished", "canceled", "canceled"]


def test_canceled_jobs_of_one_queue_all_stay_canceled(client, claims):
    enqueued = pool_jobs.add.enqueue_many([(number,) for number in range(3)])
    jobs = claims.finish_and_claim("c1", [], 3).jobs
    for id in enqueued[:2]:
        Job.fetch(id, client, JSONSerializer).cancel()
    claims.finish_and_claim("c2", [finished(job) for job in jobs], 0)
    assert [reader.read(client, id).status for id in enqueued] == ["canceled", "canceled", "finished"]


def test_an_id_that_is_left_among_the_canceled_ones_cancels_no_job(client, claims):
    id = pool_jobs.add.enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    client.zadd("rq:canceled:default", {id: 1})
    claims.finish_and_claim("c2", [finished(job)], 0)
    assert reader.read(client, id).status == "finished"


@pytest.mark.parametrize("found", ["no hash", "no count"])
def test_garbage_in_the_hash_of_a_worker_loses_no_outcome(client, claims, found):
    id = pool_jobs.add.enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    hash = keys.worker_key("w1")
    client.delete(hash)
    if found == "no hash":
        client.set(hash, found)
    else:
        names = ("birth", "successful_job_count", "failed_job_count", "total_working_time")
        client.hset(hash, mapping=dict.fromkeys(names, found))
    assert claims.finish_and_claim("c2", [finished(job)], 0).stale == []
    assert reader.read(client, id).status == "finished"


@pytest.mark.parametrize("has_failed", [True, False])
def test_an_outcome_of_a_deleted_job_leaves_no_record_and_no_event(client, claims, has_failed):
    gone, there = (pool_jobs.add.options(retries=1, retry_intervals=[0]).enqueue(1) for _ in range(2))
    jobs = claims.finish_and_claim("c1", [], 2).jobs
    client.delete(keys.job_key(gone))
    ended = [outcome.failed(job, "broken", 1.0, 2.0) if has_failed else finished(job) for job in jobs]
    claims.finish_and_claim("c2", ended, 0)
    assert client.exists(keys.job_key(gone), keys.results_key(gone)) == 0
    assert [each.type for each in events.read(client) if each.job == gone] == ["enqueued"]
    assert client.hkeys(keys.claims_key("w1")) == [b".claim"]
    assert client.lrange(keys.queue_key("default"), 0, -1) == [there.encode()] * has_failed


@pytest.mark.parametrize("retries", [0, 1])
def test_the_error_of_an_attempt_is_recorded_though_failed_jobs_are_not_kept(client, claims, retries):
    id = pool_jobs.add.options(failure_ttl=0, retries=retries).enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    claims.finish_and_claim("c2", [outcome.failed(job, "KeyError: 'x'", 1.0, 2.0)], 0)
    assert client.xlen(keys.results_key(id)) == 1


@pytest.mark.parametrize("status", ["queued", "failed"])
def test_an_unknown_job_whose_record_lost_its_queue_stops_no_claim(client, claims, status):
    lost, innocent = pool_jobs.add.enqueue(1), pool_jobs.add.enqueue(2)
    client.hset(keys.job_key(lost), mapping={"status": status, "unknown_since": "1"})
    client.hdel(keys.job_key(lost), "origin")
    assert innocent in ids_of(claims.finish_and_claim("c1", [], 2).jobs)


@pytest.mark.parametrize("is_paused", [True, False])
def test_a_job_of_a_group_whose_record_lost_its_queue_stops_no_claim(client, claims, is_paused):
    with Batch.create() as batch:
        lost = limited_jobs.in_turn.options(batch=batch.id).enqueue("p", "a")
    innocent = pool_jobs.add.enqueue(1)
    client.hdel(keys.job_key(lost), "origin")
    if is_paused:
        batch.pause()
    assert innocent in ids_of(claims.finish_and_claim("c1", [], 2).jobs)


def test_a_job_with_limits_but_without_a_group_waits_for_its_slot(client, claims):
    client.hset(keys.claims_key("w2"), "other", "e")
    client.hset(keys.holders_key("k"), "other", "w2 e")
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), "limits", '[["slots", "k", 1]]')
    assert claims.finish_and_claim("c1", [], 2).jobs == []
    assert client.zcard("pm:blocked:k") == 1


@pytest.mark.parametrize("has_queue", [True, False])
def test_jobs_behind_one_whose_id_a_cancel_left_in_the_queue_are_claimed_with_it(client, claims, has_queue):
    canceled, behind = limited_jobs.in_turn.enqueue_many([("p", "a")] * 2)
    client.hset(keys.job_key(canceled), "status", "canceled")
    if not has_queue:
        client.hdel(keys.job_key(canceled), "origin")
        behind = pool_jobs.add.enqueue(1)
    assert behind in ids_of(claims.finish_and_claim("c1", [], 10).jobs)


REPEATS = {"repeats_left": 1, "repeat_intervals": "[60]"}


@pytest.mark.parametrize("has_failed", [True, False])
def test_the_results_of_a_job_that_runs_often_are_bounded(client, claims, has_failed):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), mapping=REPEATS)
    for _ in range(300):
        client.xadd(keys.results_key(id), {"type": 1})
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    ended = outcome.failed(job, "broken", 1.0, 2.0) if has_failed else outcome.repeated(job, finished(job))
    claims.finish_and_claim("c2", [ended], 0)
    assert 10 <= client.xlen(keys.results_key(id)) < 200


def test_a_repeated_job_leaves_no_result_that_is_not_kept(client, claims):
    id = pool_jobs.add.options(result_ttl=0).enqueue(1)
    client.hset(keys.job_key(id), mapping=REPEATS)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    claims.finish_and_claim("c2", [outcome.repeated(job, finished(job))], 0)
    assert client.exists(keys.results_key(id)) == 0
    assert reader.read(client, id).status == "scheduled"


@pytest.mark.parametrize(("want", "gone"), [(64, 300), (1, 67)])
def test_a_claim_looks_past_ids_that_may_not_run(client, claims, want, gone):
    client.rpush(keys.queue_key("default"), *(f"gone{number}" for number in range(gone)))
    id = pool_jobs.add.enqueue(1)
    claim = claims.finish_and_claim("c1", [], want)
    assert (ids_of(claim.jobs), claim.next_due) == ([id], None)


@pytest.mark.parametrize("found", ["registered", "no hash", "nothing"])
def test_a_claim_that_renews_the_lease_says_whether_rq_knows_the_worker(client, claims, monkeypatch, found):
    monkeypatch.setattr(claiming, "LEASE_INTERVAL", 600.0)
    if found == "registered":
        client.hset(keys.worker_key("w1"), "birth", "now")
    elif found == "no hash":
        client.set(keys.worker_key("w1"), found)
    assert claims.finish_and_claim("c1", [], 1).is_forgotten is (found != "registered")
    lease = client.zscore(keys.LEASES, "w1")
    assert not claims.finish_and_claim("c2", [], 1).is_forgotten, "it was told a moment ago"
    assert client.zscore(keys.LEASES, "w1") == lease > time.time() + 1


def test_a_call_that_asks_for_nothing_leaves_no_claims(client, claims):
    claims.finish_and_claim("c1", [], 0)
    assert client.exists(keys.claims_key("w1")) == 0


def test_statistics_that_are_sent_again_without_an_outcome_count_once(client, claims):
    pool_jobs.add.enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    lost = Claims(client, "w1", Strict(["default"]))
    for each in (claims, lost):
        each._added, each._held = "c2", {job.execution: job}
        each.statistics.add([finished(job)], each._held)
        each.statistics.hasten()
        each.finish_and_claim("c2", [], 0)  # whose reply is lost at first
    counts = client.hgetall(f"{keys.STATISTICS}total")
    assert [int(count) for field, count in counts.items() if field.endswith(b"k1")] == [1]


@pytest.mark.parametrize("is_parent", [False, True])
def test_the_end_of_a_plain_job_leaves_its_times_result_and_event(client, claims, is_parent):
    id = pool_jobs.add.options(result_ttl=100).enqueue(1)
    if is_parent:
        client.sadd(f"{keys.job_key(id)}:dependents", "child")
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    client.zadd("rq:wip:default", {f"{id}:{job.execution}": 1})
    client.zadd(keys.executions_key(id), {job.execution: 1})
    ended = performer.finished(job, b"1", 1.0, 2.0)
    claim = claims.finish_and_claim("c2", [ended], 0)
    assert (claim.parents, claim.stale) == ([id] * is_parent, [])
    fields = client.hmget(keys.job_key(id), "status", "started_at", "ended_at", "worker_name")
    assert fields == [text.encode() for text in ("finished", wire.time_text(1), wire.time_text(2), "w1")]
    ((_, result),) = client.xrange(keys.results_key(id))
    assert {name.decode(): value.decode() for name, value in result.items()} == {
        "type": "1",
        "worker_name": "w1",
        "execution_id": job.execution,
        "execution_started_at": "1.000000",
        "execution_ended_at": "2.000000",
        "return_value": ended.value,
    }
    assert all(95 < client.ttl(key) <= 100 for key in (keys.job_key(id), keys.results_key(id)))
    assert client.exists("rq:wip:default", keys.executions_key(id)) == 0
    *_, event = events.read(client)
    assert (event.type, event.worker, event.details) == ("finished", "w1", {"started": 1.0, "ended": 2.0})


FIELDS = ("origin", "data", "timeout", "enqueued_at", "status", "created_at", "description")


@pytest.mark.parametrize("lost", FIELDS)
def test_a_record_with_as_many_fields_as_a_plain_one_is_read_whole(client, claims, lost):
    id = pool_jobs.add.enqueue(1)
    assert client.hlen(keys.job_key(id)) == len(FIELDS)
    client.hdel(keys.job_key(id), lost)
    client.hset(keys.job_key(id), "result_ttl", 77)
    claim = claims.finish_and_claim("c1", [], 1)
    assert [(job.id, job.result_ttl) for job in claim.jobs] == [(id, 77)] * (lost not in ("origin", "data"))
    assert client.llen(keys.QUARANTINE) == (lost == "data")


def test_dependents_follow_only_an_end_that_counts(client, claims):
    id = pool_jobs.add.options(retries=1, retry_intervals=[0]).enqueue(1)
    client.sadd(f"{keys.job_key(id)}:dependents", "child")
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    claim = claims.finish_and_claim("c2", [outcome.failed(job, "broken", 1.0, 2.0)], 1)
    assert claim.parents == []
    rescue(client, "w1", "returned")
    stale = claims.finish_and_claim("c3", [finished(claim.jobs[0])], 0)
    assert (stale.stale, stale.parents) == ([id], [])
    assert client.exists(keys.PARENTS) == 0


def test_dependents_follow_no_job_that_was_deleted_while_it_ran(client, claims):
    id = pool_jobs.add.enqueue(1)
    client.sadd(f"{keys.job_key(id)}:dependents", "child")
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    client.delete(keys.job_key(id))
    assert claims.finish_and_claim("c2", [outcome.failed(job, "broken", 1.0, 2.0)], 0).parents == []
    assert client.exists(keys.PARENTS) == 0


@pytest.mark.parametrize(("retries", "is_deleted", "traces"), [(0, False, 1), (1, False, 0), (0, True, 0)])
def test_only_an_end_that_is_kept_for_a_moment_leaves_a_trace(client, claims, retries, is_deleted, traces):
    id = pool_jobs.add.options(failure_ttl=5, retries=retries).enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    if is_deleted:
        client.delete(keys.job_key(id))
    claims.finish_and_claim("c2", [outcome.failed(job, "broken", 1.0, 2.0)], 0)
    assert client.exists(f"pm:gone:{id}") == traces


def test_a_job_of_a_batch_that_rq_canceled_while_it_ran_counts_as_canceled(client, claims):
    with Batch.create() as batch:
        id = pool_jobs.add.options(batch=batch.id).enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    Job.fetch(id, client, JSONSerializer).cancel()
    claims.finish_and_claim("c2", [finished(job)], 0)
    assert batch.state().counts == Counts(1, 0, 0, 1)


def test_a_job_that_was_marked_and_given_back_leaves_no_execution(client, claims):
    id = pool_jobs.add.enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    client.zadd(keys.executions_key(id), {job.execution: 1})
    claims.finish_and_claim("c2", [outcome.returned(job)], 0)
    assert client.exists(keys.executions_key(id)) == 0


def test_a_job_that_is_given_back_frees_its_slot_for_others(client, claims):
    enqueued = [limited_jobs.fair_slot.enqueue("p", tenant) for tenant in ("a", "b")]
    (job,) = claims.finish_and_claim("c1", [], 2).jobs
    assert client.llen(keys.queue_key("default")) == 0
    claims.finish_and_claim("c2", [outcome.returned(job)], 0)
    assert sorted(client.lrange(keys.queue_key("default"), 0, -1)) == sorted(id.encode() for id in enqueued)


def test_a_plain_record_under_an_id_that_is_not_text_is_set_aside(client, claims):
    id = pool_jobs.add.enqueue(1)
    client.copy(keys.job_key(id), b"rq:job:\xff")
    client.lpush(keys.queue_key("default"), b"\xff")
    assert ids_of(claims.finish_and_claim("c1", [], 2).jobs) == [id]
    assert client.llen(keys.QUARANTINE) == 1


def test_a_failure_that_is_sent_again_is_not_stale(client, claims):
    pool_jobs.add.enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    for _ in range(2):  # the first reply is lost
        assert claims.finish_and_claim("c2", [outcome.failed(job, "broken", 1.0, 2.0)], 0).stale == []


def test_a_job_that_was_marked_meanwhile_is_returned_to_a_claim_sent_again(client, claims):
    id = pool_jobs.add.enqueue(1)
    claims.finish_and_claim("c1", [], 1)
    client.hset(keys.job_key(id), "status", "started")
    assert ids_of(claims.finish_and_claim("c1", [], 1).jobs) == [id]


def test_a_job_that_has_only_repeats_keeps_them(client, claims):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), mapping=REPEATS)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    assert (job.repeats_left, list(job.repeat_intervals)) == (1, [60])


def test_what_a_dead_worker_claims_late_is_rescued_like_what_it_held(client, claims):
    claims.finish_and_claim("c1", [], 1)
    rescue(client, "w1", "died", "gone")
    assert client.zscore(keys.LEASES, "w1") is None
    id = pool_jobs.add.enqueue(1)
    claims.finish_and_claim("c2", [], 0)
    assert client.zscore(keys.LEASES, "w1") is None, "it has claimed nothing"
    assert ids_of(claims.finish_and_claim("c3", [], 1).jobs) == [id]
    assert client.zscore(keys.LEASES, "w1")
    Job.fetch(id, client, JSONSerializer).cancel()
    with pytest.raises(control.NotRetried, match="w1"):
        control.retry(client, id)


def test_a_job_that_is_retried_at_once_is_held_by_the_call_that_ended_its_first_attempt(client, claims):
    id = pool_jobs.add.options(retries=1, retry_intervals=[0]).enqueue(1)
    (first,) = claims.finish_and_claim("c1", [], 1).jobs
    failed = outcome.failed(first, "ValueError: no", time.time() - 1, time.time())
    client.config_resetstat()
    (second,) = claims.finish_and_claim("c2", [failed], 1).jobs
    assert (second.id, second.attempt) == (id, 2)
    assert client.info("commandstats")["cmdstat_hdel"]["calls"] == 1, "a second one could take the new claim"
    assert client.hget(keys.claims_key("w1"), id) == second.execution.encode()


@pytest.mark.parametrize("callback", ["", "success"])
def test_a_job_that_rq_canceled_while_it_ran_is_in_no_other_registry_and_calls_nothing_back(
    client, claims, callback
):
    id = pool_jobs.add.enqueue(1)
    if callback:
        client.hset(
            keys.job_key(id), "success_callback_name", "packmule.tests.worker.callback_jobs.succeeded"
        )
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    Job.fetch(id, client, JSONSerializer).cancel()
    assert claims.finish_and_claim("c2", [finished(job)], 1).jobs == []
    assert reader.read(client, id).status == "canceled"
    assert client.exists("rq:finished:default", "rq:failed:default") == 0
    assert client.zcard("rq:canceled:default") == 1
    told = [(event.type, event.worker) for event in events.read(client) if event.job == id]
    assert told == [("enqueued", ""), ("canceled", "w1")]


def test_a_worker_whose_job_goes_back_for_a_while_knows_when_to_claim_it_again(client, claims):
    limited_jobs.alone.enqueue("path", "name")
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    claim = claims.finish_and_claim("c2", [outcome.postponed(job, 5.0)], 1)
    assert claim.jobs == []
    assert claim.next_due is not None
    assert 4.0 < claim.next_due <= 5.0


def test_a_call_that_claims_nothing_leaves_the_look_at_blocked_groups_to_others(client, claims):
    limited_jobs.alone.enqueue("path", "name")
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    assert claims.finish_and_claim("c2", [outcome.postponed(job, 60.0)], 0).next_due is None
    other = Claims(client, "w2", Strict(["default"]))
    assert other.finish_and_claim("c1", [], 1).next_due is not None


def test_a_worker_whose_only_job_its_rate_blocks_knows_when_to_claim_it(client, claims):
    limited_jobs.slot_and_rate.enqueue("/nowhere", "example.org")
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    limited_jobs.slot_and_rate.enqueue("/nowhere", "example.org")
    claim = claims.finish_and_claim("c2", [finished(job)], 1)
    assert claim.jobs == []
    assert claim.next_due is not None
