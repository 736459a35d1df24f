"""Timelines: the attempts of a job and its events, also where records are foreign or corrupt."""

from __future__ import annotations

import time

import pytest

from packmule.jobs import control, keys, reader, wire
from packmule.observe import timeline
from packmule.tests.jobs import sample_jobs
from packmule.tests.jobs.ending import end

pytestmark = pytest.mark.usefixtures("produce")


def test_each_attempt_has_its_outcome_worker_and_times(client, claims):
    id = sample_jobs.add.options(retries=1, retry_intervals=[0]).enqueue(1)
    sample_jobs.add.enqueue_many([(n,) for n in range(50)])
    begun = time.time()
    assert end(claims, 'Traceback:\nshop.Late: no "van"', times=1) == [id]
    assert id in end(claims)
    control.cancel(client, sample_jobs.noop.enqueue())
    found = timeline.read(client, reader.read(client, id))
    assert [(each.outcome, each.worker) for each in found.attempts] == [("retried", "w1"), ("finished", "w1")]
    assert [each.reason for each in found.attempts] == ['Late: no "van"', None]
    for each in found.attempts:
        assert each.started is not None
        assert each.ended is not None
        assert begun - 1 <= each.started <= each.ended <= time.time() + 1
        assert each.seconds is not None
    assert [event.type for event in found.events] == ["enqueued", "retried", "finished"]


def test_a_job_that_was_only_enqueued_has_no_attempts(client):
    found = timeline.read(client, reader.read(client, sample_jobs.add.enqueue(1)))
    assert found.attempts == []
    assert [event.type for event in found.events] == ["enqueued"]


def test_foreign_and_corrupt_records_do_no_harm(client, claims):
    id = sample_jobs.add.enqueue(1)
    end(claims)
    key = keys.results_key(id)
    client.xadd(key, {"type": "9", "execution_started_at": "never", "exc_string": "?"})
    client.xadd(key, {b"\xff": b"\xff", "type": wire.MAX_RETRIES_EXCEEDED, "execution_ended_at": "1e99"})
    client.xadd(keys.JOB_EVENTS, {"e": b"\xc1" + id.encode()})
    client.xadd(keys.JOB_EVENTS, {"other": id})
    first, unknown, exceeded = timeline.read(client, reader.read(client, id)).attempts
    assert (first.outcome, unknown.outcome, exceeded.outcome) == ("finished", "unknown", "failed")
    assert unknown.started is None
    assert exceeded.reason == wire.reason(wire.EXCEEDED)
    client.hset(keys.job_key(id), mapping={"created_at": "nonsense", "ended_at": "9" * 300})
    client.delete(key, keys.JOB_EVENTS)
    client.set(key, "text")
    client.set(keys.JOB_EVENTS, "text")
    info = reader.read_many(client, [id])[0]
    assert info is not None
    assert timeline.read(client, info) == ([], [])
