"""Saying: what running jobs say is held back for a moment, and then goes to Redis together."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import NamedTuple

import msgspec

from packmule.jobs.said import Entry, Spoken
from packmule.units import KIB, MIB
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.outcome import Outcome

LINES_SECONDS = 0.5
"""A line leaves the process no later than about this after it was said."""

OUTPUT_SECONDS = 0.03
"""So does a chunk of output; those that come meanwhile go along."""

AGAIN_SECONDS = 1.0

MOST_AT_ONCE = MIB
"""Bytes after which a call takes nothing of further jobs."""

ENTRY_BYTES = 16 * KIB
"""Bytes after which a stream's entry is full: a stream is trimmed by whole entries."""


Words = tuple[str, str, int, tuple[Entry, ...], tuple[Entry, ...]]
"""What an execution of a job has said: the job, the execution, the attempt, and entries of both kinds."""


class Kind(NamedTuple):
    """A kind of pieces: each counts for `least` bytes at least, and `most` bytes are kept."""

    least: int
    most: int


LINES = Kind(262, 256 * KIB)  # 1,000 lines at most; lib/saying.lua has the same bounds
CHUNKS = Kind(1, MIB)


class Pieces:
    """Lines or chunks of one execution that have not been sent; the oldest are dropped if they are too many.

    It has no lock, which a finalizer or a fork might meet taken: any thread may add, and one takes.
    """

    __slots__ = ("_kept", "_kind", "_number", "dropped", "size")

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._kept: deque[bytes] = deque()
        self._number = 0
        self.size = 0
        """How many bytes are held back, about."""
        self.dropped = 0

    def add(self, piece: bytes) -> None:
        """Hold back one more."""
        least, most = self._kind
        self._kept.append(piece)
        self.size += max(least, len(piece) + 1)
        while self.size > most:
            try:
                self.size -= max(least, len(self._kept.popleft()) + 1)
            except IndexError:  # they have just been taken
                self.size = 0
                break
            self.dropped += 1

    def take(self) -> tuple[Entry, ...]:
        """All that is held back, as entries: each its number, how many it has, their bytes, and a JSON list.

        What was dropped before an entry counts in it, so that readers notice.
        """
        entries: list[Entry] = []
        left, self.size = len(self._kept), 0  # what is added meanwhile is for the next call
        while left:
            dropped, self.dropped = self.dropped, 0
            pieces, size = [], 0
            while left and size < ENTRY_BYTES:
                try:
                    pieces.append(self._kept.popleft())
                except IndexError:  # they have just been dropped
                    left = 0
                    break
                left -= 1
                size += max(self._kind.least, len(pieces[-1]) + 1)
            if not pieces:
                self.dropped += dropped
                break
            self._number += 1
            said = f"[{b','.join(pieces).decode()}]"  # a text, since Lua's msgpack knows no bytes
            entries.append((self._number, dropped + len(pieces), size, said))
        return tuple(entries)


class Said:
    """What one execution has said; `ask(is_output)` is called whenever it says something."""

    __slots__ = ("_ask", "attempt", "chunks", "has_said", "id", "level", "lines")

    def __init__(self, id: str, attempt: int, level: int, ask: Callable[[bool], None]) -> None:
        self.id = id
        self.attempt = attempt
        self.level = level
        self._ask = ask
        self.lines = Pieces(LINES)
        self.chunks = Pieces(CHUNKS)
        self.has_said = False

    def line(self, line: bytes) -> None:
        """Take a line of its log."""
        self.has_said = True
        self.lines.add(line)
        self._ask(False)

    def chunk(self, chunk: bytes) -> None:
        """Take a chunk of its output."""
        self.has_said = True
        self.chunks.add(chunk)
        self._ask(True)

    @property
    def size(self) -> int:
        """How many bytes are held back, about."""
        return self.lines.size + self.chunks.size

    def take(self) -> Spoken:
        """What was held back, for a script."""
        return self.attempt, self.lines.take(), self.chunks.take()


class Saying:
    """Holds back what the jobs of a worker say, and lets a thread of its own call `send` when it is due.

    `level` is the least level of lines that are kept. The thread starts with the first word. `send` calls
    `waiting`, and an acknowledgement `added_to`, and neither while the other is under way.
    """

    def __init__(self, send: Callable[[], object], level: int) -> None:
        self._send = send
        self.level = level
        self.spoken: dict[str, Said] = {}
        """The executions of which something is kept, and that have not ended."""
        self._asked: SimpleQueue[bool] = SimpleQueue()
        self._asked_until = self._hurried_until = 0.0
        self._process = os.getpid()
        self._starting = threading.RLock()
        self._has_thread = False

    def hear(self, id: str, execution: str, attempt: int) -> Said:
        """What takes the words of a job that runs here."""
        if (said := self.spoken.get(execution)) is None:
            said = self.spoken.setdefault(execution, Said(id, attempt, self.level, self._ask))
        return said

    def expect(self, job: Claimed) -> None:
        """An earlier run of this job has said something, which is to be kept as long as its record."""
        self.hear(job.id, job.execution, job.attempt).has_said = True

    def waiting(self, executions: list[str]) -> list[Words]:
        """What some of these `executions` have said since the last call, of so many as one call should take.

        They are taken off the list: one that never stops talking is asked once.
        """
        found: list[Words] = []
        size = 0
        while executions and size < MOST_AT_ONCE:
            execution = executions.pop()
            if (said := self.spoken.get(execution)) and (held := said.size):
                attempt, lines, chunks = said.take()
                if lines or chunks:
                    size += held
                    found.append((said.id, execution, attempt, lines, chunks))
        return found

    def forget(self, executions: Iterable[str]) -> None:
        """These have ended, or this worker has lost them; what their threads still say goes nowhere."""
        for execution in executions:
            self.spoken.pop(execution, None)

    def is_too_much(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether these have said more than should go along with them."""
        said = [found for each in outcomes if (found := self.spoken.get(each.execution))]
        return sum(each.size for each in said) > MOST_AT_ONCE

    def added_to(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """The outcomes, each with what its execution has said last, which says nothing from now on."""
        return [self._ended(each) for each in outcomes]

    def _ended(self, outcome: Outcome) -> Outcome:
        said = self.spoken.pop(outcome.execution, None)
        return msgspec.structs.replace(outcome, said=said.take()) if said and said.has_said else outcome

    def _ask(self, is_output: bool) -> None:
        """Let the thread send soon; it is asked once until it does.

        It is asked again after a while, since a job may be interrupted right here.
        """
        now = time.monotonic()
        if now < self._hurried_until or (now < self._asked_until and not is_output):
            return
        self._asked_until = now + AGAIN_SECONDS
        if is_output:
            self._hurried_until = self._asked_until
        if os.getpid() != self._process:
            return  # a child that a job forked may not use the worker's connection
        self._asked.put(is_output)
        if not self._has_thread:
            with self._starting:
                if not self._has_thread:
                    threading.Thread(target=self._run, name="said", daemon=True).start()
                    self._has_thread = True

    def _run(self) -> None:
        while True:
            is_hurried = self._asked.get()
            due = time.monotonic() + LINES_SECONDS
            while not is_hurried and (left := due - time.monotonic()) > 0:
                try:
                    is_hurried = self._asked.get(timeout=left)
                except Empty:
                    break
            if is_hurried:
                time.sleep(OUTPUT_SECONDS)
            self._asked_until = self._hurried_until = 0.0
            self._send()
