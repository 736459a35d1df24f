"""Timeouts: first an exception in the job, then, within two seconds, the end of its process."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime

import pytest

from packmule.jobs import keys, reader
from packmule.jobs.reader import JobInfo
from packmule.tests.pace import pace
from packmule.tests.worker import executor_jobs, pool_jobs
from packmule.tests.worker.executor_jobs import EXECUTORS
from packmule.tests.worker.pools import ended, lines, pool, until

pytestmark = pytest.mark.usefixtures("produce")

HOWS = ("swallow", "number", "regex", "blocked")


def seconds_of(info: JobInfo) -> float:
    begun, over = (datetime.fromisoformat(text) for text in (info.started_at, info.ended_at))
    return (over - begun).total_seconds()


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_job_past_its_timeout_gets_an_exception_and_may_clean_up(server, client, tmp_path, executor):
    nap, _, options = EXECUTORS[executor]
    notes = tmp_path / "notes"
    with pool(server, patience=60, **options), pace() as second:
        info = ended(client, getattr(executor_jobs, nap).enqueue(str(notes)))
    assert lines(notes) == ["begin", "CancelledError" if executor == "async" else "JobTimeoutException"]
    assert (info.status, info.deaths) == ("failed", 0)
    assert info.reason == "JobTimeoutException: the job ran longer than its timeout of 1 s"
    assert 0.9 < seconds_of(info) < 1 + 2 * second()


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_job_that_ignores_its_timeout_is_killed_whatever_it_does(server, client, executor):
    _, resist, options = EXECUTORS[executor]
    found = {}
    with ExitStack() as pools, pace() as second:
        for how in HOWS:
            pools.enter_context(pool(server, queues=how, **options))
        until(lambda: client.scard(keys.WORKERS) == len(HOWS))
        ids = {how: getattr(executor_jobs, resist).options(queue=how).enqueue(how) for how in HOWS}
        found = {how: ended(client, id) for how, id in ids.items()}
    for how, info in found.items():
        assert (info.status, info.deaths) == ("failed", 0), how
        assert "its timeout of 1 s" in info.reason, how
        assert seconds_of(info) < 1 + 2 * second(), how
    assert "was killed with its process" in found["swallow"].reason


@pytest.mark.parametrize("executor", ["threads", "async"])
def test_jobs_beside_one_that_is_killed_go_back_and_finish_without_a_death(
    server, client, tmp_path, executor
):
    _, resist, options = EXECUTORS[executor]
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    jobs = {"threads": pool_jobs.note_when_told, "async": executor_jobs.note_when_told_async}
    ids = jobs[executor].enqueue_many([(str(notes), str(gate), text) for text in "ab"])
    with pool(server, **options):
        until(lambda: sorted(lines(notes)) == ["begin a", "begin b"])
        stubborn = getattr(executor_jobs, resist).enqueue("number")
        assert ended(client, stubborn).status == "failed"
        until(lambda: sorted(lines(notes)) == ["begin a"] * 2 + ["begin b"] * 2)
        gate.touch()
        assert [ended(client, id).result for id in ids] == ["a", "b"]
    assert [(reader.read(client, id).deaths, reader.read(client, id).attempts) for id in ids] == [(0, 0)] * 2


def test_an_isolated_job_that_is_killed_for_its_timeout_harms_no_async_one_beside_it(
    server, client, tmp_path
):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    beside = executor_jobs.note_when_told_async.enqueue(str(notes), str(gate), "a")
    with pool(server, earlier=0.9):  # for a machine that lets the worker wait
        until(lambda: lines(notes) == ["begin a"])
        assert ended(client, executor_jobs.resist_isolated.enqueue("swallow")).status == "failed"
        gate.touch()
        assert ended(client, beside).result == "a"
    assert lines(notes) == ["begin a", "end a"]


def test_a_timeout_uses_up_a_retry_in_each_executor(server, client, tmp_path):
    with pool(server, threads=4, patience=60):
        ids = [
            job.options(retries=1, retry_intervals=(0,)).enqueue(str(tmp_path / name))
            for name, job in (
                ("threads", executor_jobs.nap),
                ("async", executor_jobs.nap_async),
                ("isolated", executor_jobs.nap_isolated),
            )
        ]
        assert [ended(client, id).status for id in ids] == ["failed"] * 3
    for name in ("threads", "async", "isolated"):
        assert [line for line in lines(tmp_path / name) if line == "begin"] == ["begin"] * 2


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_job_that_prolongs_its_timeout_is_neither_interrupted_nor_killed(server, client, executor):
    suffix = {"async": "_async", "isolated": "_isolated"}.get(executor, "")
    with pool(server, **EXECUTORS[executor][2]):
        info = ended(client, getattr(executor_jobs, f"hold_on{suffix}").options(timeout=2).enqueue(3.5))
    assert (info.status, info.deaths) == ("finished", 0)


def test_a_prolonged_timeout_bites_in_the_end(server, client, tmp_path):
    with pool(server, patience=60):
        info = ended(client, executor_jobs.hold_on_briefly.enqueue(str(tmp_path / "notes")))
    assert (info.status, info.deaths) == ("failed", 0)
    assert lines(tmp_path / "notes") == ["begin", "JobTimeoutException"]
    assert seconds_of(info) > 1.9
