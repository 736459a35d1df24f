"""No-op throughput of two worker processes with limits that never block, beside the same jobs without any.

    python benchmarks/job_limits.py [jobs] [rounds] [limited jobs that wait]

Each round measures every kind once, in turn, on an emptied private server. The last two are of jobs without
limits: first beside limited ones of another queue of the same workers, all of which wait for their time, then
alone.
"""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

import bench_jobs
from harness import PROCESSES, arguments, client_of, in_a_pool, machine, rate, ratio, table
from redis import Redis

from packmule.jobs.client import Client
from packmule.testing import private_server

KEYS = 1000
LIMITED_KEYS = 100
KINDS = {
    "no limit": bench_jobs.free,
    "a rate": bench_jobs.rated,
    "a rate by 1,000 keys": bench_jobs.rated_by_key,
    "concurrency": bench_jobs.slotted,
    "fair over 1,000 keys": bench_jobs.fair,
}


def script_time(client: Redis) -> float:
    """Microseconds that the server has spent in scripts since its statistics were last reset."""
    return float(client.info("commandstats").get("cmdstat_evalsha", {}).get("usec", 0))


def main(jobs: int, rounds: int, limited: int) -> None:
    """Measure and print."""
    speeds: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    with private_server() as server, client_of(server) as client:
        send = Client(client).send
        calls = [((number % KEYS,), {}) for number in range(jobs)]

        def measure(name: str, job: Any) -> None:
            done = client.zcard("rq:finished:default")
            send(job, calls)
            client.config_resetstat()
            speeds.setdefault(name, []).append(rate(jobs, partial(in_a_pool, server, "default", "low")))
            costs.setdefault(name, []).append(script_time(client) / jobs)
            assert client.zcard("rq:finished:default") == done + jobs

        for _ in range(rounds):
            for name, function in KINDS.items():
                client.flushall()
                measure(name, function.job)
        client.flushall()
        send(bench_jobs.seldom.job, [((number % LIMITED_KEYS,), {}) for number in range(limited)])
        in_a_pool(server, "default", "low")  # performs the first of each key
        waiting = sum(client.llen(f"pm:group:low:{name.decode()}") for name in client.hkeys("pm:groups:low"))
        for _ in range(rounds):
            measure("no limit, beside limited", bench_jobs.free.job)
        client.flushall()
        for _ in range(rounds):
            measure("no limit, after that", bench_jobs.free.job)
        print(
            f"{machine(client=client)}; {jobs:,} jobs, {PROCESSES} worker processes, {waiting:,} limited "
            f"jobs wait; medians of {rounds} rounds\n"
        )
    rows = []
    for name, values in speeds.items():
        base = speeds["no limit, after that" if name.startswith("no limit,") else "no limit"]
        rows.append(
            (
                name,
                f"{statistics.median(values):,.0f}",
                f"{ratio(values, base):.0%}",
                f"{min(values):,.0f} to {max(values):,.0f}",
                f"{statistics.median(costs[name]):.1f} µs",
            )
        )
    table(("", "jobs/s", "share", "from to", "scripts a job"), rows)


if __name__ == "__main__":
    main(*arguments(20_000, 3, 200_000))
