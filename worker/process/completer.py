"""The completer: while a job runs, it acknowledges outcomes and returns jobs that would wait too long.

An outcome counts once it is acknowledged. If the process dies before, its jobs are rescued and run again.
The worker's next claim acknowledges outcomes, too.

A **retry** is the outcome of an attempt that raised an error, such as its timeout's, after which the job runs
again. The worker decides on it (`outcome.failed`). The job must have `retries_left`, which the claim brought,
and the type's `retry_on` and `give_up_on` must allow it. The acknowledgement writes one retry less, and
schedules the job by its `retry_intervals`, or by a back-off with jitter. The leading scheduler promotes it
when it is due. A job without a wait goes to the end of its queue at once (to the front if RQ's `Retry` said
so). If the pool killed the process for a timeout or memory, the rescue does the same for each failed attempt,
but nobody is left to ask the type: `retries_left` decide alone.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from packmule.coordination.clock import clock
from packmule.jobs import keys
from packmule.worker.process import outcome
from packmule.worker.process.claim import NOTHING, Claim
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.fetcher import Fetcher
from packmule.worker.process.outcome import Outcome

log = logging.getLogger("packmule.worker")

ACKNOWLEDGE_SECONDS = 0.02
"""An outcome is acknowledged no later than about this after its job has ended."""

LONG_SECONDS = 0.05
"""A job that runs longer than this no longer holds up the jobs that were claimed with it."""

STALE_SECONDS = keys.LEASE_SECONDS / 2
"""A job that was claimed this long ago is given back and not begun: the process was frozen, and other workers
may have the job by now."""


class Completer:
    """Owns the claimed jobs that have not started, and the outcomes that are not acknowledged.

    A thread beside the performing one checks them every `ACKNOWLEDGE_SECONDS`, and only while it may have
    something to do. `wake` ends the performing thread's wait for work. `show_held` shows the pool what was
    claimed, if that is several jobs or more may arrive. The pool returns the unstarted ones if a job blocks
    this thread, too. No call to Redis is made while its lock is held.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        wake: Callable[[], object],
        show_held: Callable[[Sequence[str]], object],
    ) -> None:
        self._fetcher = fetcher
        self._wake = wake
        self._show_held = show_held
        self._lock = threading.Lock()
        self._unstarted: deque[Claimed] = deque()
        self._outcomes: list[Outcome] = []
        # When the last job began, the oldest outcome came, and the first unstarted job may have been claimed.
        self._began = self._oldest = self._claimed_since = 0.0
        self._is_shown = self._is_waiting = self._has_moves = self._closed = False
        self._calls = 0  # that are under way to the fetcher
        self.running = 0
        """How many jobs `next` returned that are not `done`."""
        self._performing = threading.get_ident()
        self._active = threading.Event()
        self._thread = threading.Thread(target=self._run, name="completer", daemon=True)

    def start(self) -> None:
        """Start the completer's thread; the one that calls this performs."""
        self._performing = threading.get_ident()
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether jobs run, or anything is left to start or to acknowledge."""
        return bool(self.running or self._calls or self._unstarted or self._outcomes)

    @property
    def has_pending(self) -> bool:
        """Whether outcomes or jobs that were not started wait for the next `drain`."""
        return bool(self._outcomes or self._unstarted)

    def take(self, claim: Claim) -> None:
        """Keep what was claimed, to perform it; a job whose record is unreadable has failed already."""
        with self._lock:
            if claim.unreadable:
                self._keep(claim.unreadable)
            self._add(claim)
            self._began = clock()
            self._has_moves = self._fetcher.has_moves
            if len(claim.jobs) > 1 or self._has_moves:
                self._active.set()
                self._is_shown = True
                self._show_held([job.execution for job in claim.jobs])

    def next(self) -> Claimed | None:
        """The job to perform now; None when none is left, or none may be started any more."""
        with self._lock:
            now = clock()
            if not self._unstarted:
                return None
            if now - self._claimed_since > STALE_SECONDS or self._is_long(now):
                self._return(self._unstarted)
                return None
            self._began = now
            self.running += 1
            return self._unstarted.popleft()

    def put_back(self, job: Claimed) -> None:
        """Take back a job that `next` returned and that can't start, as the first of those that are left."""
        with self._lock:
            self.running -= 1
            self._unstarted.appendleft(job)

    def done(self, ended: Outcome | None) -> None:
        """Keep the outcome of a job that `next` returned; None if its end is recorded already.

        It goes out with the next acknowledgement, which is now if the outcome asks for that.
        """
        with self._lock:
            self.running -= 1
            if ended is not None:
                if not self._outcomes:
                    self._oldest = clock()
                self._outcomes.append(ended)
            if threading.get_ident() != self._performing:
                self._active.set()
                self._end_wait()
                return
            is_urgent = ended is not None and ended.at_once and bool(self._unstarted)
        if is_urgent:
            self._acknowledge()

    def drain(self) -> list[Outcome]:
        """Take all outcomes that are not acknowledged; those that give back unstarted jobs are among them."""
        if self._has_moves and self._is_long(clock()):
            self._give_back()  # what arrived for this worker during a long job
        with self._lock:
            self._return(self._unstarted)
            self._has_moves = self._is_waiting = False
            self._active.clear()
            self._hide_held()
            outcomes, self._outcomes = self._outcomes, []
            return outcomes

    def may_wait(self, was_busy: bool) -> bool:
        """Whether the performing thread may wait for work: from now on an outcome wakes it.

        `was_busy` is what it knows; if that is true no more, it must not wait.
        """
        with self._lock:
            self._is_waiting = not self._outcomes and self.is_busy == was_busy
            return self._is_waiting

    def close(self) -> None:
        """End the completer's thread."""
        with self._lock:
            self._closed = True
            self._active.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._look()
        except Exception:
            # A worker without its completer would lose outcomes: it is better to die and be rescued.
            log.exception("the worker can't acknowledge its outcomes, and exits")
            os._exit(1)

    def _look(self) -> None:
        while True:
            self._active.wait()
            if self._closed:
                return
            time.sleep(ACKNOWLEDGE_SECONDS)
            now = clock()
            if (self._unstarted or self._has_moves) and self._is_long(now):
                self._give_back()
            if self._outcomes and now - self._oldest > ACKNOWLEDGE_SECONDS:
                self._acknowledge()
            with self._lock:
                if not (self._unstarted or self._outcomes or self._has_moves or self._closed):
                    self._active.clear()

    def _is_long(self, now: float) -> bool:
        """Whether the jobs that are claimed have waited too long for the one that began last."""
        return now - self._began > LONG_SECONDS

    def _give_back(self) -> None:
        """Make outcomes of the jobs that have not started, and of what blocking moves brought meanwhile."""
        with self._lock:
            self._return(self._unstarted)
            has_moves, self._has_moves = self._has_moves, False
            self._calls += 1
        late = self._fetcher.stop_waiting() if has_moves else NOTHING
        with self._lock:
            self._return(deque(late.jobs))
            self._keep(late.unreadable)
            self._hide_held()
            self._calls -= 1
            self._end_wait()

    def _acknowledge(self) -> None:
        with self._lock:
            outcomes, self._outcomes = self._outcomes, []
            self._calls += 1
        claim = self._fetcher.acknowledge(outcomes) if outcomes else NOTHING
        with self._lock:
            if not claim.is_empty:
                self._add(claim)
                self._keep(claim.unreadable)
            self._calls -= 1
            self._end_wait()

    def _add(self, claim: Claim) -> None:
        """Let the jobs of a claim start after those that are left of earlier ones."""
        since = (claim.since, self._claimed_since) if self._unstarted else (claim.since,)
        self._unstarted.extend(claim.jobs)
        self._claimed_since = min(since)

    def _keep(self, outcomes: Iterable[Outcome]) -> None:
        """Keep outcomes for the next acknowledgement."""
        if not self._outcomes:
            self._oldest = clock()
        self._outcomes += outcomes

    def _return(self, jobs: deque[Claimed]) -> None:
        """Empty `jobs` into outcomes that give them back: they stay claimed until those are acknowledged."""
        if jobs:
            if not self._outcomes:
                self._oldest = self._began
            # The last first, for each goes in front of the one before.
            self._outcomes += [outcome.returned(job) for job in reversed(jobs)]
            jobs.clear()

    def _hide_held(self) -> None:
        if self._is_shown:
            self._is_shown = False
            self._show_held(())

    def _end_wait(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._wake()
