"""What benchmarks share: private servers, a line on the machine, rounds in which ways take turns, tables.

A benchmark runs from the root of a checkout: `python benchmarks/locks.py`. The ways that it compares take
turns, so that the machine's pace affects all of them, and a ratio is the median of each round's own ratio.
"""

from __future__ import annotations

import operator
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple, TypeVar

from redis import Redis

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer

ROOT = Path(__file__).parents[1]
PROCESSES = 2

Result = TypeVar("Result")


def arguments(*defaults: float) -> list[float]:
    """The numbers of the command line, each of its default's type, and the defaults of those not given."""
    given = [type(default)(word) for default, word in zip(defaults, sys.argv[1:], strict=False)]
    return [*given, *defaults[len(given) :]]


def client_of(server: EmbeddedServer) -> Redis:
    """One more client of a private server."""
    return connect(None, server.data_dir)


def has(package: str) -> bool:
    """Whether a peer is installed; `make bench-peers` makes an environment that has them, build/peers."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def machine(*packages: str, client: Redis | None = None, at: str = "a unix socket") -> str:
    """Cores and versions, such as `2 cores, Python 3.11.7, Valkey 9.1.2 on a unix socket, redis 8.1.0`."""
    parts = [f"{len(os.sched_getaffinity(0))} cores", f"Python {platform.python_version()}"]
    if client is not None:
        parts.append(f"Valkey {client.info('server')['valkey_version']} on {at}")
    parts += [f"{package} {version(package)}" for package in packages if has(package)]
    return ", ".join(parts)


def by_turns(ways: Mapping[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """What each way returns in each round; the ways take turns."""
    results: dict[str, list[Result]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            results[name].append(way())
    return results


def rate(count: int, run: Callable[[], object]) -> float:
    """How many a second, when `run` does `count` of them."""
    began = time.perf_counter()
    run()
    return count / (time.perf_counter() - began)


class Pace(NamedTuple):
    """Rounds a second, and microseconds of a processor for one: in the processes that ran, and in Redis."""

    rate: float
    cpu: float
    redis: float


def pace(client: Redis, count: int, run: Callable[[], object]) -> Pace:
    """The pace of `run`, whose processes have ended when it returns."""
    before = spent(client)
    per_second = rate(count, run)
    cpu, redis = (1e6 * (after - first) / count for after, first in zip(spent(client), before, strict=True))
    return Pace(per_second, cpu, redis)


def spent(client: Redis) -> tuple[float, float]:
    """Seconds that the processes which have ended, and the server, have computed so far."""
    children, server = resource.getrusage(resource.RUSAGE_CHILDREN), client.info("cpu")
    return children.ru_utime + children.ru_stime, server["used_cpu_user"] + server["used_cpu_sys"]


def rate_in(seconds: float, once: Callable[[], object]) -> float:
    """How often per second `once` runs if it is repeated for `seconds`."""
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        once()
        count += 1
    return count / passed


def microseconds(times: int, once: Callable[[], object]) -> float:
    """The microseconds of one call if it is repeated `times` times."""
    began = time.perf_counter()
    for _ in range(times):
        once()
    return (time.perf_counter() - began) / times * 1_000_000


def ratio(values: Sequence[float], bases: Sequence[float]) -> float:
    """The median of each round's own ratio."""
    return statistics.median(map(operator.truediv, values, bases))


def in_processes(task: Callable[[], object]) -> None:
    """Run `task` in PROCESSES forked processes, and wait for all."""
    children = []
    for _ in range(PROCESSES):
        child = os.fork()
        if not child:
            task()
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def in_a_pool(server: EmbeddedServer, *queues: str) -> None:
    """Let a pool of PROCESSES, forked from this process, perform all jobs of `queues` (`default`)."""
    from packmule.worker.options import WorkerOptions
    from packmule.worker.pool.pool import Pool

    child = os.fork()
    if not child:
        names = list(queues) or ["default"]
        os._exit(Pool(lambda: client_of(server), names, PROCESSES, WorkerOptions(burst=True)).run())
    os.waitpid(child, 0)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of texts under their columns: the first to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in [columns, *rows]:
        cells = (
            word.rjust(width) if position else word.ljust(width)
            for position, (word, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip(), flush=True)
