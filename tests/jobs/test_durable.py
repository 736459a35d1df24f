"""Durable enqueues: they return once the server has the job on its disk, and on a replica if it has one."""

from __future__ import annotations

import pytest
from redis import Redis

import packmule
from packmule.coordination.redis import durability
from packmule.coordination.redis.durability import Durability, NotDurable, Unconfirmed
from packmule.jobs import keys
from packmule.jobs.client import Client
from packmule.tests.jobs import sample_jobs
from packmule.tests.network import server_frozen

DISK = ("its disk", 1, ("WAITAOF", 1, 0, 2000))
REPLICA = ("a replica", 1, ("WAIT", 1, 2000))


def calls(client: Redis, command: str) -> int:
    return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def a_server(**values) -> Durability:
    usual = {"appends": True, "snapshots": False, "fsync": "everysec", "replicas": 0, "least_replicas": 0}
    return Durability(**{**usual, "lag": 10, "version": (7, 2), **values})


def test_a_durable_enqueue_waits_for_the_disk(server, client, monkeypatch):
    monkeypatch.setattr(durability, "CONFIRM_TIMEOUT", 60.0)  # the disk may be busy
    with Redis.from_url(server.url) as patient:
        producer = Client(patient)
        first = producer.enqueue(sample_jobs.noop.options(durable=True))
        assert first.status == "queued"
        waits = calls(client, "waitaof")
        assert waits
        client.script_flush()
        ids = producer.enqueue_many(sample_jobs.add.options(durable=True), [(n, n) for n in range(700)])
        assert client.llen(keys.queue_key("default")) == 701 == len(ids) + 1
        assert calls(client, "waitaof") >= waits + 2
        waits = calls(client, "waitaof")
        producer.enqueue(sample_jobs.noop)
        assert calls(client, "waitaof") == waits


def test_a_server_that_keeps_nothing_gets_no_durable_job(spare_server):
    with Redis.from_url(spare_server().url) as client:
        client.config_set("appendonly", "no")
        producer = Client(client)
        with pytest.raises(NotDurable, match="run CONFIG SET appendonly yes"):
            producer.enqueue(sample_jobs.noop.options(durable=True))
        assert not client.keys("rq:*")
        producer.enqueue(sample_jobs.noop)


def test_a_replica_that_does_not_confirm_is_an_error_and_the_same_id_waits_again(pair, monkeypatch):
    monkeypatch.setattr(durability, "CONFIRM_TIMEOUT", 0.3)
    with Redis.from_url(pair.first.url) as client, Redis.from_url(pair.second.url) as second:
        producer = Client(client)
        call = sample_jobs.noop.options(durable=True, job_id="order-7")
        with server_frozen(pair.second):
            for _ in range(2):
                with pytest.raises(Unconfirmed, match=r"did not confirm within 0\.3 s") as no:
                    producer.enqueue(call)
            assert isinstance(no.value, packmule.Unavailable)
        monkeypatch.setattr(durability, "CONFIRM_TIMEOUT", 60.0)
        producer.enqueue(call)
        assert second.hget(keys.job_key("order-7"), "status") == b"queued"
        assert client.lrange(keys.queue_key("default"), 0, -1) == [b"order-7"]


def test_refusals_of_a_durable_enqueue_are_those_of_any(client):
    client.set("pm:full", "2000000000 1000000000")
    with pytest.raises(packmule.Conflict):
        Client(client).enqueue(sample_jobs.noop.options(durable=True))


@pytest.mark.parametrize(
    ("server", "waits"),
    [
        (a_server(), [DISK]),
        (a_server(replicas=2), [DISK, REPLICA]),
        (a_server(appends=False, replicas=1), [REPLICA]),
        (a_server(version=(6, 2), replicas=1), [REPLICA]),
        (a_server(version=(6, 2), fsync="always"), []),
    ],
)
def test_what_confirms_a_write_is_what_the_server_can(server, waits):
    assert server.waits() == waits


@pytest.mark.parametrize(
    "server",
    [
        a_server(appends=False),
        a_server(appends=False, snapshots=True),
        a_server(version=(7, 0)),
        a_server(version=(7, 0), fsync=""),
    ],
)
def test_a_server_that_can_confirm_nothing_is_named(server):
    with pytest.raises(NotDurable):
        server.waits()


@pytest.mark.parametrize(
    ("server", "promise"),
    [
        (a_server(), "loses up to the last 2 s of jobs (appendfsync everysec); no replica is connected"),
        (a_server(fsync="always"), "no crash of server or machine loses a job (appendfsync always)"),
        (a_server(fsync=""), "(appendfsync unknown)"),
        (a_server(appends=False), "a restart loses all jobs (appendonly no)"),
        (a_server(appends=False, snapshots=True), "since its last snapshot (appendonly no)"),
        (a_server(replicas=1), "; a failover loses what no replica has received (min-replicas-to-write 0)"),
        (a_server(replicas=1, least_replicas=1), "; a failover loses up to the last 10 s"),
    ],
)
def test_the_promise_of_a_server_is_told_in_words(server, promise):
    assert promise in server.promise


def test_durability_is_read_from_the_server_even_where_config_is_forbidden(pair):
    with Redis.from_url(pair.first.url) as client:
        found = durability.durability(client)
        assert (found.appends, found.fsync, found.replicas) == (True, "everysec", 1)
        client.acl_setuser("guest", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-config"])
    with Redis.from_url(pair.first.url, username="guest", password="any") as guest:
        found = durability.durability(guest)
        assert (found.appends, found.fsync, found.replicas) == (True, "", 1)
