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
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from rq.timeouts import JobTimeoutException

from packmule.jobs import tracing
from packmule.jobs.interrupts import Interrupted, Killed, Stopped
from packmule.worker.crash_report import CrashReport, report_crash
from packmule.worker.deadlines import LOOK, OVERRUN_SECONDS, STOP_SECONDS, overran
from packmule.worker.kernel import address_space, die_with_parent, limit, out_of_memory_kills
from packmule.worker.process import outcome
from packmule.worker.process.executors.inline import InlineExecutor
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Call, Done, Performer
from packmule.worker.scoreboard import MAIN, RunningJob, Scoreboard
from packmule.worker.subprocesses import kill_tree

LOOK_SECONDS = 0.05
KILL_EARLIER = 0.3
"""The isolated process is killed alone this many seconds before the pool would kill the whole worker."""

FORK_AGAIN_SECONDS = 1.0

NO_ROOM = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
"""The errors of a system that has no room for another process now."""

HELD_BACK = {signal.SIGTERM, signal.SIGINT, LOOK}

log = logging.getLogger("packmule.worker")
_LENGTH = struct.Struct("<I")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, Any]).decode


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
        self._pid = 0
        """The process that runs now, or 0."""
        self._broken_off: BaseException | None = None
        self._kills = out_of_memory_kills()

    def start(self, call: Call, done: Done) -> None:
        """Perform the call in a fresh process, and call `done` at its end."""
        job = call.job
        started = time.time()
        self._execution, self._broken_off = job.execution, None
        self.inline.expect(job.execution)
        self.scoreboard.start(MAIN, job.id, job.execution, job.timeout)
        running = self.scoreboard.read_one(MAIN)
        try:
            ended = self._perform(call)
        except OSError as full:
            if full.errno not in NO_ROOM:
                raise
            log.warning("job %s waits: no process can be forked for it (%s)", job.id, full)
            self.scoreboard.clear(MAIN)
            time.sleep(FORK_AGAIN_SECONDS)  # only a job of a group waits in Redis
            ended = outcome.postponed(job, FORK_AGAIN_SECONDS)
        self.scoreboard.clear(MAIN)
        self._execution = ""
        if isinstance(ended, Outcome):
            done(call, ended)
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
        parent = os.getpid()
        # Signals wait until the process is known, so that none is lost in between.
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        try:
            try:
                self._pid = os.fork()
                if self._pid == 0:
                    os.close(reader)
                    self._be_child(call, writer, parent)
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
                os.close(writer)
            return self._follow(reader)
        finally:
            os.close(reader)
            self._pid = 0

    def _be_child(self, call: Call, writer: int, parent: int) -> None:
        code = 1
        try:
            os.setpgid(0, 0)
            die_with_parent(parent)
            gc.freeze()
            performer = self.performer
            performer.process = os.getpid()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
            performer.report = lambda *values: _send(writer, "report", values)
            performer.save = lambda *values: _send(writer, "save", values)
            traits = call.type.traits
            if traits.max_cpu is not None:
                limit(resource.RLIMIT_CPU, int(traits.max_cpu + 0.999))
            if traits.max_memory is not None:
                limit(resource.RLIMIT_AS, address_space() + traits.max_memory)
            unlimited = (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2
            started = time.time()
            try:
                ended = self.inline.perform(call)
                resource.setrlimit(resource.RLIMIT_AS, unlimited)
            except MemoryError as error:  # not even enough memory for the outcome
                resource.setrlimit(resource.RLIMIT_AS, unlimited)
                ended = performer.ended_by(call, error.__context__ or error, started)
            tracing.flush()  # before the outcome: this process is killed after it
            _send(writer, "outcome", ended)
            code = 0
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _follow(self, reader: int) -> Outcome | _Ended:
        """Receive what the process sends, until its outcome or its end."""
        receive = _Receiver(reader)
        ended: Outcome | None = None
        overran = stopped = drain_sent = False
        code: int | None = None
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        asked_at = float("inf")
        while ended is None:
            readable, _, _ = select.select([reader], [], [], LOOK_SECONDS)
            for kind, values in receive() if readable else ():
                if kind == "report":
                    self.performer.report(*values)
                elif kind == "save":
                    self.performer.save(*values)
                else:
                    ended = msgspec.convert(values, Outcome)
            if ended is None and (code is not None or receive.is_over):
                break
            if code is None and not readable:
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
        return _Ended(code, usage, overran or code == -signal.SIGXCPU, stopped)


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


class _Receiver:
    """Reads messages, each preceded by its length."""

    def __init__(self, reader: int) -> None:
        self.reader = reader
        self.is_over = False
        self._bytes = bytearray()

    def __call__(self) -> list[tuple[str, Any]]:
        """The messages that are complete after one more read."""
        data = os.read(self.reader, 1 << 20)
        self.is_over = not data
        self._bytes += data
        messages = []
        while len(self._bytes) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._bytes)[0]
            if len(self._bytes) < end:
                break
            messages.append(_decode(self._bytes[_LENGTH.size : end]))
            del self._bytes[:end]
        return messages


def _send(writer: int, kind: str, values: object) -> None:
    message = _encode((kind, values))
    data = memoryview(_LENGTH.pack(len(message)) + message)
    while data:
        data = data[os.write(writer, data) :]
