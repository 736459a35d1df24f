"""Deadlines: which of the jobs that a worker performs must be told to end, and which process be killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from typing import NamedTuple

from packmule.worker.rescue import Verdict
from packmule.worker.scoreboard import RunningJob

LOOK = signal.SIGURG
"""Tells a worker to look whether a job of its own is overdue or asked to stop. By default it is ignored."""

OVERRUN_SECONDS = 1.0
"""A job this far past its timeout has ignored the exception in it, and is killed."""

STOP_SECONDS = 0.5
"""A job that was asked to stop has this long to clean up."""


class Judgement(NamedTuple):
    """A job's process is to be killed as `verdict`, for `reason`."""

    execution: str
    verdict: Verdict
    reason: str


class Deadlines:
    """Remembers for one worker what it was told and when."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def tell(self, running: Sequence[RunningJob]) -> bool:
        """Whether the worker must be told to look: once for each job that is overdue or asked to stop."""
        now = time.monotonic()
        due = {job.execution for job in running if job.stop_requested or now > job.deadline}
        news = due - self._told.keys()
        self._told = {execution: self._told.get(execution, now) for execution in due}
        return bool(news)

    def judge(self, running: Sequence[RunningJob]) -> Judgement | None:
        """The first job that went on after it was told to end."""
        now = time.monotonic()
        for job in running:
            told = self._told.get(job.execution, now)
            if job.stop_requested and now > told + STOP_SECONDS:
                return Judgement(job.execution, "stopped", "the job was cancelled while it ran")
            if now > job.deadline + OVERRUN_SECONDS:
                return Judgement(job.execution, "overran", overran(job))
        return None


def overran(job: RunningJob) -> str:
    """Why a job that overran its timeout was killed."""
    seconds = job.deadline - job.started
    return f"the job ran on past its timeout of {seconds:g} s and was killed with its process"
