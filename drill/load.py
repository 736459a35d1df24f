"""The drill's load: a producer process that enqueues at a steady rate and records acknowledged jobs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Callback, Queue
from rq.serializers import JSONSerializer

from packmule.coordination.redis.embedded_server import ServerFailed
from packmule.coordination.redis.replies import as_text
from packmule.drill.job import (
    CALLBACK,
    DAY,
    MOST_WEIGHED,
    work,
    work_alone,
    work_on_host,
    work_rated,
    work_slotted,
    work_weighed,
)
from packmule.drill.ledger import ALONE, CALLED_BACK, COST, HOSTED, RATED, SLOTTED, WEIGHED
from packmule.jobs import keys, queues
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.jobs.job import JobFunction
from packmule.observe import blocked

QUEUES = ("drill-a", "drill-b")

MIX = {(0.0, 0.0): 50, (0.001, 0.3): 45, (1.0, 2.0): 5}
"""The seconds that jobs take, as ranges, and how many jobs of a hundred take them."""

MEAN_SECONDS = sum((low + high) / 2 * share for (low, high), share in MIX.items()) / 100

IN_BULK = TWICE = 0.05
"""The share of calls that enqueue many jobs, and of those that are made twice with one id."""

KINDS = {
    **{"plain": 62, "callback": 12, "alone": 12, "batch": 6},
    **{"slotted": 2, "rated": 2, "weighed": 2, "hosted": 2},
}
"""Of a hundred calls that enqueue few jobs, how many enqueue which kind."""

LIMIT_KEYS = 4
ALONE_SECONDS, SLOTTED_SECONDS, RATED_SECONDS = 0.05, 0.15, 0.0
CROWD = 12
"""How many jobs with slots or a rate come at once with one key: more than may start at once."""

BATCH_NAME, BATCH_JOBS, BATCH_SECONDS = "packmule.drill", 4, 600.0

DEEP = 100
"""Waiting jobs at which producers pause: the drill is about faults and needs no long queues."""

RETRY_SECONDS = 0.1

T = TypeVar("T")
Limited = JobFunction[[str, float, int], None]
Weighed = JobFunction[[str, float, int, int], None]

SLOTS_AND_RATES: dict[str, tuple[Limited, str, float, int]] = {
    "alone": (work_alone, ALONE, ALONE_SECONDS, 1),
    "slotted": (work_slotted, SLOTTED, SLOTTED_SECONDS, CROWD),
    "rated": (work_rated, RATED, RATED_SECONDS, CROWD),
}
"""By kind: the job, the part of its id, the longest that it takes, and how many come at once."""

COSTS: dict[str, tuple[Weighed, str, int]] = {
    "weighed": (work_weighed, WEIGHED, LIMIT_KEYS),
    "hosted": (work_on_host, HOSTED, 1),
}
"""By kind: the job, the part of its id, and how many keys there are. A host has the same slots for all."""


class Load:
    """Enqueues about `rate` jobs per second until `stopped` is set."""

    def __init__(self, folder: Path, name: str, rate: float, seed: int, stopped: threading.Event) -> None:
        self.ledger = str(folder / "ledger")
        self.acknowledged = folder / "acknowledged"
        self.batches = folder / "batches"
        self.prefix = f"{folder.name}-{name}-"
        self.rate = rate
        self.random = Random(seed)  # noqa: S311  a seed repeats a drill
        self.stopped = stopped
        self.count = 0

    def run(self) -> None:
        """Enqueue singly and in bulk, and record each id after the call that enqueued it has returned."""
        both = self._retry_until_available(lambda: (Client().make_default().redis, Client().redis))
        if both is None:
            return
        self.client, self.rq_client = both
        # RQ's own enqueue must not be sent twice, so its client tries once.
        self.rq_client.connection_pool.connection_kwargs["retry"] = Retry(NoBackoff(), 0)
        drill = os.getppid()
        with self.acknowledged.open("a") as file:
            while not self.stopped.is_set() and os.getppid() == drill:  # the drill itself may be killed
                queue = self.random.choice(QUEUES)
                ids = self._many(queue) if self.random.random() < IN_BULK else self._few(queue)
                file.write("".join(f"{id}\n" for id in ids))
                file.flush()
                self.stopped.wait(self.random.expovariate(self.rate / max(1, len(ids))))
                while (self._retry_until_available(self._depth) or 0) > DEEP:
                    self.stopped.wait(RETRY_SECONDS)

    def _few(self, queue: str) -> Sequence[str]:
        self.count += 1
        (kind,) = self.random.choices(list(KINDS), list(KINDS.values()))
        if kind in SLOTS_AND_RATES:
            return self._limited(*SLOTS_AND_RATES[kind], queue)
        if kind in COSTS:
            return self._weighed(*COSTS[kind], queue)
        match kind:
            case "callback":
                return self._called_back(queue)
            case "batch":
                return self._batch(queue)
            case _:
                plain = work.options(queue=queue, job_id=f"{self.prefix}{self.count}")
                seconds = self._seconds()
                return self._one(lambda: plain.enqueue(self.ledger, seconds))

    def _one(self, enqueue: Callable[[], str]) -> Sequence[str]:
        """Enqueue one job until it is acknowledged, and sometimes once more, which must change nothing."""
        times = 2 if self.random.random() < TWICE else 1
        ids = [self._retry_until_available(enqueue) for _ in range(times)]
        return [id for id in ids[:1] if id]

    def _limited(self, work: Limited, kind: str, longest: float, jobs: int, queue: str) -> Sequence[str]:
        """Enqueue `jobs` jobs of a `kind` with one key, which take up to `longest` seconds each."""
        key = self.random.randrange(LIMIT_KEYS)
        ids: list[str] = []
        for _ in range(jobs):
            self.count += 1
            chosen = work.options(queue=queue, job_id=f"{self.prefix}{self.count}{kind}{key}")
            enqueue = partial(chosen.enqueue, self.ledger, self.random.uniform(0, longest), key)
            ids += self._one(enqueue)
        return ids

    def _weighed(self, work: Weighed, kind: str, keys: int, queue: str) -> Sequence[str]:
        """Enqueue jobs of a `kind` with one key, each with a cost of its own."""
        key = self.random.randrange(keys)
        ids: list[str] = []
        for _ in range(CROWD):
            self.count += 1
            cost = self.random.randint(1, MOST_WEIGHED)
            chosen = work.options(queue=queue, job_id=f"{self.prefix}{self.count}{kind}{key}{COST}{cost}")
            seconds = self.random.uniform(0, SLOTTED_SECONDS)
            ids += self._one(partial(chosen.enqueue, self.ledger, seconds, key, cost))
        return ids

    def _called_back(self, queue: str) -> Sequence[str]:
        """Let RQ's code enqueue a job with a callback, once: it isn't acknowledged if that fails."""
        by_rq = Queue(queue, connection=self.rq_client, serializer=JSONSerializer)
        try:
            enqueued = by_rq.enqueue(
                work.job.name,
                self.ledger,
                self._seconds(),
                job_id=f"{self.prefix}{self.count}{CALLED_BACK}",
                job_timeout=60,
                result_ttl=DAY,
                failure_ttl=DAY,
                on_success=Callback(CALLBACK),
            )
        except (RedisError, ServerFailed):
            return ()
        return [enqueued.id]

    def _batch(self, queue: str) -> Sequence[str]:
        """Enqueue a batch and what is to follow it; nothing of it is acknowledged until it is sealed."""
        after = work.options(queue=queue).prepare(self.ledger, 0.0)
        calls = [(self.ledger, self._seconds()) for _ in range(BATCH_JOBS)]
        retry = self._retry_until_available
        batch = retry(lambda: Batch.create(BATCH_NAME, on_complete=after, keep=BATCH_SECONDS))
        ids = batch and retry(lambda: work.options(queue=queue, batch=batch.id).enqueue_many(calls))
        if not batch or not ids or retry(batch.seal) is None:
            return ()
        follows = retry(lambda: self.client.hget(keys.batch_key(batch.id), "on_complete"))
        with self.batches.open("a") as file:
            file.write(f"{batch.id}\n")
        return [*ids, *([as_text(follows)] if follows else [])]

    def _many(self, queue: str) -> Sequence[str]:
        """Enqueue many empty jobs, of which workers claim several at once, or a few of any length."""
        spans = self.random.choice(([0.0] * 60, [self._seconds() for _ in range(10)]))
        calls = [(self.ledger, seconds) for seconds in spans]
        return self._retry_until_available(lambda: work.options(queue=queue).enqueue_many(calls)) or []

    def _seconds(self) -> float:
        ((low, high),) = self.random.choices(list(MIX), list(MIX.values()))
        return self.random.uniform(low, high)

    def _depth(self) -> int:
        depths, behind = queues.depths(self.client, QUEUES), blocked.behind(self.client, QUEUES)
        return sum(depths[queue]["queued"] + behind[queue] for queue in QUEUES)

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
