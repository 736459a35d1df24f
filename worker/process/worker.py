"""The worker: it claims jobs, performs them, acknowledges their outcomes, and waits when none are left."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError
from rq.utils import now
from rq.worker import DequeueStrategy

from packmule.coordination.redis.backoff import UNAVAILABLE, is_transient, retry_until_available
from packmule.coordination.redis.scripts import Script
from packmule.jobs import current, wire
from packmule.jobs.interrupts import Interrupted
from packmule.worker import order
from packmule.worker.crash_report import CrashReport
from packmule.worker.dependents import enqueue_dependents
from packmule.worker.heartbeat import Heartbeat, HeartbeatThread
from packmule.worker.kernel import resident_memory
from packmule.worker.process import outcome, rq_current, rq_path
from packmule.worker.process.blocking_wait import BLOCK_SECONDS, IdleWait
from packmule.worker.process.claim import MOST, NOTHING, Claim, Claims, ClaimSize
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.completer import Completer
from packmule.worker.process.executors.executors import Executors
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Performer
from packmule.worker.process.singletons import RETRY_SECONDS, Singletons
from packmule.worker.rescue import rescue
from packmule.worker.rq_adapter import RQWorker
from packmule.worker.scoreboard import MAIN, Scoreboard

SUSPENDED_SECONDS = 1.0
PAUSED_SECONDS = 5.0
"""After which a worker looks whether a queue is still paused, though it is told when it is not."""

MEMORY_SECONDS = 1.0
PROGRESS_TTL = 86_400
ECHO_SECONDS = 1.0
"""A second signal that comes sooner is the first one's echo: a terminal and a parent both pass Ctrl-C on."""

log = logging.getLogger("packmule.worker")
_write = Script("worker.process", "write", after=wire.EVENTS)


class Worker(RQWorker):
    """One process that performs jobs; in RQ's eyes a worker like its own.

    A pool gives it a `scoreboard`, on which it shows what it performs, and a `lifeline`, a descriptor that
    becomes readable when the pool is gone. On its own, as in
    `rq worker --worker-class worker.Worker`, it looks after its heartbeat itself. It performs up to `threads`
    plain functions and `tasks` async ones at once, claims at most `most` jobs at a time, and leaves after
    `max_memory` bytes. `serve` is the order of the queues where that is not theirs; `lock_nodes` keep the
    locks of singletons, the job server where there are none. Other options are RQ's.
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
        self.scoreboard = scoreboard or Scoreboard(entries_wanted(threads, tasks))
        self.lifeline = lifeline
        self.threads = threads
        self.tasks = tasks
        self.max_memory = max_memory
        self.stopping = self.stopping_cold = False
        self.claims = Claims(self.connection, self.name, serve or order.Strict(self.queue_names()))
        self.performer = Performer(self._report, self._save, lambda: self.stopping, max_result_bytes)
        self.claim_size = ClaimSize(most)
        self.singletons = Singletons(lock_nodes or [self.connection], self._lose)
        self._exchanging = threading.Lock()
        self._memory_looked_at = 0.0

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
            self.claims.order, self.claim_size = served, ClaimSize(1)
        self.performer.process = os.getpid()  # which may be a fork of the one that made this worker
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._waker, False)
        self._install_signal_handlers()
        self.sign_on(burst, with_scheduler)
        self.scoreboard.register()
        heartbeat = (
            None
            if self.supervised
            else HeartbeatThread(Heartbeat(self.connection, {self.name: self.scoreboard}))
        )
        wake = [self._wake] if self.lifeline is None else [self._wake, self.lifeline]
        self.idle = IdleWait(self.connection, self.name, self.claims, self.queue_keys(), wake)
        self.completer = Completer(
            lambda outcomes: self._exchange(outcomes, 0),
            self._turn_away,
            self._wake_up,
            self.scoreboard.show_held,
        )
        self.executors = Executors(
            self.performer,
            self.scoreboard,
            self.completer,
            self.threads,
            self.tasks,
            self._record_crash,
            self._unlock,
            self._wake_up,
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
            self.idle.close()
            self._leave()
            self.singletons.close()
            current.close()

    def _work(self, burst: bool, max_jobs: int | None, max_idle_time: float | None) -> int:
        performed = 0
        idle_since = time.monotonic()
        outcomes: Sequence[Outcome] = ()
        moved = NOTHING
        while not self.stopping or outcomes or self.executors.is_busy:
            self.maintain()
            want = min(self.claim_size.size, self.executors.free)
            if max_jobs is not None:
                want = max(0, min(want, max_jobs - performed))
            want = 0 if self.stopping else want
            if not want:
                self._give_up_waiting()
            claim: Claim | None = moved
            if moved.is_empty:
                claim = self._exchange(outcomes, want) if want or outcomes else None  # the only round trip
            moved = NOTHING
            if claim:
                performed += len(claim.jobs)
                outcomes = [*claim.unreadable, *self._perform_all(claim.jobs)]
                if claim.jobs or outcomes or claim.parents:
                    idle_since = time.monotonic()
                    continue
            if self.executors.is_busy:
                moved = self._wait(claim if want else None, max_idle_time)
                outcomes = self.completer.rest() if moved.is_empty else ()
                continue
            idle_for = time.monotonic() - idle_since
            if burst or performed == max_jobs or (max_idle_time is not None and idle_for >= max_idle_time):
                break
            if not self.stopping and claim:
                moved = self._wait(claim, max_idle_time)
        return performed

    def _perform_all(self, jobs: Sequence[Claimed]) -> list[Outcome]:
        """Perform claimed jobs; the outcomes that are still to be acknowledged."""
        if not jobs:
            return self.completer.rest()
        began = time.monotonic()
        self.completer.take(jobs, self.idle.is_under_way)
        all_by_rq = self.all_by_rq
        while not self.stopping and self.executors.free and (job := self.completer.next()):
            if job.lock and not self._lock(job.lock, job.execution):
                self.completer.done(outcome.postponed(job, RETRY_SECONDS))
                continue
            if job.by_rq or all_by_rq:
                self._give_up_waiting()
                self.scoreboard.start(MAIN, job.id, job.execution, rq_path.longest(job))
                ended = rq_path.perform(self, job, self.performer, self.trusts_all)
                self._unlock(job.execution)
                self.completer.done(ended)
                if self.scoreboard.end(job.execution):
                    self._drop_revoked()
                continue
            call = self.performer.prepare(job)
            if isinstance(call, Outcome):
                self._unlock(job.execution)
                self.completer.done(call)
            else:
                self.executors.perform(call)
        now = time.monotonic()
        self.claim_size.learn(len(jobs), now - began)
        if self.max_memory is not None and now - self._memory_looked_at > MEMORY_SECONDS:
            self._memory_looked_at = now
            if (used := resident_memory()) > self.max_memory:
                log.info("worker %s leaves: it uses %d MiB", self.name, used >> 20)
                self.stopping = True
        return self.completer.rest()

    def _exchange(self, outcomes: Sequence[Outcome], want: int) -> Claim:
        """Acknowledge and claim, however often it takes until Redis answers."""
        with self._exchanging:
            claim_id = self.claims.next_id()
            claim = retry_until_available(lambda: self.claims.finish_and_claim(claim_id, outcomes, want))
            if want and self.idle.is_under_way:
                claim = claim.with_more(self._attended(self.idle.arrived))
        # A job that was returned for this worker while it could not is none that it has lost.
        returned = {ended.id for ended in outcomes if ended.status == "queued" and not ended.kind}
        stale = [id for id in claim.stale if id not in returned]
        for id in stale:
            log.warning("job %s: the outcome came after the lease had ended, and was refused", id)
        if claim.is_forgotten:
            self.sign_on_again()
        for ended in outcomes:
            if ended.status == "failed":
                log.warning("job %s failed", ended.id)
        self._enqueue_dependents(claim.parents)
        return claim

    def _lock(self, name: str, execution: str) -> bool:
        """Take a singleton's lock; whether it could be had."""
        fence = self.singletons.take(name, execution)
        if fence is not None:
            self.performer.fences[execution] = fence
        return fence is not None

    def _unlock(self, execution: str) -> None:
        if self.performer.fences.pop(execution, None) is not None:
            self.singletons.give_back(execution)

    def _lose(self, execution: str) -> None:
        """A singleton's lock is lost, and with it the right to go on."""
        self.executors.break_off(Interrupted("the singleton's lock was lost"), execution)

    def _record_crash(self, execution: str, report: CrashReport) -> None:
        """Take note of the death of an isolated process: only the rescue knows how often its job did it."""
        retry_until_available(
            lambda: rescue(self.connection, self.name, "died", report.cause, [execution], "named", report)
        )

    def _give_up_waiting(self) -> None:
        """End blocking moves, so that none brings a job while this worker has no time for it.

        What one brings anyway is performed with the rest of the claim, or returned with it.
        """
        if self.idle.is_under_way:
            self._take(self._turn_away())

    def _drop_revoked(self) -> None:
        """Begin nothing that was claimed before: the pool has returned it, or is about to."""
        with self._exchanging:
            come = retry_until_available(self.idle.recover)
        for ended in come.unreadable:
            self.completer.done(ended)
        self.completer.give_up(come.jobs)

    def _take(self, claim: Claim) -> None:
        for ended in claim.unreadable:
            self.completer.done(ended)
        self.completer.take(claim.jobs)

    def _turn_away(self) -> Claim:
        """End blocking moves; what they brought all the same."""
        with self._exchanging:
            return self._attended(self.idle.end) if self.idle.is_under_way else NOTHING

    def _attended(self, waiting: Callable[[], Claim]) -> Claim:
        """What connections that wait have claimed, also where they are lost meanwhile."""
        try:
            return waiting()
        except UNAVAILABLE as error:
            log.info(
                "a connection that waits for jobs was lost (%s)", error
            )  # the pool closes it if this worker stalls
        except ResponseError as error:
            if not is_transient(error) and not str(error).startswith("WRONGTYPE"):
                raise  # a key of the wrong type is set aside by the next claim
            log.warning("redis can't be waited on (%s)", error)
        return retry_until_available(self.idle.recover)

    def _wait(self, claim: Claim | None, max_idle_time: float | None) -> Claim:
        """Wait for work and outcomes as the last `claim` tells; for outcomes alone where none was wanted."""
        moved = NOTHING
        if self.completer.may_wait():
            if claim is None or claim.suspended:
                select.select(self.idle.wake, [], [], SUSPENDED_SECONDS if claim else None)
            else:
                spans = (
                    BLOCK_SECONDS,
                    max_idle_time,
                    claim.next_due,
                    PAUSED_SECONDS if claim.paused else None,
                )
                span = max(0.0, min(each for each in spans if each is not None))
                paused = {wire.queue_key(name) for name in claim.paused}
                moved = self._attended(lambda: self.idle.wait(span, paused))
        if moved.is_empty:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
            if self.lifeline is not None and select.select([self.lifeline], [], [], 0)[0]:
                self.stopping = True
        return moved

    def _enqueue_dependents(self, parents: Sequence[str]) -> None:
        """Let RQ's own code enqueue what waited for these jobs."""
        for id in parents:
            try:
                enqueue_dependents(self.queues[0], self.job_class, id)
            except Exception as error:  # whatever RQ's code makes of a corrupt record
                log.error("job %s: its dependents were not enqueued: %s", id, error)

    def _report(
        self, id: str, execution: str, attempt: int, done: float, total: float | None, message: str
    ) -> None:
        # An earlier attempt may have known a total.
        known = "" if total is None else total
        fields = ["done", done, "total", known, "message", message, "attempt", attempt]
        self._write(id, execution, wire.progress_key(id), "its progress", PROGRESS_TTL, fields)

    def _save(self, id: str, execution: str, cursor: bytes) -> None:
        self._write(id, execution, wire.job_key(id), "a checkpoint", 0, ["checkpoint", cursor])

    def _write(self, id: str, execution: str, key: str, what: str, ttl: int, fields: Sequence[Any]) -> None:
        """Write what a running job has to say of itself, unless it has been overtaken."""
        try:
            if not _write(self.connection, [wire.claims_key(self.name), key], [id, execution, ttl, *fields]):
                log.warning("job %s: %s came after the lease had ended, and was refused", id, what)
        except RedisError as error:
            log.warning("job %s: %s was not stored: %s", id, what, error)

    def _install_signal_handlers(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN if self.supervised else self._stop)
        # Not sys.stderr, which a program may have replaced by what is no file.
        faulthandler.register(signal.SIGQUIT, sys.__stderr__ or 2, all_threads=True)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self.performer.process:
            self.stop_fork(signum)
            return
        if not self.stopping:
            self._shutdown_requested_date, self._stop_requested = now(), bool(self.scoreboard.read())
            self._told_to_stop = time.monotonic()
        elif not self.supervised and time.monotonic() - self._told_to_stop > ECHO_SECONDS:
            self.stopping_cold = True
            self.executors.break_off(Interrupted("the worker was told to stop at once"))
        self.stopping = True
        self._wake_up()

    def _wake_up(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._waker, b"!")

    def _leave(self) -> None:
        """Give back what is held and sign off. If Redis is unavailable, the lease's end does the same."""
        self.scoreboard.deregister()
        try:
            self.sign_off()
            rescue(self.connection, self.name, "returned")
        except RedisError as error:
            log.warning("worker %s could not sign off: %s", self.name, error)


def entries_wanted(threads: int, tasks: int) -> int:
    """How many entries the scoreboard of a worker with this many threads and tasks needs."""
    return 1 + tasks + (threads if threads > 1 else 0)
