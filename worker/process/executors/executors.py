"""The executors of a worker, by the kind of call that each performs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from packmule.worker.crash_report import CrashReport
from packmule.worker.options import WorkerOptions
from packmule.worker.process.call import Call, Kind
from packmule.worker.process.executors.event_loop import AsyncioExecutor
from packmule.worker.process.executors.fork import ForkExecutor
from packmule.worker.process.executors.inline import InlineExecutor
from packmule.worker.process.executors.threads import ThreadsExecutor
from packmule.worker.process.performer import Done, Performer
from packmule.worker.scoreboard import Scoreboard


class Executor(Protocol):
    """Performs calls in one way."""

    @property
    def free(self) -> int:
        """How many more calls it can start."""

    def start(self, call: Call, done: Done) -> None:
        """Perform the call, here or beside the main thread, and call `done` once, in any thread."""

    def interrupt(self, execution: str, error: BaseException) -> None:
        """End this execution by `error`, soon; does nothing if it has ended, or runs elsewhere."""

    def close(self) -> None:
        """End what the executor has started; jobs that still run are abandoned."""


def executors_of(
    performer: Performer,
    scoreboard: Scoreboard,
    options: WorkerOptions,
    record_crash: Callable[[Call, CrashReport], None],
    worker: str,
) -> Mapping[Kind, Executor]:
    """The executors of `worker`; the fork's calls `record_crash` with a call whose process died.

    The inline one is the last, because interrupting a job there raises.
    """
    inline = InlineExecutor(performer, scoreboard, options.most)
    fork = ForkExecutor(inline, performer, scoreboard, record_crash, worker, options.most, options.isolated)
    event_loop = AsyncioExecutor(performer, scoreboard, options.tasks)
    if options.threads > 1:
        threads = ThreadsExecutor(performer, scoreboard, options.threads)
        return {"async": event_loop, "isolated": fork, "plain": threads, "inline": inline}
    return {"async": event_loop, "isolated": fork, "plain": inline}
