"""The job running now: its progress is throttled, never goes back, and its last report is always sent."""

from __future__ import annotations

import os
import signal
import threading
import time
from itertools import pairwise

import pytest

from packmule.jobs import context, current, reader
from packmule.jobs.current import CheckpointTooLarge, NoResource

Reports = list[tuple[float, float | None, str]]


@pytest.fixture
def sent() -> Reports:
    return []


def until_sent(sent: Reports) -> None:
    deadline = time.monotonic() + 60
    while not sent:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def performing(sent: Reports, id: str = "j1", attempt: int = 1):
    return context.Running(id, attempt, lambda *report: sent.append(report))


def test_outside_of_a_job_progress_does_nothing():
    current.progress(1, 2, "alone")
    assert context.running() is None
    assert current.job_id() is None


def test_inside_a_job_its_id_and_attempt_are_known(sent):
    with performing(sent, "j7", 3):
        assert current.job_id() == "j7"
        assert context.running().attempt == 3
    assert current.job_id() is None


def test_a_job_inside_a_job_hides_the_outer_one_for_a_while(sent):
    with performing(sent, "outer"):
        with performing([], "inner"):
            assert current.job_id() == "inner"
        assert current.job_id() == "outer"


def test_the_first_report_leaves_at_once(sent):
    with performing(sent):
        current.progress(1, 10, "reading")
        assert sent == [(1, 10, "reading")]


def test_reports_in_a_tight_loop_leave_at_most_ten_times_a_second(sent):
    began = time.monotonic()
    with performing(sent):
        for done in range(20_000):
            current.progress(done, 1_000_000)
        took = time.monotonic() - began
    assert 2 <= len(sent) <= took / context.REPORT_INTERVAL + 2
    assert sent[-1] == (19_999, 1_000_000, "")


def test_a_steady_job_keeps_reporting():
    times: list[float] = []
    deadline = time.monotonic() + 60
    with context.Running("j1", 1, lambda *_: times.append(job.reported_at)) as job:
        done = 0
        while len(times) < 4:
            assert time.monotonic() < deadline
            done += 1
            current.progress(done)
    gaps = [after - before for before, after in pairwise(times[:4])]
    assert min(gaps) >= context.REPORT_INTERVAL


@pytest.mark.usefixtures("unhurried")
def test_completion_is_reported_at_once(sent):
    with performing(sent):
        current.progress(1, 3)
        current.progress(2, 3)
        current.progress(3, 3, "done")
        assert sent == [(1, 3, ""), (3, 3, "done")]
    assert len(sent) == 2


@pytest.mark.usefixtures("unhurried")
def test_the_last_report_is_sent_when_the_job_ends(sent):
    with performing(sent):
        current.progress(1, 10)
        current.progress(2, 10, "half-way")
        assert sent == [(1, 10, "")]
    assert sent[1:] == [(2, 10, "half-way")]


def test_a_job_that_is_still_at_it_after_a_while_reports_how_far_it_is(sent, unhurried):
    with performing(sent) as job:
        job.report_unless_brief(0, 3, "rendering")
        job.report_unless_brief(1, 3, "connecting")
        assert sent == []
        context.LateReports.send(context.late_reports, *unhurried)
        until_sent(sent)
        assert sent == [(1, 3, "connecting")]
        job.report_unless_brief(2, 3, "waiting")
        job.report_unless_brief(3, 3, "sent")
        assert sent[1:] == [(3, 3, "sent")]
    assert len(sent) == 2


@pytest.mark.usefixtures("unhurried")
def test_a_job_that_ends_at_once_reports_nothing(sent):
    with performing(sent) as job:
        job.report_unless_brief(0, 3, "rendering")
        job.report_unless_brief(3, 3, "sent")
    assert sent == []


def test_a_job_that_fails_in_a_step_reports_the_step(sent):
    with pytest.raises(ZeroDivisionError), performing(sent) as job:
        job.report_unless_brief(1, 3, "connecting")
        _ = 1 / 0
    assert sent == [(1, 3, "connecting")]


def test_the_last_report_is_sent_when_the_job_fails(sent):
    with pytest.raises(ZeroDivisionError), performing(sent):
        current.progress(1, 10)
        current.progress(2, 10, "dividing")
        _ = 1 / 0
    assert sent[-1] == (2, 10, "dividing")


def test_flush_sends_a_held_report_once(sent):
    with performing(sent) as running:
        current.progress(1, 10)
        current.progress(2, 10)
        running.flush()
        running.flush()
    assert sent == [(1, 10, ""), (2, 10, "")]


def test_a_held_report_leaves_in_time_though_the_job_says_nothing_more(sent):
    with performing(sent):
        for _ in range(3):
            current.progress(1, 10)
            current.progress(2, 10)
            deadline = time.monotonic() + 60
            while sent[-1] != (2, 10, ""):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(context.REPORT_INTERVAL)
            sent.append((0, 10, ""))


def test_a_job_ends_after_a_held_report_that_was_on_its_way():
    sent, began, gate = [], threading.Event(), threading.Event()

    def report(done: float, *_: object) -> None:
        assert done == 1 or began.set() or gate.wait(60)
        sent.append(done)

    with context.Running("j1", 1, report):
        current.progress(1, 10)
        current.progress(2, 10)
        assert began.wait(60)
        threading.Timer(0.2, gate.set).start()
    assert sent == [1, 2]


def test_a_fork_of_a_process_that_held_a_report_sends_its_own_in_time(sent):
    with performing(sent):
        current.progress(1, 10)
        current.progress(2, 10)
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        with context.Running("j2", 1, lambda done, *_: os.write(writer, b"%d" % done)):
            current.progress(3, 10)
            current.progress(4, 10)
            time.sleep(600)
        os._exit(0)
    os.close(writer)
    began = time.monotonic()
    assert os.read(reader, 1) + os.read(reader, 1) == b"34"
    assert time.monotonic() - began < 60
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)


@pytest.mark.parametrize("total", [-5, 0, float("nan"), float("inf")])
def test_a_total_that_is_none_is_left_out_and_a_negative_done_is_none_yet(sent, total):
    with performing(sent):
        current.progress(-3, total)
    assert sent == [(0, None, "")]


def test_more_than_all_is_reported_as_it_is(sent):
    with performing(sent):
        current.progress(120, 100)
    assert sent == [(120, 100, "")]
    assert reader.Progress(120, 100, "").percent == 100


def test_completion_reported_over_and_over_leaves_at_most_ten_times_a_second(sent):
    began = time.monotonic()
    with performing(sent):
        for _ in range(1000):
            current.progress(5, 5)
        took = time.monotonic() - began
    assert len(sent) <= took / context.REPORT_INTERVAL + 2


@pytest.mark.usefixtures("unhurried")
def test_tracked_items_come_through_and_their_count_is_reported(sent):
    with performing(sent):
        assert list(current.track("abc", message="spelling")) == ["a", "b", "c"]
    assert sent == [(0, 3, "spelling"), (3, 3, "spelling")]
    assert list(current.track(iter("ab"))) == ["a", "b"]


def test_a_loop_that_is_left_early_is_not_complete(sent):
    with performing(sent):
        for item in current.track(iter(range(9)), total=9):
            if item == 4:
                break
    assert sent[-1] == (4, 9, "")


def test_done_never_goes_back(sent):
    with performing(sent) as running:
        for done in (5, 3, float("nan"), 7, 6):
            current.progress(done, 10)
            running.flush()
    assert [done for done, _, _ in sent] == [5, 5, 5, 7, 7]


def test_a_new_attempt_starts_over(sent):
    for attempt in (1, 2):
        with performing(sent, attempt=attempt):
            current.progress(10 - attempt)
    assert [done for done, _, _ in sent] == [9, 8]


def test_a_message_that_is_not_utf8_is_made_readable(sent):
    name = os.fsdecode(b"caf\xe9.jpg")
    with performing(sent):
        current.progress(1, None, name)
    assert sent == [(1, None, "caf\\udce9.jpg")]


def test_numbers_leave_as_plain_floats(sent):
    class Odd(float):
        def __repr__(self) -> str:
            return "Odd(1.0)"

    with performing(sent):
        current.progress(Odd(1), Odd(2))
    assert [type(number) for number in sent[0][:2]] == [float, float]


def test_threads_do_not_see_each_others_job():
    seen: dict[str, str | None] = {}
    together = threading.Barrier(2, timeout=60)

    def perform(id: str) -> None:
        with performing([], id):
            together.wait()
            seen[id] = current.job_id()

    threads = [threading.Thread(target=perform, args=(id,)) for id in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"a": "a", "b": "b"}


class Lent:
    pass


def test_a_resource_is_found_by_its_type_and_a_later_one_replaces_it(monkeypatch):
    monkeypatch.setattr(context, "resources", {})
    first, second = Lent(), Lent()
    context.provide(first, "text")
    assert current.resource(Lent) is first
    assert current.resource(str) == "text"
    context.provide(second)
    assert current.resource(Lent) is second


def test_a_missing_resource_is_named_with_the_way_out():
    class Missing:
        pass

    with pytest.raises(NoResource, match=r"^no Missing here: .*context\.provide"):
        current.resource(Missing)


def test_resources_that_can_close_are_closed_when_a_worker_stops(monkeypatch):
    class Kept:
        closed = False

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr(context, "resources", {})
    kept = Kept()
    context.provide(kept, 7)
    context.close()
    assert kept.closed


def test_of_a_long_progress_message_the_beginning_is_kept(sent):
    with performing(sent):
        current.progress(1, 10, "m" * 100_000)
    assert sent == [(1, 10, "m" * 1000)]


@pytest.mark.parametrize("cursor", [float("nan"), {"at": [float("inf"), None]}])
def test_a_checkpoint_of_what_json_cannot_hold_is_refused(cursor):
    with context.Running("j1", 1, lambda *report: None), pytest.raises(ValueError, match="not JSON"):
        current.checkpoint(cursor)


def test_a_checkpoint_of_too_many_bytes_is_refused_and_the_last_one_stays():
    saved: list[bytes] = []
    with context.Running("j1", 1, lambda *report: None, save=saved.append):
        current.checkpoint("a" * 1000)
        with pytest.raises(CheckpointTooLarge, match="put the data in storage and keep its path"):
            current.checkpoint("b" * 300_000)
        assert current.resume() == "a" * 1000
    assert saved == [b'"' + b"a" * 1000 + b'"']
