"""The inline executor: plain functions in the main thread, one after the other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from packmule.worker.process.call import Call
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Done, Performer
from packmule.worker.scoreboard import MAIN, Scoreboard
from packmule.worker.started import MARK_SECONDS
from packmule.worker.subprocesses import SHORTEST_START, Children, ask_for_child

Ended = TypeVar("Ended")


class InlineExecutor:
    """Performs jobs in the main thread; `start` returns when the job has ended. `free` is a constant."""

    def __init__(self, performer: Performer, scoreboard: Scoreboard, free: int) -> None:
        self.performer = performer
        self.scoreboard = scoreboard
        self.free = free
        self._execution = ""
        self._early: BaseException | None = None
        self._is_interrupted = False
        self._children: Children | None = None

    def start(self, call: Call, done: Done) -> None:
        """Perform the call, and pass its outcome to `done`."""
        job = call.job
        children = self._children = self._children or Children()  # the program may have some already
        began = time.monotonic()
        self._execution, self._early = job.execution, None
        self.scoreboard.start(MAIN, job.id, job.execution, job.timeout)
        ended = self.perform(call, self.performer.perform)
        if self._is_interrupted:
            self._is_interrupted = False
            children.kill_new()
        self.scoreboard.clear(MAIN)
        seconds = time.monotonic() - began
        if seconds >= SHORTEST_START:
            with contextlib.suppress(OSError):
                ask_for_child()
                children.note()
        done(call, unmarked(ended, seconds))

    def note_children(self) -> None:
        """Note that this thread has started a process that is no job's."""
        if self._children:
            self._children.note()

    def expect(self, execution: str) -> None:
        """Keep an interruption of this execution that comes before `perform`."""
        self._execution, self._early = execution, None

    def perform(self, call: Call, perform: Callable[[Call], Ended]) -> Ended | Outcome:
        """Perform the call by `perform` in the main thread, where a signal's handler may interrupt it."""
        performer = self.performer
        started = time.time()
        try:
            performer.in_body = True
            try:
                if self._early:
                    raise self._early
                return perform(call)
            finally:
                performer.in_body = False
                self._execution = ""
        except BaseException as error:  # it arrived between the body and its outcome
            return performer.ended_by(call, error, started)

    def interrupt(self, execution: str, error: BaseException) -> None:
        """Raise `error` here and now, once for each job: a signal's handler in the main thread calls it."""
        if execution == self._execution:
            if self.performer.in_body:
                self._execution, self._is_interrupted = "", True
                raise error
            self._early = error

    def close(self) -> None:
        """Nothing is left to end."""


def unmarked(ended: Outcome, seconds: float) -> Outcome:
    """The outcome of a job that ran for `seconds`, which were perhaps too few to be marked as started."""
    return msgspec.structs.replace(ended, is_marked=False) if seconds < MARK_SECONDS else ended
