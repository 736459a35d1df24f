"""Sleeps, waits and signals, run by run: races, lost replies, and whatever else may happen to a job."""

from __future__ import annotations

import json
import math
import secrets
import threading
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue, Repeat
from rq.job import Job
from rq.registry import DeferredJobRegistry, ScheduledJobRegistry
from rq.serializers import JSONSerializer

from packmule import current
from packmule.coordination.redis.connection import connect
from packmule.jobs import control, keys, queues, reader, signaling
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.jobs.control import NotRetried
from packmule.jobs.durable import SignalTimeout
from packmule.jobs.reader import NoSuchJob
from packmule.jobs.signaling import InvalidSignal, NotSignaled
from packmule.jobs.steps import InvalidStep
from packmule.observe import events
from packmule.scheduler.maintenance.promote import promote
from packmule.scheduler.maintenance.repair import OrphanRepair
from packmule.tests.worker import pool_jobs, step_jobs
from packmule.tests.worker.step_runs import Runs, enqueue, make_due, record, recorded, value
from packmule.worker.process import outcome
from packmule.worker.process.callbacks import Callbacks
from packmule.worker.process.lookup import Registered
from packmule.worker.rescue import rescue, server_time

HOUR = 3600


@pytest.fixture
def runs(client: Redis) -> Runs:
    Client(client).make_default()
    return Runs(client)


def naps() -> str:
    current.sleep(hours=1)
    return "rested"


def waits() -> Any:
    return current.wait_for("go")


def waits_a_while() -> Any:
    return current.wait_for("go", timeout=HOUR, default="late")


def test_a_sleeping_job_is_scheduled_for_the_end_of_its_sleep_and_counts_nothing(client, runs):
    id = enqueue(client, naps)
    before = server_time(client)
    runs.once()
    after = server_time(client)
    info = reader.read(client, id)
    assert (info.status, info.waits, info.attempts, info.deaths, info.retries_left) == (
        "scheduled",
        "sleep:1",
        0,
        0,
        3,
    )
    assert before + HOUR - 0.001 <= client.zscore("rq:scheduled:default", id) <= after + HOUR + 0.001
    assert info.waits_until == client.zscore("rq:scheduled:default", id)
    assert not client.hlen("pm:claims:w1") - 1  # the mark of the last call
    assert client.llen("rq:queue:default") == 0
    make_due(client, id)
    promote(client)
    runs.once()
    assert value(client, id) == "rested"
    assert recorded(client, id) == {"sleep:1": ("done",)}


def test_a_job_that_wakes_too_early_sleeps_on_until_the_same_instant(client, runs):
    id = enqueue(client, naps)
    runs.once()
    due = client.zscore("rq:scheduled:default", id)
    control.cancel(client, id)
    control.retry(client, id)
    runs.once()
    assert client.zscore("rq:scheduled:default", id) == due
    assert client.zcard("rq:canceled:default") == 0


def test_the_acknowledgement_of_a_wait_that_is_sent_twice_counts_once(client, runs):
    for body in (naps, waits):
        id = enqueue(client, body)
        ended = runs.perform(runs.claim())
        runs.claims.finish_and_claim("c7", [ended], 0)
        before = record(client, id), client.zscore("rq:scheduled:default", id)
        runs.claims._last = ""
        assert runs.claims.finish_and_claim("c7", [ended], 0).stale == []
        assert (record(client, id), client.zscore("rq:scheduled:default", id)) == before


def test_a_claim_of_a_woken_job_that_is_sent_twice_takes_one_signal(client, runs):
    id = enqueue(client, lambda: [waits(), waits()])
    id.signal("go", 1)
    id.signal("go", 2)
    runs.once()
    first = runs.claims.finish_and_claim("c8", [], 1).jobs
    again = runs.claims.finish_and_claim("c8", [], 1).jobs
    assert first == again
    assert recorded(client, id) == {"signal:go": ("done", 1)}
    runs.end(runs.perform(first[0]))
    runs.once()
    assert value(client, id) == [1, 2]


@pytest.mark.parametrize("moment", ["before", "claimed", "ran", "waiting"])
@pytest.mark.parametrize("body", [waits, waits_a_while])
def test_a_signal_arrives_once_whenever_it_is_sent(client, runs, moment, body):
    id = enqueue(client, body)
    said = ["woken" if moment == "waiting" else "kept"]
    if moment == "before":
        assert id.signal("go", {"n": 1}) == said[0]
    job = runs.claim()
    if moment == "claimed":
        assert id.signal("go", {"n": 1}) == said[0]
    ended = runs.perform(job)
    if moment == "ran":
        assert id.signal("go", {"n": 1}) == said[0]
    runs.end(ended)
    if moment == "waiting":
        assert id.signal("go", {"n": 1}) == said[0]
    assert id.status == "queued"
    runs.once()
    assert value(client, id) == {"n": 1}
    assert not [field for field in record(client, id) if field.startswith("signal:")]


def test_a_woken_job_goes_to_the_front_of_its_queue(client, runs):
    id = enqueue(client, waits)
    runs.once()
    others = pool_jobs.noop.enqueue_many([()] * 2)
    id.signal("go")
    assert reader.ids(client, "default", "queued", 9) == [id, *others]
    assert client.zcard("rq:deferred:default") == 0


def test_other_signals_wait_until_the_job_asks_for_them_in_the_order_in_which_they_came(client, runs):
    id = enqueue(client, lambda: [current.wait_for("go"), current.wait_for("b"), current.wait_for("go")])
    runs.once()
    for number, name in enumerate(("b", "c", "go", "go")):
        assert id.signal(name, number) == ("woken" if number == 2 else "kept")
        assert id.status == ("deferred" if number < 2 else "queued")
    while id.status != "finished":
        runs.once()
    assert value(client, id) == [2, 0, 3]
    assert [field for field in record(client, id) if field.startswith("signal:")] == ["signal:2:c"]


def test_a_timeout_gives_the_default_or_raises_and_a_later_signal_changes_nothing(client, runs):
    def body() -> Any:
        found = current.wait_for("go", timeout=HOUR, default="late")
        if len(seen) < 2:
            seen.append(found)
            raise ValueError
        return found

    seen: list[Any] = []
    id = enqueue(client, body)
    runs.once()
    make_due(client, id)
    promote(client)
    runs.once()
    assert seen == ["late"]
    id.signal("go", "too late")
    runs.once()
    assert seen == ["late", "late"]
    assert recorded(client, id) == {"signal:go": ("late",)}
    assert record(client, id)["signal:1:go"] == '"too late"'


def test_a_timeout_without_a_default_raises_an_error_that_the_body_may_catch(client, runs):
    def body() -> Any:
        try:
            return current.wait_for("go", timeout=HOUR)
        except SignalTimeout as error:
            return str(error)

    id = enqueue(client, body)
    runs.once()
    make_due(client, id)
    promote(client)
    runs.once()
    assert value(client, id) == "no signal 'go' came within 60 min"


def test_a_signal_that_comes_after_the_time_but_before_the_job_is_claimed_still_counts(client, runs):
    id = enqueue(client, waits_a_while)
    runs.once()
    make_due(client, id)
    promote(client)
    assert id.signal("go", "in time") == "kept"
    runs.once()
    assert value(client, id) == "in time"


def test_many_senders_and_one_job_lose_and_double_nothing(client, runs, server):
    id = enqueue(client, lambda: [waits() for _ in range(40)])

    def send(first: int) -> None:
        with connect(None, server.data_dir) as other:
            for number in range(first, first + 10):
                signaling.signal(other, id, "go", number)

    threads = [threading.Thread(target=send, args=(first,)) for first in (0, 10, 20, 30)]
    for thread in threads:
        thread.start()
    while id.status != "finished":
        for job in runs.claims.finish_and_claim(runs.claims.next_id(), [], 1).jobs:
            runs.end(runs.perform(job))
    for thread in threads:
        thread.join()
    assert sorted(value(client, id)) == list(range(40))


def test_a_signal_that_is_sent_twice_after_a_lost_reply_arrives_once(client, runs, monkeypatch):
    monkeypatch.setattr(signaling.secrets, "token_hex", lambda _: "same")
    id = enqueue(client, lambda: [waits(), current.wait_for("go", timeout=HOUR, default="no other")])
    assert [id.signal("go", 1) for _ in range(2)] == ["kept", "kept"]
    runs.once()
    assert id.signal("go", 1) == "kept"
    runs.once()
    make_due(client, id)
    promote(client)
    runs.once()
    assert value(client, id) == [1, "no other"]


def test_signals_that_cannot_be_delivered_are_one_line(client, runs):
    with pytest.raises(NoSuchJob, match="no job has the id nobody"):
        signaling.signal(client, "nobody", "go")
    id = enqueue(client, waits)
    for data in (math.nan, object(), {"a": math.inf}):
        with pytest.raises(InvalidSignal, match="signal 'go': its data can't be written as JSON"):
            id.signal("go", data)
    with pytest.raises(InvalidSignal, match="over the limit of 65536"):
        id.signal("go", "x" * 65_536)
    for name in ("", "a\n", "x" * 201, 3):
        with pytest.raises(InvalidStep, match="give a name of 1 to 200 printable characters"):
            id.signal(name)
    for data in ("perhaps", {"done": 1, "more": 2}, None):
        with pytest.raises(InvalidSignal, match="settles a step"):
            id.signal("step:a", data)
    assert not [field for field in record(client, id) if field.startswith("signal:")]
    control.cancel(client, id)
    with pytest.raises(NotSignaled, match="is canceled: only jobs that have not ended take signals"):
        id.signal("go")
    done = enqueue(client, lambda: 1)
    runs.once()
    with pytest.raises(NotSignaled, match="is finished"):
        done.signal("go")


def test_an_answer_to_a_step_that_is_not_asked_for_is_refused(client, runs):
    id = enqueue(client, waits)
    for _ in range(2):
        with pytest.raises(
            NotSignaled, match="doesn't wait for step:a: it does so only if a run finds that step"
        ):
            id.signal("step:a", "again")
        runs.once() if id.status == "queued" else None
    assert not [field for field in record(client, id) if field.startswith("signal:")]


def test_a_lost_reply_of_a_signal_is_found_after_the_jobs_end(client, runs, monkeypatch):
    monkeypatch.setattr(secrets, "token_hex", lambda _: "mark")
    id = enqueue(client, waits, step_jobs.flow.options(result_ttl=0))
    runs.once()
    assert id.signal("go") == "woken"
    runs.once()
    assert not client.exists(keys.job_key(id))
    assert id.signal("go") == "woken"


def test_signals_take_no_more_than_the_steps_of_a_job_may(client, runs):
    def body() -> int:
        return sum(len(current.wait_for("go")) for _ in range(6))

    id = enqueue(client, body)
    for _ in range(5):
        runs.once()
        assert id.signal("go", "x" * 65_000) == "woken"
    runs.once()
    assert "StepNotKept: signal 'go' is one too many" in reader.read(client, id).reason


def test_a_job_that_failed_for_want_of_a_signal_waits_again_if_it_is_retried_by_hand(client, runs):
    id = enqueue(client, lambda: current.wait_for("go", timeout=HOUR), step_jobs.pinned)
    for _ in range(2):
        runs.once()
        make_due(client, id)
        promote(client)
        runs.once()
        assert reader.read(client, id).reason == "SignalTimeout: no signal 'go' came within 60 min"
        control.retry(client, id)
    runs.once()
    assert id.signal("go", 1) == "woken"
    runs.once()
    assert value(client, id) == 1


def test_a_wait_whose_timeout_the_body_has_dealt_with_does_not_begin_again(client, runs):
    def body() -> None:
        with pytest.raises(SignalTimeout):
            current.wait_for("go", timeout=HOUR)
        current.step("instead", int)
        raise ValueError

    id = enqueue(client, body, step_jobs.pinned)
    runs.once()
    make_due(client, id)
    promote(client)
    runs.once()
    control.retry(client, id)
    runs.once()
    assert reader.read(client, id).reason == "ValueError"


@pytest.mark.parametrize("body", [naps, waits])
def test_a_job_that_rqs_code_requeued_and_that_waits_lives_on_with_its_steps(client, runs, body):
    def fails() -> None:
        current.step("a", int)
        raise ValueError

    id = enqueue(client, fails, step_jobs.flow.options(retries=0, failure_ttl=50))
    runs.once()
    Job.fetch(id, client, JSONSerializer).requeue()
    step_jobs.bodies[:] = [lambda: [current.step("a", int), body()]]
    runs.claim()
    assert client.ttl(keys.steps_key(id)) == -1
    rescue(client, "w1", "vanished")
    runs.once()
    assert (client.ttl(keys.job_key(id)), client.ttl(keys.steps_key(id))) == (-1, -1)


def test_kept_signals_are_bounded_in_number_and_in_bytes(client, runs):
    id = enqueue(client, waits)
    for _ in range(100):
        id.signal("other")
    with pytest.raises(NotSignaled, match="holds at most 100 signals and 256 KiB of data until it asks"):
        id.signal("go")
    assert Job.fetch(id, client, JSONSerializer).get_status() == "queued"
    runs.once()
    assert reader.read(client, id).status == "deferred"
    large = enqueue(client, waits)
    for _ in range(4):
        large.signal("other", "x" * 65_000)
    with pytest.raises(NotSignaled, match="send this one later"):
        large.signal("go", "x" * 10_000)


def test_the_events_say_that_a_job_waits_and_that_it_was_signaled(client, runs):
    id = enqueue(client, waits_a_while)
    runs.once()
    id.signal("go")
    runs.once()
    found = [(event.type, event.details) for event in events.read(client) if event.job == id]
    assert [kind for kind, _ in found] == ["enqueued", "waiting", "signaled", "finished"]
    assert found[1][1]["signal"] == found[2][1]["signal"] == "go"
    assert found[1][1]["until"] == pytest.approx(server_time(client) + HOUR, abs=60)


def test_rqs_readers_accept_jobs_that_wait(client, runs):
    asleep, waiting = enqueue(client, naps), None
    runs.once()
    waiting = enqueue(client, waits)
    waiting.signal("another", 1)
    runs.once()
    assert [Job.fetch(id, client, JSONSerializer).get_status() for id in (asleep, waiting)] == [
        "scheduled",
        "deferred",
    ]
    assert ScheduledJobRegistry("default", client).get_job_ids() == [asleep]
    assert DeferredJobRegistry("default", client).get_job_ids() == [waiting]


@pytest.mark.parametrize("body", [naps, waits])
def test_a_job_that_waits_can_be_canceled_and_retried_by_hand(client, runs, body):
    id = enqueue(client, lambda: [current.step("a", int), body()])
    runs.once()
    assert id.cancel() == "canceled"
    assert client.zcard("rq:scheduled:default") + client.zcard("rq:deferred:default") == 0
    assert 0 < client.ttl(keys.steps_key(id)) <= client.ttl(keys.job_key(id)) + 1
    id.retry()
    assert client.ttl(keys.steps_key(id)) == client.ttl(keys.job_key(id)) == -1
    runs.once()
    assert reader.read(client, id).waits in ("sleep:1", "signal:go")
    assert recorded(client, id)["step:a"] == ("done", 0)


@pytest.mark.parametrize("body", [naps, waits])
def test_purging_the_queue_deletes_a_job_that_waits(client, runs, body):
    id = enqueue(client, body)
    runs.once()
    assert queues.purge(client, "default") == 1
    assert not client.exists(keys.job_key(id), keys.steps_key(id))
    assert client.zcard("rq:scheduled:default") + client.zcard("rq:deferred:default") == 0


def test_purging_leaves_jobs_that_wait_for_other_jobs(client, runs):
    client.zadd("rq:deferred:default", {"other": math.inf})
    client.hset(keys.job_key("other"), mapping={"status": "deferred", "origin": "default", "data": "[]"})
    assert queues.purge(client, "default") == 0
    assert client.zcard("rq:deferred:default") == 1


@pytest.mark.parametrize("body", [naps, waits])
def test_a_batch_counts_a_job_that_waits_as_pending_and_cancels_it(client, runs, body):
    batch = Batch.create(client=Client(client))
    id = enqueue(client, body, step_jobs.flow.options(batch=batch.id))
    runs.once()
    assert batch.state().counts.pending == 1
    batch.pause()
    batch.resume()
    batch.cancel()
    assert id.status == "canceled"
    assert batch.state().counts.canceled == 1
    assert client.zcard("rq:scheduled:default") + client.zcard("rq:deferred:default") == 0


@pytest.mark.parametrize("body", [naps, waits])
def test_a_job_that_waits_keeps_equal_ones_out(client, runs, body):
    id = enqueue(client, body, step_jobs.flow.options(unique=True))
    runs.once()
    assert step_jobs.flow.options(unique=True).enqueue() == id


def test_a_job_that_waits_holds_no_slot_and_gives_no_token_back(client, runs):
    first, second, third = (enqueue(client, waits, step_jobs.limited) for _ in range(3))
    runs.once()
    assert first.status == "deferred"
    runs.once()
    assert second.status == "deferred"
    assert runs.claims.finish_and_claim(runs.claims.next_id(), [], 5).jobs == []  # both tokens are used
    assert third.status == "queued"
    assert not client.keys("pm:holders:*")


@pytest.mark.parametrize("body", [naps, waits])
def test_a_newer_singleton_replaces_one_that_waits(client, runs, body):
    old = enqueue(client, body, step_jobs.replacing, 1)
    runs.once()
    new = enqueue(client, lambda: 2, step_jobs.replacing, 2)
    assert (old.status, new.status) == ("canceled", "queued")
    assert client.zcard("rq:scheduled:default") + client.zcard("rq:deferred:default") == 0


@pytest.mark.parametrize("body", [naps, waits])
def test_a_singleton_that_was_replaced_is_not_retried_beside_a_newer_one_that_waits(client, runs, body):
    old = enqueue(client, body, step_jobs.replacing, 1)
    new = enqueue(client, body, step_jobs.replacing, 2)
    runs.once()
    with pytest.raises(NotRetried, match=f"job {new} holds its place"):
        control.retry(client, old)
    control.cancel(client, new)
    control.retry(client, old)
    runs.once()
    assert old.status in ("scheduled", "deferred")


def test_a_singleton_that_wakes_does_not_replace_the_one_that_runs(client, runs):
    id = enqueue(client, naps, step_jobs.replacing, 1)
    runs.once()
    make_due(client, id)
    promote(client)
    runs.once()
    assert value(client, id) == "rested"


@pytest.mark.parametrize("wake", ["promote", "run now"])
def test_a_singleton_that_rqs_code_requeued_beside_a_newer_one_does_not_replace_that_when_it_wakes(
    client, runs, wake
):
    old = enqueue(client, naps, step_jobs.replacing, 1)
    runs.end(outcome.failed(runs.claim(), "ValueError: no", 1.0, 2.0, retry=False))
    new = enqueue(client, naps, step_jobs.replacing, 2)
    Job.fetch(old, client, JSONSerializer).requeue(at_front=True)
    runs.once()
    assert (old.status, new.status) == ("scheduled", "queued")
    if wake == "promote":
        make_due(client, old)
        promote(client)
    else:
        client.hdel(keys.job_key(old), "waits")  # or it would be told to sleep on
        control.run_now(client, old)
    assert (old.status, new.status) == ("queued", "queued")


def test_a_singleton_that_was_replaced_while_it_ran_does_not_wait(client, runs):
    old = enqueue(client, naps, step_jobs.replacing, 1)
    ended = runs.perform(runs.claim())
    enqueue(client, lambda: 2, step_jobs.replacing, 2)
    runs.end(ended)
    assert old.status == "canceled"
    assert client.zcard("rq:scheduled:default") == 0


def test_a_job_that_rq_canceled_while_it_ran_does_not_wait(client, runs):
    id = enqueue(client, naps)
    job = runs.claim()
    ended = runs.perform(job)
    Job.fetch(id, client, JSONSerializer).cancel()
    runs.end(ended)
    assert (id.status, client.zcard("rq:scheduled:default")) == ("canceled", 0)


def test_a_job_that_expires_counts_only_until_its_first_run(client, runs):
    id = enqueue(client, lambda: [current.step("a", int), naps()], step_jobs.flow.options(expires=60))
    runs.once()
    assert "expires_at" not in record(client, id)
    client.hset(keys.job_key(id), "expires_at", "1.0")  # as after a crash behind the first step
    make_due(client, id)
    promote(client)
    runs.once()
    assert value(client, id) == [0, "rested"]


def test_deaths_count_from_zero_again_once_a_job_has_got_as_far_as_a_wait(client, runs):
    id = enqueue(client, naps)
    runs.die(runs.claim())
    assert reader.read(client, id).deaths == 1
    runs.once()
    assert reader.read(client, id).deaths == 0


def test_a_crash_before_the_acknowledgement_of_a_wait_loses_nothing(client, runs):
    id = enqueue(client, waits)
    job = runs.claim()
    runs.perform(job)
    id.signal("go", 1)
    runs.die(job)
    runs.once()
    assert id.status == "queued"
    runs.once()
    assert value(client, id) == 1


def test_a_crash_after_the_claim_that_took_a_signal_keeps_it(client, runs):
    id = enqueue(client, waits)
    runs.once()
    id.signal("go", 1)
    runs.die(runs.claim())
    runs.once()
    assert value(client, id) == 1


def test_a_job_that_wakes_while_its_batch_or_queue_is_paused_waits_for_that(client, runs):
    batch = Batch.create(client=Client(client))
    id = enqueue(client, waits, step_jobs.flow.options(batch=batch.id))
    runs.once()
    batch.pause()
    id.signal("go", 1)
    assert runs.claims.finish_and_claim(runs.claims.next_id(), [], 5).jobs == []
    batch.resume()
    queues.pause(client, "default")
    assert runs.claims.finish_and_claim(runs.claims.next_id(), [], 5).jobs == []
    queues.resume(client, "default")
    runs.once()
    assert value(client, id) == 1


@pytest.mark.parametrize("end", ["finished", "failed", "deleted"])
def test_steps_live_as_long_as_their_record(client, runs, end):
    def body() -> None:
        current.step("a", int)
        if end == "failed":
            raise ValueError

    options = {"retries": 0, "result_ttl": 0 if end == "deleted" else 70, "failure_ttl": 80}
    id = enqueue(client, body, step_jobs.flow.options(**options))
    runs.once()
    if end == "deleted":
        assert not client.exists(keys.job_key(id), keys.steps_key(id))
        return
    assert id.status == end
    assert 60 < client.ttl(keys.job_key(id)) <= 80
    assert client.expiretime(keys.steps_key(id)) == client.expiretime(keys.job_key(id))


def test_a_new_job_of_an_id_does_not_go_on_behind_the_steps_of_an_earlier_one(client, runs):
    client.hset(keys.steps_key("mine"), "step:b", '["done",1,0,1.0,"old"]')

    def body() -> list[Any]:
        return [current.step("a", int), waits(), current.step("b", lambda: "new")]

    id = enqueue(client, body, step_jobs.flow.options(job_id="mine"))
    id.signal("go")
    runs.once()
    runs.once()
    assert value(client, id) == [0, None, "new"]
    client.set(keys.steps_key("other"), "a string")
    id = enqueue(client, naps, step_jobs.flow.options(job_id="other"))
    runs.once()
    assert id.status == "scheduled"


def test_a_step_of_a_job_that_was_deleted_leaves_nothing(client, runs):
    def body() -> None:
        client.delete(keys.job_key(id))
        current.step("a", int)

    id = enqueue(client, body)
    runs.once()
    assert not client.exists(keys.job_key(id), keys.steps_key(id))


def test_a_job_that_repeats_does_its_steps_again_each_time(client, runs):
    done: list[int] = []

    def body() -> int:
        current.step("a", done.append, 1)
        return len(done)

    step_jobs.bodies[:] = [body]
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    id = queue.enqueue(step_jobs.flow.job.name, repeat=Repeat(times=1)).id
    runs.once()
    assert not client.exists(keys.steps_key(id))
    runs.once()
    assert value(client, id) == 2


def test_a_callback_of_rqs_has_no_steps_and_the_steps_of_its_job_expire(client, runs):
    runs.performer.call_back = Callbacks(client, Registered()).call_for
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    name = step_jobs.called_back.job.name
    step_jobs.bodies[:] = [lambda: current.step("a", int)]
    id = queue.enqueue(step_jobs.flow.job.name, on_success=Callback(name), result_ttl=70).id
    ended = runs.perform(runs.claim())
    (due,) = runs.claims.finish_and_claim(runs.claims.next_id(), [ended], 0).jobs
    assert runs.perform(due).status == "settled"
    runs.end(runs.performer.ended_by(runs.performer.prepare(due), ValueError(), 0.0))
    assert recorded(client, id) == {"step:a": ("done", 0)}
    assert client.ttl(keys.steps_key(id)) > 0


def test_steps_that_rqs_delete_leaves_behind_are_deleted(client, runs):
    id, kept = enqueue(client, naps), None
    runs.once()
    kept = enqueue(client, naps)
    runs.once()
    Job.fetch(id, client, JSONSerializer).delete()
    assert client.exists(keys.steps_key(id))
    OrphanRepair(client).repair()
    assert not client.exists(keys.steps_key(id))
    assert client.exists(keys.steps_key(kept))


GARBAGE: dict[str, Any] = {
    "string": lambda client, key: (client.delete(key), client.set(key, "x")),
    "list": lambda client, key: client.hset(key, "step:a", "[1, 2"),
    "bytes": lambda client, key: client.hset(key, "step:a", b"\xff\xfe"),
    "name": lambda client, key: client.hset(key, b"step:\xff", b"[]"),
    "object": lambda client, key: client.hset(key, "step:a", "{}"),
    "deep": lambda client, key: client.hset(key, "step:a", '["done",1,0,1,' + "[" * 5000 + "]" * 5000 + "]"),
    "huge": lambda client, key: client.hset(key, "step:b", "x" * 600_000),
    "many": lambda client, key: client.hset(key, mapping={f"step:{number}": "[]" for number in range(1200)}),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_steps_that_make_no_sense_fail_their_job_alone(client, runs, kind):
    def body() -> Any:
        current.step("a", int)
        return waits()

    id = enqueue(client, body)
    runs.once()
    GARBAGE[kind](client, keys.steps_key(id))
    id.signal("go")
    innocent = pool_jobs.noop.enqueue()
    outcomes = []
    claim = runs.claims.finish_and_claim(runs.claims.next_id(), [], 5)
    outcomes = [*claim.unreadable, *(runs.perform(job) for job in claim.jobs)]
    runs.end(*outcomes)
    assert (id.status, innocent.status) == ("failed", "finished")
    reason = reader.read(client, id).reason
    assert "\n" not in reason
    said = {"huge": "its steps take 60", "many": "it has 1202 steps", "string": "its steps are no hash"}
    assert said.get(kind, "") in reason


@pytest.mark.parametrize(
    "waits_for", ["", "x", "sleep:1", "sleep:1 nan", "signal:go -inf", "\x00 1", "a b c 1e999"]
)
def test_a_field_that_says_nonsense_about_a_wait_stops_nothing(client, runs, waits_for):
    id = enqueue(client, waits)
    runs.once()
    client.hset(keys.job_key(id), "waits", waits_for)
    assert reader.read(client, id).status == "deferred"
    id.signal("go", 1)
    if id.status == "deferred":
        id.cancel()
        id.retry()
    for _ in range(3):
        if id.status == "queued":
            runs.once()
    assert value(client, id) == 1


def test_data_of_a_signal_that_is_no_json_fails_the_job_with_one_line(client, runs):
    id = enqueue(client, waits)
    client.hset(keys.job_key(id), "signal:1:go", b"\xff nonsense")
    runs.once()
    ended = runs.claims.finish_and_claim(runs.claims.next_id(), [], 5)
    runs.end(*ended.unreadable, *(runs.perform(job) for job in ended.jobs))
    assert reader.read(client, id).status == "failed"


def test_json_of_a_job_that_waits_can_be_printed(client, runs):
    id = enqueue(client, waits)
    runs.once()
    assert json.dumps(reader.read(client, id).waits) == '"signal:go"'


def test_a_wait_is_given_up_with_its_record(client, runs):
    id = enqueue(client, naps)
    ended = runs.perform(runs.claim())
    client.delete(keys.job_key(id))
    runs.end(ended)
    assert not client.exists(keys.job_key(id), keys.steps_key(id), "rq:scheduled:default")
    rescue(client, "w1", "returned")
