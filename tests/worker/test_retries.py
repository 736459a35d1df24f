"""Retries: what is retried and what is not, expiry, and checkpoints."""

from __future__ import annotations

import os
import signal
import time

import pytest

from packmule.jobs import keys, reader
from packmule.tests.pace import skewed
from packmule.tests.worker import executor_jobs, pool_jobs
from packmule.tests.worker.pools import (
    DEADLINE,
    children_of,
    drained,
    ended,
    lines,
    logging_pool,
    pool,
    until,
)
from packmule.worker.order import Strict
from packmule.worker.process import outcome
from packmule.worker.process.call import Call
from packmule.worker.process.claim import Claims
from packmule.worker.process.performer import Performer
from packmule.worker.process.progress import ProgressStore
from packmule.worker.rescue import rescue

pytestmark = pytest.mark.usefixtures("produce")


def test_only_the_errors_named_in_retry_on_are_retried_and_their_subclasses(server, client, tmp_path):
    kinds = ("connection", "value")
    ids = {kind: executor_jobs.retry_on.enqueue(str(tmp_path / kind), kind) for kind in kinds}
    assert drained(server) == 0
    found = {kind: reader.read(client, id) for kind, id in ids.items()}
    assert {kind: record.status for kind, record in found.items()} == {
        "connection": "failed",
        "value": "failed",
    }
    assert len(lines(tmp_path / "connection")) == 6
    assert len(lines(tmp_path / "value")) == 1
    assert (found["value"].retries_left, found["value"].attempts) == (5, 0)


def test_a_job_may_ask_to_run_again_up_to_its_limit_and_uses_up_no_retries(server, client, tmp_path):
    in_time = executor_jobs.retry_after.options(retries=1).enqueue(str(tmp_path / "in time"), 4, 4)
    too_late = executor_jobs.retry_after.options(retries=1).enqueue(str(tmp_path / "too late"), 3, 9)
    assert drained(server) == 0
    record = reader.read(client, in_time)
    assert (record.result, record.retries_left, record.attempts) == ("ready in 4", 1, 3)
    record = reader.read(client, too_late)
    assert (record.status, record.retries_left) == ("failed", 1)
    assert record.reason == "Retry: not ready in 3"
    assert len(lines(tmp_path / "too late")) == 3


def test_a_job_with_a_retry_interval_is_scheduled(server, client):
    later, interval = executor_jobs.retry_later.enqueue(), executor_jobs.fail_once_in_a_while.enqueue()
    before = time.time()
    assert drained(server) == 0
    for id, seconds in ((later, 30), (interval, 7)):
        assert reader.read(client, id).status == "scheduled"
        due = client.zscore("rq:scheduled:default", id)
        assert before + seconds <= due <= time.time() + seconds
    assert reader.read(client, later).reason == "not yet"


@pytest.mark.parametrize("interval", [0, 60])
def test_a_job_that_waits_for_its_retry_does_not_expire_after_its_failure_ttl(client, interval):
    options = pool_jobs.add.options(retries=1, retry_intervals=[interval], failure_ttl=1)
    id = options.enqueue(1)
    claims = Claims(client, "w1", Strict(["default"]))
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    claims.finish_and_claim("c2", [outcome.failed(job, "broken", 1.0, 2.0)], 0)
    assert client.ttl(keys.job_key(id)) == -1


@pytest.mark.parametrize("front", [False, True])
def test_a_retry_without_a_wait_goes_to_the_end_of_its_queue_unless_it_asks_for_the_front(client, front):
    options = pool_jobs.add.options(retries=1, retry_intervals=[0])
    first, second = (options.enqueue(number) for number in range(2))
    client.hset(keys.job_key(first), "enqueue_at_front_on_retry", int(front))
    claims = Claims(client, "w1", Strict(["default"]))
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    claims.finish_and_claim("c2", [outcome.failed(job, "broken", 1.0, 2.0)], 0)
    waiting = [id.decode() for id in client.lrange(keys.queue_key("default"), 0, -1)]
    assert waiting == ([first, second] if front else [second, first])


def test_webhooks_hear_of_a_jobs_end_and_of_no_attempt_before(client):
    id = pool_jobs.add.options(retries=1, retry_intervals=[0]).enqueue(1)
    client.hset(keys.job_key(id), "webhooks", "[]")
    claims, due = Claims(client, "w1", Strict(["default"])), []
    for attempt in ("c1", "c2"):
        (job,) = claims.finish_and_claim(attempt, [], 1).jobs
        due.append(
            claims.finish_and_claim(attempt + "end", [outcome.failed(job, "broken", 1.0, 2.0)], 0).jobs
        )
    assert due[0] == []
    assert [(each.id, each.due.step) for each in due[1]] == [(id, "webhooks")]


def test_a_job_that_was_not_started_in_time_fails_with_that_reason_and_never_runs(server, client, tmp_path):
    late = pool_jobs.note.options(expires=0.05).enqueue(str(tmp_path / "late"))
    in_time = pool_jobs.note.options(expires=60).enqueue(str(tmp_path / "in time"))
    time.sleep(0.06)
    assert drained(server) == 0
    record = reader.read(client, late)
    assert record.status == "failed"
    assert record.reason.startswith("Expired: the job could not start before it expired at ")
    assert lines(tmp_path / "late") == []
    assert reader.read(client, in_time).status == "finished"


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_worker_whose_clock_is_wrong_expires_jobs_at_the_same_time(client, seconds):
    in_time, late = pool_jobs.add.options(expires=60).enqueue_many([(1,), (2,)])
    client.hset(keys.job_key(late), "expires_at", time.time() - 60)
    performer = Performer(lambda *report: None, lambda *save: None)
    with skewed(seconds):
        jobs = Claims(client, "w1", Strict(["default"])).finish_and_claim("c1", [], 2).jobs
        found = {job.id: performer.prepare(job) for job in jobs}
    assert isinstance(found[in_time], Call)
    assert "Expired" in found[late].reason


def test_a_job_does_not_expire_before_its_retry(server, client, tmp_path):
    id = pool_jobs.fail.options(expires=20).enqueue(str(tmp_path / "notes"))
    client.hset(keys.job_key(id), mapping={"expires_at": 1, "attempts": 1})
    assert drained(server) == 0
    assert reader.read(client, id).reason == "ValueError: it is broken"


def test_a_job_that_began_in_time_does_not_expire_when_it_runs_again(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    id = pool_jobs.note_when_told.options(expires=60).enqueue(str(notes), str(gate), "x")
    with pool(server) as process:
        until(lambda: lines(notes) == ["begin x"] and reader.read(client, id).status == "started")
        if expires_at := client.hget(keys.job_key(id), "expires_at"):  # it passes while the job runs
            client.hset(keys.job_key(id), "expires_at", float(expires_at) - 120)
        for child in children_of(process.pid):
            os.kill(child, signal.SIGKILL)
        gate.touch()
        assert ended(client, id).result == "x"
    assert lines(notes) == ["begin x", "begin x", "end x"]


@pytest.mark.parametrize("job", ["count", "count_isolated"])
def test_a_retry_goes_on_from_the_last_checkpoint_before_the_error(server, client, tmp_path, job):
    notes = tmp_path / "notes"
    id = getattr(executor_jobs, job).enqueue(str(notes), "raise")
    assert drained(server) == 0
    assert reader.read(client, id).result == 6
    assert lines(notes) == ["from 0", "0", "1", "2", "from 3", "3", "4", "5"]


@pytest.mark.parametrize("job", ["count", "count_isolated"])
def test_after_a_sigkill_a_job_goes_on_from_a_checkpoint(server, client, tmp_path, job):
    notes = tmp_path / "notes"
    with pool(server):
        id = getattr(executor_jobs, job).enqueue(str(notes), "kill")
        assert ended(client, id).result == 6
    assert lines(notes) == ["from 0", "0", "1", "2", "from 3", "3", "4", "5"]
    record = reader.read(client, id)
    assert (record.deaths, record.attempts) == (1, 0)


@pytest.mark.parametrize(
    ("job", "options"),
    [("count", {}), ("count", {"threads": 3}), ("count_async", {}), ("count_isolated", {})],
    ids=["main", "threads", "async", "isolated"],
)
def test_a_drain_ends_a_job_at_its_next_checkpoint_and_another_pool_goes_on(
    server, client, tmp_path, job, options
):
    notes = tmp_path / "notes"
    id = getattr(executor_jobs, job).enqueue(str(notes), "drain")
    with pool(server, **options) as process:
        until(lambda: lines(notes) == ["from 0", "0", "1", "2"])
        process.terminate()
        assert process.wait(60) == 0
    record = reader.read(client, id)
    assert (record.status, record.attempts, record.deaths, record.retries_left) == ("queued", 0, 0, 2)
    assert client.lrange("rq:queue:default", 0, -1) == [id.encode()]
    assert drained(server, **options) == 0
    assert reader.read(client, id).result == 6
    assert lines(notes) == ["from 0", "0", "1", "2", "from 3", "3", "4", "5"]


def test_a_checkpoint_of_an_older_execution_is_refused(client):
    id = pool_jobs.add.enqueue(1)
    store = ProgressStore(client, "w1")
    claims = Claims(client, "w1", Strict(["default"]))
    (old,) = claims.finish_and_claim("c1", [], 1).jobs
    store.save(id, old.execution, b"1")
    assert client.hget(keys.job_key(id), "checkpoint") == b"1"
    rescue(client, "w1", "died", "gone")
    (new,) = claims.finish_and_claim("c2", [], 1).jobs
    assert new.checkpoint == b"1"
    store.save(id, old.execution, b"2")
    assert client.hget(keys.job_key(id), "checkpoint") == b"1"
    store.save(id, new.execution, b"3")
    assert client.hget(keys.job_key(id), "checkpoint") == b"3"


def test_a_checkpoint_revives_no_record_that_was_deleted(client):
    id = pool_jobs.add.enqueue(1)
    store = ProgressStore(client, "w1")
    (job,) = Claims(client, "w1", Strict(["default"])).finish_and_claim("c1", [], 1).jobs
    client.delete(keys.job_key(id))
    store.save(id, job.execution, b"1")
    assert client.exists(keys.job_key(id)) == 0


def test_two_signals_end_a_job_without_checkpoints_and_it_starts_again(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    id = executor_jobs.note_when_told_isolated.enqueue(str(notes), str(gate), "a")
    with logging_pool(server) as (process, logged):
        until(lambda: lines(notes) == ["begin a"])
        process.terminate()
        until(lambda: "the pool stops" in logged())  # two pending signals would be one
        process.terminate()
        assert process.wait(DEADLINE) == 1
    gate.touch()
    assert drained(server) == 0
    record = reader.read(client, id)
    assert (record.result, record.deaths, record.attempts) == ("a", 0, 0)
    assert lines(notes) == ["begin a", "begin a", "end a"]
