"""The walk: a duty goes round all queues in steps, a while at a time, and goes on where it stopped."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from redis import Redis

from packmule.jobs import wire

LONGEST_ROUND = 0.3
"""Seconds after which a duty goes no further, for others wait, and the term wants to be extended."""


class Walk:
    """Goes round the queues of `client`'s server again and again."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._ahead: deque[tuple[str, str]] = deque()

    def go(self, step: Callable[[str, str], str]) -> None:
        """Call `step` with a queue's name and a cursor, "0" at first, until the round or the time is over.

        It returns the cursor of its next step, "" after the last one. A queue whose step raises is left for
        the next round.
        """
        if not self._ahead:
            names = sorted(wire.queue_name(wire.text(key)) for key in self.client.smembers(wire.QUEUES))
            self._ahead.extend((name, "0") for name in names)
        ends_at = time.monotonic() + LONGEST_ROUND
        while self._ahead:
            queue, cursor = self._ahead.popleft()
            if cursor := step(queue, cursor):
                self._ahead.appendleft((queue, cursor))
            if time.monotonic() > ends_at:
                return
