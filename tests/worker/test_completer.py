"""The completer, beside a thread that performs slowly."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import msgspec
import pytest

from packmule.coordination.clock import clock
from packmule.worker.process import completer as module
from packmule.worker.process import performer
from packmule.worker.process.claim import NOTHING, Claim
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.completer import LONG_SECONDS, STALE_SECONDS, Completer
from packmule.worker.process.outcome import Outcome


def claimed(id: str) -> Claimed:
    return Claimed(id, f"c-{id}", "default", b"")


def finished(job: Claimed, at_once: bool = False) -> Outcome:
    ended = performer.finished(job, b"", time.time(), time.time())
    return msgspec.structs.replace(ended, at_once=at_once)


def claim(ids: str, since: float | None = None) -> Claim:
    """A claim of these jobs, made now or at the instant `since`."""
    return NOTHING._replace(jobs=[claimed(id) for id in ids], since=clock() if since is None else since)


class Desk:
    """In the fetcher's place: collects what is acknowledged, and by which thread."""

    has_moves = False

    def __init__(self) -> None:
        self.acknowledged: list[tuple[str, str]] = []
        self.threads: set[str] = set()
        self.arrived = threading.Event()
        self.woken = threading.Event()

    def acknowledge(self, outcomes: list[Outcome]) -> Claim:
        self.acknowledged += [(ended.id, ended.status) for ended in outcomes]
        self.threads.add(threading.current_thread().name)
        self.arrived.set()
        return NOTHING

    def stop_waiting(self) -> Claim:
        self.has_moves = False
        return claim("m")


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No job is a long one, however slow this machine is."""
    monkeypatch.setattr(module, "LONG_SECONDS", 600.0)


@pytest.fixture
def completer(desk: Desk, patient: None) -> Completer:
    """A completer whose thread does not run."""
    return Completer(desk, desk.woken.set, lambda held: None)


@pytest.fixture
def beside(completer: Completer) -> Iterator[Completer]:
    """A completer whose thread runs beside the test's."""
    completer.start()
    yield completer
    completer.close()


def drained(completer: Completer) -> list[tuple[str, str]]:
    """What the thread beside leaves, once it has nothing under way."""
    found = completer.drain()
    while completer.is_busy:
        found += completer.drain()
    return [(ended.id, ended.status) for ended in found]


def test_short_jobs_are_acknowledged_together_at_the_end(completer, desk):
    completer.take(claim("ab"))
    while job := completer.next():
        completer.done(finished(job))
    assert [ended.id for ended in completer.drain()] == ["a", "b"]
    assert desk.acknowledged == []


def test_during_a_long_job_outcomes_are_acknowledged_and_unstarted_jobs_returned(beside, desk, monkeypatch):
    beside.take(claim("abcd"))
    beside.done(finished(beside.next()))
    long = beside.next()
    monkeypatch.setattr(module, "LONG_SECONDS", LONG_SECONDS)
    deadline = time.monotonic() + 60
    while len(desk.acknowledged) < 3 and time.monotonic() < deadline:
        desk.arrived.wait(0.1)
        desk.arrived.clear()
    # The last claimed goes back first, so that the first comes to stand in front.
    assert desk.acknowledged == [("a", "finished"), ("d", "queued"), ("c", "queued")]
    assert desk.threads == {"completer"}
    assert beside.next() is None
    beside.done(finished(long))
    left = drained(beside)
    assert [*desk.acknowledged[3:], *left] == [("b", "finished")]


def test_an_at_once_outcome_is_acknowledged_before_the_next_job(completer, desk):
    completer.take(claim("ab"))
    completer.done(finished(completer.next(), at_once=True))
    assert desk.acknowledged == [("a", "finished")]
    assert desk.threads == {"MainThread"}


def test_unstarted_jobs_are_returned_in_order_at_a_stop(completer, desk):
    completer.take(claim("abc"))
    completer.done(finished(completer.next()))
    assert [(ended.id, ended.status) for ended in completer.drain()] == [
        ("a", "finished"),
        ("c", "queued"),
        ("b", "queued"),
    ]


def test_an_outcome_from_another_thread_ends_the_main_threads_wait(completer, desk):
    completer.take(claim("a"))
    job = completer.next()
    assert completer.is_busy
    assert completer.may_wait(True)
    thread = threading.Thread(target=completer.done, args=[finished(job)])
    thread.start()
    thread.join()
    assert desk.woken.is_set()
    assert completer.is_busy
    assert not completer.may_wait(True)
    assert [ended.id for ended in completer.drain()] == ["a"]
    assert not completer.is_busy
    assert not completer.may_wait(True)  # what it waited for has come
    assert completer.may_wait(False)


def test_what_arrives_during_a_long_job_is_given_back_by_whoever_comes_first(beside, desk, monkeypatch):
    desk.has_moves = True
    beside.take(claim("a"))
    beside.done(finished(beside.next()))
    monkeypatch.setattr(module, "LONG_SECONDS", LONG_SECONDS)
    time.sleep(LONG_SECONDS + 0.02)  # as if the job had kept the other thread from running
    left = drained(beside)
    assert sorted([*desk.acknowledged, *left]) == [("a", "finished"), ("m", "queued")]


def test_a_callback_that_an_acknowledgement_brought_before_a_freeze_is_given_back(
    completer: Completer, desk: Desk, monkeypatch
):
    monkeypatch.setattr(desk, "acknowledge", lambda outcomes: claim("c", clock() - 2 * STALE_SECONDS))
    completer.take(claim("ab"))
    job = completer.next()
    assert job is not None
    completer.done(finished(job, at_once=True))
    completer.take(claim("d"))
    assert completer.next() is None
    assert [ended.id for ended in completer.drain()] == ["d", "c", "b"]


def test_jobs_that_were_claimed_before_the_process_was_frozen_are_given_back_unbegun(completer):
    completer.take(claim("ab", clock() - STALE_SECONDS))
    assert completer.next() is None
    assert [(ended.id, ended.status) for ended in completer.drain()] == [("b", "queued"), ("a", "queued")]


def test_after_a_long_job_none_of_its_claim_begins(completer):
    completer.take(claim("ab"))
    completer.done(finished(completer.next()))
    completer._began -= module.LONG_SECONDS  # as if the job had taken that long
    assert completer.next() is None
