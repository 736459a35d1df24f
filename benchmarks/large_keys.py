"""How long one script call holds the server where there is very much of something.

    python benchmarks/large_keys.py [scale]

Each row is the longest call of a script while the thing was done, and how long all of it took. "On the CPU"
is what the costliest call took of the server's thread, which other processes prolong less; the first call of
a script, which loads it in 2 to 3 ms, is left out there. A scale of 0.1 takes a tenth of everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import bench_jobs
from harness import arguments, client_of, machine, table
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from packmule import Batch, Client
from packmule.coordination.redis import scripts
from packmule.jobs import keys
from packmule.jobs.job_type import JobType
from packmule.jobs.options import Options
from packmule.scheduler.maintenance.batch_settler import BatchSettler
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
    yield from _more_cases(redis, client, many)


def _more_cases(redis: Redis, client: Client, many: Callable[[int], int]) -> Iterator[Case]:
    redis.flushall()
    redis.hset(keys.QUEUE_RATES, mapping={f"q{number}": "1000000 1000000" for number in range(many(1_000))})
    yield f"claim beside {many(1_000):,} queues with a rate", lambda: _claim(redis)
    redis.flushall()
    redis.sadd(keys.PAUSED, *(f"q{number}" for number in range(many(1_000))))
    yield f"claim beside {many(1_000):,} paused queues", lambda: _claim(redis)
    redis.flushall()
    with Batch.create(client=client) as batch:
        for first in range(0, many(100_000), 10_000):
            states = {f"job{number}": "d" for number in range(first, min(first + 10_000, many(100_000)))}
            redis.hset(f"{keys.batch_key(batch.id)}:jobs", mapping=states)
        redis.hset(keys.batch_key(batch.id), "total", "garbage")
    settler = BatchSettler(redis)
    yield f"recount a batch of {many(100_000):,} jobs", lambda: _settle(settler)


def _cancel(batch: Batch, redis: Redis) -> None:
    rescue(redis, "w", "returned")  # it holds none of them
    batch.cancel()


def _claim(redis: Redis) -> None:
    claims = Claims(redis, "w", Strict(["default"]))
    for _ in range(10):
        claims.finish_and_claim(claims.next_id(), [], 1)


def _settle(settler: BatchSettler) -> None:
    while settler.settle():
        pass


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


def costs(redis: Redis) -> list[int]:
    """A list that gets the nanoseconds of the server's thread that each call of a script takes from now."""
    found: list[int] = []
    server = redis.info("server")["process_id"]
    spent, exchange = Path(f"/proc/{server}/task/{server}/schedstat"), scripts._exchange

    def measured(client: Redis, command: Sequence[Any]) -> Any:
        before = int(spent.read_text().split()[0])
        reply = exchange(client, command)
        if command[0] == "EVALSHA":
            found.append(int(spent.read_text().split()[0]) - before)
        return reply

    scripts._exchange = measured
    return found


def main(scale: float) -> None:
    """Do each of the cases, and print how long the server was held."""
    rows = []
    with private_server() as server, client_of(server) as redis:
        on_cpu = costs(redis)
        redis.config_set("slowlog-max-len", 100_000)
        print(f"{machine('rq', client=redis)}\n")
        for name, do in cases(redis, scale):
            redis.config_set("slowlog-log-slower-than", 0)
            redis.slowlog_reset()
            on_cpu.clear()
            began = time.perf_counter()
            do()
            took = time.perf_counter() - began
            redis.config_set("slowlog-log-slower-than", -1)
            calls = [
                each["duration"] for each in redis.slowlog_get(100_000) if each["command"][:4] == b"EVAL"
            ]
            rows.append(
                (
                    name,
                    f"{max(calls) / 1000:.1f}",
                    f"{max(on_cpu) / 1e6 if on_cpu else 0:.1f}",
                    f"{len(calls):,}",
                    f"{took:.2f}",
                )
            )
    table(("", "longest call, ms", "on the CPU", "calls", "all, s"), rows)


if __name__ == "__main__":
    main(*arguments(1.0))
