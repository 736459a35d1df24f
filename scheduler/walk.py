"""The walk: a duty goes round all queues in steps, so many a time, and goes on later where it stopped."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from redis import Redis

from jobs import wire


class Walk:
    """Goes round the queues of `client`'s server again and again, at most so many `steps` at a time."""

    def __init__(self, client: Redis, steps: int) -> None:
        self.client = client
        self.steps = steps
        self._ahead: deque[tuple[str, str]] = deque()

    def go(self, step: Callable[[str, str], str]) -> None:
        """Call `step` with a queue's name and a cursor, "0" at first.

        It returns the cursor of its next step, "" after the last one. A queue whose step raises is left for
        the next round.
        """
        if not self._ahead:
            names = sorted(wire.queue_name(wire.text(key)) for key in self.client.smembers(wire.QUEUES))
            self._ahead.extend((name, "0") for name in names)
        for _ in range(self.steps):
            if not self._ahead:
                return
            queue, cursor = self._ahead.popleft()
            if cursor := step(queue, cursor):
                self._ahead.appendleft((queue, cursor))
