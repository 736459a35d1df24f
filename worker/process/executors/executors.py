"""The executors: they perform each kind of job where it belongs, and interrupt one that must end."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from types import FrameType

import msgspec
from rq.timeouts import JobTimeoutException

from packmule.jobs.interrupts import Stopped
from packmule.worker.crash_report import CrashReport, report_crash
from packmule.worker.deadlines import LOOK, overran
from packmule.worker.kernel import out_of_memory_kills
from packmule.worker.process.completer import Completer
from packmule.worker.process.executors.event_loop import AsyncioExecutor
from packmule.worker.process.executors.fork import Ended, ForkExecutor
from packmule.worker.process.executors.threads import ThreadsExecutor
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Call, Performer
from packmule.worker.scoreboard import MAIN, RunningJob, Scoreboard, shown_id
from packmule.worker.started import MARK_SECONDS


class Executors:
    """Performs calls: inline, in one of `threads`, as one of the event loop's `tasks`, or in a fresh process.

    The handler of the signal `LOOK` interrupts a job in the main thread by raising an exception.
    """

    def __init__(
        self,
        performer: Performer,
        scoreboard: Scoreboard,
        completer: Completer,
        threads: int,
        tasks: int,
        record_crash: Callable[[str, CrashReport], None],
        over: Callable[[str], None],
        wake: Callable[[], None],
        drop_revoked: Callable[[], None],
        worker: str,
    ) -> None:
        self.performer = performer
        self.scoreboard = scoreboard
        self.completer = completer
        self.record_crash = record_crash
        self.over = over
        self.wake = wake
        self.drop_revoked = drop_revoked
        self.worker = worker
        beside = partial(self._done, beside=True)
        self.threads = ThreadsExecutor(performer, scoreboard, beside, threads) if threads > 1 else None
        self.event_loop = AsyncioExecutor(performer, scoreboard, beside, tasks)
        self.fork = ForkExecutor(performer, scoreboard)
        self._interrupted = ""
        self._interrupted_beside: deque[str] = deque(maxlen=scoreboard.entries)
        self._broken_off: dict[str, BaseException] = {}
        self._kills = out_of_memory_kills()
        signal.signal(LOOK, self._look)

    @property
    def free(self) -> int:
        """How many more jobs can be started, of whichever kind."""
        return min(self.event_loop.free, self.threads.free) if self.threads else self.event_loop.free

    @property
    def is_busy(self) -> bool:
        """Whether jobs run beside the main thread, or have ended there and are not acknowledged."""
        return self.completer.is_expecting

    def runs_beside(self, call: Call) -> bool:
        """Whether the main thread stays free while the call is performed."""
        return call.type.is_async or (self.threads is not None and not call.type.traits.isolate)

    def perform(self, call: Call) -> None:
        """Perform the call, or start it beside the main thread; its outcome goes to the completer."""
        if self.runs_beside(call):
            self.completer.expect()
        if call.type.is_async:
            self.event_loop.start(call)
        elif call.type.traits.isolate:
            self._perform_isolated(call)
        elif self.threads:
            self.threads.start(call)
        else:
            job = call.job
            began = time.monotonic()
            self.scoreboard.start(MAIN, job.id, job.execution, job.timeout)
            ended = self.performer.perform_interruptibly(call)
            if self.scoreboard.end(job.execution):
                self.drop_revoked()
            if time.monotonic() - began < MARK_SECONDS:
                ended = msgspec.structs.replace(ended, is_marked=False)
            self._done(ended)

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

    def close(self) -> None:
        """End the threads and the event loop."""
        self.event_loop.close()
        if self.threads:
            self.threads.close()

    def _perform_isolated(self, call: Call) -> None:
        job = call.job
        started = time.time()
        self.scoreboard.start(MAIN, job.id, job.execution, job.timeout)
        running = self.scoreboard.read_one(MAIN)
        ended = self.fork.perform(call)
        self.scoreboard.clear(MAIN)
        if isinstance(ended, Outcome):
            self._done(ended)
        elif error := self._broken_off.get(job.execution):
            self._done(self.performer.ended_by(call, error, started))
        elif ended.stopped:
            self._done(self.performer.ended_by(call, Stopped("the job was cancelled while it ran"), started))
        elif ended.overran:
            self._done(self.performer.ended_by(call, JobTimeoutException(_why(ended, running)), started))
        else:
            # A crash is not a failure: the job runs again, unless it has crashed too often.
            report = report_crash(self.worker, ended.code, running, ended.usage, self._kills)
            self._kills = out_of_memory_kills()
            self.over(job.execution)
            self.record_crash(job.execution, report)  # which ends the claim, too

    def _done(self, ended: Outcome, beside: bool = False) -> None:
        self.over(ended.execution)
        self.completer.done(ended, beside)

    def _look(self, signum: int, frame: FrameType | None) -> None:
        """Interrupt jobs that must end, and end the wait of an idle worker."""
        self.wake()
        now = time.monotonic()
        raised: BaseException | None = None
        for job in self.scoreboard.read():
            error: BaseException
            if job.execution in self._broken_off:
                error = self._broken_off[job.execution]
                if job.entry == MAIN:
                    self.fork.kill()
            elif job.stop_requested:
                error = Stopped("the job was cancelled")
            elif now > job.deadline:
                error = JobTimeoutException(late(job))
            else:
                continue
            if job.entry == MAIN:
                raised = error if job.execution != self._interrupted and not self.fork.look() else None
                if raised and self.performer.in_body:
                    self._interrupted = job.execution
            elif job.execution not in self._interrupted_beside:
                self._interrupted_beside.append(job.execution)
                self.event_loop.interrupt(job.execution, error)
                if self.threads:
                    self.threads.interrupt(job.execution, error)
        if raised and self.performer.in_body:
            raise raised


def late(job: RunningJob) -> str:
    """The message in a job that exceeds its timeout."""
    return f"the job ran longer than its timeout of {job.deadline - job.started:g} s"


def _why(ended: Ended, job: RunningJob | None) -> str:
    if ended.code == -signal.SIGXCPU or job is None:
        return "the job used more processor time than its max_cpu allows"
    return overran(job)
