"""Heartbeats: leases are renewed, and RQ's hashes of living workers updated."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError
from rq import Queue
from rq.worker import Worker

from packmule.coordination.redis.replies import as_text
from packmule.jobs import cluster, keys, wire
from packmule.jobs.client import Client
from packmule.observe import events, metrics
from packmule.tests.worker import pool_jobs
from packmule.tests.worker.pools import DEADLINE, children_of, pool, until
from packmule.worker.heartbeat import Heartbeat
from packmule.worker.kernel import resident_memory
from packmule.worker.rescue import rescue_expired
from packmule.worker.scoreboard import MAIN, Scoreboard


@pytest.fixture
def scoreboard() -> Scoreboard:
    """Those of a worker that has registered."""
    scoreboard = Scoreboard()
    scoreboard.register()
    return scoreboard


@pytest.fixture
def registered(client: Redis) -> Worker:
    worker = Worker([Queue("default", connection=client)], name="w", connection=client)
    worker.register_birth()
    return worker


def told(client: Redis) -> tuple[str | None, str | None]:
    """The state and the job that RQ knows of the worker."""
    state, job = client.hmget(keys.worker_key("w"), ["state", "current_job"])
    return state and as_text(state), job and as_text(job)


def test_heartbeats_write_the_running_job_for_rq(
    client: Redis, registered: Worker, scoreboard: Scoreboard
) -> None:
    heartbeat = Heartbeat(client, {"w": scoreboard})
    for job in (None, "j1"):
        client.hset(keys.worker_key("w"), "last_heartbeat", "long ago")
        if job:
            scoreboard.start(MAIN, job, "e1", 60)
        heartbeat.beat()
        assert told(client) == ("busy" if job else "idle", job)
        assert wire.time_seconds(as_text(client.hget(keys.worker_key("w"), "last_heartbeat")))
    assert client.ttl(keys.worker_key("w")) == pytest.approx(keys.WORKER_TTL, abs=30)
    scoreboard.clear(MAIN)
    heartbeat.beat()
    assert told(client) == ("idle", None)
    assert client.zcard(keys.LEASES) == 1


def test_heartbeats_write_the_memory_of_the_process_that_registered(
    client: Redis, registered: Worker, scoreboard: Scoreboard
) -> None:
    assert scoreboard.pid == os.getpid()
    assert Scoreboard().pid == 0, "nobody has registered there"
    Heartbeat(client, {"w": scoreboard}).beat()
    assert cluster.worker(client, "w")["memory"] == pytest.approx(resident_memory(), rel=0.5)


def test_one_beat_renews_the_leases_of_all_workers_of_a_pool(client: Redis, scoreboard: Scoreboard) -> None:
    Heartbeat(client, dict.fromkeys(("v", "w", "x"), scoreboard)).beat()
    leases = client.zrange(keys.LEASES, 0, -1, withscores=True)
    assert [worker for worker, _ in leases] == [b"v", b"w", b"x"]
    assert [ends for _, ends in leases] == [pytest.approx(time.time() + keys.LEASE_SECONDS, abs=5)] * 3


def test_a_worker_that_signed_off_is_soon_forgotten(
    client: Redis, registered: Worker, scoreboard: Scoreboard
) -> None:
    registered.register_death()
    Heartbeat(client, {"w": scoreboard}).beat()  # one that began before it left
    assert 0 < client.ttl(keys.worker_key("w")) <= 60


def test_the_hash_of_a_removed_worker_is_not_written_again(client: Redis, scoreboard: Scoreboard) -> None:
    Heartbeat(client, {"w": scoreboard}).beat()
    assert not client.exists(keys.worker_key("w"))


def test_leases_are_renewed_even_if_a_registration_is_not_a_hash(
    client: Redis, scoreboard: Scoreboard
) -> None:
    client.set(keys.worker_key("w"), "x")
    Heartbeat(client, {"w": scoreboard}).beat()
    assert client.zcard(keys.LEASES) == 1


def test_a_registration_that_was_not_written_during_an_outage_is_written_later(
    client: Redis, registered: Worker, scoreboard: Scoreboard
) -> None:
    away = Redis(unix_socket_path="/nonexistent/socket")
    heartbeat = Heartbeat(away, {"w": scoreboard})
    scoreboard.start(MAIN, "j1", "e1", 60)
    with pytest.raises(ConnectionError):
        heartbeat.beat()
    heartbeat.client = client
    heartbeat.beat()
    assert told(client) == ("busy", "j1")


@pytest.fixture
def gate(client: Redis, tmp_path: Path) -> Path:
    """A file; a job waits until it is there."""
    gate = tmp_path / "gate"
    Client(client).enqueue(pool_jobs.note_when_told, str(tmp_path / "notes"), str(gate), "x")
    return gate


def busy_worker(client: Redis) -> Worker:
    """The only worker, as RQ reads it, once its pool has written that it is busy."""
    until(lambda: any(each["current_job"] for each in cluster.workers(client)))
    (worker,) = Worker.all(client)
    assert worker.get_state() == "busy"
    assert worker.get_current_job_id() == cluster.workers(client)[0]["current_job"]
    return worker


def names(client: Redis) -> list[str]:
    return [each.name for each in Worker.all(client)]


def test_a_worker_whose_process_was_killed_is_busy_no_more(server, client, gate) -> None:
    with pool(server) as process:
        killed = busy_worker(client)
        os.kill(children_of(process.pid)[0], signal.SIGKILL)
        until(lambda: killed.key.encode() not in client.smembers(keys.WORKERS))
        until(lambda: len(names(client)) == 1 and killed.name not in names(client))
        assert not client.exists(killed.key)


def test_a_worker_that_was_stopped_is_busy_no_more(server, client, gate) -> None:
    with pool(server) as process:
        stopped = busy_worker(client)
        process.send_signal(signal.SIGTERM)
        gate.touch()
        process.wait(DEADLINE)
    assert names(client) == cluster.workers(client) == []
    assert client.hmget(stopped.key, ["state", "current_job"]) == [b"idle", None]
    assert client.ttl(stopped.key) <= 60


def test_a_worker_whose_host_is_gone_is_busy_no_more(server, client, gate) -> None:
    with pool(server) as process:
        vanished = busy_worker(client)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(DEADLINE)
    assert client.ttl(vanished.key) <= 90  # until then RQ's readers see it, if there is no other pool
    client.zadd(keys.LEASES, {vanished.name: 1})  # as if its lease had ended
    assert [(each["state"], each["current_job"]) for each in cluster.workers(client)] == [("vanished", "")]
    assert "packmule_workers 0" in metrics.exposition(client, [])
    with pool(server):
        until(lambda: len(names(client)) == 1 and vanished.name not in names(client))


def test_leases_of_another_type_are_set_aside_and_written_again(
    client: Redis, scoreboard: Scoreboard
) -> None:
    client.set(keys.LEASES, "no sorted set")
    assert rescue_expired(client) == {}
    Heartbeat(client, {"w": scoreboard}).beat()
    assert client.zrange(keys.LEASES, 0, -1) == [b"w"]
    assert [(event.type, event.job) for event in events.read(client)] == [("quarantined", keys.LEASES)]


def test_a_lull_begins_only_once_all_leases_had_ended(client: Redis, scoreboard: Scoreboard) -> None:
    heartbeat = Heartbeat(client, {"w": scoreboard})
    for _ in range(2):
        heartbeat.beat()
        assert client.exists(keys.LULL) == 0
    client.zadd(keys.LEASES, {"w": 1, "other": time.time() + 3600})
    heartbeat.beat()
    assert client.exists(keys.LULL) == 0
    client.zadd(keys.LEASES, {"w": 1, "other": 1})
    heartbeat.beat()
    assert 2000 < client.pttl(keys.LULL) <= 4000
