"""Jobs that wait for others by the option `after`."""

from __future__ import annotations

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.jobs import control, keys, reader
from packmule.jobs.batch import Batch
from packmule.jobs.options import InvalidOption
from packmule.jobs.reader import NoSuchJob
from packmule.tests.worker import batch_jobs, flow_jobs, limited_jobs
from packmule.worker import Worker

pytestmark = pytest.mark.usefixtures("produce")


def work(client: Redis) -> None:
    Worker(["high", "default", "low"], connection=client).work(burst=True)


def test_a_job_waits_until_all_others_have_finished(client):
    first = flow_jobs.add.enqueue(1)
    second = flow_jobs.add.options(after=first).enqueue(2)
    third = flow_jobs.add.options(after=[first, second], expires=60, at_front=True, priority=5).enqueue(3)
    assert [each.status for each in (second, third)] == ["deferred"] * 2
    assert sorted(Job.fetch(third, client, JSONSerializer).dependency_ids) == sorted([first, second])
    assert client.zcard("rq:deferred:default") == 2
    work(client)
    assert [each.status for each in (second, third)] == ["finished"] * 2
    assert client.zcard("rq:deferred:default") == 0


def test_a_job_after_one_that_has_finished_is_queued_at_once(client):
    first = flow_jobs.add.enqueue(1)
    work(client)
    handles = flow_jobs.add.options(after=first).enqueue_many([(n,) for n in range(700)])
    assert client.llen("rq:queue:default") == 700
    work(client)
    assert {reader.read(client, id).status for id in handles} == {"finished"}


def test_a_job_after_one_that_is_not_there_is_not_enqueued(client):
    first = flow_jobs.add.enqueue(1)
    with pytest.raises(NoSuchJob, match="no job has the id nobody"):
        flow_jobs.add.options(after=[first, "nobody"]).enqueue(1)
    assert len(client.keys("rq:job:*")) == 1


def test_a_job_after_one_that_failed_waits_for_its_retry(client, tmp_path):
    gate = tmp_path / "gate"
    first = flow_jobs.fail.enqueue(str(gate))
    second = flow_jobs.add.options(after=first).enqueue(1)
    work(client)
    third = flow_jobs.add.options(after=first).enqueue(1)
    work(client)
    assert (second.status, third.status) == ("deferred", "deferred")
    gate.touch()
    control.retry(client, first)
    work(client)
    assert (second.status, third.status) == ("finished", "finished")


def test_a_job_of_rqs_can_be_in_front_and_behind(client):
    queue = Queue("default", client, serializer=JSONSerializer)
    theirs = queue.enqueue("packmule.tests.worker.flow_jobs.add", 1)
    ours = flow_jobs.add.options(after=theirs.id).enqueue(2)
    last = queue.enqueue("packmule.tests.worker.flow_jobs.add", 3, depends_on=ours)
    work(client)
    assert [reader.read(client, id).status for id in (ours, last.id)] == ["finished"] * 2


def test_kinds_of_jobs_can_wait_for_others(client, tmp_path):
    with Batch.create() as batch:
        first = flow_jobs.add.enqueue(1)
        after = {"after": first}
        ids = [
            flow_jobs.single.options(**after).enqueue(1),
            limited_jobs.two_a_tenant.options(**after).enqueue(str(tmp_path / "notes"), "y", "z"),
            flow_jobs.isolated.options(**after).enqueue(1),
            batch_jobs.double.options(**after, batch=batch.id, job_id="chosen").enqueue(1),
            batch_jobs.double.options(**after, batch=batch.id, job_id="chosen").enqueue(1),
            batch_jobs.double.options(**after, unique=True).enqueue(7),
        ]
    assert batch_jobs.double.options(unique=True).enqueue(7) == ids[-1]
    assert batch.state().counts.total == 1
    work(client)
    assert {reader.read(client, id).status for id in ids} == {"finished"}
    assert batch.state().ended is not None


def test_a_job_that_waits_for_others_can_be_canceled(client):
    first = flow_jobs.add.enqueue(1)
    second = flow_jobs.add.options(after=first).enqueue(1)
    assert control.cancel(client, second) == "canceled"
    work(client)
    assert second.status == "canceled"
    assert client.zcard(keys.registry_key("deferred", "default")) == 0


@pytest.mark.parametrize(
    "options",
    [{"after": 3}, {"after": []}, {"after": ["a", "a"]}, {"after": [""]}, {"after": "a", "delay": 1},
     {"after": [str(n) for n in range(101)]}, {"after": "\ud800"}],
)  # fmt: skip
def test_what_can_be_no_job_in_front_is_refused(client, options):
    with pytest.raises(InvalidOption):
        flow_jobs.add.options(**options).enqueue(1)
    assert client.keys("*") == []
