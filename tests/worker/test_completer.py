"""The completer, beside a thread that performs slowly."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import msgspec
import pytest

from packmule.worker.process import outcome
from packmule.worker.process.claim import NOTHING
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.completer import Completer
from packmule.worker.process.outcome import Outcome


def claimed(id: str) -> Claimed:
    return Claimed(id, f"c-{id}", "default", b"")


def finished(job: Claimed, at_once: bool = False) -> Outcome:
    ended = outcome.finished(job, b"", time.time(), time.time())
    return msgspec.structs.replace(ended, at_once=at_once)


class Desk:
    """Collects what is acknowledged, and by which thread."""

    def __init__(self) -> None:
        self.acknowledged: list[tuple[str, str]] = []
        self.threads: set[str] = set()
        self.arrived = threading.Event()
        self.woken = threading.Event()

    def __call__(self, outcomes: list[Outcome]) -> None:
        self.acknowledged += [(ended.id, ended.status) for ended in outcomes]
        self.threads.add(threading.current_thread().name)
        self.arrived.set()


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def completer(desk: Desk) -> Iterator[Completer]:
    completer = Completer(desk, lambda: NOTHING, desk.woken.set, lambda held: None)
    yield completer
    completer.close()


def test_short_jobs_are_acknowledged_together_at_the_end(completer, desk):
    completer.take([claimed("a"), claimed("b")])
    while job := completer.next():
        completer.done(finished(job))
    assert [ended.id for ended in completer.drain()] == ["a", "b"]
    assert desk.acknowledged == []


def test_during_a_long_job_outcomes_are_acknowledged_and_unstarted_jobs_returned(completer, desk):
    completer.take([claimed(id) for id in "abcd"])
    completer.done(finished(completer.next()))
    long = completer.next()
    deadline = time.monotonic() + 60
    while len(desk.acknowledged) < 3 and time.monotonic() < deadline:
        desk.arrived.wait(0.1)
        desk.arrived.clear()
    # The last claimed goes back first, so that the first comes to stand in front.
    assert desk.acknowledged == [("a", "finished"), ("d", "queued"), ("c", "queued")]
    assert desk.threads == {"completer"}
    assert completer.next() is None
    completer.done(finished(long))
    assert [ended.id for ended in completer.drain()] == ["b"]


def test_an_at_once_outcome_is_acknowledged_before_the_next_job(completer, desk):
    completer.take([claimed("a"), claimed("b")])
    completer.done(finished(completer.next(), at_once=True))
    assert desk.acknowledged == [("a", "finished")]
    assert desk.threads == {"MainThread"}


def test_unstarted_jobs_are_returned_in_order_at_a_stop(completer, desk):
    completer.take([claimed(id) for id in "abc"])
    completer.done(finished(completer.next()))
    assert [(ended.id, ended.status) for ended in completer.drain()] == [
        ("a", "finished"),
        ("c", "queued"),
        ("b", "queued"),
    ]


def test_an_outcome_from_another_thread_ends_the_main_threads_wait(completer, desk):
    completer.take([claimed("a")])
    job = completer.next()
    completer.expect()
    assert completer.may_wait()
    assert completer.is_expecting
    completer.done(finished(job), beside=True)
    assert desk.woken.is_set()
    assert completer.is_expecting
    assert not completer.may_wait()
    assert [ended.id for ended in completer.drain()] == ["a"]
    assert not completer.is_expecting
