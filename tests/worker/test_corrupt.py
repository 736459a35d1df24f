"""Corruption: whatever is written into records, lists and registries, workers perform the sound jobs."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.replies import as_text
from packmule.jobs import control, keys, reader
from packmule.tests.worker import executor_jobs, pool_jobs
from packmule.tests.worker.pools import DEADLINE, children_of, ended, lines, pool, until
from packmule.worker.heartbeat import INTERVAL
from packmule.worker.order import Strict
from packmule.worker.process import outcome
from packmule.worker.process.claim import Claims
from packmule.worker.rescue import rescue, rescue_expired

pytestmark = pytest.mark.usefixtures("produce")

FIELDS = (
    "data", "origin", "timeout", "result_ttl", "failure_ttl", "retries_left", "retry_intervals", "attempts",
    "deaths", "crash", "expires_at", "checkpoint", "enqueue_at_front_on_retry", "success_callback_name",
    "stopped_callback_name", "repeats_left", "worker_name", "enqueued_at", "created_at", "call",
)  # fmt: skip
VALUES = (
    b"", b"\xff\xfe", b"0", b"-1", b"1.5", b"nan", b"inf", b"-inf", b"1e308", b"9" * 40, b"-" + b"9" * 40,
    b"[", b"[]", b"null", b"{}", b"[1e308]", b"x" * 100_000, b"[[[[" * 5000, b"\x80\x04pickle", b"x\x9c",
    b'["packmule.tests.worker.pool_jobs.add",null,[1],{}]',
    b'["packmule.tests.worker.pool_jobs.add",null,["x"],{}]', b'["os.system",null,["true"],{}]',
)  # fmt: skip
REGISTRIES = ("started", "finished", "failed", "scheduled")


def corrupt_record(client: Redis, id: str, dice: random.Random) -> None:
    key = keys.job_key(id)
    match dice.randrange(8):
        case 0:
            client.delete(key)
        case 1:
            client.set(key, "no hash")
        case 2:
            with suppress(ResponseError):
                client.hdel(key, dice.choice(FIELDS))
        case 3:
            client.delete(keys.results_key(id))
            client.set(keys.results_key(id), "no stream")
        case 4:
            client.set(f"{key}:dependents", "no set")
        case _:
            with suppress(ResponseError):  # it is no hash any more
                client.hset(key, dice.choice(FIELDS), dice.choice(VALUES))


def corrupt_others(client: Redis, queue: str, dice: random.Random) -> None:
    registry = keys.registry_key(dice.choice(REGISTRIES), queue)
    match dice.randrange(5):
        case 0:
            client.delete(registry)
            client.set(registry, "no sorted set")
        case 1:
            client.delete(registry)
        case 2:
            client.delete(keys.queue_key(queue))
            client.set(keys.queue_key(queue), "no list")
        case 3:
            for worker in client.smembers(keys.WORKERS):
                client.hset(worker, "successful_job_count", dice.choice(VALUES))
        case _:
            push_garbage(client, queue, dice)


def push_garbage(client: Redis, queue: str, dice: random.Random) -> None:
    with suppress(ResponseError):  # the queue itself is none at the moment
        client.lpush(keys.queue_key(queue), dice.choice([b"\xff\xfe", b"nobody", b"", b"a b", b"x" * 300]))


def quarantined(client: Redis) -> set[str]:
    return {json.loads(entry)["job_id"] for entry in client.lrange(keys.QUARANTINE, 0, -1)}


def has_an_end(client: Redis, id: str) -> bool:
    """Whether a job has ended, is set aside, is gone, repeats, or waits for a retry or a server."""
    record = reader.read_if_there(client, id)
    return (
        record is None
        or record.has_ended
        or record.status == "scheduled"
        or record.queue not in ("default", "low")
        or client.hexists(keys.job_key(id), "repeats_left")
        or id in quarantined(client)
    )


@pytest.mark.parametrize(("seed", "threads"), [(1, 1), (2, 4), (3, 1)])
def test_workers_continue_whatever_happens_to_records_lists_and_registries(
    server, client, tmp_path, seed, threads
):
    dice = random.Random(seed)
    ledger = tmp_path / "ledger"
    kinds: list[Callable[[str], str]] = [
        lambda text: executor_jobs.enter.options(queue=queue).enqueue(str(ledger), text),
        lambda text: executor_jobs.enter_async.options(queue=queue).enqueue(str(ledger), text),
        lambda text: executor_jobs.enter_isolated.options(queue=queue).enqueue(str(ledger), text),
        lambda text: executor_jobs.where.options(queue=queue).enqueue(dice.choice([0.0, 0.03])),
    ]
    sound, victims = [], []
    with pool(server, 2, threads=threads) as process:
        until(lambda: client.scard(keys.WORKERS) == 2)
        children = children_of(process.pid)
        end = time.monotonic() + 2.5
        while time.monotonic() < end or len(sound) < 90:
            queue = "default"
            sound += [dice.choice(kinds)("sound") for _ in range(3)]
            for _ in range(3):
                queue = dice.choice(["default", "low"])
                victims.append(dice.choice(kinds)("victim"))
                corrupt_record(client, dice.choice(victims[-20:]), dice)
            corrupt_others(client, "high", dice)
            push_garbage(client, "default", dice)
            time.sleep(dice.random() * 0.02)
        assert {ended(client, id).status for id in sound} == {"finished"}
        for queue in ("high", "low", "default"):  # what stands there is repaired by the next claims
            assert ended(client, pool_jobs.add.options(queue=queue).enqueue(1)).result == 2
        until(lambda: client.llen("rq:queue:default") == client.llen("rq:queue:low") == 0)
        stuck = [id for id in victims if not has_an_end(client, id)]
        until(lambda: not [id for id in stuck if not has_an_end(client, id)])
        assert children_of(process.pid) == children
        rescues_go_on(client, children, tmp_path)
        process.terminate()
        assert process.wait(DEADLINE) == 0
    assert client.zcard(keys.LEASES) == 0
    assert len(lines(ledger)) > 50


def rescues_go_on(client: Redis, children: list[int], folder: Path) -> None:
    """The garbage that lies about keeps no pool from rescuing vanished workers and those that died."""
    client.set(keys.job_key("parent") + ":dependents", "no set")
    client.zadd(keys.PARENTS, {"parent": 1})  # a worker was to enqueue them long ago, so the pools do
    waiting = pool_jobs.add.options(queue="served by nobody").enqueue(1)
    Claims(client, "vanished", Strict(["served by nobody"])).finish_and_claim("c1", [], 1)
    client.zadd(keys.LEASES, {"vanished": time.time() + INTERVAL + 1})  # so the pools beat once before
    until(lambda: client.lrange("rq:queue:served by nobody", 0, -1) == [waiting.encode()])
    notes, gate = folder / "notes", folder / "gate"
    running = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
    until(lambda: lines(notes) == ["begin a"])
    for child in children:
        os.kill(child, signal.SIGKILL)
    until(lambda: lines(notes) == ["begin a"] * 2)
    gate.touch()
    assert ended(client, running).status == "finished"


def test_overwritten_claims_are_set_aside_and_their_worker_continues(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with pool(server) as process:
        pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
        until(lambda: lines(notes) == ["begin a"])
        children = children_of(process.pid)
        (key,) = client.keys("pm:claims:*")
        client.delete(key)
        client.set(key, "no hash")
        gate.touch()
        assert [ended(client, pool_jobs.add.enqueue(n)).result for n in range(5)] == [1, 2, 3, 4, 5]
        assert key.decode() in quarantined(client)
        worker = keys.worker_key(key.decode().removeprefix("pm:claims:"))
        client.delete(worker)
        client.set(worker, "no hash")
        assert ended(client, pool_jobs.add.enqueue(1)).result == 2
        waiting = f"pm:waiting:{key.decode().removeprefix('pm:claims:')}"
        client.set(waiting, "no list")
        assert [ended(client, pool_jobs.add.enqueue(n)).result for n in range(5)] == [1, 2, 3, 4, 5]
        assert children_of(process.pid) == children


def test_overwritten_leases_are_set_aside_and_workers_continue(server, client):
    with pool(server) as process:
        until(lambda: client.scard(keys.WORKERS) == 1)
        children = children_of(process.pid)
        client.delete(keys.LEASES)
        client.set(keys.LEASES, "no sorted set")
        assert ended(client, pool_jobs.add.enqueue(1)).result == 2
        until(lambda: client.type(keys.LEASES) == b"zset" and client.zcard(keys.LEASES) == 1)
        assert children_of(process.pid) == children


@pytest.mark.parametrize("verdict", ["died", "overran", "stopped", "returned"])
@pytest.mark.parametrize("value", VALUES[:10])
def test_a_rescue_copes_with_corrupt_records(client, verdict, value):
    ids = pool_jobs.add.enqueue_many([(1,)] * (len(FIELDS) + 1))
    Claims(client, "w1", Strict(["default"])).finish_and_claim("c1", [], len(ids))
    for id, field in zip(ids, FIELDS, strict=False):
        client.hset(keys.job_key(id), field, value)
    client.hdel(keys.job_key(ids[-1]), "origin")
    client.set(f"rq:executions:{ids[0]}", "no sorted set")
    running = client.hvals(keys.claims_key("w1"))
    rescued = rescue(client, "w1", verdict, "why", [as_text(execution) for execution in running])
    assert len(rescued.back) + len(rescued.failed) >= len(ids) - 2
    assert ids[-1] in quarantined(client)


@pytest.mark.parametrize("key", ["pm:claims:w1", "pm:waiting:w1", "rq:worker:w1"])
def test_workers_are_rescued_even_if_keys_of_another_are_corrupt(client, key, monkeypatch):
    monkeypatch.setattr("packmule.worker.rescue.RESCUE_SECONDS", DEADLINE)  # both in one call
    client.set(key, "of another type")
    id = pool_jobs.add.enqueue(1)
    Claims(client, "w2", Strict(["default"])).finish_and_claim("c1", [], 1)
    client.zadd(keys.LEASES, {"w1": 1, "w2": 2})
    client.hset("pm:claims:w2", ".waiters", "\udcff no numbers".encode(errors="surrogateescape"))
    assert rescue_expired(client)["w2"].back == [id]
    assert client.zcard(keys.LEASES) == 0


def test_keys_of_another_type_lose_no_outcome_retry_or_cancel(client):
    """What a worker writes when jobs end is set aside if it is of another type, and written anew."""
    for key in ("pm:parents", "rq:canceled:default", "rq:scheduled:default", "rq:failed:default"):
        client.set(key, "in the way")
    claims = Claims(client, "w", Strict(["default"]))
    retried = pool_jobs.add.options(retries=1, retry_intervals=[60]).enqueue(1)
    broken = pool_jobs.add.enqueue(2)
    parent = pool_jobs.add.enqueue(3)
    client.sadd(f"{keys.job_key(parent)}:dependents", "child")
    jobs = claims.finish_and_claim(claims.next_id(), [], 10).jobs
    failures = [outcome.failed(job, "broken", 1.0, 2.0) for job in jobs]
    assert claims.finish_and_claim(claims.next_id(), failures, 0).stale == []
    assert [as_text(id) for id in client.zrange("rq:scheduled:default", 0, -1)] == [retried]
    assert {as_text(id) for id in client.zrange("rq:failed:default", 0, -1)} == {broken, parent}
    assert client.zrange("pm:parents", 0, -1) == [parent.encode()]
    waiting = pool_jobs.add.enqueue(4)
    assert control.cancel(client, waiting) == "canceled"
    assert client.zrange("rq:canceled:default", 0, -1) == [waiting.encode()]
    assert quarantined(client) >= {
        "pm:parents",
        "rq:canceled:default",
        "rq:scheduled:default",
        "rq:failed:default",
    }
