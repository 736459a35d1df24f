"""What is measured: each figure takes a fresh stage and the number of jobs, and returns its values."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from peers.bodies import COUNTER
from peers.produce import MARKS
from peers.setups import BARE
from peers.stage import PROCESSES, Failed, Stage

LONG = "waiting"
"""Figures whose names begin so take minutes, and are measured only where they are asked for."""

FEWEST = 200
NAPS = 2_000
ENQUEUED_ONE_BY_ONE = 10_000
PACED = 300
STARTING_SECONDS = 6.0
REST_SECONDS = 10.0
STORED = 10_000
SKIPPED_MARKS = MARKS // 10

Values = tuple[float, ...]


def noop(stage: Stage, jobs: int, behind: int = 0) -> Values:
    return (_rate(stage, "noop", _share(stage, jobs), behind),)


def incr(stage: Stage, jobs: int) -> Values:
    count = _share(stage, jobs)
    if stage.setup.name == BARE:
        return (PROCESSES * count / stage.produce_in_all("each", "incr", count),)
    rate = _rate(stage, "incr", count)
    wanted = count - MARKS
    stage.wait_until(
        lambda: int(stage.client.get(COUNTER) or 0) == wanted, f"it did not count to {wanted} exactly"
    )
    return (rate,)


def nap(stage: Stage, jobs: int) -> Values:
    count = stage.setup.naps
    stage.start_workers(stage.setup.warm_up)
    before = len(stage.marks())
    stage.pause()
    stage.produce("bulk", "nap", count)
    started = stage.go_on()
    return ((stage.wait_for_marks(before + count)[-1].time - started) * NAPS / count,)


def one(stage: Stage, jobs: int) -> Values:
    return (ENQUEUED_ONE_BY_ONE / stage.produce("each", "noop", ENQUEUED_ONE_BY_ONE),)


def bulk(stage: Stage, jobs: int) -> Values:
    count = max(_share(stage, jobs), ENQUEUED_ONE_BY_ONE)
    return (count / stage.produce("bulk", "noop", count),)


def latency(stage: Stage, jobs: int) -> Values:
    stage.start_workers(stage.setup.warm_up)
    before = len(stage.marks())
    stage.produce("paced", "mark", PACED)
    marks = stage.wait_for_marks(before + PACED)[before:]
    waited = sorted(1000 * (mark.time - mark.value) for mark in marks)
    return (statistics.median(waited), waited[int(0.99 * PACED)])


def memory(stage: Stage, jobs: int) -> Values:
    stage.start_workers()
    time.sleep(1)
    return (stage.memory() / 1024**2,)


def idle(stage: Stage, jobs: int) -> Values:
    stage.start_workers()
    time.sleep(STARTING_SECONDS)
    resting, before, began = stage.processes(), stage.cpu_seconds(), time.monotonic()
    time.sleep(REST_SECONDS)
    share = (stage.cpu_seconds() - before) / (time.monotonic() - began)
    if set(stage.processes()) != set(resting):
        raise Failed("its processes did not stay the same at rest")
    return (100 * share,)


def stored(stage: Stage, jobs: int) -> Values:
    def used() -> int:
        return int(stage.client.info("memory")["used_memory"])

    empty = used()
    stage.produce("bulk", "noop", STORED)
    return ((used() - empty) / STORED,)


@dataclass(frozen=True)
class Figure:
    """A column: its title, its unit, how to measure it, and how to print a value."""

    title: str
    unit: str
    measure: Callable[[Stage, int], Values]
    format: str = "{:,.0f}"


FIGURES = {
    "noop": Figure("no-op", "jobs/s", noop),
    "incr": Figure("one INCR", "jobs/s", incr),
    "nap": Figure("2,000 of 10 ms", "s", nap, "{:.2f}"),
    "one": Figure("enqueue one", "jobs/s", one),
    "bulk": Figure("bulk", "jobs/s", bulk),
    "latency": Figure("latency p50 / p99", "ms", latency, "{:.2f}"),
    "memory": Figure("memory", "MiB", memory),
    "idle": Figure("at rest", "% of a core", idle, "{:.2f}"),
    "bytes": Figure("a waiting job", "bytes", stored),
    "waiting-1k": Figure("no-op, 1,000 behind", "jobs/s", partial(noop, behind=1_000)),
    "waiting-100k": Figure("100,000 behind", "jobs/s", partial(noop, behind=100_000)),
    "waiting-1m": Figure("1,000,000 behind", "jobs/s", partial(noop, behind=1_000_000)),
}


def _share(stage: Stage, jobs: int) -> int:
    """How many jobs this system gets: a multiple of MARKS."""
    return max(FEWEST, int(jobs * stage.setup.share)) // MARKS * MARKS


def _rate(stage: Stage, job: str, count: int, behind: int = 0) -> float:
    """Jobs a second from the first tenth to the last of `count`, with `behind` more waiting after them."""
    stage.start_workers(stage.setup.warm_up)
    before = len(stage.marks())
    stage.pause()
    stage.produce("fill", job, count)
    if behind:
        stage.produce("bulk", job, behind)
    # The server may be rewriting its file because of the filling, which is not the workers' affair.
    stage.wait_until(
        lambda: not stage.client.info("persistence")["aof_rewrite_in_progress"],
        "its file is still being rewritten",
    )
    stage.go_on()
    marks = stage.wait_for_marks(before + MARKS)[before:]
    if len({mark.process for mark in marks}) < PROCESSES:
        raise Failed("one process did all the work")
    seconds = marks[-1].time - marks[SKIPPED_MARKS - 1].time
    return count * (MARKS - SKIPPED_MARKS) / MARKS / seconds
