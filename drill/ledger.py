"""The drill's ledger: when, where and how often each job ran, as the jobs themselves recorded it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

CALLED_BACK = "-called-back"
"""Part of the ids of jobs with a callback."""

ALONE, SLOTTED, RATED, WEIGHED, HOSTED = "-alone", "-slotted", "-rated", "-weighed", "-hosted"
"""Parts of the ids of singletons and of jobs with slots or a rate, before the key of the limit.

Those of jobs that may take several slots, of all hosts or of their own, end in their cost.
"""

COST = "c"
"""What is between a key and a cost."""


@dataclass(slots=True)
class Run:
    """One run of a job by process `pid` of the pool `pool`; `ended` is None if it was cut short."""

    job: str
    pid: int
    pool: int
    began: float
    ended: float | None = None


class State(NamedTuple):
    """A job's state in Redis at the end."""

    status: str
    deaths: int


class Ledger:
    """The runs that jobs recorded in the file at `path`, which is read as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self.runs: list[Run] = []
        self.running: dict[int, Run] = {}
        self.callbacks: list[Run] = []

    def catch_up(self) -> None:
        """Read what was recorded since the last call."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + bool(whole)
        for line in whole.decode().splitlines():
            self._enter(*line.split())

    def _enter(self, what: str, job: str, pid: str, pool: str, at: str) -> None:
        if what == "callback":
            self.callbacks.append(Run(job, int(pid), int(pool), float(at), float(at)))
        elif what == "begin":
            self.running[int(pid)] = run = Run(job, int(pid), int(pool), float(at))
            self.runs.append(run)
        else:
            self.running.pop(int(pid)).ended = float(at)
