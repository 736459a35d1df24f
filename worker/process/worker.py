"""The worker: it claims jobs, performs them, acknowledges their outcomes, and waits when none are left."""

from __future__ import annotations

import faulthandler
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq.utils import now
from rq.worker import DequeueStrategy

from packmule.jobs import context
from packmule.jobs.interrupts import Interrupted
from packmule.worker import order
from packmule.worker.dependents import enqueue_dependents_of
from packmule.worker.heartbeat import Heartbeat, HeartbeatThread
from packmule.worker.kernel import resident_memory
from packmule.worker.process import outcome, rq_current, rq_path
from packmule.worker.process.claim import MOST, NOTHING, Claim, ClaimSize
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.completer import Completer
from packmule.worker.process.executors.executors import Executors
from packmule.worker.process.fetcher import Fetcher
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Performer
from packmule.worker.process.progress import ProgressStore
from packmule.worker.process.singletons import RETRY_SECONDS, Singletons
from packmule.worker.rescue import record_crash, rescue
from packmule.worker.rq_adapter import RQWorker
from packmule.worker.scoreboard import MAIN, Scoreboard
from packmule.worker.wake import WakePipe

MEMORY_SECONDS = 1.0
ECHO_SECONDS = 1.0
"""A second signal that comes sooner is the first one's echo: a terminal and a parent both pass Ctrl-C on."""

log = logging.getLogger("packmule.worker")


class Worker(RQWorker):
    """One process that performs jobs; in RQ's eyes a worker like its own.

    A pool gives it a `scoreboard`, on which it shows what it performs, and a `lifeline`, a descriptor that
    becomes readable when the pool is gone. On its own, as in `rq worker --worker-class
    packmule.worker.Worker`, it renews its leases itself. It performs up to `threads` plain functions and
    `tasks` async ones at once, claims at most `most` jobs at a time, and leaves when it uses more than
    `max_memory` bytes. `serve` is the order of the queues, strict by default. `lock_nodes` keep the locks of
    singletons, by default the job server does. Other options are RQ's.
    """

    def __init__(
        self,
        queues: Any,
        name: str | None = None,
        connection: Redis | None = None,
        *,
        scoreboard: Scoreboard | None = None,
        lifeline: int | None = None,
        serve: order.Order | None = None,
        threads: int = 1,
        tasks: int = 100,
        most: int = MOST,
        max_memory: int | None = None,
        max_result_bytes: int = 1024 * 1024,
        lock_nodes: Sequence[Redis] = (),
        **rq_options: Any,
    ) -> None:
        super().__init__(queues, name, connection, scoreboard is not None, **rq_options)
        self.scoreboard = scoreboard or Scoreboard.of_worker(threads, tasks)
        self.lifeline = lifeline
        self.threads = threads
        self.tasks = tasks
        self.max_memory = max_memory
        self.stopping = self.stopping_cold = False
        self.order = serve or order.Strict(self.queue_names())
        progress = ProgressStore(self.connection, self.name)
        self.performer = Performer(
            progress.report, progress.save, lambda: self.stopping, max_result_bytes, self.lookup
        )
        self.claim_size = ClaimSize(most)
        self.singletons = Singletons(
            lock_nodes or [self.connection], self.performer.fences, self._stop_singleton
        )
        self._memory_checked_at = 0.0

    def work(
        self,
        burst: bool = False,
        logging_level: str | None = None,
        date_format: str = "",
        log_format: str = "",
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        with_scheduler: bool = False,
        dequeue_strategy: DequeueStrategy = DequeueStrategy.DEFAULT,
    ) -> bool:
        """Perform jobs until told to stop, with `burst` until the queues are empty; whether it did any.

        The signature is RQ's. `with_scheduler` runs RQ's scheduler beside it, and a `dequeue_strategy` other
        than the default makes it claim jobs one by one. Raises `SystemExit` when it was told to stop twice.
        """
        self.set_up_logging(logging_level, date_format, log_format)
        if served := self.order_of(dequeue_strategy):
            self.order, self.claim_size = served, ClaimSize(1)
        self.performer.process = os.getpid()  # which may be a fork of the one that made this worker
        self.wake = WakePipe()
        self._install_signal_handlers()
        self.sign_on(burst, with_scheduler)
        self.scoreboard.register()
        heartbeat = (
            None
            if self.supervised
            else HeartbeatThread(Heartbeat(self.connection, {self.name: self.scoreboard}))
        )
        wake = [self.wake.reader] if self.lifeline is None else [self.wake.reader, self.lifeline]
        self.fetcher = Fetcher(self.connection, self.name, self.order, self.queue_keys(), wake)
        self.completer = Completer(
            lambda outcomes: self._exchange(outcomes, 0),
            self.fetcher.stop_waiting,
            self.wake.wake,
            self.scoreboard.show_held,
        )
        self.executors = Executors(
            self.performer,
            self.scoreboard,
            self.completer,
            self.threads,
            self.tasks,
            lambda execution, report: record_crash(self.connection, self.name, execution, report),
            self.singletons.give_back,
            self.wake.wake,
            self._drop_revoked,
            self.name,
        )
        rq_current.install(self.connection, self.serializer)
        try:
            self.listen()
            worked = self._work(burst, max_jobs, max_idle_time) > 0
            if self.stopping_cold:
                raise SystemExit
            return worked
        finally:
            self.executors.close()
            self.completer.close()
            if heartbeat:
                heartbeat.stop()
            self.fetcher.close()
            self._leave()
            self.singletons.close()
            context.close()

    def _work(self, burst: bool, max_jobs: int | None, max_idle_time: float | None) -> int:
        """Perform jobs until told to stop, or until there are no more to perform; how many were claimed."""
        most = float("inf") if max_jobs is None else max_jobs
        patience = float("inf") if max_idle_time is None else max_idle_time
        performed = 0
        idle_since = time.monotonic()
        outcomes: Sequence[Outcome] = ()
        arrived = NOTHING
        while not self.stopping or outcomes or self.executors.is_busy:
            self.maintain()
            room = self._room(most - performed)
            if not room:
                self._stop_waiting()
            claim = self._exchange(outcomes, room) if arrived.is_empty else arrived
            performed += len(claim.jobs)
            outcomes = [*claim.unreadable, *self._perform_all(claim.jobs)]
            arrived = NOTHING
            if claim.jobs or outcomes or claim.parents:
                idle_since = time.monotonic()
            elif self.executors.is_busy:
                arrived = self._wait(claim if room else None, max_idle_time)
                outcomes = self.completer.drain() if arrived.is_empty else ()
            elif burst or performed >= most or time.monotonic() - idle_since >= patience:
                break
            elif not self.stopping:
                arrived = self._wait(claim, max_idle_time)
        return performed

    def _room(self, most: float) -> int:
        """How many jobs to claim now, of at most `most`."""
        return 0 if self.stopping else max(0, int(min(self.claim_size.size, self.executors.free, most)))

    def _perform_all(self, jobs: Sequence[Claimed]) -> list[Outcome]:
        """Perform claimed jobs; return the outcomes that are still to be acknowledged."""
        if not jobs:
            return self.completer.drain()
        began = time.monotonic()
        self.completer.take(jobs, self.fetcher.is_waiting)
        all_by_rq = self.all_by_rq
        while not self.stopping and self.executors.free and (job := self.completer.next()):
            if job.lock and not self.singletons.take(job.lock, job.execution):
                self.completer.done(outcome.postponed(job, RETRY_SECONDS))
            elif job.by_rq or all_by_rq:
                self._perform_by_rq(job)
            elif isinstance(call := self.performer.prepare(job), Outcome):
                self.singletons.give_back(job.execution)
                self.completer.done(call)
            else:
                self.executors.perform(call)
        self.claim_size.learn(len(jobs), time.monotonic() - began)
        self._leave_if_grown()
        return self.completer.drain()

    def _perform_by_rq(self, job: Claimed) -> None:
        self._stop_waiting()
        self.scoreboard.start(MAIN, job.id, job.execution, rq_path.longest(job))
        ended = rq_path.perform(self, job, self.performer, self.trusts_all)
        self.singletons.give_back(job.execution)
        self.completer.done(ended)
        if self.scoreboard.end(job.execution):
            self._drop_revoked()

    def _leave_if_grown(self) -> None:
        """Stop if this process uses more than `max_memory`; checked once a second at most."""
        now = time.monotonic()
        if self.max_memory is None or now - self._memory_checked_at <= MEMORY_SECONDS:
            return
        self._memory_checked_at = now
        if (used := resident_memory()) > self.max_memory:
            log.info("worker %s leaves: it uses %d MiB", self.name, used >> 20)
            self.stopping = True

    def _exchange(self, outcomes: Sequence[Outcome], want: int) -> Claim:
        """Acknowledge and claim in one round trip; none if there is nothing to do."""
        if not outcomes and not want:
            return NOTHING
        claim = self.fetcher.exchange(outcomes, want)
        if claim.is_forgotten:
            self.sign_on_again()
        enqueue_dependents_of(self.queues[0], self.job_class, claim.parents)
        return claim

    def _wait(self, last: Claim | None, max_idle_time: float | None) -> Claim:
        """Wait for jobs as the `last` claim suggests, or for an outcome; for outcomes alone if it is None."""
        arrived = self.fetcher.wait(last, max_idle_time) if self.completer.may_wait() else NOTHING
        if arrived.is_empty:
            self.wake.drain()
            if self.lifeline is not None and select.select([self.lifeline], [], [], 0)[0]:
                self.stopping = True
        return arrived

    def _stop_waiting(self) -> None:
        """End blocking moves, so that none brings a job while this worker has no time for it.

        What one brings anyway is performed with the rest of the claim, or returned with it.
        """
        if self.fetcher.is_waiting:
            self.completer.add(self.fetcher.stop_waiting())

    def _drop_revoked(self) -> None:
        """Start nothing that was claimed before: the pool has given it back, or is about to."""
        self.completer.give_back(self.fetcher.recover())

    def _stop_singleton(self, execution: str) -> None:
        """Interrupt an execution whose lock was lost: it has no right to go on."""
        self.executors.break_off(Interrupted("the singleton's lock was lost"), execution)

    def _install_signal_handlers(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN if self.supervised else self._stop)
        # Not sys.stderr, which a program may have replaced by something that is not a file.
        faulthandler.register(signal.SIGQUIT, sys.__stderr__ or 2, all_threads=True)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self.performer.process:
            self.stop_fork(signum)
            return
        if not self.stopping:
            self._shutdown_requested_date, self._stop_requested = now(), bool(self.scoreboard.read())
            self._stopped_at = time.monotonic()
        elif not self.supervised and time.monotonic() - self._stopped_at > ECHO_SECONDS:
            self.stopping_cold = True
            self.executors.break_off(Interrupted("the worker was told to stop at once"))
        self.stopping = True
        self.wake.wake()

    def _leave(self) -> None:
        """Give back what is held and sign off. If Redis is unavailable, the lease's end does the same."""
        self.scoreboard.deregister()
        try:
            self.sign_off()
            rescue(self.connection, self.name, "returned")
        except RedisError as error:
            log.warning("worker %s could not sign off: %s", self.name, error)
