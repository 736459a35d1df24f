"""RQ's world goes on: RQ enqueues and we perform, we perform and RQ reads."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest
from redis import Redis
from rq import Callback, Queue, Repeat, Retry, SimpleWorker
from rq.job import Job
from rq.registry import FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from packmule.jobs import keys, reader, registry
from packmule.jobs.client import Client
from packmule.scheduler.maintenance.promote import promote
from packmule.tests.worker import pool_jobs
from packmule.worker import Worker
from packmule.worker.dependents import FORGOTTEN_SECONDS, Dependents
from packmule.worker.order import Strict
from packmule.worker.process import performer
from packmule.worker.process.claim import Claims
from packmule.worker.scoreboard import RunningJob
from packmule.worker.started import Marks


@pytest.fixture
def queue(client: Redis) -> Queue:
    Client(client).make_default()
    registry.load([], ["packmule.tests.worker.pool_jobs.callback"])
    return Queue("default", connection=client, serializer=JSONSerializer)


@pytest.fixture
def work(client: Redis):
    """Perform all that is queued, in this process."""
    alarm, term, interrupt = (
        signal.getsignal(each) for each in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT)
    )
    yield lambda: Worker(["default"], connection=client).work(burst=True)
    signal.signal(signal.SIGALRM, alarm)
    signal.signal(signal.SIGTERM, term)
    signal.signal(signal.SIGINT, interrupt)


def test_a_job_enqueued_by_rq_is_performed_and_rq_reads_its_end(queue, work, client):
    job = queue.enqueue("packmule.tests.worker.pool_jobs.add", 2, b=3)
    assert work()
    job.refresh()
    assert (job.get_status(), job.return_value()) == ("finished", 5)
    assert job.worker_name
    assert job.started_at <= job.ended_at
    result = job.latest_result()
    assert result.type is Result.Type.SUCCESSFUL
    assert result.execution_started_at <= result.execution_ended_at
    assert job.id in FinishedJobRegistry(queue=queue)
    assert 0 < client.ttl(job.key) <= 500
    assert StartedJobRegistry(queue=queue).get_job_ids() == []


def test_a_failure_reads_as_rqs_own(queue, work, client, tmp_path):
    job = queue.enqueue("packmule.tests.worker.pool_jobs.give_up", str(tmp_path / "notes"))
    work()
    job.refresh()
    assert job.get_status() == "failed"
    assert job.latest_result().type is Result.Type.FAILED
    assert "KeyError: 'hopeless'" in job.latest_result().exc_string
    registry_ = FailedJobRegistry(queue=queue)
    assert registry_.get_job_ids() == [job.id]
    registry_.requeue(job.id)
    assert queue.job_ids == [job.id]
    work()
    assert len((tmp_path / "notes").read_text().splitlines()) == 2


def test_rqs_retry_holds_here(queue, work, client, tmp_path):
    at_once = queue.enqueue("packmule.tests.worker.pool_jobs.fail", str(tmp_path / "a"), retry=Retry(max=2))
    later = queue.enqueue(
        "packmule.tests.worker.pool_jobs.fail", str(tmp_path / "b"), retry=Retry(max=1, interval=60)
    )
    work()
    assert len((tmp_path / "a").read_text().splitlines()) == 3
    assert at_once.get_status() == "failed"
    assert later.get_status() == "scheduled"
    assert client.zscore("rq:scheduled:default", later.id) == pytest.approx(time.time() + 60, abs=30)


def test_what_nobody_registered_goes_back_and_fails_in_the_end_with_its_reason(queue, work, client):
    jobs = [
        queue.enqueue(name)
        for name in ("packmule.tests.worker.pool_jobs.not_registered", "os.getcwd", "nowhere.at_all")
    ]
    work()
    for job in jobs:
        assert job.get_status() == "scheduled"
        assert job in ScheduledJobRegistry(queue=queue)
        client.hset(job.key, "unknown_since", time.time() - 3600)
        client.zadd("rq:scheduled:default", {job.id: 1})
    promote(client)
    work()
    for job in jobs:
        assert job.get_status() == "failed"
        assert "is not a registered job: " in job.latest_result().exc_string


def test_a_pickle_fails_with_its_reason(work, client):
    job = Queue("default", connection=client).enqueue("packmule.tests.worker.pool_jobs.add", 1)
    work()
    assert "the payload is a pickle" in Job.fetch(job.id, client).latest_result().exc_string


def test_callbacks_run_if_they_are_registered(queue, work, client):
    job = queue.enqueue(
        "packmule.tests.worker.pool_jobs.add",
        1,
        on_success=Callback("packmule.tests.worker.pool_jobs.callback"),
    )
    refused = queue.enqueue(
        "packmule.tests.worker.pool_jobs.add",
        1,
        on_success=Callback("packmule.tests.worker.pool_jobs.not_registered"),
    )
    client.hset(refused.key, "unknown_since", time.time() - 3600)
    work()
    assert job.get_status() == "finished"
    assert job.return_value() == 2
    assert client.get("called-back") == b"yes"
    assert refused.get_status() == "failed"
    assert "not_registered is not a registered job" in refused.latest_result().exc_string
    assert StartedJobRegistry(queue=queue).get_job_ids() == []


def test_dependents_are_enqueued_when_their_parent_has_ended(queue, work):
    parent = queue.enqueue("packmule.tests.worker.pool_jobs.add", 1)
    child = queue.enqueue("packmule.tests.worker.pool_jobs.add", 2, depends_on=parent)
    assert child.get_status() == "deferred"
    work()
    assert child.get_status() == "finished"


def test_dependents_that_a_dead_worker_left_behind_are_enqueued_by_a_pool(queue, client):
    parent = queue.enqueue("packmule.tests.worker.pool_jobs.add", 1)
    child = queue.enqueue("packmule.tests.worker.pool_jobs.add", 2, depends_on=parent)
    claims = Claims(client, "w1", Strict(["default"]))
    (claimed,) = claims.finish_and_claim("c1", [], 1).jobs
    now = time.time()
    end = performer.finished(claimed, b"2", now, now)
    assert claims.finish_and_claim("c2", [end], 0).parents == [parent.id]
    assert Dependents(client).enqueue_forgotten() == 0  # its worker may be at it
    client.zadd(keys.PARENTS, {parent.id: now - FORGOTTEN_SECONDS - 1})
    assert Dependents(client).enqueue_forgotten() == 1
    assert child.get_status() == "queued"
    assert client.zcard(keys.PARENTS) == 0


def test_repeats_are_scheduled_again(queue, work):
    job = queue.enqueue("packmule.tests.worker.pool_jobs.add", 1, repeat=Repeat(times=2, interval=60))
    work()
    assert job.get_status() == "scheduled"
    assert Job.fetch(job.id, queue.connection, JSONSerializer).repeats_left == 1


def test_a_running_job_is_never_taken_for_abandoned_by_rqs_clean_up(queue, client):
    job = queue.enqueue("packmule.tests.worker.pool_jobs.add", 1)
    (claimed,) = Claims(client, "w1", Strict(["default"])).finish_and_claim("c1", [], 1).jobs
    Marks(client).mark("w1", [RunningJob(0, job.id, claimed.execution, 0.0, float("inf"), False)], 1.0)
    started = StartedJobRegistry(queue=queue)
    started.cleanup(time.time() + timedelta(days=30).total_seconds())
    assert started.get_job_ids() == [job.id]
    assert job.get_status() == "started"


def test_our_worker_is_a_worker_in_rqs_eyes(client):
    assert issubclass(Worker, BaseWorker)
    worker = Worker(["default", "low"], name="mule", connection=client)
    worker.register_birth()
    (found,) = BaseWorker.all(connection=client)
    assert (found.name, found.queue_names(), found.pid) == ("mule", ["default", "low"], os.getpid())
    worker.register_death()
    assert BaseWorker.all(connection=client) == []


def test_rqs_command_line_runs_our_worker(queue, server, client):
    job = queue.enqueue("packmule.tests.worker.pool_jobs.add", 20)
    command = [
        sys.executable,
        "-c",
        "from rq.cli import main; main()",
        "worker",
        "--url",
        server.url,
        "--burst",
    ]
    command += ["--worker-class", "packmule.worker.Worker", "--serializer", "rq.serializers.JSONSerializer"]
    command[2] = "import packmule.tests.worker.pool_jobs; from rq.cli import main; main()"
    done = subprocess.run(command, capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert job.return_value(refresh=True) == 21


def test_rqs_own_worker_performs_what_we_enqueue(queue, client):
    large = pool_jobs.add.enqueue(4, b=5)
    delayed = pool_jobs.add.options(delay=60).enqueue(1)
    assert queue.fetch_job(large).func_name == "packmule.tests.worker.pool_jobs.add"
    assert queue.scheduled_job_registry.get_job_ids() == [delayed]
    signals = {each: signal.getsignal(each) for each in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT)}
    SimpleWorker([queue], connection=client, serializer=JSONSerializer).work(burst=True)
    for each, handler in signals.items():
        signal.signal(each, handler)
    assert reader.read(client, large).result == 9


def test_rq_info_counts_our_jobs(queue, work, server):
    pool_jobs.add.enqueue(1)
    work()
    pool_jobs.add.enqueue(1)
    command = [sys.executable, "-c", "from rq.cli import main; main()", "info", "--raw", "-u", server.url]
    shown = subprocess.run(command, capture_output=True, timeout=100, check=True).stdout.decode()
    (line,) = re.findall(r"^queue (.*)$", shown, re.MULTILINE)
    assert line == "default 1, 0 executing, 1 finished, 0 failed"
