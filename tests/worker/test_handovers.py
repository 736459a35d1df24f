"""Two owners of one job: whoever is late changes nothing, and no job has two places."""

from __future__ import annotations

import time

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.jobs import control, keys, reader, registry
from packmule.jobs.client import Client
from packmule.jobs.control import NotRetried
from packmule.jobs.queues import purge
from packmule.tests.pace import skewed
from packmule.tests.worker import limited_jobs, pool_jobs
from packmule.tests.worker.test_callbacks import HERE, Desk, failed, finished, is_settled, with_callbacks
from packmule.worker.process import outcome
from packmule.worker.process.call import Call
from packmule.worker.process.callbacks import Callbacks
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.lookup import Registered
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Performer
from packmule.worker.rescue import rescue
from packmule.worker.scoreboard import MAIN, RunningJob
from packmule.worker.started import Marks

LATE = ["settled", "returned", "died", "vanished"]


@pytest.fixture
def queue(client: Redis) -> Queue:
    Client(client, queues=("default", "low")).make_default()
    registry.load([HERE])
    return Queue("default", connection=client, serializer=JSONSerializer)


def called_twice(queue: Queue) -> tuple[Job, Desk, Claimed]:
    """A failed job that RQ's code enqueues again while a worker calls its callback: job, worker, callback."""
    job = with_callbacks(queue, "body")
    desk = Desk(queue.connection, "a")
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([failed(claimed)], want=0)
    Job.fetch(job.id, queue.connection, JSONSerializer).requeue()
    return job, desk, due


def end_late(desk: Desk, due: Claimed, end: str) -> None:
    if end in ("settled", "returned"):
        desk.exchange([getattr(outcome, end)(due)], want=0)
    else:
        rescue(desk.client, desk.name, end, "why", [due.execution] if end == "died" else [])


@pytest.mark.parametrize("end", LATE)
def test_the_end_of_an_older_callback_leaves_a_newer_one_alone(queue, client, end):
    job, old, due = called_twice(queue)
    new, other = Desk(client, "b"), Desk(client, "c")
    (body,) = new.exchange()
    (again,) = new.exchange([failed(body)], want=0)
    end_late(old, due, end)
    assert queue.job_ids == []
    assert client.hexists(job.key, "callback_due")
    new.exchange([outcome.returned(again)], want=0)
    assert queue.job_ids == [job.id]
    (last,) = other.exchange()
    assert last.due.kind == "failure"
    other.exchange([outcome.settled(last)], want=0)
    assert is_settled(client, job)


@pytest.mark.parametrize("end", LATE)
def test_the_end_of_an_older_callback_leaves_a_running_job_alone(queue, client, end):
    job, old, due = called_twice(queue)
    new = Desk(client, "b")
    (body,) = new.exchange()
    Marks(client).mark("b", [RunningJob(MAIN, job.id, body.execution, 0.0, float("inf"), False)], 1.0)
    end_late(old, due, end)
    assert queue.job_ids == []
    assert reader.read(client, job.id).status == "started"
    assert client.exists(f"rq:executions:{job.id}") == 1
    new.exchange([finished(body)], want=0)
    assert job.get_status(refresh=True) == "finished"


@pytest.mark.parametrize("end", LATE)
def test_the_end_of_an_older_callback_doubles_no_job_that_waits_for_its_next_attempt(queue, client, end):
    job, old, due = called_twice(queue)
    new = Desk(client, "b")
    (body,) = new.exchange()
    client.hset(job.key, mapping={"retries_left": 1, "retry_intervals": "[0]"})
    new.exchange([outcome.returned(body)], want=0)
    (body,) = new.exchange()
    (again,) = new.exchange([failed(body)], want=0)
    new.exchange([outcome.settled(again)], want=0)
    assert queue.job_ids == [job.id]
    end_late(old, due, end)
    assert queue.job_ids == [job.id]


def test_a_pool_marks_no_job_as_started_for_its_callback(queue, client):
    job, old, due = called_twice(queue)
    Marks(client).mark(old.name, [RunningJob(MAIN, job.id, due.execution, 0.0, float("inf"), False)], 1.0)
    assert job.get_status(refresh=True) == "queued"


def test_a_call_sent_again_brings_no_body_for_a_callback(queue, client):
    job, old, _ = called_twice(queue)
    assert old.again() == []
    assert queue.job_ids == [job.id]
    assert not client.hexists(keys.claims_key("a"), job.id)


def test_a_call_sent_again_takes_no_callback_from_another_worker(queue, client):
    job, old, _ = called_twice(queue)
    new = Desk(client, "b")
    (body,) = new.exchange()
    (due,) = new.exchange([failed(body)], want=0)
    assert old.again() == []
    assert not client.hexists(keys.claims_key("a"), job.id)
    new.exchange([outcome.settled(due)], want=0)
    assert is_settled(client, job)


# Retries


def test_a_job_that_rqs_code_canceled_is_not_retried_while_only_its_claim_tells_that_it_runs(queue, client):
    id = pool_jobs.add.enqueue(1)
    desk = Desk(client, "w1")
    (job,) = desk.exchange()
    Job.fetch(id, client, JSONSerializer).cancel()
    with pytest.raises(NotRetried, match="worker w1 still runs it"):
        control.retry(client, id)
    desk.exchange([finished(job)], want=0)
    control.retry(client, id)
    assert queue.job_ids == [id]


def moved(client: Redis) -> list[str]:
    """A blocking move of the worker w1 brings a job; the claim behind it is under way."""
    Desk(client, "w1").exchange(want=0)
    client.lmove(keys.queue_key("default"), keys.waiting_key("w1"), "LEFT", "RIGHT")
    return waiting(client)


def waiting(client: Redis) -> list[str]:
    return [id.decode() for id in client.lrange(keys.waiting_key("w1"), 0, -1)]


def test_a_canceled_job_that_a_blocking_move_has_brought_runs_once_if_it_is_retried(queue, client):
    id = pool_jobs.add.enqueue(1)
    assert moved(client) == [id]
    Job.fetch(id, client, JSONSerializer).cancel()
    control.retry(client, id)
    assert waiting(client) + queue.job_ids == [id]
    assert [job.id for name in ("w1", "w2") for job in Desk(client, name).exchange()] == [id]


def test_a_replaced_singleton_that_a_blocking_move_has_brought_runs_once_if_it_is_retried(queue, client):
    first = limited_jobs.replaces.enqueue("p", "1")
    assert moved(client) == [first]
    second = limited_jobs.replaces.enqueue("p", "2")
    assert reader.read(client, first).status == "canceled"
    control.cancel(client, second)
    control.retry(client, first)
    assert waiting(client) + queue.job_ids == [first]
    assert [job.id for name in ("w1", "w2") for job in Desk(client, name).exchange()] == [first]


def test_an_id_that_a_blocking_move_has_brought_runs_once_if_it_is_canceled_and_enqueued_anew(queue, client):
    once = pool_jobs.add.options(job_id="once")
    once.enqueue(1)
    assert moved(client) == ["once"]
    Job.fetch("once", client, JSONSerializer).cancel()
    once.enqueue(5)
    assert waiting(client) + queue.job_ids == ["once"]


def test_a_retry_leaves_no_callback_in_a_waiting_list(queue, client):
    job = with_callbacks(queue, "body")
    desk = Desk(client)
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([failed(claimed)], want=0)
    desk.exchange([outcome.returned(due)], want=0)
    assert moved(client) == [job.id]
    control.retry(client, job.id)
    assert waiting(client) + queue.job_ids == [job.id]


def test_a_callback_that_a_blocking_move_has_brought_to_a_lost_worker_goes_back(queue, client):
    job = with_callbacks(queue, "body")
    desk = Desk(client, "w1")
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([failed(claimed)], want=0)
    desk.exchange([outcome.returned(due)], want=0)
    assert moved(client) == [job.id]
    client.rpush(keys.waiting_key("w1"), "gone")
    rescue(client, "w1", "vanished")
    assert queue.job_ids == [job.id]
    assert job.get_status(refresh=True) == "failed"
    assert client.exists(keys.job_key("gone")) == 0
    (again,) = Desk(client, "w2").exchange()
    assert again.due.kind == "failure"


# Callbacks that a worker does not know


def tried(client: Redis, name: str = "w1", unknown_for: float = 600.0) -> Outcome | Call | None:
    """What a worker makes of the next callback, after it has acknowledged that; None if it gets none."""
    desk = Desk(client, name)
    desk.number = time.monotonic_ns()
    (job,) = desk.exchange() or (None,)
    call_for = Callbacks(client, Registered()).call_for
    performer = Performer(lambda *_: None, lambda *_: None, call_back=call_for, unknown_for=unknown_for)
    found = performer.prepare(job) if job else None
    if isinstance(found, Outcome):
        desk.exchange([found], want=0)
    return found


def unknown_callback(queue: Queue, **options: object) -> Job:
    """A failed job whose callback waits, of a function that only newer workers know."""
    job = with_callbacks(queue, "body", **options)
    desk = Desk(queue.connection)
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([failed(claimed)], want=0)
    queue.connection.hset(job.key, "failure_callback_name", "shop.tomorrow")
    desk.exchange([outcome.returned(due)], want=0)
    return job


def fall_due(client: Redis) -> None:
    for name in client.zrange("pm:due", 0, -1):
        client.zadd("pm:due", {name: 1})


def test_an_unknown_callback_goes_back_and_a_newer_worker_calls_it(queue, client, caplog, monkeypatch):
    monkeypatch.setattr(outcome, "UNKNOWN_BASE", 30.0)
    job = unknown_callback(queue)
    assert tried(client).status == "due"
    assert tried(client) is None
    assert 0 < client.zrange("pm:due", 0, 0, withscores=True)[0][1] - time.time() <= 30
    fall_due(client)
    assert tried(client).status == "due"
    assert caplog.text.count("its failure callback goes back: shop.tomorrow is not") == 1
    fall_due(client)
    client.hset(job.key, "failure_callback_name", f"{HERE}.failed")  # as a worker sees it that knows it
    found = tried(client, "new")
    assert isinstance(found, Call)
    Desk(client, "new").exchange([outcome.settled(found.job)], want=0)
    assert job.get_status(refresh=True) == "failed"
    assert not client.hexists(job.key, "unknown_since")
    assert is_settled(client, job)
    assert client.keys("pm:group*") == client.keys("pm:due") == []


def test_a_callback_that_nobody_knows_is_given_up_after_a_while(queue, client, caplog):
    job = unknown_callback(queue)
    client.hset(job.key, "unknown_since", time.time() - 601)
    assert tried(client).status == "settled"
    assert "shop.tomorrow is not a registered job" in caplog.text
    assert is_settled(client, job)
    assert tried(client) is None


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_worker_whose_clock_is_wrong_gives_an_unknown_callback_the_same_time(queue, client, seconds):
    job = unknown_callback(queue)
    with skewed(seconds):
        assert tried(client).status == "due"
    assert float(client.hget(job.key, "unknown_since")) == pytest.approx(time.time(), abs=60)
    for age, status in ((300, "due"), (601, "settled")):
        fall_due(client)
        client.hset(job.key, "unknown_since", time.time() - age)
        with skewed(seconds):
            assert tried(client).status == status


def test_a_callback_has_a_time_of_its_own_though_its_job_was_unknown_for_long(queue, client):
    job = with_callbacks(queue, "body")
    client.hset(job.key, "unknown_since", time.time() - 599)
    desk = Desk(client)
    (claimed,) = desk.exchange()
    assert claimed.unknown_since is not None
    (due,) = desk.exchange([finished(claimed)], want=0)
    assert (due.id, due.unknown_since) == (job.id, None)


@pytest.mark.parametrize("again", ["retry", "requeue"])
@pytest.mark.parametrize("is_due", [False, True])
def test_a_job_that_runs_again_while_its_callback_is_unknown_runs_once(queue, client, again, is_due):
    job = unknown_callback(queue)
    client.hset(job.key, "retries_left", 0)
    assert tried(client).status == "due"
    if again == "retry":
        control.retry(client, job.id)
    else:
        Job.fetch(job.id, client, JSONSerializer).requeue()
    if is_due:
        fall_due(client)
        client.hset(job.key, "failure_callback_name", f"{HERE}.failed")
    desk = Desk(client, "b")
    (body,) = desk.exchange()
    assert body.due is None
    fall_due(client)
    assert Desk(client, "c").exchange() == []
    (due,) = desk.exchange([failed(body)], want=0)
    desk.exchange([outcome.settled(due)], want=0)
    assert Desk(client, "c").exchange() == []
    assert is_settled(client, job)


@pytest.mark.parametrize("webhooks", ["", "[]"])
def test_a_purge_gives_up_a_callback_that_waits_for_a_worker_that_knows_it(queue, client, webhooks):
    job = unknown_callback(queue)
    client.hset(job.key, "webhooks", webhooks)
    assert tried(client).status == "due"
    assert purge(client, "default") == 0
    assert is_settled(client, job)
    assert client.keys("pm:group*") == []
