"""Steps, run by run: what is recorded, what the next run makes of it, and how bad input ends a job."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from redis import Redis
from rq import SimpleWorker
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException

from packmule import current
from packmule.jobs import keys, reader, registry
from packmule.jobs.interrupts import Interrupted
from packmule.jobs.job_type import InvalidJob, Traits
from packmule.jobs.steps import MOST_BYTES, MOST_STEPS, InvalidStep
from packmule.scheduler.maintenance.promote import promote
from packmule.tests.worker import step_jobs
from packmule.tests.worker.step_runs import Runs, broken_off, calls, enqueue, record, recorded, value
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.outcome import Outcome
from packmule.worker.rescue import rescue


@pytest.fixture
def runs(client: Redis) -> Runs:
    calls.clear()
    return Runs(client)


def does(what: Any) -> Any:
    """Note a call, and return what it was given."""
    calls.append(what)
    return what


def test_each_run_gets_a_result_as_json_carries_it(client, runs):
    def body() -> list[Any]:
        found = [current.step("a", does, (1, {"b": None})), current.step("c", does, "ü" * 3)]
        if len(calls) == 2:
            calls.append("failed")
            raise ValueError
        return found

    id = enqueue(client, body)
    assert [runs.once().status for _ in range(2)] == ["queued", "finished"]
    assert value(client, id) == [[1, {"b": None}], "üüü"]
    assert len(calls) == 3
    assert recorded(client, id) == {"step:a": ("done", [1, {"b": None}]), "step:c": ("done", "üüü")}


def test_a_step_that_raises_is_not_recorded_and_runs_again(client, runs):
    def body() -> Any:
        def fails_once() -> int:
            calls.append(1)
            if len(calls) == 1:
                raise ValueError("no")
            return 7

        return current.step.options(if_unknown="fail")("a", fails_once)

    id = enqueue(client, body)
    assert runs.once().reason == "ValueError: no"
    assert recorded(client, id) == {}
    runs.once()
    assert value(client, id) == 7


def test_the_body_may_catch_what_a_step_raises_and_go_on(client, runs):
    def body() -> Any:
        try:
            current.step("a", int, "x")
        except ValueError:
            return current.step("b", does, "instead")

    id = enqueue(client, body)
    runs.once()
    assert value(client, id) == "instead"


def test_outside_of_a_job_a_step_is_a_call_and_a_sleep_is_nothing():
    assert current.step("a", does, 3) == 3
    assert asyncio.run(current.step("a", asyncio.to_thread, does, 3)) == 3
    assert current.sleep(days=3) is None
    assert current.wait_for("x", default=4) == 4
    with pytest.raises(InvalidStep, match="only a job can wait"):
        current.wait_for("x")


def twice() -> None:
    current.step("a", int)
    current.step("a", int)


def sleep_twice() -> None:
    current.step("a", int)
    current.sleep(1, name="a b")


def too_many() -> None:
    for number in range(MOST_STEPS + 1):
        current.step(f"s{number}", int)


def nested() -> None:
    current.step("outer", lambda: current.step("inner", int))


def sleeps_within() -> None:
    current.step("outer", lambda: current.sleep(1))


MISTAKES: dict[str, tuple[Any, str]] = {
    "twice": (twice, "step 'a' came twice in one run: give each its own name"),
    "no name": (lambda: current.step("", int), "step '': give a name of 1 to 200 printable characters"),
    "no text": (lambda: current.step(3, int), "step 3: give a name of"),
    "control": (lambda: current.step("a\x1b[2J", int), "step 'a\\x1b[2J': give a name"),
    "surrogate": (lambda: current.step("\ud800", int), "step '\\ud800': give a name"),
    "long name": (lambda: current.step("x" * 201, int), "give a name of 1 to 200"),
    "NaN": (lambda: current.step("a", lambda: math.nan), "step 'a' returned what JSON can't hold"),
    "object": (lambda: current.step("a", object), "step 'a' returned what JSON can't hold"),
    "large": (lambda: current.step("a", lambda: "x" * MOST_BYTES), "put the data in storage"),
    "many": (too_many, "step 's1000' is one too many: a job has at most 1000"),
    "nested": (nested, "step 'inner' is inside step 'outer': move it after that step"),
    "sleep within": (sleeps_within, "sleep '1' is inside step 'outer'"),
    "past": (lambda: current.sleep(-1), "sleep: -1 is not a span: give 0 seconds or more"),
    "NaN s": (lambda: current.sleep(math.nan), "sleep: nan is not a span"),
    "endless": (lambda: current.sleep(math.inf), "sleep: inf is not a span"),
    "text": (lambda: current.sleep("soon"), "sleep: 'soon' is not a span"),
    "too long": (lambda: current.sleep(days=36_600), "at most a hundred years"),
    "timeout": (lambda: current.wait_for("x", timeout=-1), "wait_for: -1 is not a span"),
    "signal": (lambda: current.wait_for("a\nb"), "signal 'a\\nb': give a name"),
    "answer": (lambda: current.wait_for("step:a"), "names that begin with step: are reserved for steps"),
    "policy": (lambda: current.step.options("maybe"), "if_unknown='maybe': give again, ask, fail"),  # type: ignore[arg-type]
    "async": (lambda: current.step("a", asyncio.sleep, 0), "step 'a': its function is async"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_bad_input_fails_the_job_with_one_line_and_no_retry(client, runs, mistake):
    body, line = MISTAKES[mistake]
    id = enqueue(client, body)
    runs.once()
    info = reader.read(client, id)
    assert (info.status, info.retries_left) == ("failed", 3)
    assert line in info.reason
    assert not [each for each in recorded(client, id).values() if each[0] != "done"]


@pytest.mark.parametrize("mistake", ["twice", "nested", "NaN"])
def test_a_body_cannot_swallow_a_mistake(client, runs, mistake):
    def body() -> str:
        try:
            MISTAKES[mistake][0]()
        except Exception:
            raise RuntimeError("another") from None
        return "done"

    id = enqueue(client, body)
    runs.once()
    assert MISTAKES[mistake][1] in reader.read(client, id).reason


@pytest.mark.parametrize("wait", [lambda: current.sleep(60), lambda: current.wait_for("go")])
def test_a_body_cannot_swallow_a_wait(client, runs, wait):
    def body() -> str:
        with suppress(BaseException):
            wait()
        with suppress(BaseException):
            current.step("a", does, "a")
        return "done"

    id = enqueue(client, body)
    assert runs.once().status == "waiting"
    assert id.status in ("scheduled", "deferred")
    assert calls == []


def test_a_plain_function_in_an_async_job_is_a_mistake_that_says_the_way_out(client, runs):
    async def body() -> Any:
        return current.step("a", int)

    id = enqueue(client, body, step_jobs.flow_async)
    ended = asyncio.run(runs.performer.perform_async(runs.performer.prepare(runs.claim()), lambda: None))
    runs.end(ended)
    assert "asyncio.to_thread is one" in reader.read(client, id).reason


def first_run(*names: str) -> None:
    """Record these steps, and fail."""
    for name in names:
        current.step(name, does, name)
    raise ValueError


def ask(*names: str) -> None:
    for name in names:
        current.step(name, does, name)


CHANGES: dict[str, tuple[Any, str | None]] = {
    "the same": (lambda: ask("a", "b"), None),
    "one more": (lambda: ask("a", "b", "c"), None),
    "renamed": (
        lambda: ask("a", "B"),
        "the job asked for step 'B' without step 'b', which an earlier run recorded",
    ),
    "inserted": (lambda: ask("a", "new", "b"), "the job asked for step 'new' without step 'b'"),
    "removed": (lambda: ask("b", "c"), "the job asked for step 'c' without step 'a'"),
    "shorter": (lambda: ask("a"), "the job ended without step 'b'"),
    "none": (lambda: None, "the job ended without step 'a'"),
    "sleep": (lambda: current.sleep(1), "the job asked for sleep '1' without step 'a'"),
    "signal": (lambda: current.wait_for("x"), "the job asked for signal 'x' without step 'a'"),
    "order": (lambda: ask("b", "a"), None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_code_that_no_longer_asks_for_a_recorded_step_fails_the_job(client, runs, change):
    body, line = CHANGES[change]
    id = enqueue(client, lambda: first_run("a", "b"))
    runs.once()
    step_jobs.bodies[:] = [body]
    runs.once()
    info = reader.read(client, id)
    assert (info.status, info.retries_left) == (("failed", 2) if line else ("finished", 2))
    assert (line or "") in (info.reason or "")
    assert calls == ["a", "b", *(["c"] if change == "one more" else [])]


def perform_async(runs: Runs) -> None:
    """One run of the async job that waits."""
    call = runs.performer.prepare(runs.claim())
    runs.end(asyncio.run(runs.performer.perform_async(call, lambda: None)))


def noting(name: str) -> Any:
    """A step of an async job, to be awaited."""
    return current.step(name, asyncio.to_thread, does, name)


@pytest.mark.parametrize("order", ["abc", "cab", "bca", "cba"])
def test_steps_of_concurrent_tasks_may_come_in_any_order(client, runs, order):
    async def first() -> None:
        await asyncio.gather(*map(noting, "ab"))
        raise ValueError

    async def second() -> list[str]:
        return list(await asyncio.gather(*map(noting, order)))

    id = enqueue(client, first, step_jobs.flow_async)
    perform_async(runs)
    step_jobs.bodies[:] = [second]
    perform_async(runs)
    assert value(client, id) == list(order)
    assert sorted(calls) == ["a", "b", "c"]


def test_a_step_of_the_job_itself_may_come_before_one_of_a_task_beside_it(client, runs):
    async def body(fails: bool = False) -> list[str]:
        beside = asyncio.create_task(noting("a"))
        if fails:
            await beside
            raise ValueError
        return [await noting("b"), await beside]

    id = enqueue(client, partial(body, True), step_jobs.flow_async)
    perform_async(runs)
    step_jobs.bodies[:] = [body]
    perform_async(runs)
    assert value(client, id) == ["b", "a"]
    assert calls == ["a", "b"]


def test_a_wait_lets_the_steps_beside_it_end(client, runs):
    async def slow(name: str) -> str:
        await asyncio.sleep(0.05)
        return does(name)

    async def body() -> list[Any]:
        async def waits() -> Any:
            await asyncio.sleep(0)  # the steps have begun
            return current.wait_for("go")

        beside = [current.step(name, slow, name) for name in "ab"]
        return [*await asyncio.gather(*beside, waits()), await noting("c")]

    id = enqueue(client, body, step_jobs.flow_async)
    perform_async(runs)
    assert (id.status, sorted(calls)) == ("deferred", ["a", "b"])
    id.signal("go", 1)
    perform_async(runs)
    assert value(client, id) == ["a", "b", 1, "c"]
    assert len(calls) == 3


def test_a_wait_in_a_task_group_is_no_error(client, runs):
    async def body() -> Any:
        async def waits() -> Any:
            return current.wait_for("go")

        async with asyncio.TaskGroup() as group:
            task = group.create_task(waits())
        return task.result()

    id = enqueue(client, body, step_jobs.flow_async)
    perform_async(runs)
    assert id.status == "deferred"
    id.signal("go", 1)
    perform_async(runs)
    assert value(client, id) == 1


@pytest.mark.parametrize("end", ["an error", "a drain"])
def test_a_run_that_ends_lets_the_steps_beside_it_end(client, runs, end):
    async def slow(name: str) -> str:
        await asyncio.sleep(0.05)
        return does(name)

    async def body() -> Any:
        async def ends() -> Any:
            await asyncio.sleep(0)  # the other step has begun
            if end == "an error":
                raise ValueError
            runs.is_draining = True
            return await current.step("b", slow, "b")

        ahead = current.step.options(if_unknown="fail")("a", slow, "a")
        return await asyncio.gather(ahead, *([] if calls else [ends()]))

    id = enqueue(client, body, step_jobs.flow_async)
    perform_async(runs)
    assert recorded(client, id) == {"step:a": ("done", "a")}
    runs.is_draining = False
    perform_async(runs)
    assert value(client, id) == ["a"]


def test_a_timeout_ends_the_steps_that_a_run_waits_for_at_its_end(client, runs):
    async def body() -> None:
        async def fails() -> None:
            await asyncio.sleep(0)
            raise ValueError

        await asyncio.gather(current.step("a", asyncio.sleep, 600), fails())

    async def run() -> tuple[Outcome, int]:
        perform = runs.performer.perform_async(call, lambda: TimeoutError("too long"))
        task = asyncio.create_task(perform)
        await asyncio.sleep(0.05)
        task.cancel()
        ended = await task
        await asyncio.sleep(0)
        return ended, len(asyncio.all_tasks())

    enqueue(client, body, step_jobs.flow_async)
    call = runs.performer.prepare(runs.claim())
    ended, tasks = asyncio.run(run())
    assert (ended.reason, tasks) == ("TimeoutError: too long", 1)


def test_a_drain_in_a_task_group_is_no_error(client, runs):
    async def body() -> None:
        runs.is_draining = True
        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(noting(name))

    id = enqueue(client, body, step_jobs.flow_async)
    perform_async(runs)
    assert (id.status, calls, "attempts" in record(client, id)) == ("queued", [], False)


@pytest.mark.parametrize(
    "asks", [lambda: current.step("a", int), current.sleep, lambda: current.wait_for("go", default=1)]
)
def test_a_job_that_rqs_own_worker_performs_has_no_steps_and_says_so(client, runs, asks):
    id = enqueue(client, asks)
    SimpleWorker(["default"], connection=client, serializer=JSONSerializer).work(burst=True)
    assert "InvalidStep: RQ's own worker keeps no steps" in reader.read(client, id).error


def test_a_step_of_a_worker_that_lost_its_job_is_refused_and_ends_the_run(client, runs):
    def body() -> None:
        current.step("a", does, "a")
        rescue(client, "w1", "vanished")
        with pytest.raises(Interrupted):
            current.step("b", does, "b")
        current.step("c", does, "c")

    id = enqueue(client, body)
    ended = runs.perform(runs.claim())
    assert (ended.status, ended.kind) == ("queued", 0)
    assert calls == ["a", "b"]
    assert recorded(client, id) == {"step:a": ("done", "a")}


def test_a_job_whose_recorded_steps_were_overwritten_fails_instead_of_repeating_them(client, runs):
    def body() -> None:
        current.step("a", does, "a")
        client.delete(keys.steps_key(id))
        client.set(keys.steps_key(id), "nonsense")
        current.step("b", does, "b")

    id = enqueue(client, body)
    runs.once()
    claim = runs.claims.finish_and_claim(runs.claims.next_id(), [], 1)
    runs.end(*claim.unreadable)
    assert "its steps are no hash" in reader.read(client, id).reason
    assert calls == ["a", "b"]


def test_a_draining_worker_gives_a_job_back_before_its_next_new_step(client, runs):
    def body() -> str:
        current.step("a", does, "a")
        runs.is_draining = not record(client, id).get("attempts") and len(calls) == 1
        return current.step("b", does, "b")

    id = enqueue(client, body)
    ended = runs.once()
    assert (ended.status, ended.front, calls) == ("queued", True, ["a"])
    runs.is_draining = False
    calls.append("drained")
    runs.once()
    assert calls == ["a", "drained", "b"]
    assert "attempts" not in record(client, id)


@pytest.mark.parametrize("policy", ["again", "fail", "ask"])
def test_a_step_whose_process_died_is_unknown_to_its_policy(client, runs, policy):
    def dies() -> str:
        calls.append("died")
        runs.die(job)
        raise SystemExit

    def body() -> Any:
        return current.step.options(if_unknown=policy)("charge", dies if not calls else lambda: does("ch_1"))

    id = enqueue(client, body)
    job = runs.claim()
    runs.perform(job)
    assert recorded(client, id) == ({} if policy == "again" else {"step:charge": ("begun",)})
    runs.once()
    info = reader.read(client, id)
    if policy == "again":
        assert info.result == "ch_1"
    elif policy == "fail":
        assert (info.status, info.retries_left) == ("failed", 3)
        assert "step 'charge' began at" in info.reason
        assert (
            f"its outcome is unknown: find out what it did; packmule job retry {id} runs it again"
            in info.reason
        )
    else:
        assert (info.status, info.waits) == ("deferred", "signal:step:charge")
        assert calls == ["died"]


def test_a_retry_by_hand_runs_an_unknown_step_again_once(client, runs):
    handle = broken_off(client, runs, "fail")
    assert handle.status == "failed"
    handle.retry()
    runs.once()
    assert value(client, handle) == "ch_1"
    assert calls.count("charge") == 2


def dying(runs: Runs, job: Claimed) -> Any:
    """A step's function amidst which its process dies."""

    def die() -> None:
        runs.die(job)
        raise SystemExit

    return die


def test_a_step_that_is_unknown_again_after_a_retry_by_hand_fails_again(client, runs):
    handle = broken_off(client, runs, "fail")
    handle.retry()
    job = runs.claim()
    step_jobs.bodies[:] = [lambda: current.step.options(if_unknown="fail")("charge", dying(runs, job))]
    runs.perform(job)
    runs.once()
    assert handle.status == "failed"


@pytest.mark.parametrize(("answer", "result", "times"), [("again", "ch_1", 2), ({"done": "ch_0"}, "ch_0", 1)])
def test_an_operator_answers_for_an_unknown_step(client, runs, answer, result, times):
    handle = broken_off(client, runs, "ask")
    assert handle.signal("step:charge", answer) == "woken"
    runs.once()
    assert value(client, handle) == result
    assert calls.count("charge") == times


def test_an_unknown_step_is_asked_for_again_each_time_it_breaks_off(client, runs):
    handle = broken_off(client, runs, "ask")
    handle.signal("step:charge", "again")
    job = runs.claim()
    step_jobs.bodies[:] = [lambda: current.step.options(if_unknown="ask")("charge", dying(runs, job))]
    runs.perform(job)
    runs.once()
    assert reader.read(client, handle).waits == "signal:step:charge"
    handle.signal("step:charge", {"done": None})
    runs.once()
    assert value(client, handle) is None


def test_an_answer_that_makes_no_sense_is_asked_for_again(client, runs):
    handle = broken_off(client, runs, "ask")
    client.hset(keys.job_key(handle), "signal:1:step:charge", '"perhaps"')
    assert handle.signal("step:charge", "again") == "woken"
    runs.once()  # the first answer
    assert handle.status == "queued"
    runs.once()
    assert value(client, handle) == "ch_1"


def test_a_timeout_amidst_a_step_makes_it_unknown(client, runs):
    def late() -> None:
        raise JobTimeoutException("late")

    id = enqueue(client, lambda: current.step.options(if_unknown="fail")("a", late))
    runs.once()
    assert recorded(client, id) == {"step:a": ("begun",)}


def test_version_pins_a_job_to_the_code_that_recorded_its_steps(client, runs):
    pinned = step_jobs.pinned
    id = enqueue(client, lambda: first_run("a"), pinned.options(retries=1, retry_intervals=[0]))
    runs.once()
    registry.add(replace(pinned.job, traits=Traits(version=2)))
    try:
        assert runs.once().status == "scheduled"
        assert reader.read(client, id).attempts == 1
        client.zadd("rq:scheduled:default", {id: 1})
        client.hset(keys.job_key(id), "unknown_since", "1")  # for longer than a worker is patient
        promote(client)
        runs.once()
    finally:
        registry.add(pinned.job)
    info = reader.read(client, id)
    assert (info.status, info.attempts) == ("failed", 1)
    assert "the job's steps were recorded with version '1' of" in info.reason
    assert "which has version '2' here: run a worker with that code" in info.reason
    step_jobs.bodies[:] = [lambda: ask("a")]
    id.retry()
    runs.once()
    assert id.status == "finished"


def test_a_version_that_is_no_number_and_no_text_is_refused():
    for version in (1.5, "a\nb", ("1",)):
        with pytest.raises(InvalidJob, match="give a number or a printable text"):
            Traits(version=version)  # type: ignore[arg-type]
