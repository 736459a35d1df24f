"""The scheduler: if it leads, it does what must be done once per cluster; then it sleeps till more is due."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from packmule.coordination.redis.backoff import REDIS_ERRORS, is_transient
from packmule.coordination.streams.pubsub import MISSED, Subscriber
from packmule.jobs import wire
from packmule.scheduler.leader import AGAIN, TERM, Leadership, Overtaken
from packmule.scheduler.maintenance.memory_limit import MemoryLimit
from packmule.scheduler.maintenance.promote import promote
from packmule.scheduler.maintenance.prune import Pruner
from packmule.scheduler.maintenance.repair import GroupRepair, OrphanRepair
from packmule.scheduler.schedules.periodic_enqueuer import PeriodicEnqueuer

JOBS_REST = 1.0
"""Seconds between two looks for jobs that are due: RQ's own code tells nobody of what it schedules."""

SCHEDULES_REST = 10.0
"""Seconds between two looks at schedules of which none is known to be due, for clocks are set at times, and
for those that were lost: well within the time after which a tick counts as missed."""

REPAIR_REST = 30.0
"""Seconds between two looks for groups of jobs while there are none."""

GROUPS_REST = 2.0
"""Seconds between two looks at the groups that there are."""

PRUNE_REST = 60.0
"""Seconds between two rounds that prune and repair; five times that for nothing."""

RETRY_INTERVAL = 1.0
"""Seconds until what failed because of Redis is tried again."""

MOST_MESSAGES = 1000
"""As many are read at once of what the scheduler is told."""

log = logging.getLogger("packmule.scheduler")


@dataclass
class Duty:
    """What a leader does again and again: `do` takes the term, and returns seconds until the next time."""

    do: Callable[[str], float]
    due_at: float = 0.0
    """On the monotonic clock."""


class Scheduler:
    """Promotes due jobs and keeps schedules while it leads, beside any number of others on `client`'s server.

    `nodes` are the lock nodes that say who leads, by default the job server alone, and `term` how long a
    leader may be silent. Without a `enqueuer` it keeps no schedules. `high_water` is the memory limit.
    """

    def __init__(
        self,
        client: Redis,
        nodes: Sequence[Redis] = (),
        enqueuer: PeriodicEnqueuer | None = None,
        term: float = TERM,
        high_water: str = "",
    ) -> None:
        self.client = client
        self.leadership = Leadership(client, nodes, term)
        self.enqueuer = enqueuer
        self.memory_limit = MemoryLimit(client, high_water)
        self.group_repair = GroupRepair(client)
        self.pruner = Pruner(client)
        self.orphan_repair = OrphanRepair(client)
        self.stopping = False
        self._led = False
        self._hears = True
        self._syncs_at = 0.0
        self._timed = [Duty(self._promote), Duty(self._tick)]
        self._duties = [
            *self._timed,
            Duty(self._repair_groups),
            Duty(self._repair_schedules),
            Duty(self.memory_limit.check),
            Duty(self._prune),
        ]

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. It keeps trying while Redis is unavailable."""
        with Subscriber(self.client, [wire.SCHEDULER]) as self._told:
            signal.signal(signal.SIGTERM, self._stop)
            signal.signal(signal.SIGINT, self._stop)
            while not self.stopping:
                self._rest(self.tick())
        with contextlib.suppress(*REDIS_ERRORS):
            self.memory_limit.lift()
            self.leadership.resign()
        self.leadership.close()

    def tick(self) -> float:
        """Do the duties that are due if this scheduler leads; seconds to sleep until the next tick."""
        try:
            self._sync()
            leads = self.leadership.hold()
            if leads != self._led:
                log.info("%s: %s", self.leadership.name, "leads" if leads else "no longer leads")
                self._led = leads
                self.wake()
            return min(self._round(), self.leadership.rests) if leads else self.leadership.rests
        except Overtaken as error:
            log.warning("%s", error)
            self.leadership.announce_again()
            return AGAIN
        except REDIS_ERRORS as error:
            self.leadership.serves = False
            log.warning("redis is unavailable: %s", error)
            return RETRY_INTERVAL

    def wake(self, seconds: float = 0.0) -> None:
        """Look at what the clock decides in so many seconds, if not sooner."""
        for duty in self._timed:
            duty.due_at = min(duty.due_at, time.monotonic() + seconds)

    def _round(self) -> float:
        """Do what is due; seconds until more is. Raises `Overtaken`."""
        for duty in self._duties:
            if time.monotonic() >= duty.due_at:
                term = self.leadership.check()
                duty.due_at = time.monotonic() + RETRY_INTERVAL
                try:
                    rest = duty.do(term)
                except ResponseError as error:  # what is corrupt there keeps no other duty from being done
                    log.error("%s", error)
                else:
                    duty.due_at = time.monotonic() + rest
        return max(0.0, min(duty.due_at for duty in self._duties) - time.monotonic())

    def _rest(self, seconds: float) -> None:
        """Sleep, but no longer than what is told meanwhile allows."""
        ends_at = time.monotonic() + seconds
        for _ in range(MOST_MESSAGES):
            left = max(0.0, ends_at - time.monotonic())
            try:
                message = self._told.wait(left)
            except RedisError as error:
                if self._hears:
                    log.error("%s: jobs may be promoted up to %g s late", error, JOBS_REST)
                self._hears = False
                time.sleep(left)
                return
            if message is None:
                return
            if message is MISSED:
                self._hears = True
                self.wake()
                ends_at = time.monotonic()
            elif message.value == "resigned":
                self.leadership.ask_again()
                ends_at = min(ends_at, time.monotonic() + self.leadership.rests)
            elif self._led and type(message.value) in (int, float) and 0 <= message.value < SCHEDULES_REST:
                self.wake(message.value)
                ends_at = min(ends_at, time.monotonic() + message.value)

    def _sync(self) -> None:
        """Enter the schedules of code and file, once; what is corrupt there keeps no duty from being done."""
        if self.enqueuer is None or time.monotonic() < self._syncs_at:
            return
        try:
            self.enqueuer.sync()
        except ResponseError as error:
            log.error("the schedules of code and file could not be entered: %s", error)
            self._syncs_at = time.monotonic() + RETRY_INTERVAL if is_transient(error) else math.inf
        else:
            self._syncs_at = math.inf

    def _promote(self, term: str) -> float:
        due = promote(self.client, term, self.leadership.held_for)
        self.leadership.serves = True
        return JOBS_REST if due is None else min(due, JOBS_REST)

    def _tick(self, term: str) -> float:
        due = self.enqueuer.round(term) if self.enqueuer is not None else None
        return SCHEDULES_REST if due is None else min(due, SCHEDULES_REST)

    def _repair_groups(self, term: str) -> float:
        return GROUPS_REST if self.group_repair.repair(term) else REPAIR_REST

    def _repair_schedules(self, term: str) -> float:
        if self.enqueuer is not None and self.enqueuer.repair(term):
            self.wake()
        return SCHEDULES_REST

    def _prune(self, term: str) -> float:
        has_found = self.pruner.prune(term) + self.orphan_repair.repair(term)
        return PRUNE_REST if has_found else 5 * PRUNE_REST

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self.stopping = True
        self._told.close()
