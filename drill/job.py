"""The fault drill's job: it takes its time, and notes outside of Redis when it began and when it ended."""

from __future__ import annotations

import os
import time
from functools import lru_cache

from packmule.jobs import current
from packmule.jobs.job import job

DAY = 86_400


@job(timeout=60, result_ttl=DAY, failure_ttl=DAY)
def work(ledger: str, seconds: float) -> None:
    """Note the begin in the file `ledger`, sleep, and note the end."""
    _note(ledger, "begin")
    if seconds:
        time.sleep(seconds)
    _note(ledger, "end")


def _note(ledger: str, what: str) -> None:
    # One short write to a file opened for appending is there whole or not at all, whoever is killed.
    line = f"{what} {current.job_id()} {os.getpid()} {os.getppid()} {time.monotonic():.6f}\n"
    os.write(_opened(ledger), line.encode())


@lru_cache(maxsize=1)
def _opened(path: str) -> int:
    # Not created here: a job that outlives its drill must fail, and not litter.
    return os.open(path, os.O_WRONLY | os.O_APPEND)
