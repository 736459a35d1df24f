"""The pool's rest: it sleeps while no job runs, and the start of one wakes it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from redis import Redis

from packmule.jobs import reader
from packmule.jobs.client import Client
from packmule.tests.worker import pool_jobs
from packmule.tests.worker.pools import ended, pool, until
from packmule.worker.pool import rest
from packmule.worker.pool.child import Child
from packmule.worker.pool.rest import TICK, Rest
from packmule.worker.scoreboard import MAIN, Scoreboard

LONG = 30.0


class Wakes:
    """Watches how often a process has gone to sleep."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._count, self._since = "", 0.0

    def seconds_since_last(self) -> float:
        """Seconds since the count last changed, as far as calls have seen it."""
        (count,) = re.findall(r"^voluntary_ctxt_switches:\t(\d+)$", self._status.read_text(), re.MULTILINE)
        if count != self._count:
            self._count, self._since = count, time.monotonic()
        return time.monotonic() - self._since


@pytest.fixture
def woken() -> list[int]:
    return []


@pytest.fixture
def worker(woken: list[int]) -> Child:
    board = Scoreboard(1, lambda: woken.append(1))
    return Child("w1", os.getpid(), board)


@pytest.fixture(autouse=True)
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine may take its time between two looks of a test."""
    monkeypatch.setattr(rest, "REST_SECONDS", 30.0)


@pytest.fixture
def rested() -> Rest:
    """The rest of a pool whose last job ended long ago."""
    found = Rest()
    found._busy_at -= 60
    return found


def test_a_pool_sleeps_until_its_next_duty_if_no_job_has_run_for_a_while(worker, rested):
    assert Rest().seconds([worker], True, LONG) == TICK
    assert rested.seconds([worker], True, LONG) >= LONG


def test_a_pool_looks_at_each_tick_while_a_job_runs(worker, rested):
    worker.scoreboard.start(MAIN, "j1", "e1", 0)
    assert rested.seconds([worker], True, LONG) == TICK
    worker.scoreboard.clear(MAIN)
    assert rested.seconds([worker], True, LONG) == TICK, "others may follow"


def test_a_pool_looks_at_each_tick_while_a_process_starts_stops_or_is_frozen(worker, rested):
    assert rested.seconds([worker], False, LONG) == TICK
    rested._busy_at -= 60
    worker.stopped_at = time.monotonic()
    assert rested.seconds([worker], True, LONG) == TICK


def test_only_the_first_job_that_starts_after_a_pool_fell_asleep_wakes_it(worker, rested, woken):
    worker.scoreboard.start(MAIN, "j1", "e1", 0)
    worker.scoreboard.clear(MAIN)
    assert woken == []
    rested.seconds([worker], True, LONG)
    for _ in range(3):
        worker.scoreboard.start(MAIN, "j2", "e2", 0)
    assert woken == [1]


def test_a_sleeping_pool_marks_the_next_job_as_started(server, client: Redis, tmp_path):
    Client(client).make_default()
    gate = tmp_path / "gate"
    with pool(server, interval=90) as process:
        ended(client, pool_jobs.noop.enqueue())
        wakes = Wakes(process.pid)
        until(lambda: wakes.seconds_since_last() > 5 * TICK)
        id = pool_jobs.note_when_told.enqueue(str(tmp_path / "notes"), str(gate), "x")
        until(lambda: reader.read(client, id).status == "started")
        gate.touch()
        assert ended(client, id).status == "finished"
