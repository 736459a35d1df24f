"""Heartbeats: leases go on, RQ hears what workers do, and who has gone is not told of again."""

from __future__ import annotations

import pytest
from redis import Redis
from redis.exceptions import ConnectionError
from rq import Queue
from rq.worker import Worker

from packmule.jobs import wire
from packmule.worker.heartbeat import REGISTRATION_TTL, Heartbeat
from packmule.worker.scoreboard import MAIN, Slots


@pytest.fixture
def slots() -> Slots:
    """Those of a worker that has registered."""
    slots = Slots()
    slots.open()
    return slots


@pytest.fixture
def registered(client: Redis) -> Worker:
    worker = Worker([Queue("default", connection=client)], name="w", connection=client)
    worker.register_birth()
    return worker


def told(client: Redis) -> tuple[str | None, str | None]:
    """The state and the job that RQ knows of the worker."""
    state, job = client.hmget(wire.worker_key("w"), ["state", "current_job"])
    return state and wire.text(state), job and wire.text(job)


def test_rq_hears_what_a_worker_does(client: Redis, registered: Worker, slots: Slots) -> None:
    heartbeat = Heartbeat(client, {"w": slots})
    heartbeat.beat()
    assert told(client) == ("idle", None)
    slots.start(MAIN, "j1", "e1", 60)
    heartbeat.beat()
    assert told(client) == ("busy", "j1")
    assert client.ttl(wire.worker_key("w")) == pytest.approx(REGISTRATION_TTL, abs=2)
    slots.clear(MAIN)
    heartbeat.beat()
    assert told(client) == ("idle", None)
    assert client.zcard(wire.LEASES) == 1


def test_a_worker_that_signed_off_meanwhile_is_soon_forgotten(
    client: Redis, registered: Worker, slots: Slots
) -> None:
    registered.register_death()
    Heartbeat(client, {"w": slots}).beat()  # one that began before it left
    assert 0 < client.ttl(wire.worker_key("w")) <= 60


def test_a_worker_that_was_struck_off_is_not_written_anew(client: Redis, slots: Slots) -> None:
    Heartbeat(client, {"w": slots}).beat()
    assert not client.exists(wire.worker_key("w"))


def test_a_registration_that_is_no_hash_ends_no_lease(client: Redis, slots: Slots) -> None:
    client.set(wire.worker_key("w"), "x")
    Heartbeat(client, {"w": slots}).beat()
    assert client.zcard(wire.LEASES) == 1


def test_what_was_not_told_for_redis_was_away_is_told_later(
    client: Redis, registered: Worker, slots: Slots
) -> None:
    away = Redis(unix_socket_path="/nonexistent/socket")
    heartbeat = Heartbeat(away, {"w": slots})
    slots.start(MAIN, "j1", "e1", 60)
    with pytest.raises(ConnectionError):
        heartbeat.beat()
    heartbeat.client = client
    heartbeat.beat()
    assert told(client) == ("busy", "j1")
