"""How long one script call holds the server where there is very much of something.

    python benchmarks/large_keys.py [scale]

Each row is the longest call of a script while the thing was done, and how long all of it took. A scale of 0.1
takes a tenth of everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import bench_jobs
from harness import arguments, client_of, machine, table
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from packmule import Batch, Client
from packmule.jobs import keys
from packmule.jobs.job_type import JobType
from packmule.jobs.options import Options
from packmule.scheduler.maintenance.repair import GroupRepair
from packmule.testing import private_server
from packmule.worker.dependents import Dependents
from packmule.worker.heartbeat import Heartbeat
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims
from packmule.worker.rescue import rescue, rescue_expired
from packmule.worker.scoreboard import Scoreboard

NOOP: JobType = bench_jobs.noop.job
Case = tuple[str, Callable[[], object]]


def cases(redis: Redis, scale: float) -> Iterator[Case]:
    """What is done, each on what the step before it has prepared."""

    def many(count: int) -> int:
        return int(count * scale)

    client = Client(redis)
    queue = Queue(connection=redis, serializer=JSONSerializer)
    parent = queue.enqueue(NOOP.name, result_ttl=-1)
    for _ in range(many(15_000)):
        queue.enqueue(NOOP.name, depends_on=parent)
    redis.hset(parent.key, "status", "finished")
    dependents = Dependents(redis)

    def enqueue_dependents() -> None:
        redis.zadd(keys.PARENTS, {parent.id: 0})
        while dependents.enqueue_forgotten():
            pass

    yield f"enqueue {many(15_000):,} dependents", enqueue_dependents
    redis.flushall()
    handles = client.send(bench_jobs.fair.job, [((key,), {}) for key in range(100)] * many(1_000))
    for first in range(0, len(handles), 1_000):
        redis.delete(*(keys.job_key(id) for id in handles[first : first + 1_000]))
    repair = GroupRepair(redis)

    def repair_groups() -> None:
        while repair.repair():
            pass

    yield f"repair 100 groups of {many(1_000):,} deleted jobs", repair_groups
    redis.flushall()
    redis.sadd("pm:batches-paused", *(f"b{number}" for number in range(many(10_000))))
    with Batch.create(client=client) as batch:
        client.send(NOOP, [((), {})] * 1_000, Options(batch=batch.id))
    claims = Claims(redis, "w", Strict(["default"]))
    yield (
        f"claim 64 jobs of a batch beside {many(10_000):,} paused ones",
        lambda: claims.finish_and_claim(claims.next_id(), [], 64),
    )
    for number in range(many(1_000)):
        redis.zadd(keys.LEASES, {f"w{number}": time.time() + 60})
        redis.hset(
            keys.claims_key(f"w{number}"), mapping={f"other-{number}-{each}": "e" for each in range(20)}
        )
    yield f"cancel a batch beside {many(1_000):,} workers", lambda: _cancel(batch, redis)
    yield f"a beat of {many(1_000):,} workers", _beat(redis, many(1_000))
    yield f"rescue {many(1_000):,} vanished workers", lambda: _rescue_all(redis)
    redis.flushall()
    client.send(NOOP, [((), {})] * many(5_000))
    claims = Claims(redis, "w", Strict(["default"]))
    while claims.finish_and_claim(claims.next_id(), [], 500).jobs:
        pass
    yield f"rescue a worker with {many(5_000):,} jobs", lambda: rescue(redis, "w", "returned")


def _cancel(batch: Batch, redis: Redis) -> None:
    rescue(redis, "w", "returned")  # it holds none of them
    batch.cancel()


def _beat(redis: Redis, workers: int) -> Callable[[], object]:
    boards = {f"w{number}": Scoreboard() for number in range(workers)}
    for board in boards.values():
        board.register()
    return Heartbeat(redis, boards).beat


def _rescue_all(redis: Redis) -> None:
    names = [name for name, _ in redis.zscan_iter(keys.LEASES)]
    redis.zadd(keys.LEASES, dict.fromkeys(names, 1.0))
    redis.zadd(keys.LEASES, {"living": time.time() + 60})
    while rescue_expired(redis):
        pass


def main(scale: float) -> None:
    """Do each of the cases, and print how long the server was held."""
    rows = []
    with private_server() as server, client_of(server) as redis:
        redis.config_set("slowlog-max-len", 100_000)
        print(f"{machine('rq', client=redis)}\n")
        for name, do in cases(redis, scale):
            redis.config_set("slowlog-log-slower-than", 0)
            redis.slowlog_reset()
            began = time.perf_counter()
            do()
            took = time.perf_counter() - began
            redis.config_set("slowlog-log-slower-than", -1)
            calls = [
                each["duration"] for each in redis.slowlog_get(100_000) if each["command"][:4] == b"EVAL"
            ]
            rows.append((name, f"{max(calls) / 1000:.1f}", f"{len(calls):,}", f"{took:.2f}"))
    table(("", "longest call, ms", "calls", "all, s"), rows)


if __name__ == "__main__":
    main(*arguments(1.0))
