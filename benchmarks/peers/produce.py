"""A producer process: python -m peers.produce PEER VERB JOB COUNT, where VERB is one of these functions.

A peer's module offers `Producer` with `start`, `one` (enqueue one job, with its arguments) and `many`
(enqueue the same job many times, in the fastest way its client knows). All are coroutines, blocking ones
included.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

MARKS = 40

Calls = Mapping[str, Callable[..., object]]


class Producer(Protocol):
    """What a peer's module offers."""

    async def start(self) -> None: ...

    async def one(self, job: str, *args: float) -> object: ...

    async def many(self, job: str, count: int) -> object: ...


async def fill(producer: Producer, job: str, count: int) -> None:
    """Enqueue `count` jobs, of which every `count / MARKS`-th is a mark."""
    for position in range(MARKS):
        await producer.many(job, count // MARKS - 1)
        await producer.one("mark", position)


async def bulk(producer: Producer, job: str, count: int) -> None:
    """Enqueue `count` jobs at once."""
    await producer.many(job, count)


async def each(producer: Producer, job: str, count: int) -> None:
    """Enqueue `count` jobs one after the other."""
    for _ in range(count):
        await producer.one(job)


async def paced(producer: Producer, job: str, count: int) -> None:
    """Enqueue marks that know when they were enqueued, a pause after the one before has been performed."""
    marks = Path(os.environ["BENCH_MARKS"])
    pauses = random.Random(7)
    for _ in range(count):
        await asyncio.sleep(pauses.uniform(0.005, 0.020))
        size = marks.stat().st_size
        await producer.one(job, time.time())
        while marks.stat().st_size == size:
            await asyncio.sleep(0.001)


VERBS = {verb.__name__: verb for verb in (fill, bulk, each, paced)}


async def main(peer: str, verb: str, job: str, count: int) -> None:
    """Connect, do what the verb says, and print how many seconds it took."""
    producer: Producer = importlib.import_module(f"peers.{peer}").Producer()
    await producer.start()
    started = time.perf_counter()
    await VERBS[verb](producer, job, count)
    print(time.perf_counter() - started)


def run(task: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where it is installed, as the asynchronous systems advise."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        new_event_loop = None
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(task)


class OneByOne:
    """The producer of a client that enqueues by a call, and has no bulk: `calls` are those, by job."""

    calls: ClassVar[Calls]

    async def start(self) -> None:
        pass

    async def one(self, job: str, *args: float) -> None:
        self.calls[job](*args)

    async def many(self, job: str, count: int) -> None:
        for _ in range(count):
            self.calls[job]()


async def in_slices(calls: Sequence[Coroutine[Any, Any, object]], at_once: int = 100) -> None:
    """Await coroutines, `at_once` of them together: the bulk of clients that have none."""
    for start in range(0, len(calls), at_once):
        await asyncio.gather(*calls[start : start + at_once])


if __name__ == "__main__":
    run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
