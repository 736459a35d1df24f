"""History: what each queue performed by minute and hour, kept in the process that asks often."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from redis import Redis

from packmule.observe.statistics import HOUR, MINUTE, Statistics, by_period, combined

ALL = "\x00"
"""In the place of a queue: all queues together."""

LATE = 2
"""Periods after which nothing is added to one any more: the server counts by its own clock."""

DETAILED = 6
"""Minutes of which the histograms are kept, this one included."""

SHORTEST_SAMPLE, LONGEST_SAMPLE = 5.0, 60.0
"""Seconds between two looks at a queue's depth from which its rate is told."""


class Counts(NamedTuple):
    """What a queue performed in one period; `ended` are the jobs that did so for good."""

    performed: int = 0
    failed: int = 0
    ended: int = 0


class _Sample(NamedTuple):
    at: float
    minute: int
    depths: Mapping[str, int]
    ended: Mapping[str, int]


class History:
    """What the queues on `client`'s server performed; only new periods are read again. Threads may share it.

    >>> History(client).minutes("mail", 60)[-1].failed  # doctest: +SKIP
    0
    """

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._lock = threading.Lock()
        self._periods: dict[tuple[int, int], dict[str, Counts]] = {}
        self._details: dict[int, dict[str, Statistics]] = {}
        self._samples: deque[_Sample] = deque()

    def look(self, minutes: int = 60, hours: int = 24) -> None:
        """Read what is new, in two round trips. Raises redis-py's errors."""
        now = int(time.time())
        with self._lock:
            self._read(MINUTE, now // MINUTE, minutes)
            self._read(HOUR, now // HOUR, hours)

    def minutes(self, queue: str, count: int = 60) -> Sequence[Counts]:
        """The last minutes of a queue, this one last."""
        return self._series(queue, MINUTE, count)

    def hours(self, queue: str, count: int = 24) -> Sequence[Counts]:
        """The last hours of a queue, this one last."""
        return self._series(queue, HOUR, count)

    def recent(self, queue: str) -> Statistics:
        """The statistics of the last five to six minutes of a queue."""
        found = [details.get(queue) for details in list(self._details.values())]
        return combined([each for each in found if each])

    def arrivals(self, depths: Mapping[str, int]) -> dict[str, float] | None:
        """How many jobs a second came to each queue lately, told from how its depth changed; None at first.

        Jobs that were deleted or canceled meanwhile are not counted.
        """
        minute = max((number for period, number in self._periods if period == MINUTE), default=0)
        ended = {queue: each.ended for queue, each in self._periods.get((MINUTE, minute), {}).items()}
        now = _Sample(time.monotonic(), minute, dict(depths), ended)
        with self._lock:
            while self._samples and now.at - self._samples[0].at > LONGEST_SAMPLE:
                self._samples.popleft()
            before = self._samples[0] if self._samples else None
            if before is None or now.at - self._samples[-1].at >= 1.0:
                self._samples.append(now)
        if before is None or now.at - before.at < SHORTEST_SAMPLE:
            return None
        return {queue: self._arrived(queue, before, now) / (now.at - before.at) for queue in depths}

    def _arrived(self, queue: str, before: _Sample, now: _Sample) -> int:
        ended = -before.ended.get(queue, 0)
        for number in range(before.minute, now.minute + 1):
            ended += self._periods.get((MINUTE, number), {}).get(queue, Counts()).ended
        return max(0, now.depths[queue] - before.depths.get(queue, 0) + ended)

    def _series(self, queue: str, seconds: int, count: int) -> list[Counts]:
        last = int(time.time()) // seconds
        periods = [self._periods.get((seconds, last - ago), {}) for ago in reversed(range(count))]
        return [each.get(queue, Counts()) for each in periods]

    def _read(self, seconds: int, last: int, count: int) -> None:
        first = last - count + 1
        wanted = [
            number
            for number in range(first, last + 1)
            if number > last - LATE or (seconds, number) not in self._periods
        ]
        for number, found in zip(wanted, by_period(self.client, seconds, wanted), strict=True):
            counts = {
                queue: Counts(each.performed, each.failed, each.finished + each.failed + each.stopped)
                for queue, each in found.items()
            }
            counts[ALL] = Counts(*map(sum, zip(*counts.values(), strict=True)))
            self._periods[seconds, number] = counts
            if seconds == MINUTE and number > last - DETAILED:
                self._details[number] = found
        for key in [key for key in self._periods if key[0] == seconds and key[1] < first]:
            del self._periods[key]
        if seconds == MINUTE:
            for number in [number for number in self._details if number <= last - DETAILED]:
                del self._details[number]
