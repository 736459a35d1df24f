"""The scheduler: while it leads, do what must happen once per cluster, and sleep until more is due.

It promotes delayed jobs and retries. One atomic step moves what is due from `rq:scheduled:<queue>` to its
queue's list: to the end, or to the front if it was enqueued `at_front` for a later time. If the leader dies,
another scheduler leads after the term of 3 s, and goes on with that.

Pools rescue jobs, and the scheduler does not. Every one to five minutes it looks for claims without a lease,
and gives them one that ends, so that pools find them. A crash leaves no such claims, a lost `pm:leases` may.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TypeGuard

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from packmule.coordination.redis.backoff import REDIS_ERRORS, is_transient, outage
from packmule.coordination.streams.pubsub import MISSED, Subscriber
from packmule.jobs import keys
from packmule.observe.vitals import Vitals
from packmule.scheduler.leader import QUORUM_RETRY_INTERVAL, TERM, Leadership, NotLeading
from packmule.scheduler.maintenance.batch_settler import BatchSettler
from packmule.scheduler.maintenance.day_recorder import DayRecorder
from packmule.scheduler.maintenance.index_trimmer import MOST_JOBS, IndexTrimmer
from packmule.scheduler.maintenance.memory_limit import MemoryLimit
from packmule.scheduler.maintenance.promote import promote
from packmule.scheduler.maintenance.prune import Pruner
from packmule.scheduler.maintenance.repair import GroupRepair, OrphanRepair
from packmule.scheduler.schedules.periodic_enqueuer import PeriodicEnqueuer

JOBS_INTERVAL = 1.0
"""Seconds between two checks for due jobs: RQ's own code notifies nobody of the jobs that it schedules."""

SCHEDULES_INTERVAL = 10.0
"""Seconds between two checks of schedules if none is known to be due, because clocks may be set and keys may
be lost. It is well below the time after which a tick counts as missed."""

NO_GROUPS_INTERVAL = 30.0
"""Seconds between two checks for groups of jobs while there are none."""

GROUPS_INTERVAL = 2.0
"""Seconds between two repairs of groups while there are some."""

BATCHES_INTERVAL, NO_BATCHES_INTERVAL = 5.0, 30.0
"""Seconds between two looks at the jobs of batches while some have not ended, and while all have."""

PRUNE_INTERVAL = 60.0
"""Seconds between two rounds of pruning and repair; five times that if the last one found nothing."""

INDEX_INTERVAL, IDLE_INDEX_INTERVAL = 10.0, 60.0
"""Seconds between two looks at the index of ended jobs, and after one that found nothing new."""

RETRY_INTERVAL = 1.0
"""Seconds until what failed because of Redis is tried again."""

MOST_MESSAGES = 1000
"""Messages that one sleep reads at most."""

log = logging.getLogger("packmule.scheduler")


@dataclass
class Duty:
    """What a leader does again and again: `do` returns seconds until the next time.

    It takes the fencing token of the leader's term, as text, which its scripts compare. `name` completes the
    sentence "the scheduler can't ...".
    """

    name: str
    do: Callable[[str], float]
    due_at: float = 0.0
    """On the monotonic clock."""
    fault: str = ""
    """The error that is logged, until another one comes or it succeeds."""


class Scheduler:
    """Promotes due jobs and keeps schedules while it leads; any number may run on `client`'s server.

    The lock nodes `nodes` elect the leader (default: the job server alone), whose term ends after `term`
    seconds of silence. Without an `enqueuer` it keeps no schedules. `high_water` is the memory limit,
    `index_jobs` how many ended jobs of each state a search finds. `vitals` shows others that it runs.
    """

    def __init__(
        self,
        client: Redis,
        nodes: Sequence[Redis] = (),
        enqueuer: PeriodicEnqueuer | None = None,
        term: float = TERM,
        high_water: str = "",
        index_jobs: int = MOST_JOBS,
        vitals: Vitals | None = None,
    ) -> None:
        self.client = client
        self.vitals = vitals or Vitals()
        self.leadership = Leadership(client, nodes, term)
        self.enqueuer = enqueuer
        self.memory_limit = MemoryLimit(client, high_water)
        self.group_repair = GroupRepair(client)
        self.orphan_repair = OrphanRepair(client)
        self.batch_settler = BatchSettler(client)
        self.pruner = Pruner(client)
        self.index_trimmer = IndexTrimmer(client, index_jobs)
        self.day_recorder = DayRecorder(client)
        self.stopping = False
        self._led = False
        self._is_listening = True
        self._next_sync_at = 0.0
        self._timed = [
            Duty("promote jobs", self._promote),
            Duty("enqueue what is due by schedules", self._enqueue_ticks),
        ]
        self._duties = [
            *self._timed,
            Duty("repair groups", self._repair_groups),
            Duty("repair schedules", self._repair_schedules),
            Duty("settle batches", self._settle_batches),
            Duty("check the memory limit", self.memory_limit.check),
            Duty("prune", self._prune),
            Duty("trim the index of ended jobs", self._trim_index),
            Duty("record the statistics of a day", self.day_recorder.record),
        ]

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. It keeps trying while Redis is unavailable."""
        with Subscriber(self.client, [keys.SCHEDULER]) as self._messages:
            signal.signal(signal.SIGTERM, self._stop)
            signal.signal(signal.SIGINT, self._stop)
            while not self.stopping:
                pause = self.step()
                self.vitals.show()
                self._sleep(pause)
            self.vitals.show(is_draining=True)
        with contextlib.suppress(*REDIS_ERRORS):
            self.memory_limit.lift()
            self.leadership.resign()
        self.leadership.close()

    def step(self) -> float:
        """Do the duties that are due if this scheduler leads; return seconds until the next step."""
        try:
            self._sync()
            leads = self.leadership.hold()
            if leads != self._led:
                log.info("%s: %s", self.leadership.name, "leads" if leads else "no longer leads")
                self._led = leads
                self.expedite()
            pause = self.leadership.next_attempt_in
            if leads:
                pause = min(self._do_due(), pause)
        except NotLeading as error:
            log.warning("%s", error)
            self.leadership.announce_again()
            return QUORUM_RETRY_INTERVAL
        except REDIS_ERRORS as error:
            self.leadership.is_server_reachable = False
            if is_transient(error):
                outage.begin(error)
            else:
                log.warning("%s", error)
            return RETRY_INTERVAL
        else:
            if self.leadership.is_server_reachable:
                outage.end()
            return pause

    def expedite(self, seconds: float = 0.0) -> None:
        """Check for due jobs and schedules in `seconds` at the latest."""
        for duty in self._timed:
            duty.due_at = min(duty.due_at, time.monotonic() + seconds)

    def _do_due(self) -> float:
        """Do the duties that are due; return seconds until the next. Raises `NotLeading`."""
        for duty in self._duties:
            if time.monotonic() >= duty.due_at:
                term = self.leadership.check()
                duty.due_at = time.monotonic() + RETRY_INTERVAL
                try:
                    pause = duty.do(term)
                except ResponseError as error:  # a corrupt key stops no other duty
                    if duty.fault != str(error):
                        log.error("the scheduler can't %s: %s", duty.name, error)
                    duty.fault = str(error)
                else:
                    duty.fault = ""
                    duty.due_at = time.monotonic() + pause
        return max(0.0, min(duty.due_at for duty in self._duties) - time.monotonic())

    def _sleep(self, seconds: float) -> None:
        """Sleep, but wake earlier if a message says that something is due.

        The script that schedules a job sends one if the job is due before the next check.
        """
        ends_at = time.monotonic() + seconds
        for _ in range(MOST_MESSAGES):
            left = max(0.0, ends_at - time.monotonic())
            try:
                message = self._messages.wait(left)
            except RedisError as error:
                if self._is_listening:
                    log.error("%s: jobs may be promoted up to %g s late", error, JOBS_INTERVAL)
                self._is_listening = False
                time.sleep(left)
                return
            if message is None:
                return
            if message is MISSED:
                self._is_listening = True
                self.expedite()
                ends_at = time.monotonic()
            elif message.value == "resigned":
                self.leadership.attempt_soon()
                ends_at = min(ends_at, time.monotonic() + self.leadership.next_attempt_in)
            elif self._led and _is_pause(message.value):
                self.expedite(message.value)
                ends_at = min(ends_at, time.monotonic() + message.value)

    def _sync(self) -> None:
        """Store the schedules of code and file, once; corrupt keys stop no duty."""
        if self.enqueuer is None or time.monotonic() < self._next_sync_at:
            return
        try:
            self.enqueuer.sync()
        except ResponseError as error:
            log.error("the schedules of code and file could not be stored: %s", error)
            self._next_sync_at = time.monotonic() + RETRY_INTERVAL if is_transient(error) else math.inf
        else:
            self._next_sync_at = math.inf

    def _promote(self, term: str) -> float:
        due = promote(self.client, term, self.leadership.held_for)
        self.leadership.is_server_reachable = True
        return JOBS_INTERVAL if due is None else min(due, JOBS_INTERVAL)

    def _enqueue_ticks(self, term: str) -> float:
        due = self.enqueuer.round(term) if self.enqueuer is not None else None
        return SCHEDULES_INTERVAL if due is None else min(due, SCHEDULES_INTERVAL)

    def _repair_groups(self, term: str) -> float:
        return GROUPS_INTERVAL if self.group_repair.repair(term) else NO_GROUPS_INTERVAL

    def _repair_schedules(self, term: str) -> float:
        if self.enqueuer is not None and self.enqueuer.repair(term):
            self.expedite()
        return SCHEDULES_INTERVAL

    def _settle_batches(self, term: str) -> float:
        return BATCHES_INTERVAL if self.batch_settler.settle(term) else NO_BATCHES_INTERVAL

    def _prune(self, term: str) -> float:
        has_found = self.pruner.prune(term) + self.orphan_repair.repair(term)
        return PRUNE_INTERVAL if has_found else 5 * PRUNE_INTERVAL

    def _trim_index(self, term: str) -> float:
        return INDEX_INTERVAL if self.index_trimmer.trim(term) else IDLE_INDEX_INTERVAL

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self.stopping = True
        self._messages.close()


def _is_pause(value: object) -> TypeGuard[float]:
    """Whether a message holds seconds after which something is due."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < SCHEDULES_INTERVAL
