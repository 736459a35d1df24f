"""Rest: how long a pool may sleep, so that one with nothing to do takes next to no processor time."""

from __future__ import annotations

import time
from collections.abc import Collection

from packmule.worker.pool.child import Child

TICK = 0.04
"""Seconds between two looks at the workers while jobs run."""

REST_SECONDS = 1.0
"""Once no look has found a job for this long, the pool sleeps until a duty is due or a job starts."""


class Rest:
    """Knows since when a pool has had nothing to look at."""

    def __init__(self) -> None:
        self._busy_at = time.monotonic()

    def seconds(self, workers: Collection[Child], is_settled: bool, due_in: float) -> float:
        """How long a pool of these `workers` may sleep whose next duty is due in so many seconds.

        It looks at every tick unless it `is_settled`: nothing starts, stops or is frozen. If it may sleep for
        longer, each of the workers wakes it when it next starts a job.
        """
        now = time.monotonic()
        if not is_settled or any(each.stopped_at or each.dumping or each.running() for each in workers):
            self._busy_at = now
        if now - self._busy_at < REST_SECONDS:
            return TICK
        for each in workers:
            if each.scoreboard:
                each.scoreboard.ask_to_wake()
        if any(each.running() for each in workers):  # one that started before it was asked
            return TICK
        return max(0.0, due_in) + TICK  # duties that are due at about the same time are done together
