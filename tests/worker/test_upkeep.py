"""Upkeep: whatever a job, a child or a key does, the pool goes on with its duties, rescue first."""

from __future__ import annotations

import math
import os
import signal
import time

import pytest
from redis import Redis

from packmule.coordination.redis.waiting import ANSWER_SECONDS, impatient
from packmule.jobs import keys, reader
from packmule.jobs.control import cancel
from packmule.tests.worker import executor_jobs, pool_jobs
from packmule.tests.worker.pools import DEADLINE, children_of, ended, lines, logging_pool, pool, until
from packmule.worker.heartbeat import INTERVAL, RETRY_INTERVAL
from packmule.worker.order import Strict
from packmule.worker.pool import dead_locks
from packmule.worker.pool.dead_locks import DeadLocks
from packmule.worker.pool.upkeep import Upkeep
from packmule.worker.process.claim import Claims
from packmule.worker.scoreboard import HeldLock

pytestmark = pytest.mark.usefixtures("produce")

LONG_IDS = ["x" * 218 + "é", "é" * 200, "y" + "é" * 200]
"""Ids that a scoreboard can't show whole; wherever it cuts the last two, it cuts a letter of one."""


def renamed(client: Redis, id: str, name: str) -> str:
    """The waiting job under an id that our own client would refuse."""
    client.rename(keys.job_key(id), keys.job_key(name))
    client.linsert(keys.queue_key("default"), "before", id, name)
    client.lrem(keys.queue_key("default"), 1, id)
    return name


def claimed_by(client: Redis, worker: str) -> str:
    """A job that a worker claimed which lives, as far as its lease says."""
    id = pool_jobs.add.options(queue="low").enqueue(1)
    assert Claims(client, worker, Strict(["low"])).finish_and_claim("c1", [], 1).jobs
    return id


def vanish(client: Redis, worker: str) -> None:
    client.zadd(keys.LEASES, {worker: 1})


@pytest.mark.parametrize("long", LONG_IDS)
def test_a_job_with_an_overlong_id_runs_is_shown_as_started_and_can_be_stopped(
    server, client, tmp_path, long
):
    notes = tmp_path / "notes"
    made = executor_jobs.nap.options(timeout=60).enqueue(str(notes))
    id = renamed(client, made, long)
    with pool(server, patience=60) as process:
        until(lambda: reader.read(client, id).status == "started")
        children = children_of(process.pid)
        assert cancel(client, id, DEADLINE) == "stopped"
        assert ended(client, pool_jobs.add.enqueue(1)).result == 2
        assert children_of(process.pid) == children
    assert reader.read(client, id).status == "stopped"


def break_dependents(client: Redis) -> None:
    client.set("rq:job:parent:dependents", "no set")
    client.zadd(keys.PARENTS, {"parent": 1})


def break_a_dependent(client: Redis) -> None:
    client.hset(keys.job_key("parent"), mapping={"origin": "default", "status": "finished", "data": "x"})
    client.sadd("rq:job:parent:dependents", "child")
    client.set(keys.job_key("child"), "no hash")
    client.zadd(keys.PARENTS, {"parent": 1})


def break_parents(client: Redis) -> None:
    client.set(keys.PARENTS, "no sorted set")


def name_a_parent_that_is_no_text(client: Redis) -> None:
    client.zadd(keys.PARENTS, {b"\xff\xfe": 1})


def lease_to_a_worker_that_is_no_text(client: Redis) -> None:
    client.zadd(keys.LEASES, {b"\xff\xfe": 1})


def break_registrations(client: Redis) -> None:
    client.hset(keys.worker_key("w1"), mapping={"queues": "elsewhere"})
    client.set(keys.workers_key("elsewhere"), "no set")


FAULTS = [
    break_dependents,
    break_a_dependent,
    break_parents,
    name_a_parent_that_is_no_text,
    lease_to_a_worker_that_is_no_text,
    break_registrations,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_key_that_breaks_one_duty_stops_no_other_and_is_named_once(server, client, tmp_path, fault):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    fault(client)
    ids = [claimed_by(client, worker) for worker in ("w1", "w2")]
    vanish(client, "w1")
    with logging_pool(server) as (process, logged):
        assert ended(client, ids[0]).result == 2
        children = children_of(process.pid)
        id = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
        until(lambda: reader.read(client, id).status == "started")
        before = max(score for _, score in client.zrange(keys.LEASES, 0, -1, withscores=True))
        vanish(client, "w2")
        until(lambda: client.zscore(keys.LEASES, "w2") is None)
        until(lambda: max(score for _, score in client.zrange(keys.LEASES, 0, -1, withscores=True)) > before)
        gate.touch()
        assert ended(client, id).result == "a"
        assert ended(client, ids[1]).result == 2
        assert children_of(process.pid) == children
        written = logged()
        assert not client.zrangebyscore(keys.LEASES, "-inf", 1)
    complaints = [line for line in written.splitlines() if "can't" in line or "not text" in line]
    assert len(complaints) <= 3, complaints


def test_a_lease_outlives_a_cut_of_ten_seconds_and_the_heartbeats_on_either_side_of_it():
    client = impatient(Redis(unix_socket_path="/nonexistent/socket"))
    upkeep = Upkeep(client, DeadLocks(lambda: [client]))
    upkeep.do_due()
    assert not upkeep.is_available
    again_in = upkeep._beat.due_at - time.monotonic()
    assert INTERVAL + 10 + ANSWER_SECONDS + max(again_in, RETRY_INTERVAL) < keys.LEASE_SECONDS


def test_the_lock_of_a_dead_process_is_given_up_once_it_must_have_ended(monkeypatch):
    locks = DeadLocks(lambda: [Redis(unix_socket_path="/nonexistent/socket")])
    locks.add([HeldLock("a", "value", 1)])
    assert not locks.release()
    monkeypatch.setattr(dead_locks.time, "monotonic", lambda: math.inf)
    assert locks.release()


def test_many_vanished_workers_are_rescued_although_each_call_takes_a_few(server, client):
    ids = [claimed_by(client, f"w{number}") for number in range(25)]
    for number in range(25):
        vanish(client, f"w{number}")
    with pool(server):
        assert {ended(client, id).status for id in ids} == {"finished"}


def test_a_process_that_the_system_refuses_is_started_later(server, client):
    with pool(server, refused_forks=3) as process:
        assert ended(client, pool_jobs.add.enqueue(1)).result == 2
        assert len(children_of(process.pid)) == 1
        assert client.zcard(keys.LEASES) == 1


def test_a_process_that_dies_of_a_signal_without_a_name_is_replaced(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    id = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
    with pool(server) as process:
        until(lambda: lines(notes) == ["begin a"])
        os.kill(children_of(process.pid)[0], signal.SIGRTMIN + 3)
        gate.touch()
        assert ended(client, id).result == "a"
    crash = reader.read(client, id).crash
    assert crash["signal"] == f"signal {signal.SIGRTMIN + 3}"


def test_commands_reach_a_process_from_its_start(server, client, tmp_path):
    notes = tmp_path / "notes"
    with pool(server, patience=60) as process:
        for number in range(1, 4):  # each at another moment between two heartbeats
            until(lambda: len(client.pubsub_channels("rq:pubsub:*")) == 1)
            (before,) = client.pubsub_channels("rq:pubsub:*")
            id = executor_jobs.nap.options(timeout=60).enqueue(str(notes))
            until(lambda number=number: lines(notes).count("begin") == 2 * number - 1)
            os.kill(children_of(process.pid)[0], signal.SIGKILL)
            until(lambda number=number: lines(notes).count("begin") == 2 * number)
            assert before not in client.pubsub_channels("rq:pubsub:*")
            assert client.pubsub_numsub(*client.pubsub_channels("rq:pubsub:*"))[0][1] == 1
            assert cancel(client, id, DEADLINE) == "stopped"
