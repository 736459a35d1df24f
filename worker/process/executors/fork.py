"""The fork executor: an isolated job in a process of its own, with limits on memory and processor time."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from packmule.jobs.host_shares import Shares
from packmule.jobs.interrupts import Interrupted, Killed
from packmule.jobs.storage.temporary import remove_soon
from packmule.worker.crash_report import CrashReport, report_crash
from packmule.worker.deadlines import LOOK
from packmule.worker.kernel import mask_signals, out_of_memory_kills
from packmule.worker.process import outcome
from packmule.worker.process.call import Call
from packmule.worker.process.executors.following import Ended, Following, IsolatedProcess
from packmule.worker.process.executors.imports import await_imports
from packmule.worker.process.executors.inline import InlineExecutor, unmarked
from packmule.worker.process.executors.isolated import HELD_BACK, Isolated
from packmule.worker.process.executors.pipe import pipe
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Done, Performer, Result, with_result
from packmule.worker.scoreboard import ISOLATED, Scoreboard

STAY_SECONDS = 0.02
"""How long the main thread stays with an isolated job. After that it performs others: mails, for instance,
don't wait for a large image. It's less than the completer's `LONG_SECONDS`."""

LONGEST_LOOK = 3600.0
FORK_AGAIN_SECONDS = 1.0

NO_ROOM = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
"""The errors of a system that has no room for another process now."""

log = logging.getLogger("packmule.worker")


class _Run(NamedTuple):
    """A call that is performed, who is called at its end, and when it began by both clocks."""

    call: Call
    done: Done
    started: float
    began: float


class ForkExecutor:
    """Performs one job at a time in a process forked for it; progress and checkpoints come by a pipe.

    A process that lives is kept for the next job if that type's `reuse` allows it. `record_crash` is
    called with a call whose process died, and the report. Each job takes one of the `places` that the pool's
    processes share, if those are limited.
    """

    def __init__(
        self,
        inline: InlineExecutor,
        performer: Performer,
        scoreboard: Scoreboard,
        record_crash: Callable[[Call, CrashReport], None],
        worker: str,
        most: int,
        places: Shares | None,
    ) -> None:
        self.inline = inline
        self._isolated = Isolated(inline, performer)
        self.performer = performer
        self.scoreboard = scoreboard
        self.record_crash = record_crash
        self.worker = worker
        self.most = most
        self.places = places
        self._execution = ""
        """What runs, or is about to."""
        self._process: IsolatedProcess | None = None
        """The process that runs now, or is kept."""
        self._broken_off: BaseException | None = None
        self._kills = out_of_memory_kills()

    @property
    def free(self) -> int:
        """How many calls it can start: short ones end before `start` returns."""
        is_full = self._execution or (self.places and not self.places.has_free)
        return 0 if is_full else self.most

    def start(self, call: Call, done: Done) -> None:
        """Perform the call, and call `done` at its end: here if that is soon, or in a thread."""
        if self.places and not self.places.take():  # another process was faster
            done(call, outcome.returned(call.job))
            return
        run = _Run(call, done, time.time(), time.monotonic())
        try:
            process = self._process_for(call)
        except OSError as full:
            if full.errno not in NO_ROOM:
                raise
            log.warning("job %s waits: no process can be forked for it (%s)", call.job.id, full)
            time.sleep(FORK_AGAIN_SECONDS)  # only a job of a group waits in Redis
            self._end(run, outcome.postponed(call.job, FORK_AGAIN_SECONDS))
            return
        following = Following(process, call, self.performer, self.scoreboard)
        ended = following.look(STAY_SECONDS)
        if ended is None:
            self.scoreboard.show_isolated(process.pid)
            threading.Thread(target=self._stay, args=[run, following], name="isolated", daemon=True).start()
        else:
            self._end(run, ended)

    def interrupt(self, execution: str, error: BaseException) -> None:
        """Interrupt the process, which finds out why; or kill it if the worker breaks the job off."""
        process = self._process
        if execution != self._execution or process is None:
            return
        if isinstance(error, Interrupted | Killed):
            self._broken_off = error
            process.kill()
        else:
            process.signal(LOOK)

    def close(self) -> None:
        """End the process that is kept; a job that still runs is abandoned."""
        if not self._execution:
            self._discard()
        self._isolated.connections.close()

    def _process_for(self, call: Call) -> IsolatedProcess:
        """The process that performs the call from now on: the one that is kept, or else a new one."""
        job = call.job
        # Signals wait until the process is known, so that none is lost in between.
        mask_signals(signal.SIG_BLOCK, HELD_BACK)
        try:
            self._execution, self._broken_off = job.execution, None
            self.inline.expect(job.execution)
            self.scoreboard.start(ISOLATED, job.id, job.execution, job.timeout)
            kept = self._process
            is_plain = job.due is None and job.recorded is None
            # A process that has left the network has left it for good.
            is_plain = is_plain and not call.leaves_network
            fence = self.performer.fences.get(job.execution)
            if not (kept and is_plain and kept.type is call.type and kept.take(call, fence)):
                self._discard()
                kept = self._process = self._forked(call)
            return kept
        finally:
            mask_signals(signal.SIG_UNBLOCK, HELD_BACK)

    def _forked(self, call: Call) -> IsolatedProcess:
        sys.stdout.flush()
        sys.stderr.flush()
        self._isolated.connections.note()
        await_imports()
        ours, theirs = pipe()
        pid = -1
        try:
            pid = os.fork()
            if pid == 0:
                os.close(ours)
                self._isolated.live(call, theirs)
        finally:
            os.close(theirs)
            if pid < 0:
                os.close(ours)
        self.inline.note_children()
        return IsolatedProcess(pid, call.type, ours)

    def _stay(self, run: _Run, following: Following) -> None:
        """Follow a job to its end, in a thread."""
        try:
            while (ended := following.look(LONGEST_LOOK)) is None:
                pass
            self._end(run, ended)
        except Exception:
            # A worker that doesn't know how its job ended would never end: it's better to die and be rescued.
            log.exception("the worker can't follow its isolated process, and exits")
            os._exit(1)

    def _end(self, run: _Run, ended: Result | Outcome | Ended) -> None:
        call, job = run.call, run.call.job
        running = self.scoreboard.read_one(ISOLATED) if isinstance(ended, Ended) else None
        broken_off = self._broken_off
        self.scoreboard.clear(ISOLATED)
        if isinstance(ended, Ended) or call.type.traits.reuse == 1:
            self._discard()
        if isinstance(ended, Ended):
            remove_soon()
        if self.places:
            self.places.give_back()
        self._execution = ""
        if isinstance(ended, Result):
            ended = with_result(call, ended)
        if isinstance(ended, Outcome):
            run.done(call, unmarked(ended, time.monotonic() - run.began))
        elif error := broken_off or ended.error(running):
            run.done(call, self.performer.ended_by(call, error, run.started))
        else:
            # A crash is not a failure: the job runs again, unless it has crashed too often.
            memory = call.type.traits.max_memory
            report = report_crash(self.worker, ended.code, running, ended.usage, self._kills, memory)
            self._kills = out_of_memory_kills()
            if self.performer.note_error:
                self.performer.note_error(job.id, Killed(report.cause))
            self.record_crash(call, report)  # which ends the claim, too
            run.done(call, None)

    def _discard(self) -> None:
        process, self._process = self._process, None
        if process:
            process.close()
