"""The fork executor: each isolated job in a fresh process, with limits on memory and processor time."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import struct
import sys
import time
from typing import Any, NamedTuple

import msgspec

from packmule.jobs import tracing
from packmule.worker.deadlines import LOOK, OVERRUN_SECONDS, STOP_SECONDS
from packmule.worker.kernel import address_space, die_with_parent, limit
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Call, Performer
from packmule.worker.scoreboard import MAIN, Scoreboard

LOOK_SECONDS = 0.05
KILL_EARLIER = 0.3
"""The isolated process is killed alone this many seconds before the pool would kill the whole worker."""

_LENGTH = struct.Struct("<I")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, Any]).decode


class Ended(NamedTuple):
    """How an isolated process ended without an outcome: exit code (negative for a signal) and usage."""

    code: int
    usage: resource.struct_rusage
    overran: bool
    stopped: bool


class ForkExecutor:
    """Performs one job at a time in a process forked for it; progress and checkpoints come by a pipe."""

    def __init__(self, performer: Performer, scoreboard: Scoreboard) -> None:
        self.performer = performer
        self.scoreboard = scoreboard
        self.pid = 0
        """The process that runs now, or 0."""

    def perform(self, call: Call) -> Outcome | Ended:
        """Perform the job; its entry of the scoreboard must be started."""
        sys.stdout.flush()
        sys.stderr.flush()
        reader, writer = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            self._be_child(call, writer, parent)
        os.close(writer)
        try:
            return self._follow(reader)
        finally:
            os.close(reader)
            self.pid = 0

    def _be_child(self, call: Call, writer: int, parent: int) -> None:
        code = 1
        try:
            os.setpgid(0, 0)
            die_with_parent(parent)
            gc.freeze()
            performer = self.performer
            performer.process = os.getpid()
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
                ended = performer.perform_interruptibly(call)
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

    def _follow(self, reader: int) -> Outcome | Ended:
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
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
                code = os.waitstatus_to_exitcode(status) if pid else None
            running = self.scoreboard.read_one(MAIN)
            now = time.monotonic()
            if self.performer.is_draining() and not drain_sent and code is None:
                drain_sent = True
                self._send(signal.SIGTERM)
            if running and running.stop_requested:
                asked_at = min(asked_at, now)
            stopped = now > asked_at + STOP_SECONDS - KILL_EARLIER
            overran = running is not None and now > running.deadline + OVERRUN_SECONDS - KILL_EARLIER
            if stopped or overran:
                break
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # with what the job started and left behind
        if code is None:
            _, status, usage = os.wait4(self.pid, 0)
            code = os.waitstatus_to_exitcode(status)
        if ended is not None:
            return ended
        return Ended(code, usage, overran or code == -signal.SIGXCPU, stopped)

    def kill(self) -> None:
        """Kill the process that runs now, with all processes that it started."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def look(self) -> bool:
        """Pass the signal `LOOK` to the process that runs now; whether there is one."""
        if self.pid:
            self._send(LOOK)
        return bool(self.pid)

    def _send(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signum)


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
