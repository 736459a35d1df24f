"""Undeleting: a job is put back as it was, or refused for a reason, and nothing of others is harmed."""

from __future__ import annotations

import time

import msgspec
import pytest
from redis import Redis

from packmule.jobs import control, keys, reader, search
from packmule.jobs.batch import Batch
from packmule.jobs.job_filter import JobFilter
from packmule.jobs.undeleting import Copy, copies_of, undelete
from packmule.tests.jobs import sample_jobs
from packmule.tests.jobs.ending import end
from packmule.tests.worker import limited_jobs

pytestmark = pytest.mark.usefixtures("produce")


def deleted(client: Redis, *ids: str) -> list[Copy]:
    """Copies of jobs, on their way through what stores them, after the jobs were deleted."""
    copies = msgspec.msgpack.decode(msgspec.msgpack.encode(copies_of(client, ids)), type=list[Copy])
    assert control.delete_each(client, ids) == [None] * len(ids)
    return copies


def snapshot(client: Redis, id: str) -> dict[str, object]:
    found: dict[str, object] = {
        "record": client.hgetall(keys.job_key(id)),
        "ttl": client.pttl(keys.job_key(id)),
    }
    for status in ("finished", "failed", "canceled", "scheduled", "deferred"):
        found[status] = client.zscore(keys.registry_key(status, "default"), id)
    found["results"] = client.xrange(keys.results_key(id))
    return found


def test_ended_jobs_come_back_as_they_were(client, claims):
    good, bad = sample_jobs.add.enqueue(1), sample_jobs.echo.enqueue("x")
    end(claims, times=1)
    end(claims, "ValueError: no", times=1)
    gone = sample_jobs.add.enqueue(3)
    control.cancel(client, gone)
    ids = [good, bad, gone]
    before = [snapshot(client, id) for id in ids]
    copies = deleted(client, *ids)
    assert [reader.read_if_there(client, id) for id in ids] == [None] * 3
    assert undelete(client, copies) == [None] * 3
    for id, was in zip(ids, before, strict=True):
        now = snapshot(client, id)
        was_ttl, now_ttl = was.pop("ttl"), now.pop("ttl")
        assert now == was
        assert 0 < now_ttl <= was_ttl
    assert reader.read(client, good).result == 1
    assert reader.read(client, bad).reason == "ValueError: no"
    assert [each.id for each in search.search(client, JobFilter(status="failed")).jobs] == [bad]
    control.retry(client, bad)
    assert end(claims) == [bad]


def test_jobs_that_waited_wait_again_at_the_end(client, claims):
    first, later = sample_jobs.add.enqueue(1), sample_jobs.add.options(delay=3600).enqueue(2)
    due = client.zscore(keys.registry_key("scheduled", "default"), later)
    copies = deleted(client, first, later)
    second = sample_jobs.add.enqueue(3)
    assert undelete(client, copies) == [None, None]
    assert client.zscore(keys.registry_key("scheduled", "default"), later) == due
    assert end(claims) == [second, first]
    control.run_now(client, later)
    assert end(claims) == [later]


def test_a_job_of_a_limited_group_waits_in_its_group(client, claims):
    ids = [limited_jobs.alone.enqueue("/nowhere", "a") for _ in range(3)]
    copies = deleted(client, ids[0])
    assert undelete(client, copies) == [None]
    assert end(claims) == [ids[1], ids[2], ids[0]]


def test_what_would_break_something_is_refused(client, claims):
    with Batch.create("b") as batch:
        of_batch = sample_jobs.add.options(batch=batch.id).enqueue(1)
    unique = sample_jobs.invoice.enqueue(7)
    there = sample_jobs.add.enqueue(2)
    behind = sample_jobs.add.options(after=there).enqueue(3)
    end_soon = sample_jobs.decorated.enqueue("a")
    copies = [*copies_of(client, [behind]), *deleted(client, of_batch, unique), *copies_of(client, [there])]
    copies += copies_of(client, [end_soon])
    control.delete(client, end_soon)
    other = sample_jobs.invoice.enqueue(7)
    expired = copies[-1].kept[0]
    copies[-1] = msgspec.structs.replace(copies[-1], kept=[(*expired[:2], int(time.time() * 1000) - 1)])
    errors = [str(error) for error in undelete(client, copies)]
    for error, reason in zip(
        errors,
        ["waited for other jobs", "has counted it as canceled", f"{other} holds its place", "it is there",
         "time to live is over"],
        strict=True,
    ):  # fmt: skip
        assert reason in error
    assert batch.state().counts.canceled == 1
    assert not client.exists(keys.job_key(of_batch), keys.job_key(unique), keys.job_key(end_soon))
    assert reader.read(client, there).status == "queued"


def test_a_copy_that_is_none_is_refused_and_the_others_are_put_back(client, claims):
    id = sample_jobs.add.enqueue(1)
    end(claims)
    copies = deleted(client, id)
    broken = [msgspec.structs.replace(copies[0], id="x", kept=[(keys.job_key("x"), b"\x00nothing", 0)])]
    first, second = undelete(client, broken + copies)
    assert "can't read its copy" in str(first)
    assert second is None
    assert reader.read(client, id).status == "finished"
    assert copies_of(client, ["nope", ""]) == []
    client.set(keys.job_key("text"), "no record")
    assert undelete(client, copies_of(client, ["text"]))[0] is not None
