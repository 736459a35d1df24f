"""What events, statistics, batches and results cost no-op jobs, and `packmule status` on a full server.

    python benchmarks/observe.py [jobs] [rounds] [waiting]

Each round measures every variant in turn on an emptied private server; the medians are printed. Variants
without events or statistics replace `emit`, or `Statistics.add`, by a function that does nothing, and one
without results leaves out the stream of each job in which RQ's readers find what it returned. Then
`waiting` jobs fill the server for `packmule status`.
"""

from __future__ import annotations

import hashlib
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import bench_jobs
from harness import PROCESSES, arguments, client_of, in_a_pool, machine, table

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.coordination.redis.scripts import Script
from packmule.jobs import delivery
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.jobs.options import Options
from packmule.testing import private_server
from packmule.worker.process import claim
from packmule.worker.process.statistics import Statistics


@contextmanager
def changed(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace `owner.name` by `value` within the block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def changed_script(script: Script, pattern: str, instead: str) -> Script:
    """The script with another text in the place of what `pattern` matches."""
    other = Script.__new__(Script)
    other.source, count = re.subn(pattern, instead, script.source, flags=re.DOTALL | re.MULTILINE)
    assert count == 1, f"{pattern} matches {count} times"
    other.sha = hashlib.sha1(other.source.encode(), usedforsecurity=False).hexdigest()
    return other


def silent(script: Script) -> Script:
    """The script with an `emit` that does nothing."""
    return changed_script(script, r"^function events_emit\(.*?^end$", "function events_emit() end")


@contextmanager
def no_events() -> Iterator[None]:
    with (
        changed(delivery, "_enqueue", silent(delivery._enqueue)),
        changed(claim, "_finish_and_claim", silent(claim._finish_and_claim)),
    ):
        yield


@contextmanager
def no_results() -> Iterator[None]:
    """No result streams, in which RQ's readers look for what jobs returned."""
    script = changed_script(
        claim._finish_and_claim,
        r"^function ending_result\(.*?^end$",
        "function ending_result() end",
    )
    with changed(claim, "_finish_and_claim", script):
        yield


@contextmanager
def no_statistics() -> Iterator[None]:
    with changed(Statistics, "add", lambda *_: None):
        yield


@contextmanager
def neither() -> Iterator[None]:
    with no_events(), no_statistics():
        yield


@contextmanager
def both() -> Iterator[None]:
    yield


def measure(server: EmbeddedServer, count: int, *, in_batch: bool = False) -> tuple[float, float]:
    """Jobs per second, enqueued in bulk and performed."""
    client = client_of(server)
    client.flushall()
    jobs = Client(client)
    batch = Batch.create(client=jobs) if in_batch else None
    began = time.perf_counter()
    jobs.send(bench_jobs.noop.job, [((), {})] * count, Options(batch=batch.id if batch else None))
    if batch:
        batch.seal()
    enqueued = time.perf_counter()
    in_a_pool(server)
    performed = time.perf_counter()
    assert client.zcard("rq:finished:default") == count
    if batch:
        assert batch.state().counts.done == count
    client.close()
    return count / (enqueued - began), count / (performed - enqueued)


def status(server: EmbeddedServer, waiting: int) -> tuple[float, float]:
    """Seconds that `packmule status` takes with `waiting` jobs queued, and without any job."""
    client = client_of(server)
    spans = []
    for count in (0, waiting):
        client.flushall()
        for first in range(0, count, 100_000):
            calls = [((), {})] * min(100_000, count - first)
            Client(client).send(bench_jobs.noop.job, calls)
        command = [sys.executable, "-m", "packmule", "status", "--json"]
        environment = {**os.environ, "PACKMULE_REDIS_URL": server.url}
        runs = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            runs.append(time.perf_counter() - began)
        spans.append(statistics.median(runs))
    client.close()
    return spans[1], spans[0]


def main(count: int, rounds: int, waiting: int) -> None:
    """Measure every variant, and print the medians."""
    cases: dict[str, tuple[Callable[[], Any], bool]] = {
        "neither events nor statistics": (neither, False),
        "events alone": (no_statistics, False),
        "statistics alone": (no_events, False),
        "both, as it is": (both, False),
        "both, and all in one batch": (both, True),
        "both, and no results": (no_results, False),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    with private_server() as server:
        for turn in range(rounds):
            for name, (setup, in_batch) in list(cases.items())[:: 1 if turn % 2 else -1]:
                with setup():
                    found[name].append(measure(server, count, in_batch=in_batch))
        print(
            f"{machine(client=client_of(server))}; {count:,} no-op jobs, {PROCESSES} processes, medians of "
            f"{rounds} rounds\n"
        )
        best = statistics.median(performed for _, performed in found["neither events nor statistics"])
        rows = []
        for name, rates in found.items():
            enqueued, performed = (statistics.median(each) for each in zip(*rates, strict=True))
            rows.append((name, f"{enqueued:,.0f}", f"{performed:,.0f}", f"{performed / best:.1%}"))
        table(("", "enqueued/s", "performed/s", "share"), rows)
        full, empty = status(server, waiting)
    print(f"\npackmule status: {full * 1000:.0f} ms with {waiting:,} jobs, {empty * 1000:.0f} ms with none")


if __name__ == "__main__":
    main(*arguments(40_000, 3, 1_000_000))
