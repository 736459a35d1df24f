"""Corruption of the keys of limits: no sound job is lost, and nothing stops."""

from __future__ import annotations

import random
import time
from contextlib import suppress

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from packmule.jobs import keys
from packmule.scheduler.maintenance.promote import promote
from packmule.scheduler.maintenance.repair import GroupRepair
from packmule.tests.worker import limited_jobs, pool_jobs
from packmule.tests.worker.pools import DEADLINE, children_of, ended, pool, until
from packmule.tests.worker.test_corrupt import VALUES, quarantined
from packmule.worker.order import Strict
from packmule.worker.process import outcome
from packmule.worker.process.claim import Claims
from packmule.worker.rescue import rescue

pytestmark = pytest.mark.usefixtures("produce")

JOBS = limited_jobs.__name__

LIMITS = (
    b"[1]", b"[[]]", b"{}", b'{"a": 1}', b'[["lock"]]', b'[["lock", {}, 1]]',
    b'[["lock", "k", "x", "wait"]]', b'[["rate", "k", 1]]',
    b'[["lock", "", 1, "wait"]]', b'[["rate", "k", "a", "b"]]', b'[["rate", "k", -5, 1e308]]',
    b'[["rate", "k", 1e308, 1e308]]',
    b'[["rate", "k", NaN, 1]]', b'[["slots", "k", 0]]', b'[["bridge", "k", 1]]',
    b'[["lock", "\xff", 1, "wait"]]',
    b'[["lock", "\\ud800", 1, "wait"]]', b'[["slots", "k", 1e999]]', b"[" * 2000,
)  # fmt: skip
KEPT = (
    "pm:groups:default", "pm:due", "pm:due-watcher", "pm:paused", f"pm:holders:{JOBS}.alone",
    f"pm:blocked:{JOBS}.alone",
    f"pm:group:default:lock {JOBS}.alone", f"pm:rate:jobs:{JOBS}.ten_a_second:d",
    "rq:queue:default",
)  # fmt: skip


def put_garbage(client: Redis, key: str, dice: random.Random) -> None:
    """Of another type, or of the right one with values that make no sense."""
    value = dice.choice(VALUES)[:1000]
    with suppress(ResponseError):
        match dice.randrange(7):
            case 0:
                client.delete(key)
                client.set(key, value)
            case 1:
                client.delete(key)
                client.zadd(key, {value: dice.choice([0, 9e99, float("inf"), float("-inf")])})
            case 2:
                client.delete(key)
                client.lpush(key, value)
            case 3:
                client.hset(key, dice.choice([value, f"lock {JOBS}.alone".encode()]), value)
            case 4:
                client.sadd(key, value)
            case 5:
                client.zadd(
                    key, {f"default\nlock {JOBS}.alone".encode(): dice.choice([0.0, 9e99, float("inf")])}
                )
            case _:
                client.set(key, value, px=dice.choice([None, 1000]))


def claims_of(client: Redis, worker: str = "w1") -> Claims:
    return Claims(client, worker, Strict(["default"]))


@pytest.mark.parametrize("kind", ["string", "list", "hash", "zset"])
@pytest.mark.parametrize("key", KEPT)
def test_a_key_of_another_type_is_set_aside_and_no_script_stops_half_way(client, key, kind):
    """Jobs that wait behind their group's first may be lost with the key that held them, but no others."""
    alone = limited_jobs.alone.enqueue_many([("p", str(number)) for number in range(3)])
    limited = limited_jobs.ten_a_second.enqueue_many([("p", "d", str(number)) for number in range(3)])
    late = limited_jobs.alone.options(delay=0.01).enqueue("p", "late")
    claims = claims_of(client)
    running = claims.finish_and_claim("1", [], 5).jobs
    assert [job.id for job in running] == [alone[0], limited[0]]
    client.delete(key)
    match kind:
        case "string":
            client.set(key, "x y")
        case "list":
            client.lpush(key, "x")
        case "hash":
            client.hset(key, "x", "y")
        case _:
            client.zadd(key, {"x": 1})
    time.sleep(0.02)
    promote(client)
    GroupRepair(client).repair()
    limited_jobs.alone.enqueue("p", "new")
    claims.finish_and_claim("2", [outcome.returned(job) for job in running], 0)
    seen: set[str] = set()
    for number in range(20):
        jobs = claims_of(client, f"w{number}").finish_and_claim(f"{number}", [], 2).jobs
        seen |= {job.id for job in jobs}
        rescue(client, f"w{number}", "stopped", "why", [job.execution for job in jobs])
        GroupRepair(client).repair()
        promote(client)
        time.sleep(0.02)
    assert {*(job.id for job in running), late} - seen == set()
    assert client.type(key) in (b"none", b"hash", b"zset", b"set", b"list", b"string")


def test_corrupt_limits_keep_no_job_from_a_worker(client):
    more = (b'[["lock", 5, 1]]', b'[["slots", "k", "1"]]', b'[["rate", "k", 1, "1"]]', b'"k"', b"5", b'["k"]')
    ids = pool_jobs.add.enqueue_many([(number,) for number in range(len(LIMITS + more))])
    for number, (id, text) in enumerate(zip(ids, LIMITS + more, strict=True)):
        client.hset(keys.job_key(id), mapping={"group": f"g{number}", "limits": text})
    innocent = pool_jobs.add.enqueue(1)
    claim = claims_of(client).finish_and_claim("1", [], 100)
    assert {job.id for job in [*claim.jobs, *claim.unreadable]} == {*ids, innocent}
    assert client.keys("pm:*k") == []


@pytest.mark.parametrize("limits", LIMITS)
def test_corrupt_limits_fail_only_their_own_job(server, client, limits):
    id = pool_jobs.add.enqueue(1)
    client.hset(keys.job_key(id), mapping={"group": "g", "limits": limits})
    with pool(server, 1) as process:
        until(lambda: children_of(process.pid))
        children = children_of(process.pid)
        assert ended(client, pool_jobs.add.enqueue(1)).status == "finished"
        assert ended(client, id).status in ("failed", "finished")
        assert children_of(process.pid) == children
        assert ended(client, pool_jobs.add.enqueue(1)).status == "finished"


@pytest.mark.parametrize("value", [b"nan", b"inf", b"-inf", b"9" * 400, b"x", b""])
def test_a_bucket_of_garbage_loses_no_job(client, value):
    client.set(f"pm:rate:jobs:{JOBS}.ten_a_second:d", value)
    id = limited_jobs.ten_a_second.enqueue("p", "d", "1")
    jobs: list[str] = []

    def is_claimed() -> bool:
        jobs.extend(job.id for job in claims_of(client).finish_and_claim(str(time.time()), [], 1).jobs)
        return jobs == [id]

    until(is_claimed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_pools_continue_whatever_is_written_to_the_keys_of_limits(server, client, tmp_path, seed):
    dice = random.Random(seed)
    path = str(tmp_path / "notes")
    with pool(server, 2, queues="high,default,low") as process:
        until(lambda: client.scard(keys.WORKERS) == 2)
        children = children_of(process.pid)
        sound: list[str] = []
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            with suppress(ResponseError):
                limited_jobs.alone.enqueue(path, "a")
                limited_jobs.ten_a_second.enqueue(path, "d", "r")
            put_garbage(client, dice.choice([key for key in KEPT if not key.startswith("rq:")]), dice)
            sound += [pool_jobs.add.options(queue="high").enqueue(1)]
            promote(client)
            GroupRepair(client).repair()
            time.sleep(dice.random() * 0.02)
        client.delete("pm:paused")
        assert {ended(client, id).status for id in sound} == {"finished"}
        last = [limited_jobs.alone_by_account.enqueue(path, "z", str(number)) for number in range(5)]
        assert {ended(client, id).status for id in last} == {"finished"}
        final = limited_jobs.alone.enqueue(path, "last")
        deadline = time.monotonic() + DEADLINE
        while client.hget(keys.job_key(final), "status") != b"finished":
            assert time.monotonic() < deadline
            GroupRepair(client).repair()
            promote(client)
            time.sleep(0.05)
        assert children_of(process.pid) == children
    assert quarantined(client)
