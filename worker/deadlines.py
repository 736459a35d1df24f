"""Deadlines: which of a worker's jobs must be interrupted, and which process must be killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from typing import NamedTuple

from packmule.units import given_span
from packmule.worker.rescue import Verdict
from packmule.worker.scoreboard import ISOLATED, RunningJob

LOOK = signal.SIGURG
"""The signal that makes a worker check whether a job of its own must end. It is ignored by default."""

OVERRUN_SECONDS = 1.0
"""A job this far past its timeout has ignored the exception, and is killed."""

LOOK_AGAIN_SECONDS = 0.1
"""A second signal for a job follows after this, and each further one after twice the span before: a signal
that arrives just before a system call does not end that call."""

STOP_SECONDS = 0.5
"""A job that was asked to stop has this long to clean up."""


class Judgement(NamedTuple):
    """A job's process is to be killed as `verdict`, for `reason`."""

    execution: str
    verdict: Verdict
    reason: str
    is_isolated: bool
    """Whether that process is the job's own."""


class Deadlines:
    """Remembers of one worker which jobs were interrupted, and when."""

    def __init__(self) -> None:
        self._interrupted_at: dict[str, float] = {}
        self._pause = self._next_signal_at = 0.0

    def tell(self, running: Sequence[RunningJob]) -> bool:
        """Whether to signal the worker, because a job is overdue or was asked to stop.

        A worker interrupts each job once, however many signals it gets.
        """
        now = time.monotonic()
        due = {job.execution for job in running if job.stop_requested or now > job.deadline}
        is_new = bool(due - self._interrupted_at.keys())
        self._interrupted_at = {execution: self._interrupted_at.get(execution, now) for execution in due}
        if not due or (not is_new and now < self._next_signal_at):
            return False
        self._pause = LOOK_AGAIN_SECONDS if is_new else 2 * self._pause
        self._next_signal_at = now + self._pause
        return True

    def judge(self, running: Sequence[RunningJob]) -> Judgement | None:
        """The first job that went on after it was interrupted."""
        now = time.monotonic()
        for job in sorted(running, key=lambda job: job.entry == ISOLATED):  # whose end may not be known yet
            interrupted_at, is_isolated = self._interrupted_at.get(job.execution, now), job.entry == ISOLATED
            if job.stop_requested and now > interrupted_at + STOP_SECONDS:
                reason = "the job was canceled while it ran"
                return Judgement(job.execution, "stopped", reason, is_isolated)
            if now > job.deadline + OVERRUN_SECONDS:
                return Judgement(job.execution, "overran", overran(job), is_isolated)
        return None


def overran(job: RunningJob) -> str:
    """Why a job that overran its timeout was killed."""
    seconds = job.deadline - job.started
    return f"the job ran on past its timeout of {given_span(seconds)} and was killed with its process"


def late(job: RunningJob) -> str:
    """The message in a job that exceeds its timeout."""
    return f"the job ran longer than its timeout of {given_span(round(job.deadline - job.started, 3))}"
