"""RQ's callbacks: each is called once per recorded outcome, and its job keeps all other promises."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue, Repeat, Retry
from rq.command import send_stop_job_command
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer

from packmule.jobs import control, keys, reader, registry, wire
from packmule.jobs.client import Client
from packmule.tests.worker import callback_faults
from packmule.tests.worker.pools import DEADLINE, children_of, pool, until
from packmule.worker import Worker
from packmule.worker.options import WorkerOptions
from packmule.worker.order import Strict
from packmule.worker.process import outcome, performer
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.outcome import Outcome
from packmule.worker.rescue import rescue

HERE = "packmule.tests.worker.callback_jobs"


@pytest.fixture
def queue(client: Redis) -> Queue:
    Client(client).make_default()
    registry.load([HERE])
    return Queue("default", connection=client, serializer=JSONSerializer)


def with_callbacks(queue: Queue, name: str, *args: object, **options: Any) -> Job:
    """A job that has all of RQ's callbacks, unless the options name others."""
    calls = {"on_success": "succeeded", "on_failure": "failed", "on_stopped": "stopped"}
    chosen = {kind: Callback(f"{HERE}.{options.pop(kind, each)}") for kind, each in calls.items()}
    return queue.enqueue(f"{HERE}.{name}", args=args, **chosen, **options)


def calls(client: Redis) -> list[str]:
    return [text.decode() for text in client.lrange("calls", 0, -1)]


def work(client: Redis, **options: Any) -> None:
    Worker(["default"], name="mule", connection=client, options=WorkerOptions(**options)).work(burst=True)


def is_settled(client: Redis, job: Job) -> bool:
    """Whether no callback is due any more, and nothing claims the job."""
    held = [client.hexists(key, job.id) for key in client.scan_iter("pm:claims:*")]
    return not client.hexists(job.key, "callback_due") and not any(held)


class Desk:
    """A worker by hand."""

    def __init__(self, client: Redis, name: str = "w1") -> None:
        self.client = client
        self.name = name
        self.claims = Claims(client, name, Strict(["default"]))
        self.number = 0

    def exchange(self, outcomes: Sequence[Outcome] = (), want: int = 1) -> list[Claimed]:
        self.number += 1
        self.last = self.claims.finish_and_claim(f"{self.name}c{self.number}", outcomes, want)
        return self.last.jobs

    def again(self) -> list[Claimed]:
        return self.claims.finish_and_claim(f"{self.name}c{self.number}", [], 1).jobs


def finished(job: Claimed) -> Outcome:
    return performer.finished(job, b"2", time.time(), time.time())


def failed(job: Claimed) -> Outcome:
    text = "Traceback (most recent call last):\n  File\nKeyError: 'gone'\n"
    return outcome.failed(job, text, time.time(), time.time())


@pytest.mark.parametrize("options", [{}, {"threads": 3}])
def test_callbacks_are_called_with_rqs_arguments_once_the_outcome_is_recorded(queue, client, options):
    job = with_callbacks(queue, "body", 5)
    broken = with_callbacks(queue, "fails")
    waiting = with_callbacks(queue, "waits")
    work(client, **options)
    assert sorted(calls(client)) == [
        *["body"] * 3, "failure KeyError 'no such thing'", "success 5 finished", "success 7 finished",
    ]  # fmt: skip
    assert [each.get_status(refresh=True) for each in (job, broken)] == ["finished", "failed"]
    assert waiting.get_status(refresh=True) == "finished"
    assert 400 < client.ttl(job.key) <= 500
    assert 0 < client.ttl(f"rq:results:{job.id}") <= 500
    assert client.ttl(broken.key) > 500
    assert is_settled(client, job)
    assert is_settled(client, broken)
    assert StartedJobRegistry(queue=queue).get_job_ids() == []


def test_steps_live_as_long_as_the_record_of_a_job_that_calls_back(queue, client, tmp_path):
    registry.load(["packmule.tests.worker.step_jobs"])
    order, path = "packmule.tests.worker.step_jobs.order", str(tmp_path / "notes")
    job = queue.enqueue(order, path, on_success=Callback(f"{HERE}.succeeded"))
    work(client)
    assert is_settled(client, job)
    assert 400 < client.ttl(keys.steps_key(job.id)) <= 500


def test_a_callback_may_be_a_coroutine(queue, client):
    with_callbacks(queue, "body", on_success="succeeded_async")
    work(client)
    assert calls(client) == ["body", "success 1"]


def test_a_result_with_a_ttl_of_zero_lives_until_its_callback_is_done(queue, client):
    job = with_callbacks(queue, "body", 3, result_ttl=0)
    work(client)
    assert calls(client) == ["body", "success 3 finished"]
    assert client.exists(job.key, f"rq:results:{job.id}") == 0


@pytest.mark.parametrize("ttl", [0, 500])
def test_a_finished_job_is_listed_while_its_callback_is_due_if_it_is_kept(queue, client, ttl):
    """If it is not, its id would stay in the list when its record is deleted."""
    job = with_callbacks(queue, "body", result_ttl=ttl)
    desk = Desk(client)
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([finished(claimed)], want=0)
    assert (due.id, job.get_status(refresh=True)) == (job.id, "finished")
    assert client.zcard("rq:finished:default") == bool(ttl)


@pytest.mark.parametrize("verdict", ["stopped", "overran"])
def test_an_empty_text_in_place_of_a_callback_or_of_webhooks_is_none(queue, client, verdict):
    job = queue.enqueue(f"{HERE}.body")
    names = ("success_callback_name", "failure_callback_name", "stopped_callback_name", "webhooks")
    client.hset(job.key, mapping=dict.fromkeys(names, ""))
    (claimed,) = Desk(client).exchange()
    rescue(client, "w1", verdict, "why", [claimed.execution])
    assert is_settled(client, job)
    assert queue.job_ids == []


def test_a_broken_callback_is_logged_and_changes_no_outcome(queue, client, caplog):
    job = with_callbacks(queue, "body", on_success="raises")
    work(client)
    assert calls(client) == ["body", "success"]
    assert job.get_status(refresh=True) == "finished"
    assert "ValueError: a broken callback" in caplog.text
    assert is_settled(client, job)


def test_a_callback_has_its_own_timeout(queue, client, caplog):
    job = queue.enqueue(f"{HERE}.body", on_success=Callback(f"{HERE}.sleeps", timeout=1))
    work(client)
    assert "JobTimeoutException" in caplog.text
    assert job.get_status(refresh=True) == "finished"
    assert is_settled(client, job)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("dies_once", {}, ["body", "body", "success 1 finished"]),
        ("body", {"on_success": "dies_once_after"}, ["body", "success", "success"]),
    ],
)
def test_a_kill_in_the_body_or_in_the_callback_repeats_only_that(
    queue, server, client, name, options, expected
):
    job = with_callbacks(queue, name, **options)
    with pool(server):
        until(lambda: len(calls(client)) == len(expected) and is_settled(client, job))
    assert calls(client) == expected
    assert job.get_status(refresh=True) == "finished"


def test_a_callback_that_keeps_killing_its_process_is_given_up(queue, server, client):
    job = with_callbacks(queue, "body", on_success="dies_always")
    other = with_callbacks(queue, "body", 9)
    with pool(server):
        until(lambda: is_settled(client, job) and is_settled(client, other) and len(calls(client)) >= 6)
    assert sorted(calls(client)) == ["body", "body", "success", "success", "success", "success 9 finished"]
    assert job.get_status(refresh=True) == "finished"
    assert "its callback was given up, since its process died" in client.lindex(keys.QUARANTINE, 0).decode()


def test_a_death_between_outcome_and_callback_leaves_the_callback_alone(queue, client):
    job = with_callbacks(queue, "body")
    desk = Desk(client)
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([finished(claimed)], want=0)
    assert (due.due.step, due.due.kind, due.due.value) == ("callback", "success", b"Mg==")
    assert 600_000 < client.ttl(job.key) < 700_000  # or it would stay if somebody deleted the queue
    assert due.execution != claimed.execution
    assert desk.again() == [due]  # after a lost reply
    rescue(client, "w1", "died", "killed", [due.execution])
    (again,) = Desk(client, "w2").exchange()
    assert (again.id, again.due.kind) == (job.id, "success")
    assert job.get_status(refresh=True) == "finished"
    rescue(client, "w2", "vanished")
    work(client)
    assert calls(client) == ["success 2 finished"]
    assert is_settled(client, job)


def test_a_frozen_worker_that_thaws_settles_nothing(queue, client):
    job = with_callbacks(queue, "body", result_ttl=0)
    frozen, other = Desk(client, "w1"), Desk(client, "w2")
    (claimed,) = frozen.exchange()
    (due,) = frozen.exchange([finished(claimed)], want=0)
    client.zadd(keys.LEASES, {"w1": 1})
    rescue(client, "w1", "vanished", scope="expired")
    (taken,) = other.exchange()
    frozen.exchange([outcome.settled(due)], want=0)
    assert frozen.last.stale == [job.id]
    assert client.hexists(job.key, "callback_due")
    other.exchange([outcome.settled(taken)], want=0)
    assert client.exists(job.key) == 0


def test_a_draining_worker_leaves_a_callback_to_another(queue, client):
    job = with_callbacks(queue, "body")
    desk = Desk(client)
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([finished(claimed)], want=0)
    assert desk.exchange([outcome.returned(due)], want=0) == []
    assert (queue.job_ids, job.get_status(refresh=True)) == ([job.id], "finished")
    work(client)
    assert calls(client) == ["success 2 finished"]


def test_a_failed_attempt_calls_back_before_it_runs_again(queue, client):
    job = with_callbacks(queue, "fails", retry=Retry(max=1))
    later = with_callbacks(queue, "fails", retry=Retry(max=1, interval=60))
    desk = Desk(client)
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([failed(claimed)], want=0)
    assert (due.due.kind, job.get_status(refresh=True)) == ("failure", "scheduled")
    (claimed,) = desk.exchange([outcome.settled(due)])
    assert (claimed.id, claimed.due) == (
        later.id,
        None,
    )  # for the first is behind it now, without an interval
    assert job.get_status(refresh=True) == "queued"
    (due,) = desk.exchange([failed(claimed)], want=0)
    assert client.zcard("rq:scheduled:default") == 0
    desk.exchange([outcome.settled(due)], want=0)
    assert client.zscore("rq:scheduled:default", later.id) == pytest.approx(time.time() + 60, abs=20)
    work(client)
    assert calls(client) == ["body", "failure KeyError 'no such thing'"]
    assert job.get_status(refresh=True) == "failed"


def test_an_attempt_whose_process_was_killed_calls_back_before_it_runs_again(queue, client):
    job = with_callbacks(queue, "body", retry=Retry(max=1, interval=60))
    (claimed,) = Desk(client).exchange()
    rescue(client, "w1", "overran", "too long", [claimed.execution])
    assert client.zcard("rq:scheduled:default") == 0
    work(client)
    assert calls(client) == ["failure RuntimeError too long"]
    assert job.get_status(refresh=True) == "scheduled"
    assert client.zscore("rq:scheduled:default", job.id) > time.time() + 50


@pytest.mark.parametrize("at_front", [True, False])
def test_a_job_runs_again_after_its_callback_at_the_end_that_it_asked_for(queue, client, at_front):
    job = with_callbacks(queue, "fails", retry=Retry(max=1))
    client.hset(job.key, "enqueue_at_front_on_retry", int(at_front))
    desk = Desk(client)
    (claimed,) = desk.exchange()
    other = queue.enqueue(f"{HERE}.body")
    (due,) = desk.exchange([failed(claimed)], want=0)
    assert desk.exchange([outcome.settled(due)], want=0) == []
    assert queue.job_ids == ([job.id, other.id] if at_front else [other.id, job.id])


@pytest.mark.parametrize("has_callback", [True, False])
def test_the_scheduler_hears_of_a_retry_that_is_due_soon_whatever_lies_there(queue, client, has_callback):
    job = with_callbacks(queue, "fails") if has_callback else queue.enqueue(f"{HERE}.fails")
    client.hset(job.key, mapping={"retries_left": 1, "retry_intervals": "[0.5]"})
    desk = Desk(client)
    (claimed,) = desk.exchange()
    client.set("rq:scheduled:default", "in the way")
    with client.pubsub() as leader:
        leader.subscribe(keys.SCHEDULER)
        until(leader.get_message)
        for due in desk.exchange([failed(claimed)], want=0):
            desk.exchange([outcome.settled(due)], want=0)
        message = leader.get_message(timeout=DEADLINE)
    assert message
    assert 0 <= float(message["data"]) <= 0.5
    assert client.zrange("rq:scheduled:default", 0, -1) == [job.id.encode()]


def test_a_worker_looks_again_when_a_callback_that_it_does_not_know_is_due(queue, client):
    with_callbacks(queue, "fails")
    desk = Desk(client)
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([failed(claimed)], want=0)
    unknown = outcome.unknown(due, KeyError("unknown"), time.time(), 600)
    assert desk.exchange([unknown]) == []
    assert 0 < desk.last.next_due <= outcome.UNKNOWN_CAP


def test_a_failed_job_that_is_not_kept_stays_readable_after_its_callback(queue, client):
    job = with_callbacks(queue, "fails", failure_ttl=0)
    desk = Desk(client)
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([failed(claimed)], want=0)
    client.delete(f"pm:gone:{job.id}")  # which expires while a callback takes long
    desk.exchange([outcome.settled(due)], want=0)
    assert job.get_status(refresh=True) == "failed"
    assert 0 < client.ttl(f"pm:gone:{job.id}") <= 60


def test_a_job_that_is_kept_for_ever_stays_after_its_callback(queue, client):
    job = with_callbacks(queue, "body", result_ttl=-1)
    work(client)
    assert calls(client) == ["body", "success 1 finished"]
    assert client.ttl(job.key) == client.ttl(f"rq:results:{job.id}") == -1


def test_a_repeated_job_calls_back_each_time(queue, client):
    job = with_callbacks(queue, "body", repeat=Repeat(times=2))
    work(client)
    assert calls(client).count("body") == 3
    assert len(calls(client)) == 6
    assert job.get_status(refresh=True) == "finished"
    assert [result.type.name for result in job.results()] == ["SUCCESSFUL"] * 3


def test_the_callback_of_a_repeated_job_gets_a_result_that_is_not_kept(queue, client):
    job = with_callbacks(queue, "body", result_ttl=0, repeat=Repeat(times=1, interval=60))
    desk = Desk(client)
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([finished(claimed)], want=0)
    assert (due.id, due.due.kind) == (job.id, "success")
    assert client.xlen(keys.results_key(job.id)) == 1


def test_a_cancel_calls_back_as_stopped(queue, server, client):
    job = with_callbacks(queue, "slow", 60)
    with pool(server):
        until(lambda: job.get_status(refresh=True) == "started")
        send_stop_job_command(client, job.id, JSONSerializer)
        until(lambda: "stopped" in calls(client) and is_settled(client, job))
    assert (calls(client), job.get_status(refresh=True)) == (["body", "stopped"], "stopped")


@pytest.mark.parametrize("name", ["slow", "stubborn"])
def test_a_timeout_calls_back_even_if_the_process_had_to_be_killed(queue, server, client, name):
    job = with_callbacks(queue, name, *([30] if name == "slow" else []), job_timeout=1)
    with pool(server, **({"patience": 60} if name == "slow" else {})):
        until(lambda: len(calls(client)) == 2 and is_settled(client, job))
    assert calls(client)[1].startswith("failure JobTimeoutException the job ran") or name == "stubborn"
    assert "its timeout of 1 s" in calls(client)[1]
    assert job.get_status(refresh=True) == "failed"


def test_an_isolated_job_with_callbacks_is_bounded(queue, client):
    small, large = (with_callbacks(queue, "isolated", size) for size in (10, 500 * 1024 * 1024))
    work(client)
    assert [small.get_status(refresh=True), large.get_status(refresh=True)] == ["finished", "failed"]
    assert "MemoryError" in large.latest_result().exc_string
    assert sorted(calls(client))[2:] == ["failure MemoryError ", "success 10 finished"]


def test_the_result_of_a_job_with_callbacks_is_bounded(queue, client):
    job = with_callbacks(queue, "large")
    work(client)
    assert job.get_status(refresh=True) == "failed"
    assert "raise PACKMULE_MAX_RESULT_BYTES" in job.latest_result().exc_string
    assert calls(client)[0].startswith("failure ResultTooLarge")


def test_a_job_with_callbacks_counts_in_its_batch_once(queue, client):
    from packmule import Batch

    batch = Batch.create(collect=True)
    job = with_callbacks(queue, "body", 4)
    client.hset(job.key, "batch", batch.id)
    client.hset(f"{keys.batch_key(batch.id)}:jobs", job.id, "p")
    client.hset(keys.batch_key(batch.id), "total", 1)
    batch.seal()
    work(client)
    state = batch.wait(60)
    assert (state.counts.total, state.counts.done) == (1, 1)
    assert calls(client) == ["body", "success 4 finished"]


def test_a_payload_rewritten_after_the_claim_is_not_performed(queue, client, tmp_path, monkeypatch):
    touched = tmp_path / "touched"
    evil = zlib.compress(json.dumps(["os.system", None, [f"touch {touched}"], {}]).encode())
    read = Claims.read

    def read_and_rewrite(claims: Claims, *reply: Any) -> Any:
        claim = read(claims, *reply)
        for job in claim.jobs:
            client.hset(keys.job_key(job.id), "data", evil)
            if job.due:
                client.hset(keys.job_key(job.id), "success_callback_name", f"{HERE}.raises")
        return claim

    monkeypatch.setattr(Claims, "read", read_and_rewrite)
    job = with_callbacks(queue, "body", 6)
    work(client)
    assert calls(client) == ["body", "success 6 finished"]
    assert job.get_status(refresh=True) == "finished"
    assert not touched.exists()


def test_a_job_that_rewrites_its_own_record_gets_nothing_else_called(queue, client, tmp_path, caplog):
    job = with_callbacks(queue, "rewrites_itself", str(tmp_path / "touched"))
    work(client, unknown_for=0)
    assert not (tmp_path / "touched").exists()
    assert "os.system is not a registered job" in caplog.text
    assert job.get_status(refresh=True) == "finished"
    assert is_settled(client, job)


def test_a_payload_that_unpacks_without_end_is_refused_in_a_callback_too(queue, client, monkeypatch, caplog):
    bomb = zlib.compress(b"[" + b" " * (wire.MAX_PAYLOAD_BYTES + 1))
    job = with_callbacks(queue, "body")
    good = with_callbacks(queue, "body", 8)
    desk = Desk(client)
    (claimed,) = desk.exchange()
    client.hset(job.key, mapping={"data": bomb, "exc_info": bomb})
    (due,) = desk.exchange([finished(claimed)], want=0)
    desk.exchange([outcome.returned(due)], want=0)
    work(client)
    assert "unpacks to more than" in caplog.text
    assert calls(client) == ["body", "success 8 finished"]
    assert is_settled(client, job)
    assert is_settled(client, good)


def test_an_error_text_that_rq_would_unpack_without_end_is_left_alone(queue, client):
    job = with_callbacks(queue, "body", 8)
    client.hset(job.key, "exc_info", zlib.compress(b"\xff" * 1000))  # which is no text, if anyone unpacks it
    work(client)
    assert calls(client) == ["body", "success 8 finished"]


def test_what_rq_enqueues_again_runs_its_body_and_not_an_old_callback(queue, client):
    job = with_callbacks(queue, "body")
    desk = Desk(client)
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([failed(claimed)], want=0)
    desk.exchange([outcome.returned(due)], want=0)  # its callback waits in the queue
    control.retry(client, job.id)
    assert queue.job_ids == [job.id]
    work(client)
    assert calls(client) == ["body", "success 1 finished"]


@pytest.mark.parametrize("waits", ["in its queue", "for another worker"])
def test_a_job_can_be_canceled_while_the_callback_of_its_last_attempt_waits(queue, client, waits):
    job = with_callbacks(queue, "fails", retry=Retry(max=2, interval=60))
    desk = Desk(client)
    (claimed,) = desk.exchange()
    failed = outcome.failed(claimed, "why", time.time(), time.time())
    (due,) = desk.exchange([failed], want=0)
    if waits == "in its queue":
        rescue(client, "w1", "died", "killed", [due.execution])
    else:
        desk.exchange([outcome.unknown(due, KeyError("unknown"), time.time(), 600)], want=0)
    assert control.cancel(client, job.id) == "canceled"
    client.delete(keys.DUE)
    work(client)
    assert calls(client) == []
    assert job.get_status(refresh=True) == "canceled"
    assert client.zcard("rq:scheduled:default") == 0


def test_a_job_is_not_retried_while_another_worker_runs_its_callback(queue, client):
    job = with_callbacks(queue, "body")
    desk, other = Desk(client), Claims(client, "other", Strict(["default"]))
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([failed(claimed)], want=0)
    desk.exchange([outcome.returned(due)], want=0)
    (due,) = other.finish_and_claim("c1", [], 1).jobs
    client.delete(keys.LEASES)
    with pytest.raises(control.NotRetried, match="worker other still runs it or its callback"):
        control.retry(client, job.id)
    other.finish_and_claim("c2", [outcome.settled(due)], 0)
    control.retry(client, job.id)
    assert queue.job_ids == [job.id]


@pytest.mark.parametrize("value", ["abc", "nan", "inf", "-5", "90.5", "1e300"])
@pytest.mark.parametrize(("place", "status"), [("at", "scheduled"), ("end", "failed"), ("nowhere", "failed")])
def test_what_follows_a_callback_may_be_garbage(queue, client, place, status, value):
    job, other = with_callbacks(queue, "body"), with_callbacks(queue, "body", 8)
    due = f"callback {status} failure {place} {value}"
    client.hset(job.key, mapping={"status": status, "callback_due": due})
    work(client)
    assert other.get_status(refresh=True) == "finished"
    assert is_settled(client, job)
    assert is_settled(client, other)
    if place == "at":
        assert client.zscore(keys.registry_key("scheduled", "default"), job.id) is not None
    else:
        assert client.ttl(job.key) > 0


@pytest.mark.parametrize("found", ["", "in the way"])
def test_a_callback_is_called_whatever_became_of_its_result(queue, client, found):
    job = with_callbacks(queue, "body")
    desk = Desk(client)
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([finished(claimed)], want=0)
    desk.exchange([outcome.returned(due)], want=0)
    client.delete(keys.results_key(job.id))
    if found:
        client.set(keys.results_key(job.id), found)
    (due,) = desk.exchange()
    assert (due.id, due.due.kind) == (job.id, "success")


def test_a_purge_deletes_no_job_whose_callback_is_due(queue, client):
    from packmule.jobs import queues

    job = with_callbacks(queue, "body")
    desk = Desk(client)
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([finished(claimed)], want=0)
    desk.exchange([outcome.returned(due)], want=0)
    waiting = with_callbacks(queue, "body")
    assert queues.purge(client, "default") == 1
    assert client.exists(waiting.key) == 0
    assert job.get_status(refresh=True) == "finished"
    assert is_settled(client, job)


def test_a_purge_of_a_list_leaves_a_job_whose_callback_it_gives_up_to_its_next_attempt(queue, client):
    from packmule.jobs import queues

    job = with_callbacks(queue, "fails", retry=Retry(max=2, interval=60))
    desk = Desk(client)
    (claimed,) = desk.exchange()
    (due,) = desk.exchange([outcome.failed(claimed, "why", time.time(), time.time())], want=0)
    desk.exchange([outcome.returned(due)], want=0)
    assert queue.job_ids == [job.id]
    places = ["rq:queue:default", "pm:groups:default", "rq:scheduled:default"]
    assert queues._purge(client, places, ["default", "list", "", 500, "now"]) == [0, b"1"]
    assert job.get_status(refresh=True) == "scheduled"
    assert client.zscore("rq:scheduled:default", job.id)


def test_a_callback_sees_the_call_that_it_is_about(queue, client):
    with_callbacks(queue, "body", 3, on_success="reads_the_call")
    work(client)
    assert calls(client)[1] == f"{HERE}.body [3]"


def test_commands_end_a_callback_that_runs(queue, server, client):
    job = with_callbacks(queue, "body", on_success="sleeps")
    with pool(server) as process:
        until(lambda: len(calls(client)) == 2)
        workers = children_of(process.pid)
        control.cancel(client, job.id)
        worker = keys.worker_name(client.srandmember("rq:workers").decode())
        client.publish(keys.commands_channel(worker), json.dumps({"command": "stop-job", "job_id": job.id}))
        until(lambda: is_settled(client, job))
        assert children_of(process.pid) == workers
    assert reader.read(client, job.id).status == "finished"


def test_a_callback_that_outlasts_the_grace_is_left_to_another_worker(queue, server, client):
    job = with_callbacks(queue, "body", on_success="sleeps")
    with pool(server, grace=1) as process:
        until(lambda: len(calls(client)) == 2)
        process.terminate()
        process.wait(DEADLINE)
    assert (queue.job_ids, job.get_status(refresh=True)) == ([job.id], "finished")
    assert client.hexists(job.key, "callback_due")
    with pool(server):
        until(lambda: len(calls(client)) == 3)
    assert calls(client) == ["body", "success", "success"]


def test_a_worker_that_is_told_to_stop_still_calls_back(queue, server, client):
    job = with_callbacks(queue, "slow", 1.0)
    with pool(server) as process:
        until(lambda: calls(client) == ["body"])
        process.terminate()
        assert process.wait(DEADLINE) == 0
    assert calls(client) == ["body", "success None finished"]
    assert is_settled(client, job)


def test_kills_lose_no_callback_and_repeat_only_what_they_struck():
    found = callback_faults.run(kills=12, seconds=30)
    assert found.wrong == []
    assert found.kills >= 1
    assert found.repeated <= found.kills
