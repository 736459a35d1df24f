"""The worker: it claims jobs, performs them, acknowledges their outcomes, and waits when none are left.

A **claim** is an entry of `pm:claims:<worker>`, a hash of job id to execution id. One script takes the id off
its queue's list, or the worker's waiting list, and makes the entry: the id is always in Redis. A claim ends
in one atomic step, by an acknowledged outcome (`completer.py`) or by a rescue. So one outcome counts.

A **rescue** (`worker/rescue.py`) puts the ids of a worker's claims and of its waiting list in front of their
queues, and ends its lease:

- A worker that leaves rescues its own jobs.
- If a process dies, its pool, which is its parent, rescues its jobs at once.
- If a pool dies, its processes die with it, and their leases in `pm:leases` end after 12 s. Each pool checks
  for ended leases once a second, and rescues the jobs of their workers. If an outage has ended all leases,
  the first renewal bars rescues for 4 s, in which living workers renew theirs.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from redis import Redis
from redis.exceptions import RedisError

from packmule.coordination.readable import readable
from packmule.jobs import context, keys
from packmule.jobs.interrupts import Interrupted
from packmule.jobs.outgoing.door import Allowed
from packmule.worker.crash_report import CrashReport
from packmule.worker.dependents import Dependents
from packmule.worker.options import WorkerOptions
from packmule.worker.order import Order
from packmule.worker.process import job_records, outcome
from packmule.worker.process.call import Call
from packmule.worker.process.callbacks import Callbacks
from packmule.worker.process.claim import Claim
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.completer import Completer
from packmule.worker.process.executors.executors import executors_of
from packmule.worker.process.executors.fork import STAY_SECONDS
from packmule.worker.process.executors.interruption import Interruption
from packmule.worker.process.fetcher import Fetcher
from packmule.worker.process.growth import Growth
from packmule.worker.process.job_log import JobLog
from packmule.worker.process.lookup import Registered
from packmule.worker.process.outcome import FINISHED, Outcome
from packmule.worker.process.performer import NoteError, Performer
from packmule.worker.process.progress import ProgressStore
from packmule.worker.process.singletons import RETRY_SECONDS, Singletons
from packmule.worker.registration import Registrar
from packmule.worker.rescue import record_crash, rescue
from packmule.worker.scoreboard import Scoreboard
from packmule.worker.wake import WakePipe

log = logging.getLogger("packmule.worker")


class Worker:
    """One process that performs jobs of `queues`, whose `order` says which come first.

    It shows on its `scoreboard` what it performs. Its pool renews its lease each second, and marks a job's
    record as started once the job has run for 50 ms. The pool's signal raises an error in a late job. If the
    job goes on for a second, the pool kills the process. The descriptor `lifeline` is readable once the pool
    is gone. `lock_nodes` keep the locks of singletons, and `callbacks` say what may be called. Parts call
    back by `done` with a call and its outcome, `wake` to end a wait, and `break_off` for a lost lock.
    """

    def __init__(
        self,
        client: Redis,
        name: str,
        queues: Sequence[str],
        order: Order,
        options: WorkerOptions,
        registration: Registrar,
        scoreboard: Scoreboard,
        *,
        lifeline: int | None = None,
        lock_nodes: Sequence[Redis] = (),
        callbacks: Callbacks | None = None,
        note_error: NoteError | None = None,
    ) -> None:
        self.client = client
        self.name = name
        self.options = options
        self.registration = registration
        self.scoreboard = scoreboard
        self.lifeline = lifeline
        self.dependents = Dependents(client)
        self.stopping = False
        self.wake = WakePipe()
        self._stays_until = 0.0
        self.performed = 0
        """How many jobs were claimed; those that went back unstarted count, too."""
        self.job_log = JobLog()
        self.fetcher = Fetcher(
            client,
            name,
            order,
            queues,
            [self.wake.reader] if lifeline is None else [self.wake.reader, lifeline],
            self._answered,
            self.job_log,
            options.most,
            options.result_ttl,
            options.job_log_level,
            options.machine,
        )
        self.completer = Completer(self.fetcher, self.wake.wake, scoreboard.show_held)
        progress = ProgressStore(client, name)
        callbacks = callbacks or Callbacks(client, Registered(Allowed(options.webhook_allow)))
        self.performer = Performer(
            progress.report, progress.save, lambda: self.stopping, options.max_result_bytes,
            callbacks.lookup, callbacks.call_for, note_error, options.unknown_for, progress.remember,
            progress.spend, self.fetcher.saying.hear, scoreboard.prolong, scoreboard.watched,
        )  # fmt: skip
        self.performer.claims = keys.claims_key(name)
        self.executors = executors_of(self.performer, scoreboard, options, self._record_crash, name)
        self.interruption = Interruption(self.executors.values(), scoreboard, self.wake.wake)
        self.singletons = Singletons(
            lock_nodes or [client],
            self.performer.fences,
            lambda execution: self.interruption.break_off(
                Interrupted("the singleton's lock was lost"), execution
            ),
            scoreboard.show_locks,
        )
        self.growth = Growth(options.max_memory) if options.max_memory else None

    def run(self) -> int:
        """Perform jobs until told to stop, or as the options say; return how many were claimed."""
        with self.wake:
            self.registration.enter()
            self.scoreboard.register()
            self.completer.start()
            try:
                with job_records.kept(self.options.job_log_level):
                    self._work()
            finally:
                for executor in self.executors.values():
                    executor.close()
                self.completer.close()
                self.job_log.flush()
                self.fetcher.close()
                self._leave()
                self.singletons.close()
                context.close()
        return self.performed

    def stop(self) -> None:
        """Begin no further job, and leave once those that run have ended. A signal's handler may call it."""
        self.stopping = True
        self.wake.wake()

    def stop_by(self, *signals: signal.Signals) -> None:
        """Stop at any of these signals, and write all stacks to standard error at a SIGQUIT."""
        for each in signals:
            signal.signal(each, self._on_signal)
        # Not sys.stderr, which a program may have replaced by something that is not a file.
        faulthandler.register(signal.SIGQUIT, sys.__stderr__ or 2, all_threads=True)

    def _work(self) -> None:
        idle_since = time.monotonic()
        while not self.stopping or self.completer.is_busy:
            outcomes = self.completer.drain()
            room = self._room()  # afterwards: a job that ends now has an outcome, for which it looks again
            claim = self.fetcher.exchange(outcomes, room)
            if claim.jobs or claim.unreadable:
                self._perform_all(claim, room)
            has_more = claim.next_due == 0  # behind ids that it could not take
            if claim.jobs or claim.parents or self.completer.has_pending or has_more:
                idle_since = time.monotonic()
                continue
            is_busy = self.completer.is_busy
            if not is_busy and (self.stopping or self._is_over(idle_since)):
                break
            self._wait(is_busy, room)

    def _room(self) -> int:
        """How many jobs may be claimed now: with threads, or while others run, as many as can start."""
        if self.stopping:
            return 0
        if self.fetcher.skipped and self.executors["isolated"].free:
            self.fetcher.skipped.clear()
        room = self.options.most
        if self.completer.running or self.options.threads > 1:
            room = min(each.free for kind, each in self.executors.items() if kind != "isolated")
        if self.options.max_jobs is not None:
            room = min(room, self.options.max_jobs - self.performed)
        return room

    def _is_over(self, idle_since: float) -> bool:
        """Whether a worker that has nothing to do should leave."""
        options = self.options
        return (
            options.burst
            or (options.max_jobs is not None and self.performed >= options.max_jobs)
            or (options.max_idle is not None and time.monotonic() - idle_since >= options.max_idle)
        )

    def _perform_all(self, claim: Claim, room: int) -> None:
        """Start what was claimed, as far as there is room; each job ends in `_end`.

        Callbacks that are due come first, even without room. What can't start goes back.
        """
        self.performed += len(claim.jobs) - claim.callbacks
        self._stays_until = time.monotonic() + STAY_SECONDS
        self.completer.take(claim)
        for each in claim.unreadable:
            self.job_log.refused(each, each)  # a corrupt record: its outcome is all that is known
        for number in range(min(max(room, claim.callbacks), len(claim.jobs))):
            is_over = self.stopping and number >= claim.callbacks
            if is_over or not (job := self.completer.next()) or not self._start(job):
                break
        if self.growth and (used := self.growth.too_much()):
            log.info("worker %s leaves: it uses %d MiB", self.name, used >> 20)
            self.stopping = True

    def _start(self, job: Claimed) -> bool:
        """Start or end the job. False if no further one of this claim should start.

        If another isolated one runs, the queue is skipped until that has ended. Several short isolated ones
        hold up what has come meanwhile, which may be more urgent: after a while the others go back.
        """
        if job.lock and not self.singletons.take(job.lock, job.execution):
            self._end(job, outcome.postponed(job, RETRY_SECONDS))
            return True
        call = self.performer.prepare(job)
        if isinstance(call, Outcome):
            self.job_log.refused(job, call)
            self._end(job, call)
        elif not self.executors[call.kind].free:
            self.fetcher.skipped.add(job.queue)
            if job.due:
                self._end(job, outcome.returned(job))  # for whichever worker has room
                return True
            self.singletons.give_back(job.execution)
            self.completer.put_back(job)
            return False
        else:
            if job.lock and call.kind != "isolated":
                self.singletons.show(job.execution)
            if self.job_log.shows(logging.DEBUG):
                self.job_log.starts(call)
            self.executors[call.kind].start(call, self._performed)
            return call.kind != "isolated" or time.monotonic() < self._stays_until
        return True

    def _performed(self, call: Call, ended: Outcome | None) -> None:
        """Log and keep the outcome of a call; an executor's `done`, in any thread."""
        if ended is not None and (ended.kind != FINISHED or self.job_log.shows(logging.INFO)):
            self.job_log.ended(call, ended)
        self._end(call.job, ended)

    def _end(self, job: Claimed, ended: Outcome | None) -> None:
        if job.lock:
            self.singletons.give_back(job.execution)
        self.completer.done(ended)

    def _wait(self, is_busy: bool, room: int) -> None:
        """Wait for jobs, for an outcome, or for a signal."""
        if self.completer.may_wait(is_busy) and self.fetcher.wait(room, self.options.max_idle):
            return
        self.wake.drain()
        if self.lifeline is not None and readable([self.lifeline], 0):
            self.stopping = True

    def _record_crash(self, call: Call, report: CrashReport) -> None:
        """Rescue the one job whose isolated process crashed; this worker goes on."""
        self.fetcher.say(over=call.job.execution)
        rescued = record_crash(self.client, self.name, call.job.execution, report)
        self.job_log.crashed(call, report, rescued)

    def _answered(self, claim: Claim) -> None:
        """Do what a reply asks for besides its jobs; any thread that calls the script may come here."""
        if claim.is_forgotten:
            self.registration.enter_again()
        self.dependents.enqueue_of(claim.parents, claim.flows)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() == self.performer.process:
            self.stop()
        else:  # a process forked from this one that has no handler of its own (yet)
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

    def _leave(self) -> None:
        """Sign off and give back what is held. If Redis is away, a pool does it once the lease has ended."""
        self.scoreboard.deregister()
        try:
            self.registration.leave()
            rescue(self.client, self.name, "returned")
        except RedisError as error:
            log.warning("worker %s could not sign off: %s", self.name, error)
