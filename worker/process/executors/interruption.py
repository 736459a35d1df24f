"""Interruption: jobs that must end are interrupted in whichever executor they run."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from types import FrameType

from rq.timeouts import JobTimeoutException

from packmule.coordination.redis.command_packer import protect_all_clients
from packmule.jobs.interrupts import Stopped
from packmule.worker.deadlines import LOOK, late
from packmule.worker.process.executors.executors import Executor
from packmule.worker.scoreboard import ISOLATED, MAIN, RunningJob, Scoreboard, shown_id


class Interruption:
    """Interrupts the jobs on the scoreboard that are overdue, were asked to stop, or are broken off.

    The pool sends the signal `LOOK` for that. Its handler runs in the main thread, and may raise there.
    `wake` ends the wait of an idle worker.
    """

    def __init__(
        self, executors: Collection[Executor], scoreboard: Scoreboard, wake: Callable[[], None]
    ) -> None:
        self.executors = executors
        self.scoreboard = scoreboard
        self.wake = wake
        self._interrupted: deque[str] = deque(maxlen=scoreboard.entries)
        self._broken_off: dict[str, BaseException] = {}
        protect_all_clients()
        signal.signal(LOOK, self._look)

    def stop(self, id: str) -> bool:
        """Ask the job to stop; whether it runs. The heartbeat's thread, or the pool, sends the signal."""
        asked = [job for job in self.scoreboard.read() if job.id == shown_id(id)]
        for job in asked:
            self.scoreboard.request_stop(job)
        return bool(asked)

    def break_off(self, error: BaseException, execution: str | None = None) -> None:
        """Interrupt all running jobs, or one `execution`, by `error` at once. Any thread may call it."""
        executions = [job.execution for job in self.scoreboard.read()]
        # Locks that are lost together break off one job each before the signal arrives.
        earlier = {each: why for each, why in self._broken_off.items() if each in executions}
        self._broken_off = earlier | {each: error for each in executions if execution in (None, each)}
        signal.pthread_kill(threading.main_thread().ident or 0, LOOK)

    def _look(self, signum: int, frame: FrameType | None) -> None:
        self.wake()
        now = time.monotonic()
        # Those of the main threads, here and in an isolated process, come last: they may raise.
        for job in sorted(self.scoreboard.read(), key=lambda job: (job.entry == MAIN, job.entry == ISOLATED)):
            error = self._error(job, now)
            if error is None or job.execution in self._interrupted:
                continue
            if job.entry not in (MAIN, ISOLATED):  # an isolated process receives each signal
                self._interrupted.append(job.execution)
            for each in self.executors:
                each.interrupt(job.execution, error)

    def _error(self, job: RunningJob, now: float) -> BaseException | None:
        """What ends this job; None if it may go on."""
        if error := self._broken_off.get(job.execution):
            return error
        if job.stop_requested:
            return Stopped("the job was canceled")
        return JobTimeoutException(late(job)) if now > job.deadline else None
