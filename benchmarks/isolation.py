"""Images through the whole system: what an isolated process costs, and what two worker processes bring.

    python benchmarks/isolation.py [thumbnails] [large images] [rounds]

Each way makes 200 thumbnails of 200 px from a JPEG of 1 megapixel, or 8 times renditions of 1600, 800 and
200 px from one of 12 or 24, by default, in turns with the others, 5 times. No two jobs are equal: one would
copy what the other has made. *Function* calls the image job's function in a loop, without Redis, in one
process or in two at once. The others enqueue jobs for a pool that has started. It performs them in the
worker's own process, in one kept for many jobs (what the image job does), or in one forked for each. CPU is
that of all processes and of Redis, for one image. Files are synced to disk, which all processes share:
TMPDIR=/dev/shm leaves the disk out.
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from harness import arguments, by_turns, client_of, machine, ratio, spent, table
from image import SOURCES, WIDTHS, photograph
from redis import Redis

from packmule.coordination.cache.cache import Cache
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import context, registry
from packmule.jobs.client import Client
from packmule.jobs.host_shares import HostMemory
from packmule.jobs.image import Rendition, image
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job_type import Traits
from packmule.jobs.storage import Storage
from packmule.worker.kernel import usable_memory
from packmule.worker.options import WorkerOptions
from packmule.worker.pool.pool import Pool
from packmule.worker.subprocesses import descendants

SMALL = "1 MP"
SIZES = {SMALL: (1200, 833), **SOURCES}
KEPT = image.job.traits
IN_PROCESS = replace(KEPT, isolate=False, reuse=1, network=True, max_memory=None, max_cpu=None)
FORKED = replace(KEPT, reuse=1)
ANY_HEIGHT = 60_000
PAUSE = 0.005
TWICE = {
    "function, in 2 processes": "function",
    "2 worker processes, in them": "1 worker process, in it",
    "2 worker processes, kept": "1 worker process, kept",
}
"""Ways of two processes, and the same of one."""

TICK = 1 / os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """Of one image, in milliseconds: of the clock and of all processors."""

    wall: float
    cpu: float


def cost(count: int, processor: Callable[[], float], act: Callable[[], object]) -> Cost:
    """The cost of `act`, which makes `count` images, by the seconds that `processor` counts."""
    cpu, began = processor(), time.perf_counter()
    act()
    return Cost(*(1000 * each / count for each in (time.perf_counter() - began, processor() - cpu)))


def reaped() -> float:
    """Seconds of processor time of the children that have ended."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def used_in(pid: int) -> float:
    """Seconds of processor time of this process and all that descend from it, the ended ones too."""
    fields = (Path(f"/proc/{each}/stat").read_text().rpartition(")")[2] for each in (pid, *descendants(pid)))
    return sum(sum(map(int, each.split()[11:15])) for each in fields) * TICK


class Bench:
    """Makes images of one size in each way, by one private server."""

    def __init__(self, server: EmbeddedServer, client: Redis, size: str, count: int) -> None:
        self.server = server
        self.client = client
        self.size = size
        self.count = count
        self.wished = 0

    def wishes(self) -> list[dict[str, Any]]:
        """Renditions of which no other job has made equal ones, whose pixels are the same."""
        self.wished += 1
        widths = (200,) if self.size == SMALL else WIDTHS
        return [{"width": width, "height": ANY_HEIGHT - self.wished, "name": str(width)} for width in widths]

    def function(self, processes: int) -> Cost:
        """The job's function, called in a loop."""

        def in_children() -> None:
            children = []
            for number in range(processes):
                if not (child := os.fork()):
                    del context.resources[Cache]
                    for _ in range(self.count):
                        wishes = [Rendition(**wish) for wish in self.wishes()]
                        image(f"{self.size}.jpg", wishes, f"out{number}")
                    os._exit(0)
                children.append(child)
            for child in children:
                os.waitpid(child, 0)

        return cost(self.count * processes, reaped, in_children)

    def system(self, processes: int, traits: Traits) -> Cost:
        """Jobs through Redis and a pool."""
        registry.add(replace(image.job, traits=traits))
        self.client.flushdb()
        pool = os.fork()
        if not pool:
            logging.disable()
            options = WorkerOptions(job_log_level=100)
            os._exit(Pool(lambda: client_of(self.server), ["default"], processes, options, grace=0).run())
        self.perform(4 * processes)  # until all are warm
        found = cost(
            self.count,
            lambda: used_in(pool) + spent(self.client)[1],
            lambda: self.perform(self.count),
        )
        os.kill(pool, signal.SIGTERM)
        os.waitpid(pool, 0)
        return found

    def perform(self, count: int) -> None:
        """Enqueue jobs, and wait for their ends."""
        wanted = self.count_in("finished") + count
        handles = image.enqueue_many([(f"{self.size}.jpg", self.wishes()) for _ in range(count)])
        handles[-1].result(timeout=600)  # until then nothing looks, which would take processor time
        while self.count_in("finished") < wanted:
            if self.count_in("failed"):
                sys.exit("an image was not made")
            time.sleep(PAUSE)

    def count_in(self, state: str) -> int:
        return int(self.client.zcard(f"rq:{state}:default"))  # type: ignore[arg-type]


def faster(costs: list[Cost], base: list[Cost]) -> str:
    """How many times as fast as the others these are, by the clock."""
    return f"{ratio([each.wall for each in base], [each.wall for each in costs]):.2f}"


def rows(size: str, ways: dict[str, Callable[[], Cost]], rounds: int) -> list[list[str]]:
    """What is printed of an image of one size; the first way is what the others are compared with."""
    results = by_turns(ways, rounds)
    base = next(iter(results.values()))
    return [
        [
            name,
            size,
            *(f"{statistics.median(each[part] for each in costs):.2f}" for part in (0, 1)),
            f"{1000 / statistics.median(each.wall for each in costs):.0f}",
            f"{ratio([each.cpu for each in costs], [each.cpu for each in base]):.2f}",
            faster(costs, base),
            faster(costs, results[TWICE[name]]) if name in TWICE else "",
        ]
        for name, costs in results.items()
    ]


def main() -> None:
    thumbnails, large, rounds = arguments(200, 8, 5)
    folder = Path(tempfile.mkdtemp())
    server = EmbeddedServer(folder / "server")
    try:
        client = client_of(server)
        Client(client).make_default()
        context.provide(
            Storage(str(folder)),
            InputLimits(10**9, 1, 10**9),
            Cache(client, "jobs"),
            HostMemory(usable_memory() // 2),
        )
        found = []
        for size, pixels in SIZES.items():
            photograph(pixels, folder / f"{size}.jpg")
            bench = Bench(server, client, size, thumbnails if size == SMALL else large)
            ways: dict[str, Callable[[], Cost]] = {
                "function": partial(bench.function, 1),
                "function, in 2 processes": partial(bench.function, 2),
                "1 worker process, in it": partial(bench.system, 1, IN_PROCESS),
                "1 worker process, kept": partial(bench.system, 1, KEPT),
                "1 worker process, forked": partial(bench.system, 1, FORKED),
                "2 worker processes, in them": partial(bench.system, 2, IN_PROCESS),
                "2 worker processes, kept": partial(bench.system, 2, KEPT),
            }
            found += rows(size, ways, rounds)
        print(machine("pillow", "cykooz-resizer", client=client))
        table(
            ["way", "source", "ms", "CPU ms", "a second", "CPU / function", "pace / function", "two / one"],
            found,
        )
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
