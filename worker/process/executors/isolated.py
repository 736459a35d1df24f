"""The isolated process: it performs the call that it was forked for, and those that its worker sends."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from rq.timeouts import JobTimeoutException

from packmule import hooks
from packmule.jobs import context
from packmule.jobs.job_type import Traits
from packmule.jobs.sealing import seal
from packmule.worker.deadlines import LOOK
from packmule.worker.kernel import adopt_orphans, die_with_parent, limit, mask_signals, own_memory, unlimit
from packmule.worker.process.call import Call
from packmule.worker.process.executors.inline import InlineExecutor
from packmule.worker.process.executors.pipe import SaidByPipe, receive_call, send
from packmule.worker.process.executors.remains import Connections, Remains
from packmule.worker.process.performer import Performer, Result
from packmule.worker.subprocesses import kill_children

NICENESS = 5
"""How much an isolated process gives way to workers, whose jobs mostly wait and are short."""

HELD_BACK = {signal.SIGTERM, signal.SIGINT, LOOK}

_SHAKEN = (MemoryError, SystemError, JobTimeoutException)
"""Errors that cut short what was done, so that a library may be in any state."""

_quietly = contextlib.suppress(Exception)


class Isolated:
    """What a process that was just forked, with `HELD_BACK` blocked, does until it ends.

    By a pipe it gets calls, and sends what jobs report and how they end, and `ready` once it may perform
    another. Then nothing of the last job is left that it can see.
    """

    def __init__(self, inline: InlineExecutor, performer: Performer) -> None:
        self.inline = inline
        self.performer = performer
        self.connections = Connections()
        """What it must not inherit."""
        self._pipe = -1
        self._memory = 0
        self._goes_on = False
        """Whether the error that ended the last job, if any, is one after which the process goes on."""
        self._sends = tuple(map(self._sends_as, ("report", "save", "spend")))  # made once, for all forks
        self._sending = threading.Lock()
        self._sender = 0
        """The thread that sends."""

    def live(self, call: Call, pipe: int) -> None:
        """Perform the call, and those that follow it, and end.

        Each page of memory that this touches is copied, so it does little.
        """
        code = 1
        traits = call.type.traits
        try:
            self._pipe = pipe
            self.connections.drop()
            self._settle(traits)
            left = traits.reuse
            if call.leaves_network:
                context.leaving.append(seal)
                left = 1
            elif traits.network is not True:
                seal()
            if traits.max_memory is not None:
                self._memory = own_memory()[0] + traits.max_memory
            before = Remains() if left > 1 else None
            while self._perform(call) and (left := left - 1) and before and before.are_all():
                self._send("ready", None)
                job, fence = receive_call(self._pipe)
                if fence is not None:
                    self.performer.fences[job.execution] = fence
                found = self.performer.prepare(job)
                if not isinstance(found, Call):
                    self._send("outcome", found)
                    break
                call = found
                self.inline.expect(job.execution)
            code = 0
        finally:
            if code:
                _flush_output()
            os._exit(code)

    def _settle(self, traits: Traits) -> None:
        """Become a process of its own, with nothing of the worker's in its hands."""
        performer = self.performer
        os.setpgid(0, 0)
        die_with_parent(performer.process)
        adopt_orphans()
        gc.freeze()
        performer.process = os.getpid()
        os.nice(NICENESS)
        performer.report, performer.save, performer.spend = self._sends
        if hear := performer.hear:
            performer.hear = lambda *job: SaidByPipe(hear(*job).level, self._send)
        note_error = performer.note_error

        def noted(id: str, error: BaseException) -> None:
            self._goes_on = _is_foreseen(error, traits)
            if note_error:
                note_error(id, error)

        performer.note_error = noted
        performer.watch = lambda *_: contextlib.nullcontext()  # the worker shows the job already

    def _perform(self, call: Call) -> bool:
        """Perform the call and send how it ended; whether it returned, or raised what its type declares."""
        performer, traits = self.performer, call.type.traits
        self._goes_on = False
        if traits.max_cpu is not None:
            limit(resource.RLIMIT_CPU, int(time.process_time() + traits.max_cpu + 0.999))
        if traits.max_memory is not None:
            limit(resource.RLIMIT_AS, self._memory)
        started = time.time()
        try:
            mask_signals(signal.SIG_UNBLOCK, HELD_BACK)
            ended = self.inline.perform(call, performer.run)
            if traits.max_memory is not None:
                unlimit(resource.RLIMIT_AS)
        except MemoryError as error:  # not even enough memory for the outcome
            unlimit(resource.RLIMIT_AS)
            ended = performer.ended_by(call, error.__context__ or error, started)
        hooks.flush()  # before the outcome: this process may be killed after it
        _flush_output()
        kill_children()
        is_result = isinstance(ended, Result)
        self._send("result" if is_result else "outcome", ended)
        mask_signals(signal.SIG_BLOCK, HELD_BACK)
        if self._goes_on:
            gc.collect()  # frames that the error's traceback has kept in cycles hold the job's memory
        return is_result or self._goes_on

    def _sends_as(self, kind: str) -> Callable[..., None]:
        return lambda *values: self._send(kind, values)

    def _send(self, kind: str, values: Any) -> None:
        """Send a whole message, whatever other threads send and whatever signal comes meanwhile."""
        if self._sender == threading.get_ident():
            return  # a finalizer says something while this thread sends
        before = mask_signals(signal.SIG_BLOCK, HELD_BACK)
        try:
            with self._sending:
                self._sender = threading.get_ident()
                try:
                    send(self._pipe, kind, values)
                finally:
                    self._sender = 0
        finally:
            mask_signals(signal.SIG_SETMASK, before)


def _is_foreseen(error: BaseException, traits: Traits) -> bool:
    """Whether the type gives up on this error, and neither it nor what led to it leaves doubts behind."""
    behind, known = [error], {id(error)}
    for each in behind:
        if not isinstance(each, Exception) or isinstance(each, _SHAKEN):
            return False
        parts = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        for other in (each.__cause__, each.__context__, *parts):
            if other is not None and id(other) not in known:
                known.add(id(other))
                behind.append(other)
    return isinstance(error, traits.give_up_on)


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with _quietly:
            stream.flush()
