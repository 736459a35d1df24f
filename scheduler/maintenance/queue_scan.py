"""Queue scan: a duty visits all queues step by step, for a bounded time, and resumes where it stopped."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from redis import Redis

from packmule.jobs import queues

LONGEST_ROUND = 0.3
"""Seconds after which a duty stops for now: other duties wait, and the term must be extended."""


class QueueScan:
    """Visits the queues of `client`'s server, round after round."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._ahead: deque[tuple[str, str]] = deque()

    def run(self, step: Callable[[str, str], str]) -> None:
        """Call `step(queue, cursor)` until all queues are done or the time is over.

        The first cursor of a queue is "0"; `step` returns the cursor of its next call, or "" if the queue is
        done. If a step raises, its queue is skipped until the next round.
        """
        if not self._ahead:
            self._ahead.extend((name, "0") for name in queues.names(self.client))
        ends_at = time.monotonic() + LONGEST_ROUND
        while self._ahead:
            queue, cursor = self._ahead.popleft()
            if cursor := step(queue, cursor):
                self._ahead.appendleft((queue, cursor))
            if time.monotonic() > ends_at:
                return
