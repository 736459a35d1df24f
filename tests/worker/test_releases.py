"""What a job gives back when it ends or goes back: slots and tokens, and the turn of the groups behind it."""

from __future__ import annotations

import time

import pytest
from redis import Redis

from packmule.jobs import control, keys, reader, slots
from packmule.jobs.client import Client
from packmule.tests.worker import limited_jobs
from packmule.tests.worker.test_callbacks import Desk
from packmule.worker.process import outcome, performer
from packmule.worker.rescue import rescue


@pytest.fixture
def desk(client: Redis) -> Desk:
    Client(client).make_default()
    return Desk(client)


def test_a_blocked_singleton_runs_when_no_worker_knew_the_one_that_held_its_lock(client, desk):
    first, second = (limited_jobs.alone.enqueue("p", str(number)) for number in range(2))
    (job,) = desk.exchange()
    assert desk.exchange() == []
    unknown = outcome.unknown(job, LookupError("shop.tomorrow"), time.time(), 600)
    assert [each.id for each in desk.exchange([unknown])] == [second]
    assert reader.read(client, first).status == "scheduled"


def test_a_blocked_job_gets_the_slot_of_one_that_was_returned_and_then_canceled(client, desk):
    first, second = (limited_jobs.fair_slot.enqueue("p", tenant) for tenant in "ab")
    (job,) = desk.exchange()
    assert desk.exchange() == []
    desk.exchange([outcome.returned(job)], want=0)
    control.cancel(client, first)
    assert [each.id for each in desk.exchange()] == [second]


def test_a_job_whose_slot_was_taken_from_it_unblocks_nobody_when_it_ends(client, desk):
    first, second, _ = (limited_jobs.fair_slot.enqueue("p", tenant) for tenant in "abc")
    (job,) = desk.exchange()
    assert desk.exchange() == []
    (blocked,) = client.keys("pm:blocked:*")
    slots.release_slot(client, blocked.decode().removeprefix("pm:blocked:"), first, force=True)
    assert [each.id for each in desk.exchange()] == [second]
    desk.exchange([performer.finished(job, b"1", 1.0, 2.0)], want=0)
    assert client.zcard(blocked) == 1


def test_the_next_job_of_a_group_follows_when_its_head_is_canceled(client, desk):
    first, second = limited_jobs.in_turn.enqueue_many([("p", "a")] * 2)
    control.cancel(client, first)
    assert [each.id for each in desk.exchange()] == [second]


@pytest.mark.parametrize("key", ["pm:blocked:k", keys.DUE])
def test_one_call_looks_at_a_bounded_number_of_groups_that_wait_without_a_job(client, desk, key):
    id = limited_jobs.fair_slot.enqueue("p", "a")
    client.hset(keys.job_key(id), "limits", '[["slots", "k", 1]]')
    (job,) = desk.exchange()
    client.zadd(key, {f"default\nnobody{number}": number for number in range(500)})
    desk.exchange([performer.finished(job, b"1", 1.0, 2.0)])
    assert 400 < client.zcard(key) < 500


def test_a_job_that_ends_gives_back_no_token(desk):
    first, _ = (limited_jobs.slot_and_rate.enqueue("p", "d") for _ in range(2))
    (job,) = desk.exchange()
    assert job.id == first
    assert desk.exchange([performer.finished(job, b"1", 1.0, 2.0)]) == []


@pytest.mark.parametrize(("verdict", "is_given_back"), [("returned", True), ("died", False)])
def test_a_job_that_its_worker_lost_gives_back_its_token_only_unperformed(desk, verdict, is_given_back):
    id = limited_jobs.slot_and_rate.enqueue("p", "d")
    (job,) = desk.exchange()
    rescue(desk.client, desk.name, verdict, "why", [job.execution])
    assert [each.id for each in Desk(desk.client, "w2").exchange()] == [id] * is_given_back


@pytest.mark.parametrize("went_back", [False, True])
def test_a_singleton_that_ended_is_not_remembered_among_those_that_went_back(client, desk, went_back):
    limited_jobs.replaces.enqueue("p", "1")
    (job,) = desk.exchange()
    if went_back:
        (job,) = desk.exchange([outcome.returned(job)])
        assert len(client.keys("pm:retrying:*")) == 1
    desk.exchange([performer.finished(job, b"1", 1.0, 2.0)], want=0)
    assert client.keys("pm:retrying:*") == []
