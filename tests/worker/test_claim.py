"""Claiming and acknowledging, without a process in between: lost replies, lost leases, corrupt records."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest
from redis import Redis

from packmule.jobs import keys, reader, wire
from packmule.jobs.client import Client
from packmule.tests.looks import looks
from packmule.tests.worker import pool_jobs
from packmule.worker.order import Shuffled, Strict, Weighted
from packmule.worker.process import outcome, performer
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.fetcher import ClaimSize
from packmule.worker.rescue import rescue, rescue_expired
from packmule.worker.scoreboard import MAIN, RunningJob, Scoreboard
from packmule.worker.started import MARK_SECONDS, Marks


@pytest.fixture
def claims(client: Redis) -> Claims:
    Client(client).make_default()
    return Claims(client, "w1", Strict(["high", "default", "low"]))


def finished(job: Claimed, result: bytes = b"1") -> outcome.Outcome:
    return performer.finished(job, result, time.time() - 1, time.time())


def mark_started(client: Redis, job: Claimed) -> None:
    """As a pool does for a job that takes its time."""
    Marks(client).mark("w1", [RunningJob(MAIN, job.id, job.execution, 0.0, float("inf"), False)], 1.0)


def test_a_long_job_is_marked_as_started_until_its_end(client, claims):
    id = pool_jobs.add.enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    mark_started(client, job)
    record = reader.read(client, id)
    assert (record.status, record.worker) == ("started", "w1")
    assert client.zrange("rq:wip:default", 0, -1) == [f"{id}:{job.execution}".encode()]
    claims.finish_and_claim("c2", [finished(job)], 0)
    assert client.exists(keys.executions_key(id), keys.execution_key(id, job.execution)) == 0
    mark_started(client, job)  # too late, it has ended
    assert reader.read(client, id).status == "finished"
    assert client.zcard("rq:wip:default") == 0


def test_a_record_that_has_only_retries_besides_is_read_by_its_fields(client, claims):
    pool_jobs.add.options(retries=3).enqueue(1)
    client.config_resetstat()
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    assert (job.retries_left, job.attempt) == (3, 1)
    assert "cmdstat_hgetall" not in client.info("commandstats")


def test_the_mark_of_an_execution_that_was_taken_away_changes_nothing(client, claims):
    id = pool_jobs.add.enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    rescue(client, "w1", "vanished")
    mark_started(client, job)  # nobody claims it
    assert reader.read(client, id).status == "queued"
    claims.finish_and_claim("c2", [], 1)
    mark_started(client, job)  # the worker claims it again, as another execution
    assert reader.read(client, id).status == "queued"
    assert client.exists("rq:wip:default", keys.executions_key(id)) == 0


def test_a_repeated_claim_returns_the_same_jobs_after_a_lost_reply(client, claims):
    ids = pool_jobs.add.enqueue_many([(number,) for number in range(5)])
    first = claims.finish_and_claim("c1", [], 3)
    again = claims.finish_and_claim("c1", [], 3)
    assert again.jobs == first.jobs
    assert [job.id for job in first.jobs] == ids[:3]
    assert client.llen("rq:queue:default") == 2


def test_a_job_deleted_before_its_claim_is_repeated_is_not_claimed_any_more(client, claims):
    deleted, there = pool_jobs.add.enqueue_many([(1,), (2,)])
    claims.finish_and_claim("c1", [], 2)
    client.delete(keys.job_key(deleted))
    assert [job.id for job in claims.finish_and_claim("c1", [], 2).jobs] == [there]
    assert client.hget(keys.claims_key("w1"), deleted) is None


def test_outcomes_are_recorded_once_after_a_lost_reply(client, claims):
    (id,) = pool_jobs.add.enqueue_many([(1,)])
    client.hset(keys.worker_key("w1"), "birth", "now")
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    assert claims.finish_and_claim("c2", [finished(job)], 0).stale == []
    assert claims.finish_and_claim("c2", [finished(job)], 0).stale == []
    assert client.xlen(keys.results_key(id)) == 1
    assert client.hget(keys.worker_key("w1"), "successful_job_count") == b"1"


def test_an_outcome_after_a_rescue_is_refused_and_reported(client, claims):
    (id,) = pool_jobs.add.enqueue_many([(1,)])
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    rescue(client, "w1", "died", "gone")
    assert claims.finish_and_claim("c2", [finished(job)], 0).stale == [id]
    assert reader.read(client, id).status == "queued"


def test_an_outcome_of_an_older_execution_of_the_same_job_is_refused(client, claims):
    (id,) = pool_jobs.add.enqueue_many([(1,)])
    (old,) = claims.finish_and_claim("c1", [], 1).jobs
    rescue(client, "w1", "died", "gone")
    (new,) = claims.finish_and_claim("c2", [], 1).jobs
    assert claims.finish_and_claim("c3", [finished(old, b"1")], 0).stale == [id]
    assert claims.finish_and_claim("c4", [finished(new, b"2")], 0).stale == []
    assert reader.read(client, id).result == 2


def test_only_a_claim_uses_up_a_queues_turn(client):
    Client(client, queues=["high", "low"]).make_default()
    claims = Claims(client, "w1", Weighted({"high": 1, "low": 1}))
    for queue in ("high", "low"):
        pool_jobs.add.options(queue=queue).enqueue(1)
    assert [job.queue for job in claims.finish_and_claim("1", [], 1).jobs] == ["high"]
    claims.finish_and_claim("2", [], 0)
    assert [job.queue for job in claims.finish_and_claim("3", [], 1).jobs] == ["low"]


def test_with_a_random_order_each_queue_comes_first_sometimes():
    order = Shuffled(["a", "b", "c"])
    turns = [order.next() for _ in range(200)]
    assert {turn[0] for turn in turns} == {"a", "b", "c"}
    assert {tuple(sorted(turn)) for turn in turns} == {("a", "b", "c")}


def test_ids_that_a_blocking_move_brought_are_claimed_first(client, claims):
    first, second = pool_jobs.add.enqueue_many([(1,), (2,)])
    urgent = pool_jobs.add.options(queue="high").enqueue(3)
    client.lmove("rq:queue:default", keys.waiting_key("w1"), "LEFT", "RIGHT")
    assert [job.id for job in claims.finish_and_claim("c1", [], 3).jobs] == [first, urgent, second]


def test_a_rescue_returns_claimed_and_waiting_ids_in_their_order(client, claims):
    ids = pool_jobs.add.enqueue_many([(number,) for number in range(4)])
    claims.finish_and_claim("c1", [], 2)
    client.lmove("rq:queue:default", keys.waiting_key("w1"), "LEFT", "RIGHT")
    assert sorted(rescue(client, "w1", "returned").back) == sorted(ids[:3])
    # What waited was claimed by nobody yet: it comes to stand in front.
    assert client.lrange("rq:queue:default", 0, -1) == [id.encode() for id in [ids[2], *ids[:2], ids[3]]]
    assert rescue(client, "w1", "returned").back == []


@pytest.mark.parametrize(("claimed", "waiting"), [(700, 0), (41, 0), (40, 40), (30, 150)])
def test_a_rescue_of_many_jobs_returns_each_once_in_bounded_calls(client, claims, claimed, waiting):
    ids = pool_jobs.add.enqueue_many([(number,) for number in range(claimed + waiting)])
    claims.finish_and_claim("c1", [], claimed)
    client.zadd(keys.LEASES, {"w1": 1})
    for _ in range(waiting):
        client.lmove("rq:queue:default", keys.waiting_key("w1"), "LEFT", "RIGHT")
    _, most = looks(client, lambda: rescue(client, "w1", "vanished"))
    assert most < 1000
    assert sorted(client.lrange("rq:queue:default", 0, -1)) == sorted(id.encode() for id in ids)
    assert client.exists(keys.claims_key("w1"), keys.waiting_key("w1"), keys.LEASES) == 0


def test_a_rescue_of_a_living_worker_does_nothing(client, claims):
    pool_jobs.add.enqueue(1)
    claims.finish_and_claim("c1", [], 1)
    assert rescue(client, "w1", "died", scope="expired").back == []
    assert client.hlen(keys.claims_key("w1")) == 2


def test_a_job_over_its_timeout_fails_or_uses_up_a_retry(client, claims):
    plain = pool_jobs.add.enqueue(1)
    retried = pool_jobs.add.options(retries=1).enqueue(1)
    jobs = claims.finish_and_claim("c1", [], 2).jobs
    rescued = rescue(client, "w1", "overran", "too long", [job.execution for job in jobs])
    assert (rescued.failed, rescued.back) == ([plain], [retried])
    assert reader.read(client, plain).reason == "too long"
    assert reader.read(client, retried).retries_left == 0


@pytest.mark.parametrize("intervals", [(60, 5), ()])
def test_a_job_killed_for_its_timeout_waits_for_its_retry_like_one_that_raised(client, claims, intervals):
    id = pool_jobs.add.options(retries=2, retry_intervals=intervals or None).enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    assert rescue(client, "w1", "overran", "too long", [job.execution]).back == [id]
    record = reader.read(client, id)
    assert (record.status, record.attempts, record.retries_left) == ("scheduled", 1, 1)
    wait = client.zscore("rq:scheduled:default", id) - time.time()
    assert (55 if intervals else -5) < wait <= (60 if intervals else 1)
    assert client.lpos("rq:queue:default", id) is None
    ((_, result),) = client.xrange(keys.results_key(id))
    assert (result[b"type"], wire.traceback(result[b"exc_string"].decode())) == (b"4", "too long")


def test_a_retry_without_a_wait_is_queued_when_its_process_was_killed(client, claims):
    id = pool_jobs.add.options(retries=1, retry_intervals=(0,)).enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    assert rescue(client, "w1", "overran", "too long", [job.execution]).back == [id]
    (again,) = Claims(client, "w2", Strict(["default"])).finish_and_claim("c2", [], 1).jobs
    assert (again.id, again.attempt, again.retries_left) == (id, 2, 0)


def test_garbage_in_the_intervals_of_a_killed_job_stops_no_rescue(client, claims):
    spoilt, sound = pool_jobs.add.options(retries=1, retry_intervals=(60,)).enqueue_many([(1,), (2,)])
    client.hset(keys.job_key(spoilt), mapping={"retry_intervals": '["soon"]', "attempts": "many"})
    jobs = claims.finish_and_claim("c1", [], 2).jobs
    executions = [client.hget("pm:claims:w1", id).decode() for id in (spoilt, sound)]
    assert [job.id for job in jobs] == [sound]
    assert sorted(rescue(client, "w1", "overran", "too long", executions).back) == sorted([spoilt, sound])
    assert reader.read(client, sound).status == "scheduled"


def test_unstarted_jobs_of_a_worker_that_died_count_no_death(client, claims):
    alone, first, second = pool_jobs.add.enqueue_many([(1,), (2,), (3,)])
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    mark_started(client, job)
    claims.finish_and_claim("c2", [], 2)
    rescued = rescue(client, "w1", "died", "gone", [job.execution])
    assert sorted(rescued.back) == sorted([alone, first, second])
    assert [reader.read(client, id).deaths for id in (alone, first, second)] == [1, 0, 0]


@pytest.mark.parametrize(
    ("field", "value"),
    [("timeout", "soon"), ("retries_left", "x"), ("retry_intervals", "{"), ("origin", b"\xff")],
)
def test_a_job_with_a_corrupt_record_fails_and_the_error_names_the_field(client, claims, field, value):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), field, value)
    after = pool_jobs.add.enqueue(2)
    claim = claims.finish_and_claim("c1", [], 2)
    assert [job.id for job in claim.jobs] == [after]
    claims.finish_and_claim("c2", claim.unreadable, 0)
    assert reader.read(client, id).reason.startswith("the job's record is corrupt")


@pytest.mark.parametrize("id", [b"\xff\xfe", b"\xc3", b"a\xc0\xafb", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_an_id_that_is_not_text_is_set_aside_and_the_rest_continues(client, claims, id):
    sound = pool_jobs.add.options(job_id="plain").enqueue(1)
    client.copy(keys.job_key(sound), b"rq:job:" + id)
    client.lpush("rq:queue:default", id)
    letters = "\u00e9\u20ac\U0001f40e\ud7ff\U0010ffff"
    client.copy(keys.job_key(sound), keys.job_key(letters))
    client.lpush("rq:queue:default", letters)
    claim = claims.finish_and_claim("c1", [], 5)
    assert [job.id for job in claim.jobs] == [letters, sound]
    assert claim.unreadable == []
    assert client.hexists(keys.claims_key("w1"), id) == 0
    (entry,) = client.lrange(keys.QUARANTINE, 0, -1)
    assert b"not valid UTF-8" in entry


@pytest.mark.parametrize("corruption", ["string", "no data", "list of another type"])
def test_ids_without_a_sound_record_are_set_aside_and_the_rest_continues(client, claims, corruption):
    id = pool_jobs.add.enqueue(1)
    if corruption == "string":
        client.set(keys.job_key(id), "not a hash")
    elif corruption == "no data":
        client.hdel(keys.job_key(id), "data")
    else:
        client.delete("rq:queue:default")
        client.set("rq:queue:default", "not a list")
        client.lpush("rq:queue:low", pool_jobs.add.options(queue="low", at_front=True).enqueue(2))
    after = pool_jobs.add.options(queue="low").enqueue(3)
    assert after in [job.id for job in claims.finish_and_claim("c1", [], 5).jobs]
    (entry,) = client.lrange(keys.QUARANTINE, 0, -1)
    assert json.loads(entry)["reason"]


def test_a_job_whose_record_expired_in_the_queue_is_skipped(client, claims):
    gone, there = pool_jobs.add.enqueue_many([(1,), (2,)])
    client.delete(keys.job_key(gone))
    assert [job.id for job in claims.finish_and_claim("c1", [], 2).jobs] == [there]
    assert client.llen(keys.QUARANTINE) == 0


def test_a_result_ttl_of_zero_deletes_the_record_and_minus_one_keeps_it(client, claims):
    deleted = pool_jobs.add.options(result_ttl=0).enqueue(1)
    kept = pool_jobs.add.options(result_ttl=-1).enqueue(1)
    jobs = claims.finish_and_claim("c1", [], 2).jobs
    claims.finish_and_claim("c2", [finished(job) for job in jobs], 0)
    assert client.exists(keys.job_key(deleted), keys.results_key(deleted)) == 0
    assert client.ttl(keys.job_key(kept)) == client.ttl(keys.results_key(kept)) == -1
    assert client.zscore("rq:finished:default", kept) == float("inf")


def test_claims_grow_with_short_jobs_and_shrink_with_long_ones():
    claim_size = ClaimSize()
    sizes = []
    for _ in range(8):
        claim_size.learn(claim_size.size, claim_size.size * 0.0001)
        sizes.append(claim_size.size)
    assert sizes == [2, 4, 8, 16, 32, 64, 64, 64]
    claim_size.learn(64, 6.4)
    assert claim_size.size == 1


def test_retries_follow_their_intervals_or_back_off_with_jitter():
    assert [outcome.retry_delay(left, (1, 5, 9), 1) for left in (4, 3, 2, 1)] == [1, 1, 5, 9]
    for attempt in range(1, 40):
        delays = [outcome.retry_delay(1, (), attempt) for _ in range(50)]
        assert 0 <= min(delays) <= max(delays) <= min(3600, 2 ** (attempt - 1))
        assert len(set(delays)) > 1


def test_the_scoreboard_shows_running_jobs_and_their_deadlines():
    scoreboard = Scoreboard(3)
    assert (scoreboard.is_registered, scoreboard.read()) == (False, [])
    scoreboard.register()
    scoreboard.start(MAIN, "job", "execution", 5)
    beside = scoreboard.take()
    scoreboard.start(beside, "another", "second", 0)
    first, second = scoreboard.read()
    assert (first.id, first.execution, first.stop_requested) == ("job", "execution", False)
    assert first.deadline - first.started == pytest.approx(5)
    assert (second.entry, second.id, second.deadline) == (beside, "another", float("inf"))
    scoreboard.clear(MAIN)
    scoreboard.give_back(beside)
    assert (scoreboard.is_registered, scoreboard.read()) == (True, [])
    scoreboard.deregister()
    assert not scoreboard.is_registered
    scoreboard.close()


def test_a_request_to_stop_affects_only_the_job_that_it_names():
    scoreboard = Scoreboard()
    scoreboard.start(MAIN, "job", "first", 5)
    (first,) = scoreboard.read()
    scoreboard.request_stop(first)
    assert scoreboard.read()[0].stop_requested
    scoreboard.start(MAIN, "job", "second", 5)
    scoreboard.request_stop(first)
    assert not scoreboard.read()[0].stop_requested
    scoreboard.close()


def test_ttls_beyond_the_longest_are_cut(client, claims):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), mapping={"result_ttl": 10**17, "failure_ttl": 10**17})
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    claims.finish_and_claim("c2", [finished(job)], 0)
    assert reader.read(client, id).status == "finished"
    assert client.ttl(keys.job_key(id)) > 10**9

    other = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(other), "failure_ttl", 10**17)
    (job,) = claims.finish_and_claim("c3", [], 1).jobs
    assert rescue(client, "w1", "overran", "too long", [job.execution]).failed == [other]


def test_a_result_key_of_another_type_loses_only_the_result(client, claims):
    spoilt, sound = pool_jobs.add.enqueue_many([(1,), (2,)])
    client.set(keys.results_key(spoilt), "not a stream")
    jobs = claims.finish_and_claim("c1", [], 2).jobs
    claims.finish_and_claim("c2", [finished(job) for job in jobs], 0)
    assert client.hget(keys.job_key(spoilt), "status") == b"finished"
    assert reader.read(client, sound).result == 1
    assert "WRONGTYPE" in json.loads(client.lrange(keys.QUARANTINE, 0, -1)[0])["reason"]


def test_a_job_that_ends_just_before_it_would_be_marked_is_never_marked(client, claims):
    (id,) = pool_jobs.add.enqueue_many([(1,)])
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    seen = RunningJob(MAIN, job.id, job.execution, 10.0, float("inf"), False)
    Marks(client).mark("w1", [seen], 9.99 + MARK_SECONDS)  # it was seen then, and has ended since
    assert reader.read(client, id).status == "queued"
    Marks(client).mark("w1", [seen], 10.01 + MARK_SECONDS)
    assert reader.read(client, id).status == "started"
    claims.finish_and_claim("c2", [performer.finished(job, b"2", 2.0, 1.0)], 0)  # the clock was set back
    assert reader.read(client, id).status == "finished"
    assert client.zcard("rq:wip:default") == 0


def test_a_rescue_of_many_jobs_takes_many_short_calls(client, produce):
    ids = pool_jobs.add.enqueue_many([(1,)] * 1000)
    claims = Claims(client, "w1", Strict(["default"]))
    while claims.finish_and_claim(claims.next_id(), [], 300).jobs:
        pass
    moved = pool_jobs.add.enqueue_many([(1,)] * 150)
    for _ in moved:
        client.lmove("rq:queue:default", keys.waiting_key("w1"))
    client.config_resetstat()
    rescued = rescue(client, "w1", "vanished")
    stats = client.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] >= 1150 // 40
    assert stats["cmdstat_hscan"]["calls"] <= stats["cmdstat_evalsha"]["calls"]
    assert sorted(rescued.back) == sorted([*ids, *moved])
    assert Counter(client.lrange("rq:queue:default", 0, -1)).most_common(1)[0][1] == 1
    assert client.llen("rq:queue:default") == 1150
    assert client.exists(keys.claims_key("w1"), keys.waiting_key("w1"), keys.LEASES) == 0


def test_whoever_renews_the_first_lease_after_all_had_ended_begins_a_lull(client, produce):
    pool_jobs.add.enqueue_many([(1,)] * 2)
    assert Claims(client, "w1", Strict(["default"])).finish_and_claim("c1", [], 1).jobs
    client.zadd(keys.LEASES, {"w1": 1})
    assert Claims(client, "w2", Strict(["default"])).finish_and_claim("c1", [], 1).jobs
    assert 0 < client.pttl(keys.LULL) <= 4000
    assert rescue_expired(client) == {}, "w1 may be about to renew its lease"
    client.delete(keys.LULL)
    assert len(rescue_expired(client)["w1"].back) == 1


def test_a_lease_from_before_the_clock_went_back_counts_from_now_on(client):
    ends = time.time() + keys.LEASE_SECONDS + 0.5  # as another heartbeat may have renewed it meanwhile
    client.zadd(keys.LEASES, {"w1": time.time() + 60, "w2": time.time() + 5, "w3": ends})
    assert rescue_expired(client) == {}
    assert client.zscore(keys.LEASES, "w3") == ends
    assert client.zscore(keys.LEASES, "w1") <= time.time() + keys.LEASE_SECONDS + 1
    assert client.zscore(keys.LEASES, "w2") <= time.time() + 5


def test_a_rescue_returns_waiting_ids_once_if_one_call_takes_all_that_is_claimed(client, claims):
    ids = pool_jobs.add.enqueue_many([(1,)] * 42)
    assert len(claims.finish_and_claim("c1", [], 40).jobs) == 40
    for _ in range(2):
        client.lmove("rq:queue:default", keys.waiting_key("w1"), "LEFT", "RIGHT")
    assert sorted(rescue(client, "w1", "vanished").back) == sorted(ids)
    assert [id.decode() for id in client.lrange("rq:queue:default", 0, -1)] == [*ids[40:], *ids[:40]]
    assert client.exists(keys.claims_key("w1"), keys.waiting_key("w1"), keys.LEASES) == 0


def test_a_job_that_was_pushed_before_it_was_queued_is_marked_and_rescued_too(client, claims):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), "status", "created")  # RQ's Job.save and Queue.push_job_id leave it so
    claims.finish_and_claim("c1", [], 1)
    assert rescue(client, "w1", "vanished").back == [id]
    client.hset(keys.job_key(id), "status", "created")
    (job,) = claims.finish_and_claim("c2", [], 1).jobs
    mark_started(client, job)
    assert reader.read(client, id).status == "started"


def test_one_call_looks_at_a_bounded_number_of_leases(client, monkeypatch):
    monkeypatch.setattr("packmule.worker.rescue.RESCUE_SECONDS", 60.0)
    now = time.time()
    leases = {f"vanished{number}": 1.0 for number in range(15)}
    leases |= {f"too-late{number}": now + 3600 for number in range(15)}
    client.zadd(keys.LEASES, leases)
    assert len(rescue_expired(client)) == 10
    assert client.zcount(keys.LEASES, now + 1800, "+inf") == 5
    assert len(rescue_expired(client)) == 5


def test_a_job_whose_result_is_not_kept_leaves_no_result_of_an_earlier_attempt(client, claims):
    id = pool_jobs.add.options(retries=1, retry_intervals=[0], result_ttl=0).enqueue(1)
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    (job,) = claims.finish_and_claim("c2", [outcome.failed(job, "broken", 1.0, 2.0)], 1).jobs
    assert client.exists(keys.results_key(id)) == 1
    claims.finish_and_claim("c3", [finished(job)], 0)
    assert client.exists(keys.job_key(id), keys.results_key(id)) == 0
