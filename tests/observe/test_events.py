"""Events: each change of a job is emitted by the step that makes it."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue
from rq.serializers import JSONSerializer

from packmule.coordination.streams.stream import Stream
from packmule.jobs import control, keys, registry
from packmule.scheduler.maintenance.promote import promote
from packmule.tests.worker import executor_jobs, pool_jobs
from packmule.tests.worker.pools import DEADLINE, children_of, drained, ended, lines, pool, until
from packmule.worker import Worker
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims
from packmule.worker.process.performer import finished

pytestmark = pytest.mark.usefixtures("produce")


def emitted(client: Redis, id: str | None = None) -> list[list[Any]]:
    events = [event.value for event in Stream(client, "pm:events", max_entries=1).read("0", count=10_000)]
    return [event for event in events if id in (None, event[1])]


def types(client: Redis, id: str) -> list[str]:
    return [event[0] for event in emitted(client, id)]


def test_a_short_job_emits_enqueued_and_finished_with_its_times(server, client):
    id = pool_jobs.add.enqueue(1)
    before = time.time()
    assert drained(server) == 0
    enqueued, end = emitted(client, id)
    assert enqueued[:4] == ["enqueued", id, "default", ""]
    assert enqueued[4] <= before
    assert end[0] == "finished"
    assert end[3].rpartition(".")[0]
    assert before < end[5]["started"] <= end[5]["ended"] <= end[4] <= time.time()


def test_a_long_job_emits_started_and_its_progress_by_tenths(server, client):
    id = executor_jobs.tell_who.enqueue(2)
    assert drained(server) == 0
    assert types(client, id) in (
        ["enqueued", "progress", "started", "progress", "finished"],
        ["enqueued", "started", "progress", "progress", "finished"],
    )
    done = [event[5] for event in emitted(client, id) if event[0] == "progress"]
    assert [(each["done"], each["total"]) for each in done] == [(1, 2), (2, 2)]


def test_each_attempt_emits_an_event(server, client, tmp_path):
    id = pool_jobs.fail.enqueue(str(tmp_path / "notes"))
    assert drained(server) == 0
    assert types(client, id) == ["enqueued", "retried", "error_new", "retried", "failed"]


def test_an_end_that_rqs_code_recorded_emits_an_event(server, client):
    queue = Queue("default", client, serializer=JSONSerializer)
    job = queue.enqueue(
        "packmule.tests.worker.pool_jobs.add",
        1,
        on_success=Callback("packmule.tests.worker.pool_jobs.callback"),
    )
    registry.load([], ["packmule.tests.worker.pool_jobs.callback"])
    Worker([queue], connection=client).work(burst=True)
    assert types(client, job.id) == ["finished"]


def test_a_job_that_goes_to_the_front_emits_enqueued(client):
    (id,) = pool_jobs.add.options(at_front=True).enqueue_many([(1,)])
    assert types(client, id) == ["enqueued"]


def test_promoting_or_canceling_a_scheduled_job_emits_an_event(client):
    due = time.time() + 0.05
    id, other = (pool_jobs.add.options(delay=delay).enqueue(1) for delay in (0.05, 100))
    assert control.cancel(client, other) == "canceled"
    until(lambda: promote(client) is None or "promoted" in types(client, id))
    assert types(client, id) == ["scheduled", "promoted"]
    assert emitted(client, id)[0][5]["due"] == pytest.approx(due, abs=DEADLINE)
    assert types(client, other) == ["scheduled", "canceled"]


def test_a_job_whose_process_is_killed_emits_rescued(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    id = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
    with pool(server) as process:
        until(lambda: "started" in types(client, id))
        os.kill(children_of(process.pid)[0], signal.SIGKILL)
        until(lambda: len(lines(notes)) == 2)
        gate.touch()
        assert ended(client, id).status == "finished"
    assert types(client, id)[:3] == ["enqueued", "started", "rescued"]
    assert types(client, id)[-1] == "finished"
    assert emitted(client, id)[2][5] == {"reason": "died"}


def test_a_running_job_that_a_stopping_worker_gives_back_emits_returned(server, client, tmp_path):
    id = pool_jobs.note_when_told.enqueue(str(tmp_path / "notes"), str(tmp_path / "gate"), "a")
    with pool(server, grace=0.1) as process:
        until(lambda: "started" in types(client, id))
        process.terminate()
        process.wait()
    assert types(client, id) == ["enqueued", "started", "returned"]


def test_a_corrupt_job_emits_quarantined(client):
    id = pool_jobs.add.enqueue(1)
    client.hdel(keys.job_key(id), "data")
    Claims(client, "w1", Strict(["default"])).finish_and_claim("c1", [], 1)
    assert types(client, id) == ["enqueued", "quarantined"]
    assert emitted(client, id)[1][3:4] == ["w1"]
    assert emitted(client, id)[1][5] == {"reason": "the record holds no data"}


def test_a_repeated_call_emits_nothing_twice(client):
    id = pool_jobs.add.options(job_id="chosen").enqueue(1)
    assert pool_jobs.add.options(job_id="chosen").enqueue(1) == id
    claims = Claims(client, "w1", Strict(["default"]))
    (job,) = claims.finish_and_claim("c1", [], 1).jobs
    outcome = finished(job, b"2", 1.0, 2.0)
    for _ in range(2):
        claims.finish_and_claim("c2", [outcome], 1)
    assert types(client, id) == ["enqueued", "finished"]


def test_a_stream_of_another_type_is_moved_aside_and_replaced(client):
    client.set("pm:events", "no stream")
    id = pool_jobs.add.enqueue(1)
    assert types(client, id) == ["enqueued"]
    assert client.get("pm:broken:pm:events") == b"no stream"


def test_a_claim_of_many_takes_few_entries_and_the_stream_is_capped(client):
    pool_jobs.noop.enqueue_many([()] * 640)
    assert client.xlen("pm:events") <= 22
    assert len(emitted(client)) == 640
    client.delete("pm:events")
    for number in range(10_300):
        client.xadd("pm:events", {"e": b"\x90"}, id=f"{number + 1}-0")
    pool_jobs.noop.enqueue()
    assert client.xlen("pm:events") <= 10_100


def test_the_stream_and_the_quarantine_keep_a_bounded_number(client):
    with client.pipeline() as pipeline:
        for _ in range(10_300):
            pipeline.xadd("pm:events", {"e": "x"})
        pipeline.rpush(keys.QUARANTINE, *["{}"] * 10_300)
        pipeline.execute()
    id = pool_jobs.add.enqueue(1)
    client.hdel(keys.job_key(id), "data")
    assert Claims(client, "w1", Strict(["default"])).finish_and_claim("c1", [], 1).jobs == []
    assert 10_000 <= client.xlen("pm:events") < 10_200
    assert client.llen(keys.QUARANTINE) == 10_000
    assert id.encode() in client.lindex(keys.QUARANTINE, -1)


def test_a_quarantine_of_another_type_stops_no_claim(client):
    client.set(keys.QUARANTINE, "no list")
    id, innocent = pool_jobs.add.enqueue(1), pool_jobs.add.enqueue(2)
    client.hdel(keys.job_key(id), "data")
    (job,) = Claims(client, "w1", Strict(["default"])).finish_and_claim("c1", [], 2).jobs
    assert job.id == innocent
    assert types(client, id) == ["enqueued", "quarantined"]
