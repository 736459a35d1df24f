"""Slots of shared memory in which a worker process tells its pool what it performs and until when."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

_LAYOUT = struct.Struct("<ddII220p256p")
_SIGN = struct.Struct("<I")
_ASKED_AT = 16
_REVOKED_AT = 20
_NAMES_AT = 24
_EMPTY = bytes(_LAYOUT.size)
_OPEN, _MANIFOLD = range(2)
_HAND_AT = 8
_HAND_LENGTH = struct.Struct("<I")
_HAND_BYTES = 4096
_HEADER = _HAND_AT + _HAND_LENGTH.size + _HAND_BYTES

MAIN = 0
"""The slot of the main thread, in which plain functions run."""


class Performing(NamedTuple):
    """The job of `id` under `execution` in `slot`, started at and to end by two monotonic instants.

    `is_asked` tells that it is to stop before that.
    """

    slot: int
    id: str
    execution: str
    started: float
    deadline: float
    is_asked: bool


class Slots:
    """Written by one process and read by its parent, across a fork; no lock and no system call.

    A read that meets a write is repeated, so that it sees one job or the other and never a mixture. The
    parent writes that a job is asked to stop, and that the jobs behind one were returned: a child takes both
    for the job they name only.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._memory = mmap.mmap(-1, _HEADER + count * _LAYOUT.size)
        self._free = list(range(count - 1, MAIN, -1))

    def open(self) -> None:
        """Tell that the worker has registered, and that its heartbeat is wanted from now on."""
        self._memory[_OPEN] = 1

    def leave(self) -> None:
        """Tell that the worker signs off, and that no heartbeat may follow."""
        self._memory[_OPEN] = 0

    @property
    def is_open(self) -> bool:
        """Whether the worker is registered now."""
        return self._memory[_OPEN] == 1

    def hold_back(self, executions: Sequence[str]) -> None:
        """Tell what the worker has in hand, in order, where some of it is not begun or more may come."""
        text = " ".join(executions).encode()
        if len(text) > _HAND_BYTES:
            text = b""
        at = _HAND_AT + _HAND_LENGTH.size
        self._memory[at : at + len(text)] = text
        self._memory[_HAND_AT:at] = _HAND_LENGTH.pack(len(text))

    def held_back(self) -> list[str]:
        """What the worker has in hand, in order, if others could perform some of it, or what comes for it."""
        at = _HAND_AT + _HAND_LENGTH.size
        (length,) = _HAND_LENGTH.unpack(self._memory[_HAND_AT:at])
        return self._memory[at : at + length].decode().split()

    @property
    def is_manifold(self) -> bool:
        """Whether jobs have run beside the main thread's."""
        return self._memory[_MANIFOLD] == 1

    def take(self) -> int:
        """A slot that is free, for a job beside the main thread's. Raises `IndexError` if none is."""
        self._memory[_MANIFOLD] = 1
        return self._free.pop()

    def give_back(self, slot: int) -> None:
        """Empty a slot that was taken."""
        self.clear(slot)
        self._free.append(slot)

    def start(self, slot: int, id: str, execution: str, timeout: float) -> None:
        """Tell that the job is performed from now on; `timeout` in seconds, none where zero or less."""
        now = time.monotonic()
        deadline = now + timeout if timeout > 0 else float("inf")
        at = _HEADER + slot * _LAYOUT.size
        self._memory[at : at + _LAYOUT.size] = _LAYOUT.pack(
            now, deadline, 0, 0, id.encode(), execution.encode()
        )

    def clear(self, slot: int) -> None:
        """Tell that nothing is performed there."""
        at = _HEADER + slot * _LAYOUT.size
        self._memory[at : at + _LAYOUT.size] = _EMPTY

    def end(self, execution: str) -> bool:
        """Clear the main thread's slot; whether the jobs behind `execution` have been revoked."""
        at = _HEADER + MAIN * _LAYOUT.size
        # First that it has ended, then what the parent wrote: it looks again after it has written.
        self._memory[at + _NAMES_AT : at + _LAYOUT.size] = _EMPTY[_NAMES_AT:]
        revoked = self._memory[at + _REVOKED_AT : at + _NAMES_AT]
        self._memory[at : at + _LAYOUT.size] = _EMPTY
        return revoked != _EMPTY[: _SIGN.size] and _SIGN.unpack(revoked)[0] == _sign(execution)

    def ask_to_stop(self, performing: Performing) -> None:
        """Ask for this job's end; a job that has taken its slot meanwhile is not meant."""
        self._write_sign(performing, _ASKED_AT)

    def revoke(self, performing: Performing) -> None:
        """Tell that the worker may begin none of the jobs that it claimed with this one."""
        self._write_sign(performing, _REVOKED_AT)

    def read(self) -> list[Performing]:
        """What is performed now."""
        return [performing for slot in range(self.count) if (performing := self.read_one(slot))]

    def read_one(self, slot: int) -> Performing | None:
        """What is performed in `slot` now, None for nothing."""
        at = _HEADER + slot * _LAYOUT.size
        seen = self._memory[at : at + _LAYOUT.size]
        if seen == _EMPTY:
            return None
        while (again := self._memory[at : at + _LAYOUT.size]) != seen:
            seen = again
        started, deadline, asked, _, id, execution = _LAYOUT.unpack(seen)
        name = execution.decode()
        return Performing(slot, id.decode(), name, started, deadline, asked == _sign(name)) if id else None

    def close(self) -> None:
        """Release the memory."""
        self._memory.close()

    def _write_sign(self, performing: Performing, offset: int) -> None:
        at = _HEADER + performing.slot * _LAYOUT.size + offset
        self._memory[at : at + _SIGN.size] = _SIGN.pack(_sign(performing.execution))


def _sign(execution: str) -> int:
    return crc32(execution.encode()) | 1
