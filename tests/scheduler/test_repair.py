"""Repair: keys that lost their owner are found among all others and repaired."""

from __future__ import annotations

import time

import pytest
from redis import Redis

from packmule.coordination.redis.replies import as_text
from packmule.jobs import keys
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.observe import events
from packmule.scheduler.leader import NotLeading
from packmule.scheduler.maintenance.repair import GroupRepair, OrphanRepair
from packmule.scheduler.scheduler import Scheduler
from packmule.tests.jobs import sample_jobs
from packmule.tests.looks import looks
from packmule.tests.worker import batch_jobs, limited_jobs
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims
from packmule.worker.rescue import rescue_expired


@pytest.fixture
def client(client: Redis) -> Redis:
    Client(client).make_default()
    with client.pipeline(transaction=False) as pipeline:  # enough keys for several calls
        for number in range(3000):
            pipeline.set(f"pm:cache:many:{number}", "x")
        pipeline.execute()
    return client


def claim(client: Redis, worker: str = "w") -> list[str]:
    claims = Claims(client, worker, Strict(["default"]))
    return [job.id for job in claims.finish_and_claim(claims.next_id(), [], 10).jobs]


def test_jobs_of_a_worker_whose_lease_was_lost_run_again(client):
    id = sample_jobs.noop.enqueue()
    assert claim(client) == [id]
    client.rpush(keys.waiting_key("other"), "job-in-hand")
    client.delete(keys.LEASES)
    assert rescue_expired(client) == {}
    assert OrphanRepair(client).repair() == 2
    assert {as_text(name) for name in client.zrange(keys.LEASES, 0, -1)} == {"w", "other"}
    assert rescue_expired(client) == {}, "one that lives has time to renew its lease"
    for name in ("w", "other"):
        client.zadd(keys.LEASES, {name: 1})
    rescued = {}
    while found := rescue_expired(client):
        rescued |= found
    assert rescued["w"].back == [id]
    assert claim(client) == [id]


def test_workers_with_a_lease_keep_it(client):
    sample_jobs.noop.enqueue()
    claim(client)
    client.zadd(keys.LEASES, {"w": time.time() + 5})
    before = client.zscore(keys.LEASES, "w")
    assert OrphanRepair(client).repair() == 0
    assert client.zscore(keys.LEASES, "w") == before


def test_every_record_of_a_worker_gets_an_expiry(client):
    client.hset(keys.worker_key("gone"), "state", "idle")
    client.hset(keys.worker_key("here"), "state", "idle")
    client.expire(keys.worker_key("here"), 60)
    assert OrphanRepair(client).repair() == 1
    assert keys.WORKER_TTL - 30 < client.ttl(keys.worker_key("gone")) <= keys.WORKER_TTL
    assert client.ttl(keys.worker_key("here")) <= 60


@pytest.mark.parametrize("claims", ["gone", "of another execution", "of another type"])
def test_a_slot_whose_holder_is_gone_is_freed(client, claims):
    first = limited_jobs.alone.enqueue("p", "1")
    second = limited_jobs.alone.enqueue("p", "2")
    assert claim(client) == [first]
    assert claim(client, "w2") == []
    assert OrphanRepair(client).repair() == 0
    client.delete(keys.claims_key("w"))
    if claims == "of another execution":
        client.hset(keys.claims_key("w"), first, "another")
    elif claims == "of another type":
        client.set(keys.claims_key("w"), "in the way")
    assert OrphanRepair(client).repair() == 1
    assert claim(client, "w2") == [second]


def test_jobs_of_a_group_without_a_head_go_on(client):
    ids = [limited_jobs.alone.enqueue("p", str(number)) for number in range(3)]
    assert claim(client) == ids[:1]
    client.delete(keys.groups_key("default"), keys.queue_key("default"))
    assert OrphanRepair(client).repair() == 1
    assert client.lrange(keys.queue_key("default"), 0, -1) == [ids[1].encode()]


def test_jobs_behind_a_deleted_record_go_on(client):
    ids = [limited_jobs.alone.enqueue("p", str(number)) for number in range(4)]
    claim(client)
    client.delete(keys.groups_key("default"), keys.queue_key("default"), *map(keys.job_key, ids[1:3]))
    assert OrphanRepair(client).repair() == 1
    assert client.lrange(keys.queue_key("default"), 0, -1) == [ids[3].encode()]


def test_one_call_looks_at_a_bounded_number_of_the_deleted_jobs_of_a_group_without_a_head(client):
    client.rpush("pm:group:default:g", *range(150))
    repair = OrphanRepair(client)
    repair.repair()
    assert client.llen("pm:group:default:g") == 50
    repair.repair()
    assert client.llen("pm:group:default:g") == 0


def test_many_slots_without_holders_are_freed_in_bounded_steps(client, monkeypatch):
    monkeypatch.setattr("packmule.scheduler.maintenance.repair.KEYS_A_CALL", 100_000)
    repair = OrphanRepair(client)
    client.hset("pm:holders:many", mapping={f"job{n}": "gone 1" for n in range(150)})
    assert [repair.repair() for _ in range(3)] == [100, 50, 0]
    for number in range(15):
        client.hset(f"pm:holders:k{number}", mapping={f"job{n}": "gone 1" for n in range(100)})
    assert [repair.repair() for _ in range(3)] == [1000, 500, 0]
    assert client.keys("pm:holders:*") == []


def test_groups_that_have_a_head_are_left_alone(client):
    limited_jobs.in_turn.enqueue_many([("p", "a")] * 3)
    before, waiting = client.hgetall(keys.groups_key("default")), client.lrange("rq:queue:default", 0, -1)
    client.hset(keys.job_key("elsewhere"), mapping={"origin": "default", "group": "g"})
    client.rpush("pm:group:default:another", "elsewhere")
    assert OrphanRepair(client).repair() == 0
    assert GroupRepair(client).repair()
    assert client.hgetall(keys.groups_key("default")) == before
    assert client.lrange("rq:queue:default", 0, -1) == waiting


def test_groups_of_all_queues_get_a_head_again(client):
    assert not GroupRepair(client).repair()
    for queue in ("default", "low"):
        limited_jobs.in_turn.options(queue=queue).enqueue_many([("p", "a")] * 2)
        client.delete(keys.queue_key(queue))
    repair = GroupRepair(client)
    assert any(repair.repair() and client.exists("rq:queue:default", "rq:queue:low") == 2 for _ in range(10))


def test_a_group_that_gets_a_head_again_is_not_blocked(client):
    first, *_ = (limited_jobs.alone.enqueue("p", str(number)) for number in range(4))
    claims = Claims(client, "w", Strict(["default"]))
    assert [job.id for job in claims.finish_and_claim("1", [], 1).jobs] == [first]
    client.delete("rq:queue:default")
    GroupRepair(client).repair()
    assert client.llen("rq:queue:default") == 1
    assert client.keys("pm:blocked:*") == []


def test_a_blocked_group_without_a_job_is_forgotten(client):
    client.sadd(keys.QUEUES, "rq:queue:default")
    client.hset(keys.groups_key("default"), "g", "")
    GroupRepair(client).repair()
    assert client.exists(keys.groups_key("default")) == 0


ALONE = f"{limited_jobs.__name__}.alone"


@pytest.mark.parametrize(
    "key",
    [
        keys.groups_key("default"),
        keys.group_key("default", f"lock {ALONE}"),
        keys.blocked_key(ALONE),
        keys.DUE,
    ],
)
def test_a_key_of_another_type_stops_no_repair_of_groups(client, key):
    limited_jobs.alone.enqueue_many([("p", "1"), ("p", "2")])
    claim(client)
    limited_jobs.in_turn.options(queue="low").enqueue_many([("p", "a")] * 2)
    client.delete(key, "rq:queue:low")
    client.set(key, "in the way")
    GroupRepair(client).repair()
    assert client.llen("rq:queue:low") == 1
    assert ("quarantined", key) in {(event.type, event.job) for event in events.read(client)}


def test_one_call_looks_at_a_bounded_number_of_groups(client):
    limited_jobs.in_turn.enqueue_many([("p", str(number)) for number in range(1000)])
    *_, (group, lost) = client.hscan_iter(keys.groups_key("default"), count=100)
    other = sample_jobs.noop.enqueue()
    client.rpush(keys.group_key("default", as_text(group)), other)
    client.delete(keys.job_key(as_text(lost)))
    repair = GroupRepair(client)
    _, most = looks(client, repair.repair)
    assert most < 500
    for _ in range(10):
        repair.repair()
    assert client.hget(keys.groups_key("default"), group) == other.encode()


def test_corrupt_keys_stop_nothing(client):
    client.set("pm:holders:a", "no hash")
    client.set("pm:group:default:g", "no list")
    client.hset("pm:holders:b", "job", "nonsense")
    client.rpush("pm:group:a:b:c", "no-job")
    for field in ("origin", "group"):
        client.hset(keys.job_key(field), field, "g")
        client.rpush(f"pm:group:g:{field}", field)
    client.hset(keys.job_key("lost"), mapping={"origin": "q", "group": "h"})
    client.rpush("pm:group:q:h", "lost")
    for key in (keys.groups_key("q"), keys.LEASES):
        client.set(key, "in the way")
    client.hset("pm:claims:w", "a", "b")
    assert OrphanRepair(client).repair() == 3
    assert client.exists("pm:holders:b", "pm:holders:a") == 0
    assert client.zscore(keys.LEASES, "w")
    assert client.lrange(keys.queue_key("q"), 0, -1) == [b"lost"]
    moved = {event.job for event in events.read(client) if event.type == "quarantined"}
    assert moved == {"pm:holders:a", "pm:group:default:g", keys.groups_key("q"), keys.LEASES}


def test_a_leaders_round_continues_where_the_last_call_ended(client):
    client.hset("pm:claims:w", "a", "b")
    scheduler = Scheduler(client)
    scheduler.step()
    scheduler.leadership.resign()
    scheduler.leadership.close()
    assert client.zscore(keys.LEASES, "w")


def test_a_former_leader_repairs_nothing(client):
    client.hset("pm:claims:w", "a", "b")
    client.hset("pm:leader", "term", "8")
    with pytest.raises(NotLeading):
        OrphanRepair(client).repair("7")
    assert client.zscore(keys.LEASES, "w") is None


def test_a_former_leader_repairs_no_group(client):
    limited_jobs.in_turn.enqueue("p", "a")
    client.delete(keys.queue_key("default"))
    client.hset("pm:leader", "term", "8")
    with pytest.raises(NotLeading):
        GroupRepair(client).repair("7")
    assert client.llen(keys.queue_key("default")) == 0


def test_a_group_that_is_blocked_until_an_absurd_time_waits_for_its_slot_only(client):
    limited_jobs.alone.enqueue_many([("p", str(number)) for number in range(2)])
    claim(client)
    (blocked,), (group,) = client.keys("pm:blocked:*"), client.hkeys(keys.groups_key("default"))
    client.delete(blocked)
    client.zadd("pm:due", {b"default\n" + group: time.time() + 10**6})
    GroupRepair(client).repair()
    assert client.zcard("pm:due") == 0
    assert client.zrange(blocked, 0, -1) == [b"default\n" + group]


def test_one_call_looks_at_a_bounded_number_of_the_deleted_jobs_of_groups(client):
    limited_jobs.in_turn.enqueue_many([("p", str(number % 400)) for number in range(400 * 20)])
    kept = limited_jobs.in_turn.enqueue("p", "0")
    heads = {as_text(head) for head in client.hvals(keys.groups_key("default"))}
    gone = [key for key in client.keys("rq:job:*") if as_text(key) != keys.job_key(kept)]
    for first in range(0, len(gone), 1000):
        client.delete(*gone[first : first + 1000])
    _, most = looks(client, GroupRepair(client).repair)
    assert not client.keys("pm:group:default:*"), "one round repairs all groups"
    assert client.llen("rq:queue:default") == len(heads) + 1, "no deleted job became a head"
    assert most < 3000
    assert kept not in heads
    assert any(claim(client) == [kept] for _ in range(100))  # behind the heads that were deleted


def test_a_leader_settles_batches_and_repairs_groups_and_records(client):
    with Batch.create() as batch:
        lost = batch_jobs.double.options(batch=batch.id).enqueue(1)
    _, behind = limited_jobs.in_turn.enqueue_many([("p", "a")] * 2)
    client.delete(keys.job_key(lost), keys.queue_key("default"))
    client.hset(keys.worker_key("gone"), "birth", "x")
    scheduler = Scheduler(client)
    scheduler.step()
    scheduler.leadership.resign()
    scheduler.leadership.close()
    assert batch.state().ended is not None
    assert client.lrange(keys.queue_key("default"), 0, -1) == [behind.encode()]
    assert client.ttl(keys.worker_key("gone")) > 0
