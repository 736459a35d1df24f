"""The threads executor: several plain functions at once, which mostly wait, in one process."""

from __future__ import annotations

import contextlib
import ctypes
import queue
import threading
import time

from packmule.worker.process.call import Call
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Done, Performer
from packmule.worker.scoreboard import Scoreboard
from packmule.worker.subprocesses import SHORTEST_START, Children, ask_for_child

_NOT_BEGUN = 0


class ThreadsExecutor:
    """Performs up to `limit` jobs at once, each in a thread, which calls `done`."""

    def __init__(self, performer: Performer, scoreboard: Scoreboard, limit: int) -> None:
        self.performer = performer
        self.scoreboard = scoreboard
        self.limit = limit
        self._calls: queue.SimpleQueue[tuple[Call, Done, int] | None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # a signal handler may run while its own thread holds it
        self._running: dict[str, int] = {}
        """The thread of each execution, or `_NOT_BEGUN`."""
        self._early: dict[str, BaseException] = {}
        """Interruptions of jobs that no thread has begun."""
        self._interrupted: set[str] = set()
        self._threads = 0
        self._busy = 0

    @property
    def free(self) -> int:
        """How many more jobs it can start."""
        return self.limit - self._busy

    def start(self, call: Call, done: Done) -> None:
        """Start the job in a free or new thread; `free` must be positive."""
        with self._lock:
            self._busy += 1
            self._running[call.job.execution] = _NOT_BEGUN
            entry = self.scoreboard.take()
        self.scoreboard.start(entry, call.job.id, call.job.execution, call.job.timeout)
        if self._busy > self._threads:
            self._threads += 1
            threading.Thread(target=self._run, name=f"jobs-{self._threads}", daemon=True).start()
        self._calls.put((call, done, entry))

    def interrupt(self, execution: str, error: BaseException) -> None:
        """Raise an error like `error` in the job's thread, at its next Python instruction."""
        with self._lock:
            ident = self._running.get(execution)
            if ident == _NOT_BEGUN:
                self._early[execution] = error
            elif ident is not None:
                self._interrupted.add(execution)
                _raise_in(ident, _kind_of(error))

    def close(self) -> None:
        """End idle threads; jobs that still run are abandoned."""
        for _ in range(self._threads):
            self._calls.put(None)

    def _run(self) -> None:
        children = Children()
        while item := self._calls.get():
            call, done, entry = item
            began = time.monotonic()
            ended = self._perform(call)
            if call.job.execution in self._interrupted:
                self._interrupted.discard(call.job.execution)
                children.kill_new()
            if time.monotonic() - began >= SHORTEST_START:
                with contextlib.suppress(OSError):
                    ask_for_child()
                    children.note()
            with self._lock:
                self.scoreboard.give_back(entry)
                self._busy -= 1
            done(call, ended)

    def _perform(self, call: Call) -> Outcome:
        execution, ident, started = call.job.execution, threading.get_ident(), time.time()
        try:
            with self._lock:
                self._running[execution] = ident
                early = self._early.pop(execution, None)
            ended = self.performer.ended_by(call, early, started) if early else self.performer.perform(call)
            with self._lock:
                del self._running[execution]  # from here on no interrupt is sent
                _raise_in(ident, None)  # and one that was sent too late is withdrawn
        except BaseException as error:
            self._running.pop(execution, None)
            ended = self.performer.ended_by(call, error, started)
        return ended


def _raise_in(ident: int, kind: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), kind and ctypes.py_object(kind))


def _kind_of(error: BaseException) -> type[BaseException]:
    """A type whose instances equal `error`: only a type can be raised in another thread."""
    kind = type(error)

    def says_the_same(self: BaseException) -> None:
        kind.__init__(self, *error.args)

    names = {"__init__": says_the_same, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind,), names)
