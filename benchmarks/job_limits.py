"""No-op throughput of two worker processes with limits that never bite, beside the same jobs without any.

    python benchmarks/job_limits.py [jobs] [rounds] [limited jobs that wait]

Each round measures every kind once, in turn, on an emptied private server with its append-only file on;
ratios are the medians of each round's own. The last two are of jobs without limits: beside so many
limited ones of another queue that the same workers serve, all of which wait for their time, and alone again.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

import bench_jobs
from redis import Redis
from throughput import PROCESSES, rate

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs.client import Client
from packmule.worker.pool.pool import Pool

KEYS = 1000
LIMITED_KEYS = 100
KINDS = {
    "no limit": bench_jobs.free,
    "a rate": bench_jobs.rated,
    "a rate by 1,000 keys": bench_jobs.rated_by_key,
    "concurrency": bench_jobs.slotted,
    "fair over 1,000 keys": bench_jobs.fair,
}


def in_a_pool(data_dir: Path) -> None:
    """Run our pool in burst mode in a process of its own."""
    child = os.fork()
    if not child:
        os._exit(Pool(lambda: connect(None, data_dir), ["default", "low"], PROCESSES, burst=True).run())
    os.waitpid(child, 0)


def script_time(client: Redis) -> float:
    """Microseconds that the server has spent in scripts since its statistics were last reset."""
    return float(client.info("commandstats").get("cmdstat_evalsha", {}).get("usec", 0))


def main(jobs: int, rounds: int, limited: int) -> None:
    """Measure and print."""
    server = EmbeddedServer(Path(tempfile.mkdtemp(prefix="packmule-bench-")))
    speeds: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    try:
        client = connect(None, server.data_dir)
        produce = Client(client).send
        calls = [((number % KEYS,), {}) for number in range(jobs)]

        def measure(name: str, job: object) -> None:
            done = client.zcard("rq:finished:default")
            produce(job, calls)  # type: ignore[arg-type]
            client.config_resetstat()
            speeds.setdefault(name, []).append(rate(jobs, partial(in_a_pool, server.data_dir)))
            costs.setdefault(name, []).append(script_time(client) / jobs)
            assert client.zcard("rq:finished:default") == done + jobs

        for _ in range(rounds):
            for name, function in KINDS.items():
                client.flushall()
                measure(name, function.job)  # type: ignore[attr-defined]
        client.flushall()
        produce(bench_jobs.seldom.job, [((number % LIMITED_KEYS,), {}) for number in range(limited)])
        in_a_pool(
            server.data_dir
        )  # which performs the first of each key, and finds that the others have to wait
        waiting = sum(client.llen(f"pm:group:low:{name.decode()}") for name in client.hkeys("pm:groups:low"))
        for _ in range(rounds):
            measure("no limit, beside limited", bench_jobs.free.job)
        client.flushall()
        for _ in range(rounds):
            measure("no limit, after that", bench_jobs.free.job)
        print(
            f"{os.cpu_count()} cores, Python {platform.python_version()}, Valkey "
            f"{client.info('server')['valkey_version']} on a unix socket, {jobs:,} jobs, {PROCESSES} worker "
            f"processes, {waiting:,} limited jobs wait; medians of {rounds} rounds\n"
        )
        for name, values in speeds.items():
            base = speeds["no limit, after that" if name.startswith("no limit,") else "no limit"]
            ratio = statistics.median(each / other for each, other in zip(values, base, strict=True))
            print(
                f"{name:26} {statistics.median(values):>8,.0f} a second {ratio:>6.0%}   "
                f"({min(values):,.0f} to {max(values):,.0f}), "
                f"{statistics.median(costs[name]):.1f} µs of scripts a job"
            )
        client.close()
    finally:
        server.stop()
        shutil.rmtree(server.data_dir)


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:4]]
    main(*given, *(20_000, 3, 200_000)[len(given) :])
