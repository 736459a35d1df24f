"""The asyncio executor: many async functions at once, on one event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Call, Performer
from packmule.worker.scoreboard import Scoreboard


class AsyncioExecutor:
    """Performs up to `limit` async jobs at once, and calls `done` with each outcome in the loop's thread.

    The loop starts with the first job.
    """

    def __init__(
        self, performer: Performer, scoreboard: Scoreboard, done: Callable[[Outcome], object], limit: int
    ) -> None:
        self.performer = performer
        self.scoreboard = scoreboard
        self.done = done
        self.limit = limit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._reasons: dict[str, BaseException] = {}
        self._busy = 0

    @property
    def free(self) -> int:
        """How many more jobs it can start."""
        return self.limit - self._busy

    def start(self, call: Call) -> None:
        """Start the job beside the others; `free` must be positive."""
        self._busy += 1
        entry = self.scoreboard.take()
        self.scoreboard.start(entry, call.job.id, call.job.execution, call.job.timeout)
        self._running_loop().call_soon_threadsafe(self._begin, call, entry)

    def interrupt(self, execution: str, error: BaseException) -> None:
        """Cancel the job's task because of `error`; does nothing if the job has ended."""
        if self._loop:
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

    def _begin(self, call: Call, entry: int) -> None:
        task = asyncio.get_running_loop().create_task(self._perform(call, entry))
        self._tasks[call.job.execution] = task  # this reference keeps it from being collected

    async def _perform(self, call: Call, entry: int) -> None:
        execution = call.job.execution
        ended = await self.performer.perform_async(call, lambda: self._reasons.get(execution))
        self._tasks.pop(execution, None)
        self._reasons.pop(execution, None)
        self.scoreboard.give_back(entry)
        self._busy -= 1
        self.done(ended)

    def _cancel(self, execution: str, error: BaseException) -> None:
        if task := self._tasks.get(execution):
            self._reasons[execution] = error
            # After its first step: a task that is canceled before it ends without an outcome.
            asyncio.get_running_loop().call_soon(task.cancel)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
