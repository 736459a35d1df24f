"""Dumping: a pool collects the stacks of a worker, a bit at each of its looks, and waits for nobody."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from packmule.jobs.stacks import MOST_CHARACTERS, StackDump
from packmule.worker.stacks import SIGNAL, Stacks
from packmule.worker.subprocesses import descendants

ANSWER_SECONDS = 0.6
"""How long a worker's thread has to answer before signals are sent instead."""

SIGNAL_SECONDS = 0.6
"""How long all threads together have that get a signal."""

QUIET_SECONDS = 0.2
"""A thread that has written nothing for this long has ended, where the kernel doesn't tell."""

MOST_PROCESSES, MOST_THREADS = 8, 8

_BIT = 1 << (SIGNAL - 1)
_STATES = {
    "T": "it is stopped by a signal",
    "D": "it waits in the kernel, such as for a disk",
    "Z": "it has ended",
}


class _Thread(NamedTuple):
    """A thread that is to write its stack by itself."""

    pid: int
    tid: int


class Dumping:
    """A dump of the stacks of the worker `pid` that is under way; `look` again until it returns the dump.

    First the worker's thread is asked. If it doesn't answer, the main thread and those that use a processor
    get the signal: one of them keeps the interpreter's lock. What the worker has forked gets it in any case.
    """

    def __init__(self, stacks: Stacks, pid: int, jobs: tuple[str, ...] = ()) -> None:
        self._stacks = stacks
        self._pid = pid
        self._jobs = jobs
        self._parts: list[str] = []
        self._is_whole = True
        self._left: list[_Thread] | None = None
        self._until = time.monotonic() + ANSWER_SECONDS
        stacks.ask()

    def look(self) -> StackDump | None:
        """The dump, once all have written or their time is over."""
        if self._left is None and not self._has_answered():
            return None
        while self._left:
            text = self._stacks.written()
            if self._has_written(text):
                self._end(self._stacks.written())
            elif time.monotonic() > self._until:
                self._is_whole = False
                self._end(text or _silence(self._left[0].pid))
            else:
                return None
        text = "\n".join(self._parts)
        is_whole = self._is_whole and len(text) <= MOST_CHARACTERS
        return StackDump(os.urandom(8).hex(), time.time(), text[:MOST_CHARACTERS], self._jobs, is_whole)

    def _has_answered(self) -> bool:
        """Whether the worker's thread has answered or never will; then the others are up."""
        text = self._stacks.answered()
        if text is None and time.monotonic() <= self._until:
            return False
        forked = [_Thread(pid, pid) for pid in _forked_from(self._pid)][: MOST_PROCESSES - 1]
        if text is None:
            self._parts.append(
                f"Process {self._pid} holds Python's lock in C code, or gets no processor time. "
                "Its main thread and those that run:\n"
            )
            self._is_whole = False
            self._left = [*_busy(self._pid), *forked]
        else:
            self._parts.append(f"Process {self._pid}, the worker:\n\n{text}")
            self._left = forked
        self._until = time.monotonic() + SIGNAL_SECONDS
        self._begin()
        return True

    def _begin(self) -> None:
        """Send the signal to the next thread."""
        if self._left:
            pid, tid = self._left[0]
            self._seen, self._wrote_at = "", time.monotonic()
            self._blocked_before = _is_blocked(pid, tid)
            self._stacks.signal(pid, tid)

    def _end(self, text: str) -> None:
        if not self._left:
            return
        pid, _ = self._left.pop(0)
        title = "" if pid == self._pid else f"Process {pid}, forked from it, its main thread:\n\n"
        self._parts.append(f"{title}{text.rstrip()}\n")
        self._begin()

    def _has_written(self, text: str) -> bool:
        """Whether the thread has written all: a handler that runs blocks its signal."""
        if not text or not self._left:
            return False
        pid, tid = self._left[0]
        if text != self._seen:
            self._seen, self._wrote_at = text, time.monotonic()
        if not self._blocked_before and Path(f"/proc/{pid}/task").exists():
            return not _is_pending(pid, tid) and not _is_blocked(pid, tid)
        return time.monotonic() > self._wrote_at + QUIET_SECONDS


def _busy(pid: int) -> list[_Thread]:
    """The main thread of a process, and others that use a processor: they are in no call to the kernel."""
    tids = [int(path.name) for path in Path(f"/proc/{pid}/task").glob("[0-9]*")]
    running = [tid for tid in tids if tid != pid and _status(pid, tid).get("State", "")[:1] == "R"]
    return [_Thread(pid, tid) for tid in [pid, *sorted(running)[: MOST_THREADS - 1]]]


def _forked_from(pid: int) -> list[int]:
    """The processes that descend from a worker and run its program, so that they have its handler."""
    program = _program(pid)
    return [each for each in descendants(pid) if _program(each) == program and _has_handler(each)]


def _is_pending(pid: int, tid: int) -> bool:
    found = _status(pid, tid)
    return any(int(found.get(name, "0"), 16) & _BIT for name in ("SigPnd", "ShdPnd"))


def _is_blocked(pid: int, tid: int) -> bool:
    return bool(int(_status(pid, tid).get("SigBlk", "0"), 16) & _BIT)


def _has_handler(pid: int) -> bool:
    return bool(int(_status(pid, pid).get("SigCgt", "0"), 16) & _BIT)


def _status(pid: int, tid: int) -> dict[str, str]:
    """What the kernel tells of a thread."""
    try:
        lines = Path(f"/proc/{pid}/task/{tid}/status").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _program(pid: int) -> str:
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{pid}/exe").readlink())
    return ""


def _silence(pid: int) -> str:
    """Why a process may have written nothing."""
    found = _status(pid, pid)
    if not found:
        return "It has ended."
    if not _has_handler(pid):
        return f"It doesn't answer: its code has replaced the handler of {SIGNAL.name}."
    state = _STATES.get(found.get("State", "")[:1], "it blocks signals, or gets no processor time")
    return f"It did not answer within {ANSWER_SECONDS + SIGNAL_SECONDS:g} s: {state}."
