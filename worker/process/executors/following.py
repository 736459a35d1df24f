"""Following: a worker's end of an isolated process, from the job that it gets to the job's end."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import time
from typing import Any, NamedTuple

import msgspec
from rq.timeouts import JobTimeoutException

from packmule.jobs.interrupts import Stopped
from packmule.jobs.job_type import JobType
from packmule.worker.deadlines import OVERRUN_SECONDS, STOP_SECONDS, overran
from packmule.worker.process.call import Call
from packmule.worker.process.executors.pipe import Receiver, send_call
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Performer, Result
from packmule.worker.scoreboard import ISOLATED, RunningJob, Scoreboard
from packmule.worker.subprocesses import kill_tree

log = logging.getLogger("packmule.worker")

LOOK_SECONDS = 0.05
KILL_EARLIER = 0.3
"""The worker kills its isolated process this many seconds before the pool would."""

READY_SECONDS = 0.5
"""How long a process may take to see whether it can perform another job."""

MOST_READS = 16
"""Reads of what a dead process sent last: a pipe holds less, unless a process that it left behind writes."""


class IsolatedProcess:
    """A process that performs jobs of one type, the first of which it was forked with."""

    __slots__ = (
        "is_ready",
        "pid",
        "receive",
        "type",
    )  # each page that a worker writes to beside a fork is copied

    def __init__(self, pid: int, type: JobType, pipe: int) -> None:
        self.pid = pid
        """0 once it has ended: the number may be another's then."""
        self.type = type
        self.receive = Receiver(pipe)
        self.is_ready = False
        """Whether it has said that it can perform another job."""

    def take(self, call: Call, fence: int | None) -> bool:
        """Give it a further job; False if it can't perform one."""
        try:
            if not self.is_ready and self.receive.has_arrived(READY_SECONDS):
                self.is_ready = ("ready", None) in self.receive()
            if self.is_ready:
                self.is_ready = False
                send_call(self.receive.reader, call.job, fence)
                return True
        except (OSError, ValueError, msgspec.MsgspecError):
            pass  # it has ended, or should
        return False

    def has_ended(self) -> bool:
        """Whether it has ended, and waits to be reaped."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def signal(self, signum: int) -> None:
        """Send it a signal, if it lives."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def kill(self) -> None:
        """Kill it, with all that descends from it."""
        if self.pid:
            kill_tree(self.pid)

    def end(self) -> tuple[int, resource.struct_rusage]:
        """Kill it, with its group, and reap it; its exit code (negative for a signal), and what it used."""
        pid, self.pid = self.pid, 0
        if not pid:
            raise ProcessLookupError("the isolated process has ended before")
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # with what its jobs started and left behind
        _, status, usage = os.wait4(pid, 0)
        return os.waitstatus_to_exitcode(status), usage

    def close(self) -> None:
        """End it if it lives, and close the pipe."""
        if self.pid:
            self.end()
        os.close(self.receive.reader)


class Ended(NamedTuple):
    """How a process ended without an outcome: exit code (negative for a signal), and what it used."""

    code: int
    usage: resource.struct_rusage
    overran: bool
    stopped: bool

    def error(self, job: RunningJob | None) -> BaseException | None:
        """Why the process was killed on purpose; None if it died."""
        if self.stopped:
            return Stopped("the job was canceled while it ran")
        if self.code != -signal.SIGXCPU and not self.overran:
            return None
        if self.code == -signal.SIGXCPU or job is None:
            return JobTimeoutException("the job used more processor time than its max_cpu allows")
        return JobTimeoutException(overran(job))


class Following:
    """Receives what a process sends while it performs a call, and kills it if the job must end."""

    __slots__ = (
        "_asked_at",
        "_call",
        "_drain_sent",
        "_overran",
        "_performer",
        "_scoreboard",
        "_stopped",
        "process",
    )

    def __init__(
        self, process: IsolatedProcess, call: Call, performer: Performer, scoreboard: Scoreboard
    ) -> None:
        self.process = process
        self._call = call
        self._performer = performer
        self._scoreboard = scoreboard
        self._asked_at = float("inf")
        self._drain_sent = self._stopped = self._overran = False

    def look(self, seconds: float) -> Result | Outcome | Ended | None:
        """How the call ended; None if it still runs after `seconds`. The process lives on after a result."""
        process, receive = self.process, self.process.receive
        until = time.monotonic() + seconds
        while True:
            pause = min(LOOK_SECONDS, max(0.0, until - time.monotonic()))
            has_arrived = receive.has_arrived(pause)
            if has_arrived and (ended := self._received()):
                return ended
            if receive.is_over or (not has_arrived and process.has_ended()) or self._must_end():
                return self._death()
            if time.monotonic() >= until:
                return None

    def _must_end(self) -> bool:
        """Whether the job has gone on after it was interrupted."""
        running, now = self._scoreboard.read_one(ISOLATED), time.monotonic()
        if self._performer.is_draining() and not self._drain_sent:
            self._drain_sent = True
            self.process.signal(signal.SIGTERM)
        if running and running.stop_requested:
            self._asked_at = min(self._asked_at, now)
        self._stopped = now > self._asked_at + STOP_SECONDS - KILL_EARLIER
        self._overran = running is not None and now > running.deadline + OVERRUN_SECONDS - KILL_EARLIER
        return self._stopped or self._overran

    def _death(self) -> Ended:
        process = self.process
        if self._stopped or self._overran:
            process.kill()
        elif running := self._scoreboard.read_one(ISOLATED):
            # If this process gets no processor time, the pool kills the other.
            self._stopped = running.stop_requested
            self._overran = time.monotonic() > running.deadline + OVERRUN_SECONDS
        self._scoreboard.show_isolated(0)
        code, usage = process.end()
        for _ in range(MOST_READS):
            if process.receive.is_over or not process.receive.has_arrived(0):
                break
            self._received()  # what it said just before its death
        return Ended(code, usage, self._overran, self._stopped)

    def _received(self) -> Result | Outcome | None:
        """Receive, and return how the call ended if it has; garbage ends the process."""
        try:
            return self._pass_on(self.process.receive())
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            log.warning("job %s: its process sent garbage: %s", self._call.job.id, error)
            self.process.receive.is_over = True
            self.process.kill()
            return None

    def _pass_on(self, messages: list[tuple[str, Any]]) -> Result | Outcome | None:
        """Pass on what the job reported, and return how it ended if it has."""
        performer, job = self._performer, self._call.job
        ended: Result | Outcome | None = None
        for kind, values in messages:
            if kind == "report":
                performer.report(*values)
            elif kind == "save":
                performer.save(*values)
            elif kind == "spend":
                performer.spend(*values)
            elif kind in ("line", "chunk"):
                if hear := performer.hear:
                    getattr(hear(job.id, job.execution, job.attempt), kind)(values)
            elif kind == "result":
                ended = Result(*values)
            elif kind == "outcome":
                ended = msgspec.convert(values, Outcome)
            elif kind == "ready":
                self.process.is_ready = True
        return ended
