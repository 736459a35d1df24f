"""Jobs with an RQ callback, a webhook or a repeat keep to the limits and bounds that all jobs have."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue, Repeat, Webhook
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.jobs import registry
from packmule.jobs.client import Client
from packmule.tests.worker.pools import pool, until
from packmule.worker import Worker
from packmule.worker.options import WorkerOptions

HERE = "packmule.tests.worker.callback_jobs"
HAS: dict[str, dict[str, Any]] = {
    "callbacks": {"on_success": Callback(f"{HERE}.succeeded"), "on_failure": Callback(f"{HERE}.failed")},
    "a webhook": {"webhooks": [Webhook("http://127.0.0.1:1/", "failed")]},
    "a repeat": {"repeat": Repeat(times=1, interval=60)},
}


@pytest.fixture
def queue(client: Redis) -> Queue:
    Client(client).make_default()
    registry.load([HERE])
    return Queue("default", connection=client, serializer=JSONSerializer)


@pytest.fixture(params=HAS)
def has(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What RQ's options give a job."""
    return HAS[request.param]


def enqueue(queue: Queue, has: dict[str, Any], name: str, *args: object, **options: Any) -> Job:
    return queue.enqueue(f"{HERE}.{name}", args=args, **has, **options)


def notes(client: Redis) -> list[str]:
    """What the jobs and their callbacks noted, in order."""
    return [text.decode() for text in client.lrange("calls", 0, -1)]


def notes_per_job(has: dict[str, Any]) -> int:
    """One of its body, and one of its callback."""
    return 2 if "on_success" in has else 1


def work(client: Redis, **options: Any) -> None:
    Worker(["default"], name="mule", connection=client, options=WorkerOptions(**options)).work(burst=True)


def reason(job: Job) -> str:
    """Why it failed."""
    assert job.get_status(refresh=True) == "failed"
    return job.latest_result().exc_string


def test_a_singleton_has_a_fence_and_gives_its_lock_back(queue, client, has):
    jobs = [enqueue(queue, has, "single") for _ in range(3)]
    work(client)
    fences = {job.return_value(refresh=True) for job in jobs}
    assert len(fences - {None}) == 3
    assert len(notes(client)) == 3 * notes_per_job(has)
    assert client.keys("pm:holders:*") == []


def test_jobs_run_beside_no_more_than_their_limit(queue, client, has):
    for _ in range(6):
        enqueue(queue, has, "limited")
    work(client, threads=3)
    assert {note for note in notes(client) if note.startswith("body")} == {"body 1"}
    assert len(notes(client)) == 6 * notes_per_job(has)
    assert client.keys("pm:holders:*") == []


def test_an_isolated_job_has_a_process_of_its_own_with_bounded_memory(queue, client, has):
    small, large = (enqueue(queue, has, "isolated", size) for size in (10, 500 * 1024 * 1024))
    work(client)
    assert small.return_value(refresh=True) == 10
    assert "MemoryError" in reason(large)


def test_an_isolated_job_has_bounded_processor_time(queue, client, has):
    job = enqueue(queue, has, "busy", job_timeout=120)
    work(client)
    assert "more processor time than its max_cpu allows" in reason(job)


def test_a_result_is_bounded(queue, client, has):
    job = enqueue(queue, has, "large")
    work(client)
    assert "raise PACKMULE_MAX_RESULT_BYTES" in reason(job)


def test_a_process_is_killed_soon_after_the_timeout_that_its_job_ignores(queue, server, client):
    jobs = [enqueue(queue, has, "stubborn", job_timeout=1) for has in HAS.values()]
    with pool(server, len(jobs)):
        until(lambda: all(job.get_status(refresh=True) == "failed" for job in jobs))
    assert ["its timeout of 1 s" in reason(job) for job in jobs] == [True] * len(jobs)
