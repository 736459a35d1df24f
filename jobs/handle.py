"""The handle that an enqueue returns: a job's id that can be waited for, read and steered."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from packmule.errors import JobFailed
from packmule.jobs.spans import Span, in_seconds
from packmule.units import given_span

if TYPE_CHECKING:
    from packmule.jobs.client import Client
    from packmule.jobs.reader import JobInfo, Progress
    from packmule.jobs.said import Line
    from packmule.jobs.watch import Logs, Watch

P = ParamSpec("P")
T = TypeVar("T")

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5
"""Seconds between two looks at a job that is awaited; a tenth of what it has been awaited for."""


class JobRaised(JobFailed):
    """A job failed; `traceback` is the whole text of the error that ended it."""

    def __init__(self, text: str, traceback: str) -> None:
        super().__init__(text)
        self.traceback = traceback


class JobCanceled(JobFailed):
    """A job was canceled before it started, or stopped while it ran."""


class JobHandle(str):
    """The id of a job, with methods to read and control the job; it is a `str` of the plain id.

    Each read is one round trip to the server of the client that made the handle, and raises `NoSuchJob` once
    the job's time to live is over. The methods that begin with `a`, and `await_end`, are for coroutines: they
    never block the event loop, and no thread waits while the job runs.

    >>> handle = report.enqueue("2026-11")  # doctest: +SKIP
    >>> handle.status, handle.progress  # doctest: +SKIP
    ('started', Progress(done=4.0, total=12.0, message='adding up'))
    >>> handle.result(timeout=60)  # doctest: +SKIP
    '1 of 2026-11'
    """

    __slots__ = ("client",)

    client: Client

    def __new__(cls, id: str, client: Client) -> JobHandle:
        """The handle of the job called `id` on `client`'s server."""
        self = str.__new__(cls, id)
        self.client = client
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Pickled or copied it is the plain id, because a connection can't be."""
        return str, (str(self),)

    def refresh(self) -> JobInfo:
        """Everything known about the job now: arguments, times, attempts, progress, result and error."""
        return self.client.read(self)

    @property
    def status(self) -> str:
        """The job's status now, in RQ's words.

        That is `queued`, `scheduled`, `deferred`, `started`, `finished`, `failed`, `stopped` or `canceled`.
        """
        return self.refresh().status

    @property
    def progress(self) -> Progress | None:
        """The job's progress: `done` of `total` units, with a message; None before its first report."""
        return self.refresh().progress

    def wait(self, timeout: Span | None = None) -> JobInfo:
        """Wait until the job has ended in any way, and return everything known about it.

        Raises `TimeoutError` after `timeout` seconds.
        """
        return self.client.wait(self, timeout)

    def result(self, timeout: Span | None = None) -> Any:
        """Wait until the job has finished and return its value, as JSON carries it (a date is a text).

        Raises `JobRaised` if it failed, `JobCanceled` if it was canceled or stopped, `TimeoutError` after
        `timeout` seconds, and `NoSuchJob` if its result was kept for a shorter time.
        """
        return _value(self.wait(timeout))

    def logs(self, level: str = "debug") -> Logs:
        """The stored lines of the job's log, from `level` up: what it logged in all its attempts.

        Each has `at`, `level`, `text`, `fields` and `attempt`. Raises `UnknownLevel`.
        """
        return self.client.logs(self, level)

    def follow_logs(self, level: str = "debug", cursor: str = "0-0/0") -> Watch[Line]:
        """Iterate over the lines of the job's log, the stored ones and then live, until the job ends.

        Use `for` in a thread and `async for` in a coroutine. Raises `UnknownLevel` and `InvalidCursor`.
        """
        return self.client.follow_logs(self, level, cursor)

    def output(self, cursor: str = "0-0/0") -> Watch[Any]:
        """Iterate over what the job emits, the stored chunks and then live, until the job ends.

        Use `for` in a thread and `async for` in a coroutine. The watch's `dropped` counts the chunks that
        were gone before they could be read, and its `cursor` is where another watch can continue. Raises
        `InvalidCursor`.

        >>> for chunk in handle.output():  # doctest: +SKIP
        ...     print(chunk, end="", flush=True)
        """
        return self.client.output(self, cursor)

    def cancel(self, timeout: Span = 5.0) -> str:
        """Cancel the job, or stop it if it runs, and return its status then.

        That is `canceled`, `stopped`, or the status with which it had already ended. Raises `NotCanceled` if
        it still runs after `timeout` seconds.
        """
        return self.client.cancel(self, timeout)

    def retry(self) -> None:
        """Run the job again if it failed, was stopped or canceled. Raises `NotRetried` otherwise."""
        self.client.retry(self)

    def signal(self, name: str, data: Any = None) -> str:
        """Send the job the signal `name`, for which it may wait with `current.wait_for`, with JSON data.

        Returns `woken` if the job waited for it, or `kept` if the job gets it when it asks. Raises
        `NotSignaled` if the job has ended, or keeps too many signals, and `InvalidSignal` for data that can't
        be sent.
        """
        return self.client.signal(self, name, data)

    def read_token(self, seconds: Span = 600.0, *, output: bool = True) -> str:
        """A token that lets its bearer read this job, and nothing else, over the HTTP API for `seconds`.

        Give it to an application's user, whose browser follows the job with it: its status and progress, and
        with `output` what it emits and returns, but never arguments, logs or tracebacks. It is valid for a
        day at most. Raises `InvalidToken`.
        """
        from packmule.jobs.read_tokens import read_token  # noqa: PLC0415  most jobs have none

        return read_token(self.client.redis, "job", self, in_seconds(seconds, "seconds"), output=output)

    async def arefresh(self) -> JobInfo:
        """`refresh`, for coroutines."""
        return await in_thread(self.refresh)

    async def astatus(self) -> str:
        """`status`, for coroutines."""
        return (await self.arefresh()).status

    async def aprogress(self) -> Progress | None:
        """`progress`, for coroutines."""
        return (await self.arefresh()).progress

    async def await_end(self, timeout: Span | None = None) -> JobInfo:
        """`wait`, for coroutines."""
        import asyncio  # noqa: PLC0415  loaded already where there are coroutines, and slow to load

        seconds, began = math.inf if timeout is None else in_seconds(timeout, "timeout"), time.monotonic()
        while True:
            try:
                return await in_thread(self.wait, 0)
            except TimeoutError:
                waited = time.monotonic() - began
                if waited >= seconds:
                    raise TimeoutError(f"job {self} has not ended after {given_span(seconds)}") from None
            pause = min(max(FIRST_PAUSE, waited / 10), LONGEST_PAUSE)
            await asyncio.sleep(min(pause, seconds - waited))

    async def aresult(self, timeout: Span | None = None) -> Any:
        """`result`, for coroutines."""
        return _value(await self.await_end(timeout))

    async def alogs(self, level: str = "debug") -> Logs:
        """`logs`, for coroutines."""
        return await in_thread(self.logs, level)

    async def acancel(self, timeout: Span = 5.0) -> str:
        """`cancel`, for coroutines."""
        return await in_thread(self.cancel, timeout)

    async def aretry(self) -> None:
        """`retry`, for coroutines."""
        await in_thread(self.retry)

    async def asignal(self, name: str, data: Any = None) -> str:
        """`signal`, for coroutines."""
        return await in_thread(self.signal, name, data)


class JobHandles(list[JobHandle]):
    """The handles of many jobs, one per call; `held` are the positions of the calls that made no job.

    The handle of such a call is that of the job that holds its place: with `debounce` it has taken over the
    call's arguments, without it keeps its own.
    """

    held: frozenset[int] = frozenset()

    @classmethod
    def of(cls, ids: Sequence[str], holders: Mapping[str, str], client: Client) -> JobHandles:
        """The handles of jobs by their `ids`, or by those of the `holders` of their places."""
        handles = cls(JobHandle(holders.get(id, id), client) for id in ids)
        if holders:
            handles.held = frozenset(position for position, id in enumerate(ids) if id in holders)
        return handles


def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
    """Call `function` in a thread of its own, for a coroutine that awaits what it returns."""
    import asyncio  # noqa: PLC0415  loaded already where there are coroutines, and slow to load

    return asyncio.to_thread(function, *args, **kwargs)


async def sent_in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function`, which enqueues, in a thread of its own; once this is cancelled, nothing is sent."""
    from packmule.coordination.redis.scripts import called_off  # noqa: PLC0415  it loads redis-py

    off = threading.Event()
    token = called_off.set(off)  # the thread gets a copy of this context
    try:
        return await in_thread(function, *args, **kwargs)
    except BaseException:
        off.set()
        raise
    finally:
        called_off.reset(token)


def _value(job: JobInfo) -> Any:
    """What an ended job returned. Raises `JobFailed` for one that did not finish."""
    if job.status == "finished":
        return job.result
    if job.status == "failed":
        reason = job.reason or "no reason was kept"
        raise JobRaised(f"job {job.id} ({job.name}) failed: {reason}", job.error or "")
    raise JobCanceled(f"job {job.id} ({job.name}) was {job.status}")
