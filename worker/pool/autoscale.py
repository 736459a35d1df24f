"""Autoscaling: how many processes a pool should have, by the depth and age of its queues."""

from __future__ import annotations

import time
from collections.abc import Sequence

from redis import Redis

from packmule.jobs import keys, queues

LOOK_INTERVAL = 1.0
PATIENCE = 1.0
"""Another process starts once a job has waited this long."""

IDLE_SECONDS = 30.0
"""A surplus process ends once the queues have been empty for this long."""


class Autoscale:
    """Between `least` and `most` processes: up by half while jobs wait, down one by one while none do."""

    def __init__(self, client: Redis, queues: Sequence[str], least: int, most: int) -> None:
        self.client = client
        self.queues = queues
        self.least = least
        self.most = most
        self._next_look = 0.0
        self._empty_since = time.monotonic()

    def wanted(self, processes: int, busy: int) -> int:
        """How many processes a pool should have that has `processes`, of which `busy` run a job.

        Checks the queues once a second at most. Raises what redis-py does.
        """
        now = time.monotonic()
        if now < self._next_look:
            return processes
        self._next_look = now + LOOK_INTERVAL
        depth = self._depth()
        if depth or busy == processes:
            self._empty_since = now
        if depth > processes or (depth and self._age() > PATIENCE):
            return min(self.most, processes + max(1, processes // 2))
        if now - self._empty_since > IDLE_SECONDS:
            self._empty_since = now
            return max(self.least, processes - 1)
        return min(max(processes, self.least), self.most)

    def _depth(self) -> int:
        """How many jobs wait in all queues."""
        with self.client.pipeline(transaction=False) as pipeline:
            for queue in self.queues:
                for key in keys.queue_keys(queue):
                    pipeline.llen(key)
            return sum(pipeline.execute())

    def _age(self) -> float:
        """Seconds that the oldest job at the head of a queue has waited."""
        return max(queues.ages(self.client, self.queues).values(), default=0.0)
