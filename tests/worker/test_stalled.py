"""Stalled workers: what the pool gives back in their place, and how the worker continues."""

from __future__ import annotations

import pytest

from packmule.jobs import keys
from packmule.tests.worker import pool_jobs
from packmule.worker.order import Strict
from packmule.worker.pool import stalled
from packmule.worker.process.claim import Claims
from packmule.worker.scoreboard import MAIN, Scoreboard

pytestmark = pytest.mark.usefixtures("produce")


@pytest.fixture
def claims(client) -> Claims:
    return Claims(client, "w1", Strict(["default"]))


def begun(scoreboard: Scoreboard, jobs) -> None:
    """The second of these jobs runs; the first has ended, and is not acknowledged."""
    scoreboard.show_held([job.execution for job in jobs])
    scoreboard.start(MAIN, jobs[1].id, jobs[1].execution, 60)


def test_unstarted_jobs_of_a_stalled_worker_go_back_and_ended_ones_do_not(client, claims):
    ids = pool_jobs.add.enqueue_many([(number,) for number in range(4)])
    jobs = claims.finish_and_claim("c1", [], 4).jobs
    moved = pool_jobs.add.enqueue(5)
    client.lmove("rq:queue:default", keys.waiting_key("w1"), "LEFT", "RIGHT")
    claims.claim_moved(0, "m1")
    scoreboard = Scoreboard()
    begun(scoreboard, jobs)
    assert set(stalled.give_back(client, "w1", scoreboard)) == {*ids[2:], moved}
    assert scoreboard.held() == []
    assert not stalled.is_stalled(scoreboard)


def test_a_worker_that_continues_loses_no_job(client, claims, monkeypatch):
    pool_jobs.add.enqueue_many([(number,) for number in range(6)])
    jobs = claims.finish_and_claim("c1", [], 4).jobs
    scoreboard = Scoreboard()
    begun(scoreboard, jobs)

    def go_on(*_: object) -> None:
        scoreboard.clear(MAIN)
        claims.finish_and_claim("c2", [], 2)
        scoreboard.start(MAIN, jobs[2].id, jobs[2].execution, 60)

    monkeypatch.setattr(stalled, "close_waiting", go_on)
    assert stalled.give_back(client, "w1", scoreboard) == []
    assert client.llen("rq:queue:default") == 0


def test_a_worker_with_concurrent_jobs_never_counts_as_stalled(client, claims):
    pool_jobs.add.enqueue_many([(number,) for number in range(2)])
    scoreboard = Scoreboard(2)
    begun(scoreboard, claims.finish_and_claim("c1", [], 2).jobs)
    scoreboard.give_back(scoreboard.take())
    assert not stalled.is_stalled(scoreboard)
