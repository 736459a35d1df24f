"""The fault drill's jobs: they sleep, and record outside of Redis when they began and ended."""

from __future__ import annotations

import os
import time
from functools import lru_cache
from typing import Any

from packmule.coordination.limits.rate import Rate
from packmule.jobs import current
from packmule.jobs.job import job

DAY = 86_400
WORK, CALLBACK = (f"packmule.drill.job.{name}" for name in ("work", "called_back"))

MOST_SLOTTED = 2
MOST_WEIGHED = 10
RATE = Rate.parse("4/s burst 2")


@job(timeout=60, result_ttl=DAY, failure_ttl=DAY)
def work(ledger: str, seconds: float) -> None:
    """Record the begin in the file `ledger`, sleep, and record the end."""
    _work(ledger, seconds)


@job(timeout=60, result_ttl=DAY, failure_ttl=DAY, singleton="{key}")
def work_alone(ledger: str, seconds: float, key: int) -> None:
    """Do the same while no other job with this key does."""
    _work(ledger, seconds)


@job(timeout=60, result_ttl=DAY, failure_ttl=DAY, concurrency=f"{MOST_SLOTTED} by {{key}}")
def work_slotted(ledger: str, seconds: float, key: int) -> None:
    """Do the same beside no more jobs with this key than its slots allow."""
    _work(ledger, seconds)


@job(timeout=60, result_ttl=DAY, failure_ttl=DAY, rate=f"{RATE} by {{key}}")
def work_rated(ledger: str, seconds: float, key: int) -> None:
    """Do the same when the rate of this key allows."""
    _work(ledger, seconds)


@job(timeout=60, result_ttl=DAY, failure_ttl=DAY, concurrency=f"{MOST_WEIGHED} by {{key}} cost {{cost}}")
def work_weighed(ledger: str, seconds: float, key: int, cost: int) -> None:
    """Do the same beside jobs with this key that cost no more together than there are slots."""
    _work(ledger, seconds)


@job(timeout=60, result_ttl=DAY, failure_ttl=DAY, concurrency=f"{MOST_WEIGHED} per host cost {{cost}}")
def work_on_host(ledger: str, seconds: float, key: int, cost: int) -> None:
    """Do the same beside jobs on this host that cost no more together than it has slots, whatever the key."""
    _work(ledger, seconds)


LIMITED = (work_alone, work_slotted, work_rated, work_weighed, work_on_host)


def called_back(job: Any, connection: Any, result: object) -> None:
    """RQ's callback of a job that has finished: record that it was called."""
    _record(job.args[0], "callback", job.id)


def _work(ledger: str, seconds: float) -> None:
    id = current.job_id() or ""
    _record(ledger, "begin", id)
    if seconds:
        time.sleep(seconds)
    _record(ledger, "end", id)


def _record(ledger: str, what: str, id: str) -> None:
    # One short write to a file opened for appending is whole or absent, even if the process is killed.
    line = f"{what} {id} {os.getpid()} {os.getppid()} {time.monotonic():.6f}\n"
    os.write(_opened(ledger), line.encode())


@lru_cache(maxsize=1)
def _opened(path: str) -> int:
    # Not created here: a job that outlives its drill must fail, and leave no file.
    return os.open(path, os.O_WRONLY | os.O_APPEND)
