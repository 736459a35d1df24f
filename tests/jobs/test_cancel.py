"""Canceling one job, and canceling many: one rule, whatever the jobs are about."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.errors import Error
from packmule.jobs import control, keys, reader
from packmule.jobs.control import NotCanceled
from packmule.jobs.flow import Flow
from packmule.jobs.reader import NoSuchJob
from packmule.tests.jobs import sample_jobs
from packmule.tests.jobs.ending import end
from packmule.tests.worker import limited_jobs
from packmule.worker.process import outcome
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed
from packmule.worker.scoreboard import RunningJob
from packmule.worker.started import Marks

pytestmark = pytest.mark.usefixtures("produce")

NOOP = "packmule.tests.jobs.sample_jobs.noop"


def one(client: Redis, id: str, timeout: float = 0.0) -> Error | None:
    """The error of a cancel of one job; None if it is canceled or stopped."""
    try:
        status = control.cancel(client, id, timeout)
    except (NoSuchJob, NotCanceled) as error:
        return error
    return None if status in ("canceled", "stopped") else NotCanceled(status)


def each(client: Redis, id: str, timeout: float = 0.0) -> Error | None:
    """That of a cancel of two jobs, of which the other doesn't exist."""
    error, other, again = control.cancel_each(client, [id, "nope", id], timeout)
    assert (type(other), again) == (NoSuchJob, error)
    return error


both = pytest.mark.parametrize("cancel", [one, each])
Cancel = Callable[..., Error | None]


def claim(claims: Claims) -> Claimed:
    (job,) = claims.finish_and_claim(claims.next_id(), [], 1).jobs
    return job


def mark(claims: Claims, job: Claimed) -> None:
    """Its worker says that it runs."""
    Marks(claims.client).mark("w1", [RunningJob(0, job.id, job.execution, 0.0, float("inf"), False)], 1.0)


@both
@pytest.mark.parametrize("state", ["queued", "scheduled", "behind", "with priority", "of a flow"])
def test_a_job_that_waits_is_canceled_and_again_without_harm(
    client: Redis, claims: Claims, cancel: Cancel, state: str
) -> None:
    match state:
        case "behind":
            id = [limited_jobs.two_a_tenant.enqueue("x", "y", "z") for _ in range(2)][1]
        case "of a flow":
            with Flow() as flow:
                first = flow.add(sample_jobs.add.prepare(1))
                id = flow.add(sample_jobs.noop.prepare(), after=first)
        case _:
            options = {"scheduled": {"delay": 60}, "with priority": {"priority": 50}}.get(state, {})
            id = sample_jobs.noop.options(**options).enqueue()
    for _ in range(2):
        assert cancel(client, id) is None
    assert reader.read(client, id).status == "canceled"
    assert id not in end(claims)


@both
def test_a_job_that_waits_for_others_of_rqs_is_canceled_by_rqs_rule(client: Redis, cancel: Cancel) -> None:
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    first = queue.enqueue(NOOP)
    second = queue.enqueue(NOOP, depends_on=first)
    assert cancel(client, second.id) is None
    assert Job.fetch(second.id, client, JSONSerializer).get_status() == "canceled"
    assert client.zrange("rq:deferred:default", 0, -1) == []


@both
def test_what_rq_cannot_read_is_refused(client: Redis, cancel: Cancel) -> None:
    id = sample_jobs.noop.enqueue()
    client.hset(keys.job_key(id), mapping={"status": "deferred", "created_at": "yesterday"})
    assert "its record is corrupt" in str(cancel(client, id))


@both
@pytest.mark.parametrize("how", ["finished", "failed"])
def test_a_job_that_has_ended_is_left_alone(client: Redis, claims: Claims, cancel: Cancel, how: str) -> None:
    id = sample_jobs.noop.enqueue()
    end(claims, "" if how == "finished" else "ValueError: no")
    assert how in str(cancel(client, id))
    assert reader.read(client, id).status == how


@both
def test_a_job_that_a_worker_is_about_to_start_is_waited_for(
    client: Redis, claims: Claims, cancel: Cancel
) -> None:
    id = sample_jobs.noop.enqueue()
    claim(claims)
    assert "still claimed after 0 s" in str(cancel(client, id))
    assert reader.read(client, id).status == "queued"


@both
def test_a_job_that_runs_is_stopped_by_its_worker(
    client: Redis, claims: Claims, cancel: Cancel, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = sample_jobs.noop.enqueue()
    job = claim(claims)
    mark(claims, job)
    asked = []

    def stop(client: Redis, worker: str, command: str, job_id: str) -> None:
        asked.append((worker, command, job_id))
        ended = outcome.failed(job, "Stopped: the job was canceled", 1.0, 2.0, status="stopped")
        claims.finish_and_claim(claims.next_id(), [ended], 0)

    monkeypatch.setattr(control, "send_command", stop)
    assert cancel(client, id, timeout=60.0) is None
    assert asked == [("w1", "stop-job", id)]
    assert reader.read(client, id).status == "stopped"


@both
def test_a_job_whose_worker_says_nothing_is_named_in_the_end(
    client: Redis, claims: Claims, cancel: Cancel
) -> None:
    id = sample_jobs.noop.enqueue()
    mark(claims, claim(claims))
    client.hdel(keys.job_key(id), "worker_name")
    error = cancel(client, id, timeout=0.1)
    assert f"job {id} is still started after 100 ms: is its worker alive?" in str(error)


def test_a_job_that_was_stopped_before_keeps_its_status(client: Redis, claims: Claims) -> None:
    id = sample_jobs.noop.enqueue()
    client.hset(keys.job_key(id), "status", "stopped")
    assert control.cancel(client, id) == "stopped"
    (error,) = control.cancel_each(client, [id])
    assert "is stopped: it has ended" in str(error)
