"""Errors: failures of the same cause are counted together, once each, in the step that acknowledges them."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import msgspec
import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from packmule.jobs import control, keys, reader
from packmule.observe import errors, events
from packmule.observe.errors import ErrorInfo
from packmule.tests.worker import executor_jobs, limited_jobs, pool_jobs
from packmule.tests.worker.pools import children_of, drained, ended, lines, pool, until
from packmule.worker.order import Strict
from packmule.worker.process import outcome, performer
from packmule.worker.process.call import Call
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed, Due
from packmule.worker.process.failure import Failure, plain_failure
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Performer
from packmule.worker.rescue import rescue
from packmule.worker.scoreboard import MAIN, RunningJob
from packmule.worker.started import Marks

pytestmark = pytest.mark.usefixtures("produce")

MOST_BYTES = 5_000_000
"""That errors take after a flood, as docs/errors.md says."""


@pytest.fixture
def claims(client: Redis) -> Claims:
    return Claims(client, "w1", Strict(["default"]))


def failed(job: Claimed, text: str = "it is broken", **options: Any) -> Outcome:
    failure = plain_failure("ValueError", text, "shop.job")
    return outcome.failed(job, f"ValueError: {text}", 1.0, 2.0, failure=failure, **options)


def fail(claims: Claims, text: str = "it is broken", **options: Any) -> str:
    """Let a job fail; its id."""
    id = pool_jobs.noop.enqueue()
    (job,) = claims.finish_and_claim(claims.next_id(), [], 1).jobs
    claims.finish_and_claim(claims.next_id(), [failed(job, text, **options)], 0)
    return str(id)


def only(client: Redis) -> ErrorInfo:
    (error,) = errors.read_all(client)
    return error


def told(client: Redis) -> list[str]:
    return [event.type for event in events.read(client) if event.type.startswith("error")]


def test_each_attempt_of_a_job_counts_and_its_end_names_the_job(server, client, tmp_path):
    id = pool_jobs.fail.enqueue(str(tmp_path / "notes"))
    assert drained(server) == 0
    error = only(client)
    assert (error.type, error.text, error.total) == ("ValueError", "it is broken", 3)
    assert error.job == "packmule.tests.worker.pool_jobs.fail"
    assert error.where.endswith("pool_jobs.py:fail")
    assert (error.state, error.queues, error.last_job) == ("open", ("default",), id)
    assert error.hours[-1] + error.hours[-2] == 3
    assert 0 < error.first_at <= error.last_at <= time.time()
    details = errors.read(client, error.fingerprint)
    assert details.jobs == [id]
    assert "it is broken" in details.traceback
    assert client.hget(keys.job_key(id), "fingerprint").decode() == error.fingerprint


def test_isolated_threaded_and_async_jobs_count_likewise(server, client, tmp_path):
    executor_jobs.fail_isolated.enqueue()
    executor_jobs.fail_async.enqueue()
    pool_jobs.give_up.enqueue(str(tmp_path / "notes"))
    assert drained(server, threads=2) == 0
    jobs = {error.job.rpartition(".")[2] for error in errors.read_all(client)}
    assert jobs == {"fail_isolated", "fail_async", "give_up"}
    assert all(errors.read(client, error.fingerprint).traceback for error in errors.read_all(client))


def test_an_outcome_that_is_sent_again_counts_once(client, claims):
    pool_jobs.noop.enqueue()
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    for _ in range(2):
        claims.finish_and_claim("c2", [failed(job)], 0)
    assert (only(client).total, told(client)) == (1, ["error_new"])
    assert len(errors.read(client, only(client).fingerprint).jobs) == 1


def test_a_stale_outcome_does_not_count(client, claims):
    pool_jobs.noop.enqueue()
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    rescue(client, "w1", "returned")
    claims.finish_and_claim("c2", [failed(job)], 0)
    assert errors.read_all(client) == []


def test_what_is_no_failure_does_not_count(client, claims):
    pool_jobs.noop.enqueue_many([()] * 4)
    first, second, third, fourth = claims.finish_and_claim("c1", [], 4).jobs
    outcomes = [
        performer.finished(first, b"", 1.0, 2.0),
        outcome.again(second, "later", 1.0, 2.0, 60),
        failed(third, retry=False, status="stopped"),
        outcome.returned(fourth),
    ]
    claims.finish_and_claim("c2", [*outcomes[:2], outcomes[3]], 0)
    assert errors.read_all(client) == []


def test_a_refused_job_and_one_with_a_corrupt_record_count(server, client):
    Queue("default", connection=client, serializer=JSONSerializer).enqueue(
        pool_jobs.add.job.function, "a", "b", "c"
    )
    corrupt = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(corrupt), mapping={"retries_left": "many", "attempts": "few"})
    assert drained(server) == 0
    found = {error.type: error for error in errors.read_all(client)}
    assert {error.job for error in found.values()} == {pool_jobs.add.job.name}
    assert "CorruptRecord" in found
    assert len(found) == 2


def test_a_job_that_asked_too_often_to_run_again_counts(client, claims):
    pool_jobs.noop.enqueue()
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    claims.finish_and_claim("c2", [outcome.exceeded(job, b"{}", 1.0, 2.0)], 0)
    assert (only(client).type, only(client).job) == ("Retry", pool_jobs.noop.job.name)
    assert errors.read(client, only(client).fingerprint).traceback is None


def test_a_deaths_of_a_process_count_by_job(server, client, tmp_path):
    id = pool_jobs.die.enqueue(str(tmp_path / "notes"))
    with pool(server, 1):
        assert ended(client, id).status == "failed"
    error = only(client)
    assert (error.type, error.job, error.total) == ("Died", pool_jobs.die.job.name, 3)
    assert "SIGKILL" in errors.read(client, error.fingerprint).traceback
    assert errors.read(client, error.fingerprint).jobs == [id]
    assert told(client) == ["error_new"]


@pytest.mark.parametrize(
    ("verdict", "kind", "jobs"), [("overran", "Killed", 1), ("vanished", "Vanished", 0), ("died", "Died", 0)]
)
def test_a_verdict_counts_for_the_job_that_ran_and_no_other(client, claims, verdict, kind, jobs):
    pool_jobs.noop.enqueue_many([()] * 2)
    job, _ = claims.finish_and_claim("c1", [], 2).jobs
    Marks(client).mark("w1", [RunningJob(MAIN, job.id, job.execution, 0.0, float("inf"), False)], 1.0)
    for _ in range(2):  # the second finds nothing
        rescue(client, "w1", verdict, "why", [] if verdict == "vanished" else [job.execution])
    assert (only(client).type, only(client).total, only(client).last_job) == (kind, 1, job.id)
    assert len(errors.read(client, only(client).fingerprint).jobs) == jobs


@pytest.mark.parametrize("verdict", ["stopped", "returned"])
def test_a_job_that_was_stopped_or_given_back_does_not_count(client, claims, verdict):
    pool_jobs.noop.enqueue()
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    rescue(client, "w1", verdict, "why", [job.execution])
    assert errors.read_all(client) == []


def test_a_replaced_singleton_that_is_killed_does_not_fail_of_an_error(client, claims):
    limited_jobs.replaces.enqueue("x", "y")
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    limited_jobs.replaces.enqueue("x", "z")
    rescue(client, "w1", "overran", "why", [job.execution])
    assert reader.read(client, job.id).status == "stopped"
    assert all(not errors.read(client, each.fingerprint).jobs for each in errors.read_all(client))


def test_a_resolved_error_that_comes_again_is_open_and_told(client, claims):
    fail(claims)
    fingerprint = only(client).fingerprint
    assert errors.mark(client, fingerprint, "resolved") == "open"
    assert only(client).state == "resolved"
    assert errors.read_all(client, ["open"]) == []
    fail(claims)
    fail(claims)
    assert (only(client).state, only(client).total) == ("open", 3)
    assert told(client) == ["error_new", "error_again"]
    assert client.zcard(keys.SETTLED_ERRORS) == 0
    again = next(event for event in events.read(client) if event.type == "error_again")
    assert again.details == {
        "fingerprint": fingerprint, "error": "ValueError", "text": "it is broken", "name": "shop.job",
    }  # fmt: skip


def test_an_ignored_error_is_counted_and_not_told(client, claims):
    fail(claims)
    fingerprint = only(client).fingerprint
    errors.mark(client, fingerprint, "ignored")
    fail(claims)
    assert (only(client).state, only(client).total, told(client)) == ("ignored", 2, ["error_new"])
    assert errors.mark(client, fingerprint, "open") == "ignored"
    assert client.zcard(keys.SETTLED_ERRORS) == 0


def test_an_error_that_nobody_has_seen_is_one_line(client):
    for call in (errors.read, errors.retry, lambda *known: errors.mark(*known, "resolved")):
        for fingerprint in ("0123456789ab", "", "x" * 12, "0123456789ab:jobs"):
            with pytest.raises(errors.NoSuchError, match="errors list"):
                call(client, fingerprint)
    assert client.keys("pm:error*") == []


def test_retrying_an_error_enqueues_what_failed_of_it_last_and_nothing_else(client, claims):
    first, other, deleted = fail(claims), fail(claims, "else"), fail(claims)
    elsewhere, again = fail(claims), fail(claims)
    fingerprint = errors.read_all(client)[0].fingerprint
    client.delete(keys.job_key(deleted))
    for id in (elsewhere, again):
        control.retry(client, id)
    jobs = {job.id: job for job in claims.finish_and_claim(claims.next_id(), [], 9).jobs}
    claims.finish_and_claim(
        claims.next_id(), [failed(jobs[elsewhere], "another"), failed(jobs[again])], 0
    )  # the second is listed twice now
    assert errors.retry(client, fingerprint) == ([again, first], {})
    assert errors.retry(client, fingerprint) == ([], {})
    assert {reader.read(client, id).status for id in (first, again)} == {"queued"}
    assert {reader.read(client, id).status for id in (other, elsewhere)} == {"failed"}
    assert not client.hexists(keys.job_key(first), "fingerprint")


def test_a_job_that_can_not_run_again_now_is_named(client, claims):
    unique = pool_jobs.noop.options(unique=True)
    id = unique.enqueue()
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    claims.finish_and_claim("c2", [failed(job)], 0)
    unique.enqueue()
    jobs, refused = errors.retry(client, only(client).fingerprint)
    assert (jobs, list(refused)) == ([], [id])


def test_a_flood_of_distinct_errors_stays_within_its_bounds_and_tells_of_a_few(client, claims, monkeypatch):
    fail(claims, "resolved")
    fail(claims, "ignored")
    for error, state in zip(errors.read_all(client), ("ignored", "resolved"), strict=True):
        errors.mark(client, error.fingerprint, state)
    number = 3 * errors.MOST
    pool_jobs.noop.options(failure_ttl=60).enqueue_many([()] * number)
    while jobs := claims.finish_and_claim(claims.next_id(), [], 100).jobs:
        failures = [
            msgspec.structs.replace(
                failed(job), failure=Failure(job.id[:12], "E", "t" * 200, "w" * 200, "j" * 200, "")
            )
            for job in jobs
        ]
        claims.finish_and_claim(claims.next_id(), failures, 0)
    assert client.zcard(keys.ERRORS) == errors.MOST
    assert client.zcard(keys.SETTLED_ERRORS) == 0
    assert len(client.keys("pm:error:*")) == 2 * errors.MOST
    assert told(client).count("error_new") <= errors.MOST
    taken = sum(client.memory_usage(key) or 0 for key in client.scan_iter("pm:error*", count=1000))
    assert taken < MOST_BYTES
    assert {error.total for error in errors.read_all(client)} == {1}


def test_only_the_last_jobs_of_an_error_are_kept(client, claims):
    pool_jobs.noop.enqueue_many([()] * (errors.MOST_JOBS + 50))
    while jobs := claims.finish_and_claim(claims.next_id(), [], 200).jobs:
        claims.finish_and_claim(claims.next_id(), [failed(job) for job in jobs], 0)
    assert only(client).total == errors.MOST_JOBS + 50
    assert len(errors.read(client, only(client).fingerprint).jobs) == errors.MOST_JOBS


def test_an_hour_of_another_week_does_not_count(client, claims):
    fail(claims)
    key = keys.error_key(only(client).fingerprint)
    hour = int(time.time() // errors.HOUR)
    (slot,) = [name for name in client.hkeys(key) if name[:1] == b"h" and name[1:].isdigit()]
    client.hset(key, slot, f"{hour - errors.HOURS} 70")
    assert errors.read(client, only(client).fingerprint).error.hours == (0,) * errors.HOURS
    fail(claims)
    assert sum(only(client).hours) == 1


def test_queues_and_releases_are_the_latest_ten(client, claims):
    for number in range(14):
        client.hset(keys.worker_key("w1"), "release", f"r{number}")
        fail(claims)
        fail(claims)
    assert only(client).releases == tuple(f"r{number}" for number in range(4, 14))


def test_a_worker_tells_its_release(server, client, tmp_path):
    pool_jobs.fail.enqueue(str(tmp_path / "notes"))
    assert drained(server, release="2026-11-30.1") == 0
    assert only(client).releases == ("2026-11-30.1",)


@pytest.mark.parametrize("key", ["error:{}", "error:{}:jobs", "errors", "errors-settled"])
def test_a_key_of_another_type_loses_no_outcome(client, claims, key):
    fail(claims)
    fingerprint = only(client).fingerprint
    errors.mark(client, fingerprint, "resolved")
    client.set(f"pm:{key.format(fingerprint)}", "garbage", keepttl=False)
    id = fail(claims)
    assert reader.read(client, id).status == "failed"
    assert errors.read_all(client)[0].fingerprint == fingerprint
    errors.read(client, fingerprint)


def test_garbage_in_an_error_stops_nobody(client, claims):
    fail(claims)
    key = keys.error_key(only(client).fingerprint)
    names = [name for name in client.hkeys(key) if name != b"last"]
    client.hset(key, mapping=dict.fromkeys(names, b"\xff\x00 nan"))
    client.hset(key, mapping={"first": "1e400", "queues": b"\xff\n" * 9_999})
    client.zadd(keys.ERRORS, {b"\xff\xff": 5, "no fingerprint": 6})
    assert only(client).total == 0
    id = fail(claims)
    assert (only(client).total, only(client).queues) == (1, ("default",))
    assert reader.read(client, id).status == "failed"


def test_a_worker_killed_after_its_job_failed_counts_once(server, client, tmp_path):
    """Its outcome is acknowledged or its job is rescued, never both."""
    path = tmp_path / "notes"
    with pool(server, 2) as process:
        ids = [pool_jobs.fail.options(retries=0).enqueue(str(path)) for _ in range(40)]
        until(lambda: len(lines(path)) > 5)
        for child in children_of(process.pid):
            os.kill(child, signal.SIGKILL)
        for id in ids:
            assert ended(client, id).status == "failed"
    found = {error.type: error.total for error in errors.read_all(client)}
    assert found["ValueError"] == len(ids)


def test_an_error_of_a_callback_does_not_count():
    performer = Performer(lambda *report: None, lambda *save: None)
    due = Due("callback", "success", {})
    job = Claimed("a", "e", "default", b"", due=due)
    call = Call(job, pool_jobs.add.job, (), {}, "plain")
    assert performer.ended_by(call, ValueError("x"), 1.0).failure is None


def test_a_forgotten_error_leaves_nothing_and_is_new_if_it_comes_again(client, claims):
    fail(claims)
    fingerprint = only(client).fingerprint
    errors.mark(client, fingerprint, "ignored")
    errors.forget(client, fingerprint)
    assert client.keys("pm:error*") == []
    fail(claims)
    assert (only(client).total, only(client).state) == (1, "open")
    assert told(client) == ["error_new", "error_new"]
