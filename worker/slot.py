"""Slots of shared memory in which a worker process tells its pool what it performs and until when."""

from __future__ import annotations

import mmap
import struct
import time
from typing import NamedTuple
from zlib import crc32

_LAYOUT = struct.Struct("<ddI220p256p")
_ASKED = struct.Struct("<I")
_ASKED_AT = 16
_EMPTY = bytes(_LAYOUT.size)
_HEADER = 8

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
    parent writes one thing: that a job is asked to stop, and a child takes that for the job it names only.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._memory = mmap.mmap(-1, _HEADER + count * _LAYOUT.size)
        self._free = list(range(count - 1, MAIN, -1))

    def open(self) -> None:
        """Tell that the worker has registered, and that its heartbeat is wanted from now on."""
        self._memory[0] = 1

    def leave(self) -> None:
        """Tell that the worker signs off, and that no heartbeat may follow."""
        self._memory[0] = 0

    @property
    def is_open(self) -> bool:
        """Whether the worker is registered now."""
        return self._memory[0] == 1

    def take(self) -> int:
        """A slot that is free, for a job beside the main thread's. Raises `IndexError` if none is."""
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
        self._memory[at : at + _LAYOUT.size] = _LAYOUT.pack(now, deadline, 0, id.encode(), execution.encode())

    def clear(self, slot: int) -> None:
        """Tell that nothing is performed there."""
        at = _HEADER + slot * _LAYOUT.size
        self._memory[at : at + _LAYOUT.size] = _EMPTY

    def ask_to_stop(self, performing: Performing) -> None:
        """Ask for this job's end; a job that has taken its slot meanwhile is not meant."""
        at = _HEADER + performing.slot * _LAYOUT.size + _ASKED_AT
        self._memory[at : at + _ASKED.size] = _ASKED.pack(_sign(performing.execution))

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
        started, deadline, asked, id, execution = _LAYOUT.unpack(seen)
        name = execution.decode()
        return Performing(slot, id.decode(), name, started, deadline, asked == _sign(name)) if id else None

    def close(self) -> None:
        """Release the memory."""
        self._memory.close()


def _sign(execution: str) -> int:
    return crc32(execution.encode()) | 1
