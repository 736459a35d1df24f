"""Trimming the index: it names the latest ended jobs, so many of each state."""

from __future__ import annotations

import time
from collections import deque

from redis import Redis

from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys
from packmule.scheduler.leader import require_leading

MOST_JOBS = 100_000

ENTRIES_A_CALL = 200
"""Few enough that one call takes the server about a millisecond."""

LONGEST = 0.3
"""Seconds that one round may take."""

_trim = Script("scheduler.maintenance", "trim_index")


class IndexTrimmer:
    """Keeps about `most` jobs in the index of each state, and deletes what is older.

    It counts each entry once: a new leader begins at the oldest. So the index is longer than `most` by what
    has come since the last round, and by 1 %.
    """

    def __init__(self, client: Redis, most: int = MOST_JOBS) -> None:
        self.client = client
        self.most = most
        self._counted = {key: _Counted() for key in keys.INDEXES.values()}

    def trim(self, term: str = "") -> int:
        """Count for a while, trim, and return how many jobs were counted. Raises `NotLeading`."""
        ends_at = time.monotonic() + LONGEST
        total = 0
        for key, counted in self._counted.items():
            found = 1
            while found and time.monotonic() < ends_at:
                reply = _trim(
                    self.client, [key], [counted.last, ENTRIES_A_CALL, counted.keep(self.most), term]
                )
                require_leading(reply)
                jobs, last, found = int(reply[0]), as_text(reply[1]), int(reply[2])
                counted.add(last, jobs)
                total += jobs
        return total


class _Counted:
    """What was counted of one index: parts, each of which ends with an entry and names so many jobs."""

    def __init__(self) -> None:
        self.last = "-"
        self._parts: deque[tuple[str, int]] = deque()
        self._jobs = 0

    def add(self, last: str, jobs: int) -> None:
        if jobs:
            self.last = last
            self._parts.append((last, jobs))
            self._jobs += jobs

    def keep(self, most: int) -> str:
        """The first entry to keep, so that `most` jobs are left; "" if there are fewer."""
        first = ""
        while self._parts and self._jobs - self._parts[0][1] >= most:
            first, jobs = self._parts.popleft()
            self._jobs -= jobs
        return first
