"""The asyncio executor: many async functions at once, on one event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading

from packmule.worker.process.call import Call
from packmule.worker.process.performer import Done, Performer
from packmule.worker.scoreboard import Scoreboard


class AsyncioExecutor:
    """Performs up to `limit` async jobs at once; it calls `done` in the loop's thread.

    The loop starts with the first job.
    """

    def __init__(self, performer: Performer, scoreboard: Scoreboard, limit: int) -> None:
        self.performer = performer
        self.scoreboard = scoreboard
        self.limit = limit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[str, asyncio.Task[None] | None] = {}
        """What runs, by execution; None until the loop has begun it. This keeps tasks from collection."""
        self._reasons: dict[str, BaseException] = {}

    @property
    def free(self) -> int:
        """How many more jobs it can start."""
        return self.limit - len(self._tasks)

    def start(self, call: Call, done: Done) -> None:
        """Start the job beside the others; `free` must be positive."""
        loop = self._running_loop()
        self._tasks[call.job.execution] = None
        entry = self.scoreboard.take()
        self.scoreboard.start(entry, call.job.id, call.job.execution, call.job.timeout)
        loop.call_soon_threadsafe(self._begin, call, done, entry)

    def interrupt(self, execution: str, error: BaseException) -> None:
        """Cancel the job's task because of `error`; does nothing if the job has ended."""
        if self._loop and execution in self._tasks:
            self._loop.call_soon_threadsafe(self._cancel, execution, error)

    def close(self) -> None:
        """Stop the loop; jobs that still run are abandoned."""
        if self._loop:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=_run, args=[self._loop], name="asyncio", daemon=True).start()
        return self._loop

    def _begin(self, call: Call, done: Done, entry: int) -> None:
        execution = call.job.execution
        task = asyncio.get_running_loop().create_task(self._perform(call, done, entry))
        self._tasks[execution] = task
        if error := self._reasons.get(execution):  # it came before the task
            self._cancel(execution, error)

    async def _perform(self, call: Call, done: Done, entry: int) -> None:
        execution = call.job.execution
        ended = await self.performer.perform_async(call, lambda: self._reasons.get(execution))
        self._reasons.pop(execution, None)
        self.scoreboard.give_back(entry)
        del self._tasks[execution]
        done(call, ended)

    def _cancel(self, execution: str, error: BaseException) -> None:
        if execution in self._tasks:
            self._reasons[execution] = error
            if task := self._tasks[execution]:
                # After its first step: a task that is canceled before it ends without an outcome.
                asyncio.get_running_loop().call_soon(task.cancel)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
