"""The scheduler: if it leads, it does what must be done once per cluster; then it sleeps till more is due."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Sequence
from types import FrameType

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from scheduler.budget import Budget
from scheduler.leader import TERM, Leadership, Overtaken
from scheduler.mend import mend
from scheduler.promote import promote
from scheduler.prune import prune
from scheduler.ticks import Ticker

LONGEST_SLEEP = 0.25
"""Seconds: a job scheduled meanwhile may be due sooner than what was known."""

LONGEST_REST = 1.0
"""Seconds between two looks at schedules of which none is known to be due: one may have been added."""

MEND_INTERVAL = 2.0
"""Seconds between two looks at groups of waiting jobs and at schedules."""

PRUNE_INTERVAL = 60.0
"""Seconds between two rounds in which what is over is forgotten."""

BUDGET_INTERVAL = 1.0
"""Seconds between two looks at the server's memory."""

log = logging.getLogger("packmule.scheduler")


class Scheduler:
    """Promotes due jobs and keeps schedules while it leads, beside any number of others on `client`'s server.

    `nodes` are the lock nodes that say who leads, by default the job server alone, and `term` how long a
    leader may be silent. Without a `ticker` it keeps no schedules. `high_water` is the memory budget's.
    """

    def __init__(
        self,
        client: Redis,
        nodes: Sequence[Redis] = (),
        ticker: Ticker | None = None,
        term: float = TERM,
        high_water: str = "",
    ) -> None:
        self.client = client
        self.leadership = Leadership(client, nodes, term)
        self.ticker = ticker
        self.stopping = False
        self._led = False
        self._is_synced = False
        self._mended_at = 0.0
        self._ticks_at = 0.0
        self.budget = Budget(client, high_water)
        self._budget_at = 0.0
        self._pruned_at = 0.0

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
        self.leadership.close()

    def tick(self) -> float:
        """Do the duties if this scheduler leads; seconds to sleep until the next tick."""
        try:
            if self.ticker and not self._is_synced:
                self._sync(self.ticker)
            leads = self.leadership.hold()
            if leads != self._led:
                log.info("%s: %s", self.leadership.name, "leads" if leads else "no longer leads")
                self._led = leads
            return self._duties() if leads else LONGEST_SLEEP
        except Overtaken as error:
            log.warning("%s", error)
            self.leadership.announce_again()
            return LONGEST_SLEEP
        except RedisError as error:
            log.warning("redis is away: %s", error)
            return 1.0

    def _sync(self, ticker: Ticker) -> None:
        try:
            ticker.sync()
        except ResponseError as error:  # what is corrupt there keeps no other duty from being done
            log.error("the schedules of code and file could not be entered: %s", error)
        self._is_synced = True

    def _duties(self) -> float:
        """One round of each; seconds to sleep until more is due. Raises `Overtaken`."""
        due = [LONGEST_SLEEP, promote(self.client, self.leadership.check())]
        if self.ticker:
            now = time.monotonic()
            if now >= self._ticks_at:
                pause = self.ticker.round(self.leadership.check())
                self._ticks_at = now + min(LONGEST_REST if pause is None else pause, LONGEST_REST)
            due.append(self._ticks_at - time.monotonic())
        if time.monotonic() > self._mended_at + MEND_INTERVAL:
            self._mended_at = time.monotonic()
            mend(self.client, self.leadership.check())
            if self.ticker:
                self.ticker.mend(self.leadership.check())
        if time.monotonic() > self._budget_at + BUDGET_INTERVAL:
            self._budget_at = time.monotonic()
            self.budget.look()
        if time.monotonic() > self._pruned_at + PRUNE_INTERVAL:
            self._pruned_at = time.monotonic()
            prune(self.client, self.leadership.check())
        return max(0.0, min(each for each in due if each is not None))

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self.stopping = True
        os.write(self._wake, b"!")
