"""The worker: claims a batch, performs it, hands it in, and waits when there is nothing to do."""

from __future__ import annotations

import logging
import os
import random
import select
import signal
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq.utils import now
from rq.worker import DequeueStrategy

from coordination import counters
from jobs import current, wire
from worker import rq_path
from worker.batch import BatchSize
from worker.claim import Batch, Claims
from worker.clerk import Clerk
from worker.heartbeat import Heartbeat, HeartbeatThread
from worker.interrupt import BrokenOff, ColdStop
from worker.outcome import Claimed, Outcome
from worker.perform import Performer, ReturnedRetry
from worker.rescue import rescue
from worker.rq_current import CurrentJob, LazyJob
from worker.rq_worker import RQWorker
from worker.slot import Slot
from worker.wait import AWAY, IdleWait

BACK_OFF_CAP = 5.0
SUSPENDED_SECONDS = 1.0
ECHO_SECONDS = 1.0
"""A second signal that comes sooner is the first one's echo: a terminal and a parent both pass Ctrl-C on."""

log = logging.getLogger("packmule.worker")


class Worker(RQWorker):
    """One process that performs jobs; in RQ's eyes a worker like its own.

    Made by the pool, it finds there its `slot`, through which it tells what it performs, and a `lifeline`,
    a descriptor that becomes readable when the pool is gone. On its own, as in
    `rq worker --worker-class worker.Worker`, it looks after its heartbeat itself. Other options are RQ's.
    """

    def __init__(
        self,
        queues: Any,
        name: str | None = None,
        connection: Redis | None = None,
        *,
        slot: Slot | None = None,
        lifeline: int | None = None,
        max_result_bytes: int = 1024 * 1024,
        **rq_options: Any,
    ) -> None:
        super().__init__(queues, name, connection, slot, **rq_options)
        self.lifeline = lifeline
        self.stopping = self.stopping_cold = False
        self.claims = Claims(self.connection, self.name, self.queue_names())
        self.performer = Performer(self.name, self._report, max_result_bytes, self.interrupter)
        self.batch = BatchSize()

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
        self._dequeue_strategy = dequeue_strategy
        if self.has_strategy:
            self.batch = BatchSize(1)
        wake, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._install_signal_handlers()
        self.sign_on(burst, with_scheduler)
        self.slot.open()
        heartbeat = (
            None if self.supervised else HeartbeatThread(Heartbeat(self.connection, {self.name: self.slot}))
        )
        idle = IdleWait(
            self.connection,
            self.queue_keys(),
            wire.waiting_key(self.name),
            [wake] if self.lifeline is None else [wake, self.lifeline],
        )
        self.rq_current = CurrentJob()
        self.clerk = Clerk(lambda outcomes: self._exchange(outcomes, 0))
        try:
            worked = self._work(idle, burst, max_jobs, max_idle_time) > 0
            if self.stopping_cold:
                raise SystemExit
            return worked
        finally:
            self.clerk.close()
            if heartbeat:
                heartbeat.stop()
            idle.close()
            self.rq_current.close()
            self._leave()
            current.close()

    def _work(self, idle: IdleWait, burst: bool, max_jobs: int | None, max_idle_time: float | None) -> int:
        performed = 0
        idle_since = time.monotonic()
        outcomes: Sequence[Outcome] = ()
        while not self.stopping or outcomes:
            self.maintain()
            left = self.batch.size if max_jobs is None else min(self.batch.size, max_jobs - performed)
            batch = self._exchange(outcomes, 0 if self.stopping else left)  # the only round trip
            outcomes = [*batch.unreadable, *self._perform_all(batch.jobs)]
            performed += len(batch.jobs)
            if self.has_strategy:
                self.claims.serve(self.order_after([job.queue for job in batch.jobs]))
            if outcomes or batch.parents:
                idle_since = time.monotonic()
                continue
            idle_for = time.monotonic() - idle_since
            if burst or performed == max_jobs or (max_idle_time is not None and idle_for >= max_idle_time):
                break
            if not self.stopping:
                self._wait(idle, batch.suspended, max_idle_time)
        return performed

    def _perform_all(self, jobs: Sequence[Claimed]) -> list[Outcome]:
        """Perform a batch; the outcomes that are still to be handed in."""
        began = time.monotonic()
        self.clerk.take(jobs)
        while not self.stopping and (job := self.clerk.next()):
            self.clerk.note(self._perform(job))
        if jobs:
            self.batch.learn(len(jobs), time.monotonic() - began)
        return self.clerk.rest()

    def _perform(self, job: Claimed) -> Outcome:
        self.slot.start(job.id, job.execution, job.timeout)
        try:
            if job.by_rq or self.all_by_rq:
                return rq_path.perform(self, job, self.interrupter, self.trusts_all)
            self.rq_current.set(LazyJob(job.id, self.connection, self.serializer))
            return self.performer.perform(job)
        except BrokenOff as reason:
            return rq_path.end_broken_off(self, job, reason)
        except ReturnedRetry as returned:
            return rq_path.end_retry(self, job, returned.retry)
        finally:
            self.rq_current.set(None)
            self.slot.clear()

    def _exchange(self, outcomes: Sequence[Outcome], want: int) -> Batch:
        """Hand in and claim, however often it takes until Redis answers."""
        claim_id = self.claims.next_id()
        for pause in _pauses():
            try:
                batch = self.claims.finish_and_claim(claim_id, outcomes, want)
            except AWAY as error:
                log.warning("redis is away (%s); trying again in %.1f s", error, pause)
                time.sleep(pause)
                continue
            for id in batch.stale:
                log.warning("job %s: the outcome came after the lease had ended, and was refused", id)
            for ended in outcomes:
                if ended.status == "failed":
                    log.warning("job %s failed", ended.id)
            self._enqueue_dependents(batch.parents)
            return batch
        raise AssertionError("the pauses never end")

    def _wait(self, idle: IdleWait, suspended: bool, max_idle_time: float | None) -> None:
        if suspended:
            select.select(idle.wake, [], [], SUSPENDED_SECONDS)
        else:
            try:
                idle.wait() if max_idle_time is None else idle.wait(max_idle_time)
            except AWAY as error:
                log.warning("redis is away (%s)", error)
        if self.lifeline is not None and select.select([self.lifeline], [], [], 0)[0]:
            self.stopping = True

    def _enqueue_dependents(self, parents: Sequence[str]) -> None:
        """Let RQ's own code enqueue what waited for these jobs."""
        for id in parents:
            try:
                job = rq_path.ended(self, id)
                self.queues[0].enqueue_dependents(job, refresh_job_status=False)
            except RedisError as error:
                log.error("job %s: its dependents were not enqueued: %s", id, error)

    def _report(self, id: str, attempt: int, done: float, total: float | None, message: str) -> None:
        fields: counters.Values = {"done": done, "message": message, "attempt": attempt}
        if total is not None:
            fields["total"] = total
        try:
            counters.store(self.connection, wire.progress_key(id), fields)
        except RedisError as error:
            log.warning("job %s: its progress was not stored: %s", id, error)

    def _install_signal_handlers(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN if self.supervised else self._stop)
        self.interrupter.install()

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        performing = self.slot.read()
        if not self.stopping:
            self._shutdown_requested_date, self._stop_requested = now(), performing is not None
            self._told_to_stop = time.monotonic()
        elif not self.supervised and time.monotonic() - self._told_to_stop > ECHO_SECONDS:
            self.stopping_cold = True
            if performing:
                self.interrupter.interrupt(performing.id, ColdStop("the worker was told to stop at once"))
        self.stopping = True
        os.write(self._wake, b"!")

    def _leave(self) -> None:
        """Give back what is held and sign off. If Redis is away, the lease's end does the same."""
        self.slot.leave()
        try:
            self.sign_off()
            rescue(self.connection, self.name, "returned")
        except RedisError as error:
            log.warning("worker %s could not sign off: %s", self.name, error)


def _pauses() -> Iterator[float]:
    """Seconds to wait between tries: growing, jittered, without an end."""
    ceiling = 0.1
    while True:
        yield random.uniform(0, ceiling)  # noqa: S311  jitter needs no secrecy
        ceiling = min(ceiling * 2, BACK_OFF_CAP)
