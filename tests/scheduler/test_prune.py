"""Housekeeping: expired ids are pruned, and above the memory limit jobs are refused."""

from __future__ import annotations

import time

import pytest
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.coordination.redis.connection import connect
from packmule.jobs import control, keys, reader
from packmule.jobs.client import Client
from packmule.jobs.delivery import ServerFull
from packmule.observe import audit, events
from packmule.scheduler.leader import NotLeading
from packmule.scheduler.maintenance.memory_limit import MemoryLimit
from packmule.scheduler.maintenance.prune import Pruner
from packmule.scheduler.scheduler import Scheduler
from packmule.tests.jobs import sample_jobs


@pytest.fixture
def client(client: Redis) -> Redis:
    Client(client).make_default()
    return client


def test_ids_of_expired_jobs_are_pruned(client):
    client.sadd(keys.QUEUES, "rq:queue:default")
    now = time.time()
    for registry_of in ("finished", "failed"):
        key = keys.registry_key(registry_of, "default")
        client.zadd(key, {f"old{n}": now - 5 for n in range(1200)} | {"new": now + 60, "kept": float("inf")})
    id = sample_jobs.noop.enqueue()
    control.cancel(client, id)
    client.zadd("rq:canceled:default", {f"gone{n}": 1 for n in range(1200)})
    assert Pruner(client).prune() == 3600
    for registry_of in ("finished", "failed"):
        key = keys.registry_key(registry_of, "default")
        assert client.zrange(key, 0, -1) == [b"new", b"kept"]
    assert client.zrange("rq:canceled:default", 0, -1) == [id.encode()]


def test_jobs_that_rqs_code_canceled_expire(client):
    canceled, requeued = (sample_jobs.noop.enqueue() for _ in range(2))
    Job.fetch(canceled, client, JSONSerializer).cancel()
    client.zadd("rq:canceled:default", {requeued: 1})
    assert client.ttl(keys.job_key(canceled)) == -1
    assert Pruner(client).prune() == 0
    assert 86_000 < client.ttl(keys.job_key(canceled)) <= 86_400
    assert client.ttl(keys.job_key(requeued)) == -1
    client.expire(keys.job_key(canceled), 60)
    Pruner(client).prune()
    assert client.ttl(keys.job_key(canceled)) <= 60


def test_of_many_canceled_jobs_all_expire(client, monkeypatch):
    monkeypatch.setattr("packmule.scheduler.maintenance.prune.JOBS_A_CALL", 10)
    client.sadd(keys.QUEUES, "rq:queue:default")
    for number in range(300):
        client.hset(keys.job_key(str(number)), "status", "canceled")
    client.zadd("rq:canceled:default", {str(number): 1 for number in range(300)})
    pruner = Pruner(client)
    for _ in range(20):
        pruner.prune()
    assert all(client.ttl(keys.job_key(str(number))) > 0 for number in range(300))


def test_a_round_is_bounded_and_the_next_one_continues(client, monkeypatch):
    monkeypatch.setattr("packmule.scheduler.maintenance.queue_scan.LONGEST_ROUND", 0)
    for name in "abc":
        client.sadd(keys.QUEUES, f"rq:queue:{name}")
        client.zadd(keys.registry_key("failed", name), {f"old{n}": 1 for n in range(1000)})
    pruner = Pruner(client)
    assert [pruner.prune() for _ in range(10)] == [500, 500, 0] * 3 + [0]


def test_workers_that_are_gone_are_pruned(client):
    client.sadd(keys.WORKERS, "rq:worker:gone", "rq:worker:here")
    client.sadd("rq:workers:default", "rq:worker:gone", "rq:worker:here")
    client.sadd(keys.QUEUES, "rq:queue:default")
    client.hset("rq:worker:here", "state", "idle")
    Pruner(client).prune()
    assert client.smembers(keys.WORKERS) == client.smembers("rq:workers:default") == {b"rq:worker:here"}


def test_of_many_workers_that_are_gone_a_call_prunes_some(client, monkeypatch):
    monkeypatch.setattr("packmule.scheduler.maintenance.queue_scan.LONGEST_ROUND", 0)
    client.sadd(keys.QUEUES, "rq:queue:default")
    for key in (keys.WORKERS, "rq:workers:default"):
        client.sadd(key, *(f"rq:worker:gone{number}" for number in range(1200)))
    pruner = Pruner(client)
    assert [pruner.prune() for _ in range(4)] == [1000, 1000, 400, 0]


def test_old_events_are_trimmed_and_new_ones_stay(client):
    for stream in (events.stream(client), audit.stream(client)):
        client.xadd(stream.key, {"e": b"\x90"}, id="1000-0")
        stream.append([["new"]])
    Pruner(client).prune()
    assert client.xlen("pm:events") == client.xlen("pm:audit") == 1


@pytest.mark.parametrize("key", ["rq:finished:a", "rq:canceled:a", "rq:workers:a", keys.WORKERS])
def test_corrupt_keys_do_not_stop_pruning(client, key):
    client.sadd(keys.QUEUES, "rq:queue:a", "rq:queue:b")
    client.set(key, "in the way")
    client.set("pm:events", "no stream")
    client.zadd("rq:finished:b", {"old": 1})
    assert Pruner(client).prune() == 1
    assert [(event.type, event.job) for event in events.read(client)] == [("quarantined", key)]


def test_a_former_leader_prunes_nothing(client):
    client.sadd(keys.QUEUES, "rq:queue:default")
    client.zadd("rq:finished:default", {"old": 1})
    client.hset("pm:leader", "term", "8")
    with pytest.raises(NotLeading):
        Pruner(client).prune("7")
    assert client.zcard("rq:finished:default") == 1


def test_above_the_memory_limit_new_jobs_are_refused_and_others_run(client):
    used = int(client.info("memory")["used_memory"])
    id = sample_jobs.noop.enqueue()
    limit = MemoryLimit(client, str(used // 10))
    assert limit.check() < 1
    assert limit.is_full
    with pytest.raises(ServerFull, match="PACKMULE_MEMORY_HIGH_WATER"):
        sample_jobs.noop.enqueue()
    assert reader.read(client, id).status == "queued"
    assert 0 < client.ttl(keys.FULL) <= 5
    limit.lift()
    assert not client.exists(keys.FULL)
    assert limit.check() < 1
    limit.high_water = str(used * 100)
    assert limit.check() > 1
    assert not limit.is_full
    sample_jobs.noop.enqueue()
    assert client.llen("rq:queue:default") == 2


def test_the_scheduler_prunes_and_checks_the_memory_limit(client):
    client.sadd(keys.QUEUES, "rq:queue:default")
    client.zadd("rq:finished:default", {"old": 1})
    scheduler = Scheduler(client, high_water="1024")
    scheduler.step()
    scheduler.leadership.resign()
    scheduler.leadership.close()
    assert client.exists("rq:finished:default") == 0
    with pytest.raises(ServerFull):
        sample_jobs.noop.enqueue()


def test_a_memory_limit_is_a_size_or_a_share():
    client = Redis()
    assert MemoryLimit(client, "80%").allowed(1000) == 800
    assert MemoryLimit(client, "").allowed(1000) == 900
    assert MemoryLimit(client, "123").allowed(0) == 123
    assert MemoryLimit(client, "80%").allowed(0) == 0


def test_a_server_that_is_out_of_memory_raises_the_same_error(spare_server):
    with connect(None, spare_server().data_dir) as client:
        jobs = Client(client)
        jobs.send(sample_jobs.noop.job, [((), {})])
        client.config_set("maxmemory", "1mb")
        with pytest.raises(ServerFull, match="maxmemory"):
            jobs.send(sample_jobs.noop.job, [((), {})])
        client.config_set("maxmemory", "0")
        assert client.llen("rq:queue:default") == 1


def test_a_share_of_a_missing_maxmemory_is_logged_once_until_it_is_set(client, caplog):
    limit = MemoryLimit(client, "80%")
    warning = "PACKMULE_MEMORY_HIGH_WATER=80% has no effect: the server has no maxmemory"
    for _ in range(2):
        limit.check()
    assert caplog.messages == [warning]
    client.config_set("maxmemory", 10**12)
    try:
        limit.check()
    finally:
        client.config_set("maxmemory", 0)
    limit.check()
    assert caplog.messages == [warning, warning]
    for bytes_or_nothing in ("1000000000000", ""):
        MemoryLimit(client, bytes_or_nothing).check()
    assert caplog.messages == [warning, warning]
