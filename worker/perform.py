"""Performing: a claimed job in, its outcome out. Nothing here talks to Redis."""

from __future__ import annotations

import asyncio
import inspect
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import msgspec
from rq.job import Retry
from rq.timeouts import JobTimeoutException

from jobs import current, registry, wire
from jobs.job_type import InvalidCall, JobType
from worker import outcome
from worker.interrupt import BrokenOff, Interrupter
from worker.outcome import Claimed, Outcome

Report = Callable[[str, int, float, float | None, str], None]


class ResultTooLarge(ValueError):
    """A job returned more than a result may hold."""


class ResultUnwritable(TypeError):
    """A job returned what JSON can't hold."""


class ReturnedRetry(BaseException):
    """A job returned RQ's `Retry`, and asks so to be performed again."""

    def __init__(self, retry: Retry) -> None:
        super().__init__(retry)
        self.retry = retry


class Performer:
    """Performs jobs for the worker called `worker`.

    `report` takes a job's id, attempt, done, total and message; `max_result_bytes` bounds a result's JSON.
    `interrupter` may end what is performed.
    """

    def __init__(
        self,
        worker: str,
        report: Report,
        max_result_bytes: int = 1024 * 1024,
        interrupter: Interrupter | None = None,
    ) -> None:
        self.interrupter = interrupter or Interrupter()
        self.worker = worker
        self.report = report
        self.max_result_bytes = max_result_bytes

    def perform(self, job: Claimed) -> Outcome:
        """Perform `job` and tell how it ended, whatever the job does.

        Raises only what others must record: `BrokenOff`, and `ReturnedRetry`.
        """
        ended, job_type = self._performed(job)
        if job_type is not None and job_type.at_once:
            return msgspec.structs.replace(ended, at_once=True)
        return ended

    def _performed(self, job: Claimed) -> tuple[Outcome, JobType | None]:
        started = time.time()
        try:
            call = wire.decode_call(job.data)
            job_type = registry.find(call.name)
            args, kwargs = job_type.bind(call.args, call.kwargs)
        except (wire.InvalidPayload, registry.NotRegistered, InvalidCall) as error:
            return outcome.refused(job, error, self.worker, started), None
        try:
            value = self._call(job, job_type.function, args, kwargs)
            result = self._encoded(job_type.name, value)
        except (BrokenOff, ReturnedRetry):
            raise
        except BaseException as error:
            retry = not isinstance(error, job_type.give_up_on)
            return outcome.failed(job, _trace(error), self.worker, started, time.time(), retry), job_type
        return outcome.finished(job, result, self.worker, started, time.time()), job_type

    def _call(self, job: Claimed, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        def report(done: float, total: float | None, message: str) -> None:
            self.report(job.id, job.attempt, done, total, message)

        with (
            current.performing(job.id, job.attempt, report),
            soft_timeout(job.timeout),
            self.interrupter.allowed(job.id),
        ):
            value = function(*args, **kwargs)
            if inspect.iscoroutine(value):
                value = asyncio.run(value)
        if isinstance(value, Retry):
            raise ReturnedRetry(value)
        return value

    def _encoded(self, name: str, value: Any) -> bytes:
        if value is None:
            return b""
        try:
            result = msgspec.json.encode(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise ResultUnwritable(f"{name} returned what JSON can't hold: {error}") from None
        if len(result) > self.max_result_bytes:
            raise ResultTooLarge(
                f"{name} returned {len(result)} bytes, and a result may hold {self.max_result_bytes}: "
                "leave the data in storage and return its path, or raise PACKMULE_MAX_RESULT_BYTES"
            )
        return result


@contextmanager
def soft_timeout(seconds: float) -> Iterator[None]:
    """Raise `JobTimeoutException` in this block after `seconds`; none where that is zero or less."""
    if seconds <= 0:
        yield
        return

    def expire(signum: int, frame: FrameType | None) -> None:
        raise JobTimeoutException(f"the job ran longer than its timeout of {seconds:g} s")

    signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _trace(error: BaseException) -> str:
    """The traceback from the job's own code on, without the frames that led into it."""
    frames = error.__traceback__
    while (
        frames is not None and frames.tb_frame.f_code.co_filename == __file__ and frames.tb_next is not None
    ):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))
