"""Jobs without a server: performed at once or collected, with the checks, retries and context of a worker."""

from __future__ import annotations

import asyncio
import threading
from datetime import date, timedelta

import pytest

import packmule
from packmule import Client, Retry, current, job, testing
from packmule.jobs.client import UnknownQueue
from packmule.jobs.control import NotRetried
from packmule.jobs.handle import JobCanceled, JobRaised
from packmule.jobs.job_type import InvalidCall
from packmule.jobs.options import InvalidOption
from packmule.jobs.signaling import InvalidSignal, NotSignaled
from packmule.testing.local import NoServer, NotDrained
from packmule.testing.local_job import EndlessJob
from packmule.tests.command_line import until

runs: list[object] = []
may_end = threading.Event()


@pytest.fixture(autouse=True)
def _no_runs() -> None:
    runs.clear()


@job(queue="low", retries=2)
def report(month: str, copies: int = 1) -> dict[str, object]:
    runs.append((month, current.job_id(), current.attempt()))
    current.progress(copies, 3, "printing")
    return {"month": month, "pages": (1, 2), "on": date(2026, 11, 1)}


@job(retries=1)
def speak() -> None:
    current.log("begins", "warning", attempt=current.attempt())
    current.emit({"attempt": current.attempt()})
    if current.attempt() == 1:
        raise ValueError("not yet")


@job(retries=2, give_up_on=(KeyError,))
def flaky(good_at: int, error: str = "value") -> int:
    runs.append(current.resume(0))
    current.checkpoint(current.attempt())
    if current.attempt() < good_at:
        raise {"value": ValueError, "key": KeyError}[error]("not yet")
    return current.attempt()


@job
def again(limit: int | None = None) -> str:
    if current.attempt() < 3:
        raise Retry(after=60, limit=limit)
    return "done"


@job
def endless() -> None:
    raise Retry(after=60)


@job
async def later(name: str) -> str:
    await asyncio.sleep(0)
    return f"{name} {current.job_id() is not None}"


@job
def chain(month: str) -> str:
    return report.enqueue(month, copies=2)


@job(unique="{account}")
def refresh(account: int, reason: str = "") -> str:
    return reason


@job(singleton=True)
def alone() -> int | None:
    return current.fence()


@job
def any_names(queue: str, **more: int) -> str:
    return queue


@job
def first_of_many(number: int) -> int:
    if number == 0:
        chain.enqueue("2026-11")
    if number == 1:
        raise ValueError("one")
    return number


@job
def waits_first(number: int) -> None:
    runs.append(number)
    if number == 1:
        assert may_end.wait(60)


@job
def tries_another() -> str:
    return flaky.enqueue(4).status


@job
def returns_what_json_lacks() -> object:
    return object()


# --- inline


def test_an_inline_job_has_ended_when_its_enqueue_returns():
    with testing.inline():
        handle = report.enqueue("2026-11", copies=3)
        assert handle.result() == {"month": "2026-11", "pages": [1, 2], "on": "2026-11-01"}
        assert (handle.status, handle.progress.percent, handle.refresh().queue) == ("finished", 100, "low")
        assert runs == [("2026-11", handle, 1)]
        assert [each.result()["month"] for each in report.enqueue_many([("a",), {"month": "b"}])] == [
            "a",
            "b",
        ]


def test_calls_are_checked_as_by_any_client():
    with testing.inline() as client:
        with pytest.raises(InvalidCall, match="month"):
            report.enqueue(11)
        with pytest.raises(UnknownQueue):
            report.options(queue="hihg").enqueue("2026-11")
        assert client.jobs == {}


def test_failed_jobs_are_retried_and_go_on_from_their_checkpoints():
    with testing.inline():
        handle = flaky.enqueue(3)
        assert (handle.result(), handle.refresh().attempts, runs) == (3, 3, [0, 1, 2])
        assert again.enqueue().result() == "done"


def test_an_enqueue_raises_the_error_that_ends_its_job():
    with testing.inline() as client:
        with pytest.raises(ValueError, match="not yet"):
            flaky.enqueue(4)
        assert len(runs) == 3
        with pytest.raises(KeyError):
            flaky.enqueue(2, "key")
        assert len(runs) == 4
        with pytest.raises(Retry):
            again.enqueue(limit=2)
        with pytest.raises(TypeError, match="JSON"):
            returns_what_json_lacks.enqueue()
        with pytest.raises(EndlessJob, match="give its Retry a limit"):
            endless.enqueue()
        client.raises = False
        handle = flaky.enqueue(4)
        assert handle.status == "failed"
        with pytest.raises(JobRaised, match="ValueError: not yet"):
            handle.result()


def test_async_jobs_run_with_and_without_a_loop_around_them():
    async def main() -> object:
        assert later.enqueue("inside").result() == "inside True"
        return await (await later.aenqueue("awaited")).aresult(timeout=5)

    with testing.inline():
        assert later.enqueue("plain").result() == "plain True"
        assert asyncio.run(main()) == "awaited True"


def test_a_job_may_enqueue_another_and_return_its_handle():
    with testing.inline() as client:
        inner = chain.enqueue("2026-11").result()
        assert client.job(inner).result()["month"] == "2026-11"


def test_an_error_is_that_of_its_own_job_alone():
    with testing.inline(raises=False) as client:
        handle = tries_another.enqueue()
        inner = list(client.jobs.values())[-1]
        assert (handle.result(), client.jobs[handle].error, type(inner.error)) == ("failed", None, ValueError)
        client.raises = True
        with pytest.raises(ValueError, match="one"):
            first_of_many.enqueue_many([(0,), (1,), (2,)])
        jobs = [job for job in client.jobs.values() if job.type.name.endswith("first_of_many")]
        assert [job.status for job in jobs] == ["finished", "failed", "queued"]


def test_each_thread_performs_what_it_enqueues():
    may_end.clear()
    with testing.inline():
        other = threading.Thread(target=waits_first.enqueue_many, args=([(1,), (2,)],))
        other.start()
        until(lambda: runs == [1], "the first job")
        waits_first.enqueue(3)
        assert runs == [1, 3]
        may_end.set()
        other.join()
        assert runs == [1, 3, 2]


def test_a_singleton_gets_a_rising_fencing_token():
    with testing.inline():
        first, second = alone.enqueue().result(), alone.enqueue().result()
        assert first < second


# --- collected


def test_what_is_collected_is_found_by_arguments_and_options():
    with testing.queue() as queue:
        handle = report.enqueue("2026-11", copies=2)
        assert queue.assert_enqueued(report) == handle
        for named in ({}, {"copies": 2}, {"queue": "low"}, {"month": "2026-11", "queue": "low"}):
            args = () if "month" in named else ("2026-11",)
            assert queue.assert_enqueued(report, *args, **named) == handle
            with pytest.raises(
                AssertionError, match=r"was enqueued: .*report\('2026-11', copies=2\) in low, queued"
            ):
                queue.refute_enqueued(report, *args, **named)
        queue.refute_enqueued(report, "2026-12")
        queue.refute_enqueued(report, "2026-11", queue="high")
        queue.refute_enqueued(flaky)
        with pytest.raises(
            AssertionError, match=r"report\('2026-12'\) was not enqueued; there are\n.*'2026-11'"
        ):
            queue.assert_enqueued(report, "2026-12")
        for wrong in ({"quue": "low"}, {"copies": "many"}):
            with pytest.raises(InvalidCall):
                queue.assert_enqueued(report, **wrong)
        any_names.enqueue(queue="q", pages=3)
        queue.assert_enqueued(any_names, queue="q", pages=3)


def test_nothing_is_performed_before_it_is_drained():
    with testing.queue() as queue:
        handle, delayed = chain.enqueue("2026-11"), report.options(delay=60).enqueue("2026-12")
        assert (handle.status, delayed.status, runs) == ("queued", "scheduled", [])
        with pytest.raises(NotDrained, match=f"{handle} .* is queued until"):
            handle.result()
        with pytest.raises(NotDrained):
            asyncio.run(handle.aresult())
        performed = queue.drain()
        assert [each.refresh().name.rpartition(".")[2] for each in performed] == ["chain", "report", "report"]
        assert (handle.status, delayed.status, queue.drain()) == ("finished", "finished", [])
        queue.assert_enqueued(report, "2026-11", copies=2)


def test_collected_jobs_may_be_canceled_and_retried():
    with testing.queue() as queue:
        handle = report.enqueue("2026-11")
        assert handle.cancel() == "canceled"
        assert queue.drain() == []
        with pytest.raises(JobCanceled):
            handle.result()
        handle.retry()
        assert queue.drain() == [handle]
        with pytest.raises(NotRetried):
            handle.retry()


def test_unique_jobs_and_chosen_ids_are_enqueued_once():
    with testing.queue() as queue:
        handles = refresh.enqueue_many([(1, "a"), (2, "b"), (1, "c")])
        assert (handles.held, handles[0] == handles[2], len(queue.drain())) == ({2}, True, 2)
        assert refresh.enqueue(1) != handles[0]
        waiting = refresh.options(debounce=5).enqueue(3, "old")
        assert refresh.options(debounce=5).enqueue(3, "new") == waiting
        queue.drain()
        assert waiting.result() == "new"
        assert refresh.options(throttle=60).enqueue(4) == refresh.options(throttle=60).enqueue(4)
        assert [report.options(job_id="one").enqueue("a") for _ in range(2)] == ["one", "one"]
        assert len(queue.drain()) == 2


@job(retries=3)
def returns_too_much(size: int) -> str:
    runs.append(size)
    return "x" * size


def test_a_job_whose_result_cannot_be_kept_is_not_performed_again():
    with testing.inline(raises=False):
        handle = returns_too_much.enqueue(2_000_000)
    assert "returned 2,000,002 bytes, but a result may hold 1,048,576" in handle.refresh().error
    assert (handle.status, runs) == ("failed", [2_000_000])


def test_spans_are_compared_however_they_were_given():
    with testing.queue() as queue:
        report.options(delay=timedelta(minutes=5), retry_intervals=["1m", 5]).enqueue("2026-11")
        queue.assert_enqueued(report, delay="5m", retry_intervals=[timedelta(minutes=1), "5s"])
        queue.assert_enqueued(report, delay=300)
        with pytest.raises(AssertionError, match=r"'2026-11'\) in low, scheduled in (5|4\.\d+) min"):
            queue.assert_enqueued(report, delay="6m")
        with pytest.raises(InvalidOption, match="give seconds, a timedelta, or a text"):
            queue.assert_enqueued(report, delay="5 minuts")


# --- around


def test_a_client_that_the_application_makes_takes_no_job_of_a_test():
    with testing.queue() as queue:
        with packmule.Client().make_default():  # as an application does when it starts
            handle = report.enqueue("2026-11")
            assert packmule.Client.default() is queue
        assert queue.drain() == [handle]
    assert packmule.Client.default() is not queue


def test_the_first_attempt_is_that_of_code_that_runs_outside_of_a_job():
    assert current.attempt() == 1


def test_what_only_a_server_has_is_refused_with_the_way_out():
    with testing.queue() as queue:
        with pytest.raises(NoServer, match="packmule_server"):
            packmule.Batch.create("all")
        with pytest.raises(NoServer, match="packmule_server"):
            queue.redis.ping()


def test_the_default_client_is_back_when_a_block_ends(client):
    before = Client(client).make_default()
    with testing.inline() as outer:
        with testing.queue() as inner:
            assert Client.default() is inner
        assert Client.default() is outer
    assert Client.default() is before


@job(retries=1, version=2)
def flow(fails: bool = False) -> list[object]:
    paid = current.step("pay", runs.append, "paid")
    current.sleep(days=3)
    if fails and len(runs) == 1:
        runs.append("failed")
        raise ValueError
    approved = current.wait_for("approved", timeout=60, default="late")
    return [paid, approved, current.wait_for("sent")]


@job
async def flow_async() -> object:
    await current.step("pay", asyncio.to_thread, runs.append, "paid")
    return current.wait_for("approved")


@pytest.mark.parametrize("fails", [False, True])
def test_steps_are_remembered_sleeps_end_at_once_and_signals_are_the_tests(fails: bool) -> None:
    with testing.queue() as queue:
        handle = flow.enqueue(fails)
        assert handle.signal("sent", 7) == "kept"
        queue.drain()
        assert (handle.status, runs[0]) == ("scheduled", "paid")
        with pytest.raises(NotDrained, match="waits for a signal: send it"):
            handle.result()
        assert handle.signal("approved", {"by": "ada"}) == "woken"
        queue.drain()
        assert handle.result() == [None, {"by": "ada"}, 7]
        assert runs == ["paid", "failed"] if fails else ["paid"]
        with pytest.raises(NotSignaled):
            handle.signal("sent")


def test_a_wait_of_a_local_job_can_time_out_or_be_canceled() -> None:
    with testing.inline() as client:
        handle = flow.enqueue()
        client.time_out(handle)
        with pytest.raises(NotDrained, match="does not wait"):
            client.time_out(handle)
        assert handle.status == "deferred"
        handle.signal("sent")
        assert handle.result() == [None, "late", None]
        waiting = flow_async.enqueue()
        assert waiting.cancel() == "canceled"
        again = flow_async.enqueue()
        again.signal("approved", 1)
        assert again.result() == 1
        with pytest.raises(InvalidSignal):
            flow.enqueue().signal("sent", float("nan"))


def test_what_a_job_says_can_be_read_from_its_handle(packmule_inline):
    handle = speak.enqueue()
    assert [(line.text, line.level, line.fields, line.attempt) for line in handle.logs()] == [
        ("begins", "warning", {"attempt": 1}, 1),
        ("begins", "warning", {"attempt": 2}, 2),
    ]
    assert handle.logs("error") == []
    assert list(handle.follow_logs()) == handle.logs() == asyncio.run(handle.alogs())

    async def follow() -> list[object]:
        return [chunk async for chunk in handle.output()]

    assert asyncio.run(follow()) == list(handle.output()) == [{"attempt": 1}, {"attempt": 2}]
    assert list(handle.output().kept()) == [{"attempt": 1}, {"attempt": 2}]
    with pytest.raises(packmule.NoSuchJob):
        packmule_inline.job("nobody").logs()
