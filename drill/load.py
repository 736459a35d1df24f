"""The drill's load: a producer process that enqueues at a steady rate and records acknowledged jobs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import TypeVar

from redis.exceptions import RedisError

from packmule.coordination.redis.embedded_server import ServerFailed
from packmule.drill.job import work
from packmule.jobs import queues
from packmule.jobs.client import Client

QUEUES = ("drill-a", "drill-b")

MIX = {(0.0, 0.0): 50, (0.001, 0.3): 45, (1.0, 2.0): 5}
"""The seconds that jobs take, as ranges, and how many jobs of a hundred take them."""

MEAN_SECONDS = sum((low + high) / 2 * share for (low, high), share in MIX.items()) / 100

IN_BULK = TWICE = 0.05
"""The share of calls that enqueue many jobs, and of those that are made twice with one id."""

DEEP = 100
"""Queued jobs at which producers pause: the drill is about faults and needs no long queues."""

RETRY_SECONDS = 0.1

T = TypeVar("T")


class Load:
    """Enqueues about `rate` jobs per second until `stopped` is set."""

    def __init__(self, folder: Path, name: str, rate: float, seed: int, stopped: threading.Event) -> None:
        self.ledger = str(folder / "ledger")
        self.acknowledged = folder / "acknowledged"
        self.prefix = f"{folder.name}-{name}-"
        self.rate = rate
        self.random = Random(seed)  # noqa: S311  a seed repeats a drill
        self.stopped = stopped
        self.client = Client().make_default().redis
        self.count = 0

    def run(self) -> None:
        """Enqueue singly and in bulk, and record each id after the call that enqueued it has returned."""
        drill = os.getppid()
        with self.acknowledged.open("a") as file:
            while not self.stopped.is_set() and os.getppid() == drill:  # the drill itself may be killed
                queue = self.random.choice(QUEUES)
                ids = self._many(queue) if self.random.random() < IN_BULK else self._one(queue)
                file.write("".join(f"{id}\n" for id in ids))
                file.flush()
                self.stopped.wait(self.random.expovariate(self.rate / max(1, len(ids))))
                while (self._retry_until_available(self._depth) or 0) > DEEP:
                    self.stopped.wait(RETRY_SECONDS)

    def _one(self, queue: str) -> list[str]:
        """Enqueue one job until it is acknowledged, and sometimes once more, which must change nothing."""
        self.count += 1
        chosen = work.options(queue=queue, job_id=f"{self.prefix}{self.count}")
        seconds = self._seconds()
        times = 2 if self.random.random() < TWICE else 1
        ids = [
            self._retry_until_available(lambda: chosen.enqueue(self.ledger, seconds)) for _ in range(times)
        ]
        return [id for id in ids[:1] if id]

    def _many(self, queue: str) -> Sequence[str]:
        """Enqueue many empty jobs, of which workers claim several at once, or a few of any length."""
        spans = self.random.choice(([0.0] * 60, [self._seconds() for _ in range(10)]))
        calls = [(self.ledger, seconds) for seconds in spans]
        return self._retry_until_available(lambda: work.options(queue=queue).enqueue_many(calls)) or []

    def _seconds(self) -> float:
        ((low, high),) = self.random.choices(list(MIX), list(MIX.values()))
        return self.random.uniform(low, high)

    def _depth(self) -> int:
        return sum(by_status["queued"] for by_status in queues.depths(self.client, QUEUES).values())

    def _retry_until_available(self, call: Callable[[], T]) -> T | None:
        """Call `call` until it succeeds and return its value, or None if `stopped` is set before."""
        while not self.stopped.is_set():
            try:
                return call()
            except (RedisError, ServerFailed):
                self.stopped.wait(RETRY_SECONDS)
        return None


def main() -> None:
    """Run the load that the command line describes, until SIGTERM."""
    folder, name, rate, seed = sys.argv[1:]
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda signum, frame: stopped.set())
    Load(Path(folder), name, float(rate), int(seed), stopped).run()


if __name__ == "__main__":
    main()
