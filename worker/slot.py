"""A slot of shared memory in which a worker process tells its pool what it performs and until when."""

from __future__ import annotations

import mmap
import struct
import time
from typing import NamedTuple

_LAYOUT = struct.Struct("<?dd256p256p")

_CLOSED = bytes(_LAYOUT.size)
_OPEN = _LAYOUT.pack(True, 0, 0, b"", b"")


class Performing(NamedTuple):
    """The job of `id` under `execution`, started at and to end by two instants of the monotonic clock."""

    id: str
    execution: str
    started: float
    deadline: float


class Slot:
    """Written by one process and read by its parent, across a fork; no lock and no system call.

    A read that meets a write is repeated, so that it sees one job or the other and never a mixture.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _LAYOUT.size)

    def open(self) -> None:
        """Tell that the worker has registered, and that its heartbeat is wanted from now on."""
        self._memory[:] = _OPEN

    def leave(self) -> None:
        """Tell that the worker signs off, and that no heartbeat may follow."""
        self._memory[:] = _CLOSED

    def start(self, id: str, execution: str, timeout: float) -> None:
        """Tell that the job is performed from now on; `timeout` in seconds, none where zero or less."""
        now = time.monotonic()
        deadline = now + timeout if timeout > 0 else float("inf")
        self._memory[:] = _LAYOUT.pack(True, now, deadline, id.encode(), execution.encode())

    def clear(self) -> None:
        """Tell that nothing is performed."""
        self._memory[:] = _OPEN

    @property
    def is_open(self) -> bool:
        """Whether the worker is registered now."""
        return self._memory[0] != 0

    def read(self) -> Performing | None:
        """What is performed now, or None."""
        seen = self._memory[:]
        while (again := self._memory[:]) != seen:
            seen = again
        _, started, deadline, id, execution = _LAYOUT.unpack(seen)
        if not id:
            return None
        return Performing(id.decode(), execution.decode(), started, deadline)

    def close(self) -> None:
        """Release the memory."""
        self._memory.close()
