"""The fork executor: each isolated job in a fresh process, with limits on memory and processor time."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from rq.timeouts import JobTimeoutException

from packmule.jobs import tracing
from packmule.jobs.interrupts import Interrupted, Killed, Stopped
from packmule.worker.crash_report import CrashReport, report_crash
from packmule.worker.deadlines import LOOK, OVERRUN_SECONDS, STOP_SECONDS, overran
from packmule.worker.kernel import (
    address_space,
    die_with_parent,
    limit,
    mask_signals,
    out_of_memory_kills,
    unlimit,
)
from packmule.worker.process import outcome
from packmule.worker.process.executors.inline import InlineExecutor, unmarked
from packmule.worker.process.executors.pipe import Receiver, SaidByPipe, send
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Call, Done, Performer, Result, with_result
from packmule.worker.scoreboard import MAIN, RunningJob, Scoreboard
from packmule.worker.subprocesses import kill_tree

LOOK_SECONDS = 0.05
KILL_EARLIER = 0.3
"""The isolated process is killed alone this many seconds before the pool would kill the whole worker."""

FORK_AGAIN_SECONDS = 1.0
MOST_READS = 16
"""Reads of what a dead process sent last: a pipe holds less, unless a process that it left behind writes."""

NO_ROOM = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
"""The errors of a system that has no room for another process now."""

HELD_BACK = {signal.SIGTERM, signal.SIGINT, LOOK}

log = logging.getLogger("packmule.worker")
_quietly = contextlib.suppress(Exception)


class ForkExecutor:
    """Performs one job at a time in a process forked for it; progress and checkpoints come by a pipe.

    `record_crash` is called with a call whose process died, and the report.
    """

    def __init__(
        self,
        inline: InlineExecutor,
        performer: Performer,
        scoreboard: Scoreboard,
        record_crash: Callable[[Call, CrashReport], None],
        worker: str,
        free: int,
    ) -> None:
        self.inline = inline
        self.performer = performer
        self.scoreboard = scoreboard
        self.record_crash = record_crash
        self.worker = worker
        self.free = free
        self._execution = ""
        self._writer = -1
        self._sending = threading.Lock()
        self._sender = 0
        """The thread that sends."""
        self._pid = 0
        """The process that runs now, or 0."""
        self._broken_off: BaseException | None = None
        self._kills = out_of_memory_kills()

    def start(self, call: Call, done: Done) -> None:
        """Perform the call in a fresh process, and call `done` at its end."""
        job = call.job
        started, began = time.time(), time.monotonic()
        self._execution, self._broken_off = job.execution, None
        self.inline.expect(job.execution)
        self.scoreboard.start(MAIN, job.id, job.execution, job.timeout)
        try:
            ended = self._perform(call)
        except OSError as full:
            if full.errno not in NO_ROOM:
                raise
            log.warning("job %s waits: no process can be forked for it (%s)", job.id, full)
            self.scoreboard.clear(MAIN)
            time.sleep(FORK_AGAIN_SECONDS)  # only a job of a group waits in Redis
            ended = outcome.postponed(job, FORK_AGAIN_SECONDS)
        running = None if isinstance(ended, Outcome) else self.scoreboard.read_one(MAIN)
        self.scoreboard.clear(MAIN)
        self._execution = ""
        if isinstance(ended, Outcome):
            done(call, unmarked(ended, time.monotonic() - began))
        elif error := self._broken_off or ended.error(running):
            done(call, self.performer.ended_by(call, error, started))
        else:
            # A crash is not a failure: the job runs again, unless it has crashed too often.
            report = report_crash(self.worker, ended.code, running, ended.usage, self._kills)
            self._kills = out_of_memory_kills()
            if self.performer.note_error:
                self.performer.note_error(job.id, Killed(report.cause))
            self.record_crash(call, report)  # which ends the claim, too
            done(call, None)

    def interrupt(self, execution: str, error: BaseException) -> None:
        """Interrupt the process, which finds out why; or kill it if the worker breaks the job off."""
        if execution != self._execution:
            return
        if isinstance(error, Interrupted | Killed):
            self._broken_off = error
            if self._pid:
                kill_tree(self._pid)
        elif self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, LOOK)

    def close(self) -> None:
        """Nothing is left to end."""

    def _perform(self, call: Call) -> Outcome | _Ended:
        sys.stdout.flush()
        sys.stderr.flush()
        reader, writer = os.pipe()
        receive = Receiver(reader)
        # Signals wait until the process is known, so that none is lost in between.
        mask_signals(signal.SIG_BLOCK, HELD_BACK)
        try:
            try:
                self._pid = os.fork()
                if self._pid == 0:
                    os.close(reader)
                    self._be_child(call, writer)
            finally:
                mask_signals(signal.SIG_UNBLOCK, HELD_BACK)
                os.close(writer)
            ended = self._follow(call, receive)
        finally:
            os.close(reader)
            self._pid = 0
        return with_result(call, ended) if isinstance(ended, Result) else ended

    def _be_child(self, call: Call, writer: int) -> None:
        """Perform the call and end. Each page of memory that this touches is copied, so it does little."""
        code = 1
        performer = self.performer
        try:
            os.setpgid(0, 0)
            die_with_parent(performer.process)
            gc.freeze()
            performer.process = os.getpid()
            mask_signals(signal.SIG_UNBLOCK, HELD_BACK)
            self._writer = writer
            performer.report, performer.save, performer.spend = self._report, self._save, self._spend
            if hear := performer.hear:
                performer.hear = lambda *job: SaidByPipe(hear(*job).level, self._send)
            traits = call.type.traits
            if traits.max_cpu is not None:
                limit(resource.RLIMIT_CPU, int(traits.max_cpu + 0.999))
            if traits.max_memory is not None:
                limit(resource.RLIMIT_AS, address_space() + traits.max_memory)
            started = time.time()
            try:
                ended = self.inline.perform(call, performer.run)
                if traits.max_memory is not None:
                    unlimit(resource.RLIMIT_AS)
            except MemoryError as error:  # not even enough memory for the outcome
                unlimit(resource.RLIMIT_AS)
                ended = performer.ended_by(call, error.__context__ or error, started)
            tracing.flush()  # before the outcome: this process is killed after it
            _flush_output()
            self._send("result" if isinstance(ended, Result) else "outcome", ended)
            code = 0
        finally:
            _flush_output()
            os._exit(code)

    def _report(self, *values: object) -> None:
        self._send("report", values)

    def _save(self, *values: object) -> None:
        self._send("save", values)

    def _spend(self, *values: object) -> None:
        self._send("spend", values)

    def _send(self, kind: str, values: object) -> None:
        """Send a whole message, whatever other threads send and whatever signal comes meanwhile."""
        if self._sender == threading.get_ident():
            return  # a finalizer says something while this thread sends
        try:
            mask_signals(signal.SIG_BLOCK, HELD_BACK)
            with self._sending:
                self._sender = threading.get_ident()
                try:
                    send(self._writer, kind, values)
                finally:
                    self._sender = 0
        finally:
            mask_signals(signal.SIG_UNBLOCK, HELD_BACK)

    def _follow(self, call: Call, receive: Receiver) -> Result | Outcome | _Ended:
        """Receive what the process sends, until its outcome or its end."""
        ended: Result | Outcome | None = None
        overran = stopped = drain_sent = False
        code: int | None = None
        asked_at = float("inf")
        while True:
            readable, _, _ = select.select([receive.reader], [], [], LOOK_SECONDS)
            if readable:
                ended = self._pass_on(call, receive())
            if ended is not None or code is not None or receive.is_over:
                break
            if not readable:
                pid, status, usage = os.wait4(self._pid, os.WNOHANG)
                code = os.waitstatus_to_exitcode(status) if pid else None
            running = self.scoreboard.read_one(MAIN)
            now = time.monotonic()
            if self.performer.is_draining() and not drain_sent and code is None:
                drain_sent = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGTERM)
            if running and running.stop_requested:
                asked_at = min(asked_at, now)
            stopped = now > asked_at + STOP_SECONDS - KILL_EARLIER
            overran = running is not None and now > running.deadline + OVERRUN_SECONDS - KILL_EARLIER
            if stopped or overran:
                kill_tree(self._pid)
                break
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)  # with what the job started and left behind
        if code is None:
            _, status, usage = os.wait4(self._pid, 0)
            code = os.waitstatus_to_exitcode(status)
        if ended is not None:
            return ended
        for _ in range(MOST_READS):
            if receive.is_over or not select.select([receive.reader], [], [], 0)[0]:
                break
            self._pass_on(call, receive())  # what it said just before its death
        return _Ended(code, usage, overran or code == -signal.SIGXCPU, stopped)

    def _pass_on(self, call: Call, messages: list[tuple[str, Any]]) -> Result | Outcome | None:
        """Pass on what the job reported, and return how it ended if it has."""
        for kind, values in messages:
            if kind == "report":
                self.performer.report(*values)
            elif kind == "save":
                self.performer.save(*values)
            elif kind == "spend":
                self.performer.spend(*values)
            elif kind in ("line", "chunk"):
                if hear := self.performer.hear:
                    getattr(hear(call.job.id, call.job.execution, call.job.attempt), kind)(values)
            elif kind == "result":
                return Result(*values)
            else:
                return msgspec.convert(values, Outcome)
        return None


class _Ended(NamedTuple):
    """How a process ended without an outcome: exit code (negative for a signal), and what it used."""

    code: int
    usage: resource.struct_rusage
    overran: bool
    stopped: bool

    def error(self, job: RunningJob | None) -> BaseException | None:
        """Why the process was killed on purpose; None if it died."""
        if self.stopped:
            return Stopped("the job was canceled while it ran")
        if not self.overran:
            return None
        if self.code == -signal.SIGXCPU or job is None:
            return JobTimeoutException("the job used more processor time than its max_cpu allows")
        return JobTimeoutException(overran(job))


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with _quietly:
            stream.flush()
