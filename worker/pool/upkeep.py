"""Upkeep: what a pool does in Redis for its workers, and for the jobs of workers that died or vanished."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from packmule.coordination.redis.backoff import is_transient
from packmule.worker.commands import Commands
from packmule.worker.crash_report import CrashReport
from packmule.worker.dependents import enqueue_forgotten
from packmule.worker.heartbeat import INTERVAL, Heartbeat
from packmule.worker.pool import stalled
from packmule.worker.rescue import Verdict, rescue, rescue_expired, server_time
from packmule.worker.scoreboard import RunningJob, Scoreboard
from packmule.worker.started import Marks

RESCUE_INTERVAL = 1.0
"""Seconds between checks for leases that ended: a vanished singleton keeps others out that much longer."""

log = logging.getLogger("packmule.worker")


class Death(NamedTuple):
    """How a worker ended; the verdict applies to `executions`, the other jobs that it held just go back."""

    verdict: Verdict
    reason: str
    executions: list[str]
    report: CrashReport


class Upkeep:
    """Renews the leases of the pool's workers, marks their jobs, and gives back what others held.

    A call that finds Redis unavailable logs it and returns. Until the next heartbeat succeeds, only
    heartbeats try again, so that an unavailable server takes little of the pool's time.
    """

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.scoreboards: dict[str, Scoreboard] = {}
        """The pool's workers by name."""
        self.commands = Commands(client)
        self._heartbeat = Heartbeat(client, self.scoreboards)
        self._marks = Marks(client)
        self._dead: dict[str, Death] = {}
        self._is_available = False
        self._clock = 0.0
        self._next_beat = self._next_rescue = 0.0

    def do_due(self) -> None:
        """Renew the leases and rescue jobs, each when it is due."""
        if time.monotonic() >= self._next_beat:
            self._beat()
            self._next_beat = time.monotonic() + INTERVAL
            self._next_rescue = time.monotonic() + RESCUE_INTERVAL
        elif self._is_available and time.monotonic() >= self._next_rescue:
            self._rescue_vanished()
            self._next_rescue = time.monotonic() + RESCUE_INTERVAL

    def mark(self, worker: str, running: list[RunningJob]) -> None:
        """Mark jobs that have run for a while as started."""
        if self._is_available:
            try:
                self._marks.mark(worker, running)
            except RedisError:
                self._is_available = False

    def rescue_stalled(self, worker: str, scoreboard: Scoreboard) -> None:
        """Give back the jobs that the worker claimed and can't start, if it has stalled."""
        if self._is_available and stalled.is_stalled(scoreboard):
            try:
                stalled.give_back(self.client, worker, scoreboard)
            except RedisError:
                self._is_available = False

    def remove(self, worker: str) -> None:
        """Forget a worker whose process has ended."""
        del self.scoreboards[worker]
        self._marks.forget(worker)

    def rescue(self, worker: str, death: Death) -> None:
        """Give back what a dead worker held, now or after the next heartbeat that succeeds."""
        self._dead[worker] = death
        try:
            self._rescue_dead()
        except RedisError as error:
            log.warning("%s: its jobs wait for redis, or for the end of its lease: %s", worker, error)

    def close(self) -> None:
        """Close the subscription to commands."""
        self.commands.close()

    def _beat(self) -> None:
        try:
            self._is_available = False
            self._heartbeat.beat()
            self._is_available = True
            self._clock = server_time(self.client) - time.monotonic()
            self.commands.listen(set(self.scoreboards))
            enqueue_forgotten(self.client)
            self._rescue_dead()
        except (RedisError, OSError) as error:
            self.commands.close()
            self._is_available = False
            log.warning("no heartbeat: %s", error)
        else:
            self._rescue_vanished()

    def _rescue_vanished(self) -> None:
        """Give back what workers of any pool held whose leases have ended."""
        try:
            for worker, rescued in rescue_expired(self.client, self._clock + time.monotonic()).items():
                if rescued.back or rescued.failed:
                    log.warning("worker %s vanished: %d jobs back in their queues", worker, len(rescued.back))
        except (RedisError, OSError) as error:
            self._is_available = False
            log.warning("can't check for vanished workers: %s", error)

    def _rescue_dead(self) -> None:
        """Give back what dead workers held. Raises what redis-py does; call it again then."""
        for worker, death in list(self._dead.items()):
            try:
                rescue(
                    self.client, worker, death.verdict, death.reason, death.executions, report=death.report
                )
            except ResponseError as error:
                if is_transient(error):
                    raise
                log.error("%s: its jobs can't be given back: %s", worker, error)
            del self._dead[worker]
