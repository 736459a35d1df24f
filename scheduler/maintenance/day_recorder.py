"""Recording days: once a day has ended, its 24 hours of statistics become one small record for 90 days."""

from __future__ import annotations

import time

import msgspec
from redis import Redis

from packmule.coordination.redis.replies import pipelined
from packmule.coordination.redis.scripts import Script
from packmule.observe import day_record, statistics
from packmule.observe.day_record import DAY, HOURS, Hour
from packmule.observe.days import KEPT_DAYS, MOST_UNRECORDED, day_key
from packmule.scheduler.leader import require_leading

LATE = 120
"""Seconds after a day's end until it is recorded. Hours are counted by the server's clock, so nothing is
added to one that is over."""

LONGEST = 0.1
"""Seconds after which a call reads no further hour."""

AGAIN = 1.0
"""Seconds until a day is read on."""

IDLE = 3600.0
"""Seconds at most until it looks again whether a record is lacking."""

_keep = Script("scheduler.maintenance", "keep_day")


class DayRecorder:
    """Records the days that have ended and whose hours are still kept, the oldest first.

    A day is read hour by hour, in short calls, and written by one script, as a whole or not at all. Hours
    that are over don't change, so it's the same record whoever makes it and however often.
    """

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._day = 0
        self._hours: list[Hour] = []

    def record(self, term: str = "") -> float:
        """Go on for a while; return seconds until the next call. Raises `NotLeading`."""
        now = int(self.client.time()[0])
        today = (now - LATE) // DAY
        if not today - MOST_UNRECORDED <= self._day < today:
            self._day, self._hours = self._first_without(today), []
        if self._day == today:
            return min(IDLE, (today + 1) * DAY + LATE - now)
        ends_at = time.monotonic() + LONGEST
        while len(self._hours) < HOURS:
            number = self._day * HOURS + len(self._hours)
            (counted,) = statistics.of_hours(self.client, [number])
            self._hours.append(day_record.hour(counted))
            if time.monotonic() > ends_at:
                return AGAIN
        fields = day_record.fields(self._hours)
        args = [term, (self._day + 1 + KEPT_DAYS) * DAY, day_record.ALL, msgspec.msgpack.encode([*fields])]
        require_leading(_keep(self.client, [day_key(self._day)], [*args, *fields.values()]))
        self._day, self._hours = 0, []
        return AGAIN

    def _first_without(self, today: int) -> int:
        """The first day whose record is lacking, else today."""
        days = range(today - MOST_UNRECORDED, today)
        are_there = pipelined(self.client, [("HEXISTS", day_key(day), day_record.ALL) for day in days], 0)
        return next((day for day, is_there in zip(days, are_there, strict=True) if not is_there), today)
