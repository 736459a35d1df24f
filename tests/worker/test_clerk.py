"""The clerk, with a performing thread that takes its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import msgspec
import pytest

from packmule.worker.process import outcome
from packmule.worker.process.claim import NOTHING
from packmule.worker.process.completer import Clerk
from packmule.worker.process.outcome import Claimed, Outcome


def claimed(id: str) -> Claimed:
    return Claimed(id, f"c-{id}", "default", b"")


def finished(job: Claimed, at_once: bool = False) -> Outcome:
    ended = outcome.finished(job, b"", time.time(), time.time())
    return msgspec.structs.replace(ended, at_once=at_once)


class Desk:
    """Collects what is handed in, and by which thread."""

    def __init__(self) -> None:
        self.handed_in: list[tuple[str, str]] = []
        self.threads: set[str] = set()
        self.arrived = threading.Event()
        self.woken = threading.Event()

    def __call__(self, outcomes: list[Outcome]) -> None:
        self.handed_in += [(ended.id, ended.status) for ended in outcomes]
        self.threads.add(threading.current_thread().name)
        self.arrived.set()


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def clerk(desk: Desk) -> Iterator[Clerk]:
    clerk = Clerk(desk, lambda: NOTHING, desk.woken.set, lambda held: None)
    yield clerk
    clerk.close()


def test_short_jobs_are_handed_in_together_at_the_end(clerk, desk):
    clerk.take([claimed("a"), claimed("b")])
    while job := clerk.next():
        clerk.note(finished(job))
    assert [ended.id for ended in clerk.rest()] == ["a", "b"]
    assert desk.handed_in == []


def test_while_a_long_job_runs_ended_ones_are_handed_in_and_unstarted_ones_given_back(clerk, desk):
    clerk.take([claimed(id) for id in "abcd"])
    clerk.note(finished(clerk.next()))
    long = clerk.next()
    deadline = time.monotonic() + 10
    while len(desk.handed_in) < 3 and time.monotonic() < deadline:
        desk.arrived.wait(0.1)
        desk.arrived.clear()
    # The last claimed goes back first, so that the first comes to stand in front.
    assert desk.handed_in == [("a", "finished"), ("d", "queued"), ("c", "queued")]
    assert desk.threads == {"clerk"}
    assert clerk.next() is None
    clerk.note(finished(long))
    assert [ended.id for ended in clerk.rest()] == ["b"]


def test_an_outcome_that_asks_for_it_is_handed_in_before_the_next_job(clerk, desk):
    clerk.take([claimed("a"), claimed("b")])
    clerk.note(finished(clerk.next(), at_once=True))
    assert desk.handed_in == [("a", "finished")]
    assert desk.threads == {"MainThread"}


def test_what_a_stop_leaves_unstarted_is_returned_in_order(clerk, desk):
    clerk.take([claimed(id) for id in "abc"])
    clerk.note(finished(clerk.next()))
    assert [(ended.id, ended.status) for ended in clerk.rest()] == [
        ("a", "finished"),
        ("c", "queued"),
        ("b", "queued"),
    ]


def test_an_outcome_from_beside_wakes_the_main_thread_that_waits(clerk, desk):
    clerk.take([claimed("a")])
    job = clerk.next()
    clerk.expect()
    assert clerk.may_wait()
    assert clerk.is_expecting
    clerk.note(finished(job), beside=True)
    assert desk.woken.is_set()
    assert clerk.is_expecting
    assert not clerk.may_wait()
    assert [ended.id for ended in clerk.rest()] == ["a"]
    assert not clerk.is_expecting
