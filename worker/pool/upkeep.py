"""Upkeep: what a pool does in Redis for its workers, and for the jobs of workers that died or vanished."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from redis import Redis

from packmule.coordination.redis.backoff import REDIS_ERRORS, is_transient, outage
from packmule.jobs import stacks
from packmule.jobs.stacks import StackDump
from packmule.worker.commands import Commands
from packmule.worker.crash_report import CrashReport
from packmule.worker.dependents import Dependents
from packmule.worker.heartbeat import INTERVAL, RETRY_INTERVAL, Heartbeat
from packmule.worker.pool import stalled
from packmule.worker.pool.dead_locks import DeadLocks
from packmule.worker.pool.duty import Duty, Guard
from packmule.worker.rescue import Verdict, rescue, rescue_expired
from packmule.worker.scoreboard import HeldLock, RunningJob, Scoreboard
from packmule.worker.started import Marks

RESCUE_INTERVAL = 1.0
"""Seconds between checks for leases that ended: a vanished singleton keeps others out that much longer."""

DEPENDENTS_INTERVAL = 3.0

TOGETHER_SECONDS = 0.25
"""Duties that are due this soon after another are done with it."""

log = logging.getLogger("packmule.worker")


class Death(NamedTuple):
    """How a worker ended; the verdict applies to `executions`, the other jobs that it held just go back."""

    verdict: Verdict
    reason: str
    executions: list[str]
    report: CrashReport


class Upkeep:
    """Renews the leases of the pool's workers, marks their jobs, and gives back what others held.

    Each duty stands alone: a key that breaks one stops no other. If Redis is unavailable, only heartbeats try
    again until one succeeds, so that an unavailable server takes little of the pool's time.
    """

    def __init__(self, client: Redis, dead_locks: DeadLocks) -> None:
        self.client = client
        self._dead_locks = dead_locks
        self.scoreboards: dict[str, Scoreboard] = {}
        """The pool's workers by name."""
        self.commands = Commands(client)
        self._heartbeat = Heartbeat(client, self.scoreboards)
        self._marks = Marks(client)
        self._dependents = Dependents(client)
        self._dead: dict[str, Death] = {}
        self._guard = Guard()
        self.is_available = False
        """Whether the last heartbeat succeeded, and nothing has failed since."""
        self._beat = Duty("renew its leases", self._renew, INTERVAL)
        self._vanished = Duty("rescue the jobs of vanished workers", self._rescue_vanished, RESCUE_INTERVAL)
        self._locks = Duty(
            "release the locks of dead processes", self._release_locks, RETRY_INTERVAL, math.inf
        )
        self._others = [
            self._locks,
            Duty("rescue the jobs of dead workers", self._rescue_dead),
            self._vanished,
            Duty("listen for commands", self._listen),
            Duty("enqueue forgotten dependents", self._enqueue_forgotten, DEPENDENTS_INTERVAL),
        ]

    def do_due(self) -> None:
        """Do each duty that is due: first renew the leases, then rescue."""
        # A pool at rest wakes once for all that are due at about the same time.
        until = time.monotonic() + (TOGETHER_SECONDS if self.due_in() <= 0 else 0)
        for duty in (self._beat, *self._others):
            if duty.due_at <= until and (self.is_available or duty is self._beat):
                duty.due_at = time.monotonic() + duty.interval
                self._attempt(duty.name, duty.do)

    def due_in(self) -> float:
        """Seconds until the next duty is due, of those that are not done in each round."""
        duties = [self._beat, *(duty for duty in self._others if duty.interval and self.is_available)]
        return min(duty.due_at for duty in duties) - time.monotonic()

    def mark(self, worker: str, running: list[RunningJob], now: float) -> None:
        """Mark jobs as started that have run for a while; they ran at the monotonic instant `now`."""
        if self.is_available:
            self._attempt("mark jobs as started", lambda: self._marks.mark(worker, running, now))

    def rescue_stalled(self, worker: str, scoreboard: Scoreboard) -> None:
        """Give back the jobs that the worker claimed and can't start, if it has stalled."""
        if self.is_available and stalled.is_stalled(scoreboard):
            self._attempt(
                "give back stalled jobs", lambda: stalled.give_back(self.client, worker, scoreboard)
            )

    def store_stacks(self, worker: str, dump: StackDump) -> None:
        """Keep the stacks of a worker for whoever asked for them; if Redis is away, they are lost."""
        self._attempt("store stacks", lambda: stacks.store(self.client, worker, dump))

    def remove(self, worker: str) -> None:
        """Forget a worker whose process has ended."""
        del self.scoreboards[worker]
        self._marks.forget(worker)

    def rescue(self, worker: str, death: Death, locks: Sequence[HeldLock]) -> None:
        """Give back what a dead worker held, and its `locks`, now or when Redis is available again."""
        self._dead[worker] = death
        if locks:
            self._dead_locks.add(locks)
            self._locks.due_at = 0.0
        self.do_due()

    def close(self) -> None:
        """Close the subscription to commands, and the connections to the lock nodes."""
        self.commands.close()
        self._dead_locks.close()

    def _attempt(self, part: str, call: Callable[[], object]) -> bool:
        """Call it; whether Redis was available for it. Any other error is logged."""
        with self._guard(part):
            try:
                call()
            except REDIS_ERRORS as error:
                if not is_transient(error):
                    raise
                self._lose(error)
                return False
        return True

    def _lose(self, error: Exception) -> None:
        outage.begin(error)
        self.is_available = False
        self._beat.due_at = time.monotonic() + RETRY_INTERVAL
        self.commands.close()

    def _renew(self) -> None:
        try:
            self._heartbeat.beat()
        except REDIS_ERRORS as error:
            if is_transient(error):
                raise
            self.is_available = True  # it answers, so other duties may succeed
            raise
        outage.end()
        self.is_available = True

    def _release_locks(self) -> None:
        if self._dead_locks.release():
            self._locks.due_at = math.inf

    def _rescue_dead(self) -> None:
        """Give back what dead workers held. What can't be given back is left to the end of the lease."""
        for worker, (verdict, reason, executions, report) in list(self._dead.items()):
            give_back = partial(rescue, self.client, worker, verdict, reason, executions, report=report)
            if not self._attempt(f"give back the jobs of {worker}", give_back):
                return
            del self._dead[worker]

    def _rescue_vanished(self) -> None:
        """Give back what workers of any pool held whose leases have ended."""
        all_rescued = rescue_expired(self.client)
        if all_rescued:
            self._vanished.due_at = 0.0  # there may be more
        for worker, rescued in all_rescued.items():
            if rescued.back or rescued.failed:
                log.warning("worker %s vanished: %d jobs back in their queues", worker, len(rescued.back))

    def _listen(self) -> None:
        self.commands.listen(set(self.scoreboards))

    def _enqueue_forgotten(self) -> None:
        self._dependents.enqueue_forgotten()
