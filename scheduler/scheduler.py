"""The scheduler: if it leads, it does what must be done once per cluster; then it sleeps till more is due."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from types import FrameType

from redis import Redis
from redis.exceptions import RedisError

from scheduler.leader import Leadership
from scheduler.mend import mend
from scheduler.promote import promote

LONGEST_SLEEP = 0.25
"""Seconds: a job scheduled meanwhile may be due sooner than what was known."""

MEND_INTERVAL = 2.0
"""Seconds between two looks at groups of waiting jobs."""

log = logging.getLogger("packmule.scheduler")


class Scheduler:
    """Promotes due jobs while it leads; runs beside any number of others on `client`'s server."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.leadership = Leadership(client)
        self.stopping = False
        self._led = False
        self._mended_at = 0.0

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. Redis being away is waited out."""
        wake, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        while not self.stopping:
            pause = self.tick()
            select.select([wake], [], [], pause)
        with contextlib.suppress(RedisError):
            self.leadership.resign()

    def tick(self) -> float:
        """Do the duties if this scheduler leads; seconds to sleep until the next tick."""
        try:
            leads = self.leadership.hold()
            if leads != self._led:
                log.info("%s: %s", self.leadership.name, "leads" if leads else "no longer leads")
                self._led = leads
            due = promote(self.client) if leads else None
            if leads and time.monotonic() > self._mended_at + MEND_INTERVAL:
                self._mended_at = time.monotonic()
                mend(self.client)
        except RedisError as error:
            log.warning("redis is away: %s", error)
            return 1.0
        return LONGEST_SLEEP if due is None else min(max(due, 0.0), LONGEST_SLEEP)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self.stopping = True
        os.write(self._wake, b"!")
