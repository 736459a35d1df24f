"""The fault drill's job: it sleeps, and records outside of Redis when it began and ended."""

from __future__ import annotations

import os
import time
from functools import lru_cache

from packmule.jobs import current
from packmule.jobs.job import job

DAY = 86_400


@job(timeout=60, result_ttl=DAY, failure_ttl=DAY)
def work(ledger: str, seconds: float) -> None:
    """Record the begin in the file `ledger`, sleep, and record the end."""
    _record(ledger, "begin")
    if seconds:
        time.sleep(seconds)
    _record(ledger, "end")


def _record(ledger: str, what: str) -> None:
    # One short write to a file opened for appending is whole or absent, even if the process is killed.
    line = f"{what} {current.job_id()} {os.getpid()} {os.getppid()} {time.monotonic():.6f}\n"
    os.write(_opened(ledger), line.encode())


@lru_cache(maxsize=1)
def _opened(path: str) -> int:
    # Not created here: a job that outlives its drill must fail, and leave no file.
    return os.open(path, os.O_WRONLY | os.O_APPEND)
