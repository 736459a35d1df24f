"""The completer: while a job runs, it acknowledges outcomes and returns jobs that would wait too long."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from packmule.worker.process import outcome
from packmule.worker.process.claim import Claim
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.outcome import Outcome

log = logging.getLogger("packmule.worker")

ACKNOWLEDGE_SECONDS = 0.02
"""An outcome is acknowledged no later than about this after its job has ended."""

LONG_SECONDS = 0.05
"""A job that runs longer than this no longer holds up the jobs that were claimed with it."""


class Completer:
    """Keeps the claimed jobs that have not started and the outcomes that are not acknowledged.

    A thread beside the performing one checks them every `ACKNOWLEDGE_SECONDS`, and only while it may have
    something to do. `acknowledge` sends outcomes to Redis. `stop_waiting` ends the wait for more jobs and
    returns what arrived anyway. `wake` ends the main thread's wait for work. `show_held` gets the executions
    that the worker holds, while other workers could perform some of them or more may arrive.
    """

    def __init__(
        self,
        acknowledge: Callable[[Sequence[Outcome]], object],
        stop_waiting: Callable[[], Claim],
        wake: Callable[[], object],
        show_held: Callable[[Sequence[str]], object],
    ) -> None:
        self._acknowledge = acknowledge
        self._stop_waiting = stop_waiting
        self._wake = wake
        self._show_held = show_held
        self._lock = threading.Lock()
        self._unstarted: deque[Claimed] = deque()
        self._held: list[str] = []
        self._outcomes: list[Outcome] = []
        self._began = self._oldest = 0.0
        self._is_waiting = self._is_awaiting = self._closed = False
        self._beside = 0
        self._active = threading.Event()
        self._thread = threading.Thread(target=self._run, name="completer", daemon=True)
        self._thread.start()

    def take(self, jobs: Sequence[Claimed], is_awaiting: bool = False) -> None:
        """Keep claimed jobs to perform. Set `is_awaiting` if more may arrive meanwhile."""
        with self._lock:
            self._unstarted.extend(jobs)
            self._held += [job.execution for job in jobs]
            self._is_awaiting = self._is_awaiting or is_awaiting
            if len(self._unstarted) > 1 or self._is_awaiting:
                self._began = time.monotonic()
                self._active.set()
                self._show_held(self._held)

    def next(self) -> Claimed | None:
        """The job to perform now; None when none is left."""
        with self._lock:
            self._began = time.monotonic()
            return self._unstarted.popleft() if self._unstarted else None

    @property
    def is_expecting(self) -> bool:
        """Whether jobs run beside the main thread, or outcomes wait to be acknowledged."""
        return self._beside > 0 or bool(self._outcomes)

    def expect(self) -> None:
        """Count a job that starts beside the main thread: its outcome will come from there."""
        with self._lock:
            self._beside += 1

    def done(self, ended: Outcome, beside: bool = False) -> None:
        """Keep an outcome for the next acknowledgement, which is now if it asks for that.

        Set `beside` in any thread but the main one, which then acknowledges it.
        """
        with self._lock:
            if not self._outcomes:
                self._oldest = time.monotonic()
            self._outcomes.append(ended)
            if beside:
                self._beside -= 1
                self._active.set()
                if self._is_waiting:
                    self._is_waiting = False
                    self._wake()
            elif ended.at_once and self._unstarted:
                self._acknowledge_all()

    def add(self, late: Claim) -> None:
        """Keep what arrived after the claim that is performed now."""
        for ended in late.unreadable:
            self.done(ended)
        self.take(late.jobs)

    def give_back(self, late: Claim) -> None:
        """Return the jobs that have not started, and those of a claim that came too late."""
        for ended in late.unreadable:
            self.done(ended)
        with self._lock:
            self._return(deque(late.jobs))
            self._return(self._unstarted)

    def drain(self) -> list[Outcome]:
        """Take all outcomes that are not acknowledged; jobs that have not started are returned among them."""
        with self._lock:
            self._return(self._unstarted)
            self._is_awaiting = False
            self._active.clear()
            self._held.clear()
            self._show_held(())
            outcomes, self._outcomes = self._outcomes, []
            return outcomes

    def may_wait(self) -> bool:
        """Whether the main thread may wait for work: from now on an outcome wakes it."""
        with self._lock:
            self._is_waiting = not self._outcomes
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
            with self._lock:
                if self._active.is_set() and not self._closed:
                    self._acknowledge_waiting(time.monotonic())
                    if not (self._unstarted or self._outcomes or self._is_awaiting):
                        self._active.clear()

    def _acknowledge_waiting(self, now: float) -> None:
        if now - self._began > LONG_SECONDS:
            self._return(self._unstarted)
            if self._is_awaiting:
                self._is_awaiting = False
                late = self._stop_waiting()
                self._return(deque(late.jobs))
                self._outcomes += late.unreadable
            self._show_held(())
        if self._outcomes and now - self._oldest > ACKNOWLEDGE_SECONDS:
            self._acknowledge_all()

    def _return(self, jobs: deque[Claimed]) -> None:
        if jobs and not self._outcomes:
            self._oldest = self._began
        # The last first, for each goes in front of the one before.
        self._outcomes += [outcome.returned(job) for job in reversed(jobs)]
        jobs.clear()

    def _acknowledge_all(self) -> None:
        outcomes, self._outcomes = self._outcomes, []
        self._acknowledge(outcomes)
