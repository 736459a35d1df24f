"""Waiting: a push while the worker waits, is busy, or has lost its connection."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from redis import Redis

from packmule.coordination.clock import clock
from packmule.jobs import keys
from packmule.tests.worker import executor_jobs
from packmule.tests.worker.pools import until
from packmule.worker.order import Strict
from packmule.worker.process.blocking_wait import IdleWait
from packmule.worker.process.claim import Claims
from packmule.worker.process.performer import finished

pytestmark = pytest.mark.usefixtures("produce")


@pytest.fixture
def claims(client) -> Claims:
    return Claims(client, "w1", Strict(["default", "low"]))


@pytest.fixture
def waiting(client, claims) -> Iterator[IdleWait]:
    """Moves under way on two queues, begun by a wait that a descriptor has ended at once."""
    claims.finish_and_claim("first", [], 1)
    wake, waker = os.pipe()
    os.write(waker, b"!")
    idle = IdleWait(client, "w1", claims, [keys.queue_key("default"), keys.queue_key("low")], [wake])
    assert idle.wait().is_empty
    os.read(wake, 1)
    yield idle
    idle.close()
    os.close(wake)
    os.close(waker)


def test_a_push_returns_the_whole_job_and_not_only_its_id(client, claims, waiting):
    id = executor_jobs.where.enqueue()
    (job,) = waiting.wait().jobs
    assert (job.id, job.queue) == (id, "default")
    assert claims.finish_and_claim("next", [finished(job, b"1", 1.0, 2.0)], 1).stale == []


def test_jobs_that_arrive_while_the_worker_is_busy_are_read_later(waiting):
    ids = {executor_jobs.where.enqueue(), executor_jobs.where.options(queue="low").enqueue()}
    assert {job.id for job in waiting.arrived().jobs} == ids
    assert not waiting.is_under_way


def test_ended_moves_return_what_was_pushed_before(client, waiting):
    id = executor_jobs.where.enqueue()
    assert [job.id for job in waiting.end().jobs] == [id]
    later = executor_jobs.where.enqueue()
    assert client.lrange(keys.queue_key("default"), 0, -1) == [later.encode()]


def test_a_job_whose_reply_was_lost_is_recovered(client, waiting):
    id = executor_jobs.where.enqueue()
    waiting.close()  # the reply was on its way
    assert [job.id for job in waiting.recover().jobs] == [id]
    assert waiting.recover().is_empty


def test_a_job_that_was_moved_and_never_claimed_is_recovered(client, waiting):
    for other in client.client_list():
        if other["name"] == keys.connection_name("w1"):
            client.client_kill_filter(_id=other["id"])
    id = executor_jobs.where.enqueue()
    client.lmove(keys.queue_key("default"), keys.waiting_key("w1"), "LEFT", "RIGHT")
    assert [job.id for job in waiting.recover().jobs] == [id]


def test_the_next_claim_gets_a_job_that_was_moved_on_a_server_without_the_script(client, claims, waiting):
    client.script_flush()
    id = executor_jobs.where.enqueue()
    assert waiting.wait().is_empty
    assert [job.id for job in claims.finish_and_claim("next", [], 1).jobs] == [id]


def test_a_worker_survives_any_number_of_lost_connections(client, waiting):
    for _ in range(client.connection_pool.max_connections):
        waiting.close()
        assert waiting.recover().is_empty
        assert waiting.wait(0).is_empty
    id = executor_jobs.where.enqueue()
    assert [job.id for job in waiting.wait().jobs] == [id]


class StandsStill(IdleWait):
    """A process that stands still just after it has begun a move, until a job has come by that move."""

    claimed_at = 0.0

    def _begin(self, *move) -> None:
        super()._begin(*move)
        executor_jobs.where.enqueue()
        until(lambda: any(not field.startswith(b".") for field in self.client.hkeys("pm:claims:w1")))
        self.claimed_at = clock()


def test_a_job_that_came_while_the_process_stood_still_is_not_taken_for_younger(client: Redis, claims):
    claims.finish_and_claim("first", [], 1)
    idle = StandsStill(client, "w1", claims, [keys.queue_key("default")], [])
    arrived = idle.wait()
    idle.close()
    assert len(arrived.jobs) == 1
    assert arrived.since < idle.claimed_at


def test_a_job_that_came_after_the_last_look_is_not_taken_for_younger_than_that(waiting):
    executor_jobs.where.enqueue()
    came_at = clock()
    arrived = waiting.wait()
    assert len(arrived.jobs) == 1
    assert arrived.since < came_at
