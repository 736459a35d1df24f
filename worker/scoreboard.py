"""The scoreboard: shared memory in which a worker process shows its pool the jobs that it runs."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple
from zlib import crc32

import msgspec

from packmule.coordination.redis.replies import UNREADABLE

_ID_BYTES = 219
_JOB = struct.Struct("<dd220p256p")
_SIGN = struct.Struct("<I")
_CHECKSUM_AT = _JOB.size
_STOP_REQUESTED_AT = _CHECKSUM_AT + _SIGN.size
_ENTRY_BYTES = _STOP_REQUESTED_AT + _SIGN.size
_EMPTY = bytes(_ENTRY_BYTES)
_NO_STOP = bytes(_SIGN.size)
_REGISTERED, _CONCURRENT, _UNWATCHED = range(3)
_PID_AT, _ISOLATED_AT = 4, 8
_HELD_AT = 12
_LENGTH = struct.Struct("<I")
_TEXT_BYTES = 4096
_SHORTENED = " ... "
_LOCKS_AT = _HELD_AT + _LENGTH.size + _TEXT_BYTES
_HEADER = _LOCKS_AT + _LENGTH.size + _TEXT_BYTES

MAIN, ISOLATED = 0, 1
"""The entries of the main thread, which runs plain functions, and of the isolated process."""


class RunningJob(NamedTuple):
    """The job `id` (see `shown_id`), which runs under `execution` and is shown in `entry`.

    `started` and `deadline` are monotonic instants. If `stop_requested`, it is to stop before its deadline.
    """

    entry: int
    id: str
    execution: str
    started: float
    deadline: float
    stop_requested: bool


class HeldLock(NamedTuple):
    """A lock that a process holds, and what its release takes."""

    name: str
    value: str
    fence: int


class Scoreboard:
    """Written by one process and read by its parent, across a fork, without locks and system calls.

    Each entry has a checksum, because a process may lose its processor in the middle of a write: a reader
    takes half an entry for none. The parent writes a sign that a job is asked to stop. It names its
    execution, so it never applies to the job that takes the entry next.
    """

    def __init__(self, entries: int = 1, wake: Callable[[], object] | None = None) -> None:
        self.entries = entries + ISOLATED
        self._wake = wake
        self._memory = mmap.mmap(-1, _HEADER + self.entries * _ENTRY_BYTES)
        self._free = list(range(self.entries - 1, ISOLATED, -1))

    @classmethod
    def of_worker(cls, threads: int, tasks: int, wake: Callable[[], object] | None = None) -> Scoreboard:
        """A scoreboard for a worker with this many `threads`, and `tasks` on its event loop.

        `wake` ends the parent's sleep (see `ask_to_wake`).
        """
        return cls(1 + tasks + (threads if threads > 1 else 0), wake)

    def register(self) -> None:
        """Show that the worker, this process, has registered and wants its heartbeat from now on."""
        self._memory[_PID_AT : _PID_AT + _LENGTH.size] = _LENGTH.pack(os.getpid())
        self._memory[_REGISTERED] = 1

    def deregister(self) -> None:
        """Show that the worker signs off, and that no heartbeat may follow."""
        self._memory[_REGISTERED] = 0

    @property
    def is_registered(self) -> bool:
        """Whether the worker is registered now."""
        return self._memory[_REGISTERED] == 1

    @property
    def pid(self) -> int:
        """The process that registered, 0 before."""
        (pid,) = _LENGTH.unpack(self._memory[_PID_AT : _PID_AT + _LENGTH.size])
        return int(pid)

    def ask_to_wake(self) -> None:
        """Have the worker call `wake` when it next starts a job, since nobody looks until then."""
        self._memory[_UNWATCHED] = 1

    def show_held(self, executions: Sequence[str]) -> None:
        """Show what the worker holds, in order, while others could perform some of it or more may arrive."""
        self._write_text(_HELD_AT, " ".join(executions).encode())

    def held(self) -> list[str]:
        """The executions that `show_held` shows, in order."""
        return self._read_text(_HELD_AT).decode(errors="replace").split()

    def show_locks(self, locks: Sequence[HeldLock]) -> None:
        """Show locks of singletons that end with this process, for its parent to release if it dies."""
        self._write_text(_LOCKS_AT, msgspec.json.encode(locks))

    def locks(self) -> list[HeldLock]:
        """The locks that `show_locks` shows; none if the process died while it wrote them."""
        try:
            return msgspec.json.decode(self._read_text(_LOCKS_AT), type=list[HeldLock])
        except UNREADABLE:
            return []

    @property
    def is_concurrent(self) -> bool:
        """Whether jobs have run beside the main thread's."""
        return self._memory[_CONCURRENT] == 1

    @property
    def isolated(self) -> int:
        """The isolated process that runs beside the main thread, 0 if there is none."""
        (pid,) = _LENGTH.unpack(self._memory[_ISOLATED_AT : _ISOLATED_AT + _LENGTH.size])
        return int(pid)

    def show_isolated(self, pid: int) -> None:
        """Show the isolated process that runs beside the main thread, or 0 before it is reaped."""
        self._memory[_CONCURRENT] = 1
        self._memory[_ISOLATED_AT : _ISOLATED_AT + _LENGTH.size] = _LENGTH.pack(pid)

    def take(self) -> int:
        """A free entry, for a job beside the main thread's. Raises `IndexError` if none is free."""
        self._memory[_CONCURRENT] = 1
        return self._free.pop()

    def give_back(self, entry: int) -> None:
        """Clear an entry that was taken, and free it."""
        self.clear(entry)
        self._free.append(entry)

    def start(self, entry: int, id: str, execution: str, timeout: float) -> None:
        """Show that the job runs from now on; `timeout` in seconds, zero or less for none."""
        now = time.monotonic()
        deadline = now + timeout if timeout > 0 else float("inf")
        at = _HEADER + entry * _ENTRY_BYTES
        shown = id.encode()
        if len(shown) > _ID_BYTES:
            shown = _shortened(shown)
        written = _JOB.pack(now, deadline, shown, execution.encode())
        self._memory[at : at + _ENTRY_BYTES] = written + _SIGN.pack(crc32(written)) + _NO_STOP
        if self._memory[_UNWATCHED] and self._wake:
            self._memory[_UNWATCHED] = 0
            self._wake()

    @contextmanager
    def watched(self, id: str, execution: str, timeout: float) -> Iterator[None]:
        """Show a job while the block runs, in the main thread, which has yet to find who performs it."""
        self.start(MAIN, id, execution, timeout)
        try:
            yield
        finally:
            self.clear(MAIN)

    def prolong(self, execution: str, seconds: float) -> None:
        """Let the job that runs under `execution` end no sooner than in `seconds`; the job itself asks."""
        until = time.monotonic() + seconds
        for entry in range(self.entries):  # most jobs are in the first
            job = self.read_one(entry)
            if job is None or job.execution != execution:
                continue
            if job.deadline < until:
                at = _HEADER + entry * _ENTRY_BYTES
                written = _JOB.pack(job.started, until, job.id.encode(), execution.encode())
                self._memory[at : at + _STOP_REQUESTED_AT] = written + _SIGN.pack(crc32(written))
            return

    def clear(self, entry: int) -> None:
        """Show that no job runs there."""
        at = _HEADER + entry * _ENTRY_BYTES
        self._memory[at : at + _ENTRY_BYTES] = _EMPTY

    def request_stop(self, job: RunningJob) -> None:
        """Ask this job to stop; a job that has taken its entry meanwhile is not affected."""
        at = _HEADER + job.entry * _ENTRY_BYTES + _STOP_REQUESTED_AT
        self._memory[at : at + _SIGN.size] = _SIGN.pack(_sign(job.execution))

    def read(self) -> list[RunningJob]:
        """The jobs that run now."""
        return [running for entry in range(self.entries) if (running := self.read_one(entry))]

    def read_one(self, entry: int) -> RunningJob | None:
        """The job that runs in `entry` now, or None."""
        at = _HEADER + entry * _ENTRY_BYTES
        seen = self._memory[at : at + _ENTRY_BYTES]
        written = seen[:_CHECKSUM_AT]
        if seen == _EMPTY or _SIGN.pack(crc32(written)) != seen[_CHECKSUM_AT:_STOP_REQUESTED_AT]:
            return None
        started, deadline, id, execution = _JOB.unpack(written)
        name = execution.decode(errors="replace")
        is_asked = seen[_STOP_REQUESTED_AT:] == _SIGN.pack(_sign(name))
        return RunningJob(entry, id.decode(errors="replace"), name, started, deadline, is_asked)

    def close(self) -> None:
        """Release the memory."""
        self._memory.close()

    def _write_text(self, at: int, text: bytes) -> None:
        if len(text) > _TEXT_BYTES:
            text = b""
        begin = at + _LENGTH.size
        self._memory[begin : begin + len(text)] = text
        self._memory[at:begin] = _LENGTH.pack(len(text))

    def _read_text(self, at: int) -> bytes:
        begin = at + _LENGTH.size
        (length,) = _LENGTH.unpack(self._memory[at:begin])
        return self._memory[begin : begin + min(length, _TEXT_BYTES)]


def shown_id(id: str) -> str:
    """The id as a scoreboard shows it: whole, or its beginning and a hash if it is too long."""
    data = id.encode(errors="replace")
    return id if len(data) <= _ID_BYTES else _shortened(data).decode()


def is_shortened(id: str) -> bool:
    """Whether a shown id may not be the whole one."""
    return _SHORTENED in id


def _shortened(data: bytes) -> bytes:
    end = (_SHORTENED + hashlib.sha256(data).hexdigest()).encode()
    return data[: _ID_BYTES - len(end)].decode(errors="ignore").encode() + end


def _sign(execution: str) -> int:
    return crc32(execution.encode()) | 1
