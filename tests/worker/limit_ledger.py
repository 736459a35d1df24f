"""The ledger of the limits' fault run, and whether the limits were kept."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from packmule.coordination.limits.rate import Rate
from packmule.drill.limits import crowded, hasty

HOST = "@"
"""What is between a key and the host that it's for."""


@dataclass
class Run:
    """One execution of a job's body; `ended` is when it wrote, or when it is known to have been struck."""

    key: str
    name: str
    fence: int
    pid: int
    begun: float
    ended: float | None = None
    wrote: bool = False


@dataclass
class Ledger:
    """The runs by key, as they began; `struck` tells when a process was killed or frozen."""

    runs: dict[str, list[Run]]
    struck: dict[int, float] = field(default_factory=dict)
    frozen: set[int] = field(default_factory=set)
    outages: list[tuple[float, float]] = field(default_factory=list)

    def names(self) -> set[str]:
        return {run.name for runs in self.runs.values() for run in runs if run.wrote}

    def longest_gap(self, key: str) -> tuple[float, float]:
        """Seconds for which nobody ran, and since when: from one's end, or what struck it, to the next begin.

        The times in which the job server was away do not count.
        """
        free_since, longest = None, (0.0, 0.0)
        for run in self.runs[key]:
            if free_since is not None:
                away = sum(
                    max(0.0, min(end, run.begun) - max(begun, free_since)) for begun, end in self.outages
                )
                longest = max(longest, (run.begun - free_since - away, free_since))
            end = self._end(run)
            free_since = end if free_since is None else max(free_since, end)
        return longest

    def crowded(self, key: str, most: int) -> list[str]:
        """The jobs that began beside `most` others or more, without those of processes that were frozen."""
        return list(crowded([(run.begun, self._end(run), run.name, 1) for run in self._sound(key)], most))

    def overloaded(self, key: str, most: int, cost_of: Callable[[str], int]) -> list[str]:
        """The jobs that began beside others with which they cost more than `most`, by their names."""
        spans = [(run.begun, self._end(run), run.name, cost_of(run.name)) for run in self._sound(key)]
        return list(crowded(spans, most))

    def hasty(self, key: str, rate: Rate, late: float) -> list[str]:
        """The jobs that began sooner than `rate` allows, though each may have begun `late` seconds late."""
        return list(hasty([(run.begun, run.name) for run in self._sound(key)], rate, late))

    def doubled(self) -> list[str]:
        """The jobs that ran again though neither their process nor the server had been struck before."""
        found = []
        of_jobs: dict[str, list[Run]] = defaultdict(list)
        for key, each in self.runs.items():  # a job may run on one host after another
            of_jobs[key.partition(HOST)[0]] += each
        for runs in of_jobs.values():
            last: dict[str, Run] = {}
            for run in sorted(runs, key=lambda run: run.begun):
                before = last.get(run.name)
                last[run.name] = run
                if before is None or before.pid in self.frozen:
                    continue
                is_struck = self.struck.get(before.pid, math.inf) < run.begun
                is_away = any(begun < run.begun and before.begun < end for begun, end in self.outages)
                if not is_struck and not is_away:
                    found.append(run.name)
        return found

    def displaced(self, key: str) -> float:
        """The share of first runs that began before one which was enqueued earlier."""
        seen: dict[str, None] = dict.fromkeys(run.name for run in self.runs[key])
        numbers = [int(name.rpartition("-")[2]) for name in seen]
        pairs = list(itertools.pairwise(numbers))
        return sum(later < earlier for earlier, later in pairs) / max(1, len(pairs))

    def _sound(self, key: str) -> list[Run]:
        return [run for run in self.runs[key] if run.pid not in self.frozen]

    def _end(self, run: Run) -> float:
        if run.ended is not None:
            return run.ended
        struck = self.struck.get(run.pid, run.begun)
        return max(struck, run.begun)


def load(path: Path) -> Ledger:
    runs: dict[str, list[Run]] = defaultdict(list)
    for line in path.read_text().splitlines():
        what, key, name, fence, pid, at = line.split()
        if what == "begin":
            runs[key].append(Run(key, name, int(fence), int(pid), float(at)))
            continue
        run = next(each for each in reversed(runs[key]) if (each.name, each.pid) == (name, int(pid)))
        run.ended, run.wrote = float(at), True
    return Ledger({key: sorted(each, key=lambda run: run.begun) for key, each in runs.items()})
