"""Performing: it turns a claimed job into an outcome, without Redis."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

from packmule import extras, hooks
from packmule.jobs import context, durable, handed, registry
from packmule.jobs.arguments import runs_code
from packmule.jobs.interrupts import Interrupted, Retry, Stopped, Waiting
from packmule.jobs.job_type import JobType
from packmule.jobs.registry import Invoked
from packmule.jobs.steps import FINAL, InvalidStep, Steps
from packmule.jobs.wire import NO_RESULT, time_text
from packmule.worker.process import hooked, outcome
from packmule.worker.process.call import Call
from packmule.worker.process.claimed import Claimed, Due
from packmule.worker.process.failure import failure_of, trace
from packmule.worker.process.hush import Hush
from packmule.worker.process.lookup import Lookup, Registered
from packmule.worker.process.outcome import FINISHED, Outcome
from packmule.worker.process.refusals import refuse_expired, refuse_other_version
from packmule.worker.process.result import NOT_KEPT, Returned, encoded

log = logging.getLogger("packmule.worker")

_IMPOSSIBLE = "job %s: its %s %s is impossible: %s"

Report = Callable[[str, str, int, float, float | None, str], None]
Save = Callable[[str, str, bytes], None]
Spend = Callable[[str, str, int], None]
Prolong = Callable[[str, float], None]
Watch = Callable[[str, str, float], AbstractContextManager[None]]
Remember = Callable[..., bool]
CallBack = Callable[[Claimed, Due], Invoked]
NoteError = Callable[[str, BaseException], None]


class Result(NamedTuple):
    """The `value` that a job returned, as JSON, and in Unix seconds when it began and ended."""

    value: bytes
    started: float
    ended: float
    version: str | None = None
    """The version of the job's code if it has recorded steps."""


Done = Callable[[Call, Outcome | None], None]
"""What receives a call and its outcome, in any thread; None if its end is recorded already."""


class Performer:
    """Turns claimed jobs into calls, and calls into outcomes. It never raises, whatever a job does.

    `report` takes a job's id, execution, attempt, done, total and message; `save` takes its id, execution and
    checkpoint. `is_draining` says whether the worker is stopping; `max_result_bytes` limits a result's JSON.
    `lookup` says what may be called; `call_back` makes the calls of callbacks that are due. `note_error`
    takes the ids of jobs that failed, and why. A job that `lookup` does not know goes back for `unknown_for`
    seconds. `remember` takes a job's id, execution, the version of its code and a step
    (`jobs.steps.Remember`). `hear` returns what takes a job's lines and output. `spend` takes
    its id, execution and what it spent; `prolong` an execution, and the seconds it has at least. Within
    `watch`, which takes a job's id, execution and timeout, code of its type reads the arguments.
    """

    def __init__(
        self,
        report: Report,
        save: Save,
        is_draining: Callable[[], bool] = lambda: False,
        max_result_bytes: int = 1024 * 1024,
        lookup: Lookup | None = None,
        call_back: CallBack | None = None,
        note_error: NoteError | None = None,
        unknown_for: float = 600.0,
        remember: Remember = lambda *_: True,
        spend: Spend = lambda *_: None,
        hear: context.Hear | None = None,
        prolong: Prolong = lambda *_: None,
        watch: Watch = lambda *_: nullcontext(),
    ) -> None:
        self.report, self.save, self.remember, self.spend = report, save, remember, spend
        self.is_draining = is_draining
        self.max_result_bytes, self.unknown_for = max_result_bytes, unknown_for
        self.lookup, self.call_back = lookup or Registered(), call_back
        self.note_error = note_error
        self.hear, self.prolong, self.watch = hear, prolong, watch
        self.process = os.getpid()
        self.fences: dict[str, int] = {}
        """The fencing tokens of singletons, by execution."""
        self.claims = ""
        """The key of the claims of the worker that performs."""
        self.in_body = False
        """Whether the main thread runs a job's own code, where a signal handler may raise."""

    def prepare(self, job: Claimed) -> Call | Outcome:
        """The call that the job asks for, or its failure if that call is impossible or not allowed."""
        if job.due and self.call_back:
            return self._prepare_callback(self.call_back, job, job.due)
        try:
            invoked = self.lookup.call(job.data)
            if runs_code(invoked.type.arguments) or callable(invoked.type.traits.network):
                with self.watch(job.id, job.execution, job.timeout):
                    return self._prepared(job, *invoked)
            return self._prepared(job, *invoked)
        except registry.NotRegistered as error:
            if job.unknown_since is None and self.unknown_for > 0:
                log.warning("job %s goes back: %s", job.id, error)
            return outcome.unknown(job, error, time.time(), self.unknown_for)
        except (Exception, SystemExit) as error:  # an invalid payload or call, an expiry
            return outcome.refused(job, error, time.time())

    def _prepared(
        self, job: Claimed, job_type: JobType, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Call | Outcome:
        if job.takes is not None:
            args, kwargs = handed.filled(job_type, args, kwargs, job.takes, job.given)
        if job_type.limits and not job.is_grouped:
            return outcome.limited(job, job_type.limits.of(job_type.arguments_of(args, kwargs)))
        call = _call(job, job_type, *job_type.bind(args, kwargs))
        for name in job.callbacks:
            self.lookup.find(name)
        if job.recorded:
            refuse_other_version(job_type, job.recorded.version)
        elif job.expires_at is not None:
            refuse_expired(job, job.expires_at)
        return call

    def _prepare_callback(self, call_back: CallBack, job: Claimed, due: Due) -> Call | Outcome:
        try:
            called, args, kwargs = call_back(job, due)
            return _call(job, called, tuple(args), dict(kwargs))
        except registry.NotRegistered as error:
            found = outcome.unknown(job, error, time.time(), self.unknown_for)
            if found.status == "settled":
                log.error(_IMPOSSIBLE, job.id, due.kind, due.step, error)
            elif job.unknown_since is None:
                log.warning("job %s: its %s callback goes back: %s", job.id, due.kind, error)
            return found
        except Exception as error:  # a callback that is not allowed, or a corrupt record
            log.error(_IMPOSSIBLE, job.id, due.kind, due.step, error)
            return outcome.settled(job)

    def perform(self, call: Call) -> Outcome:
        """Perform a plain function."""
        ended = self.run(call)
        return with_result(call, ended) if isinstance(ended, Result) else ended

    def run(self, call: Call) -> Result | Outcome:
        """Perform a plain function; `with_result` makes an outcome of what it returned."""
        started, running = time.time(), self._running(call)
        try:
            with running:
                body = hooked.body(call, running.verdict) if hooks.performers else call.type.function
                value = body(*call.args, **call.kwargs)
            return self._result(call, running, value, started)
        except BaseException as error:
            return self.ended_by(call, running.verdict(error), started)

    async def perform_async(self, call: Call, reason: Callable[[], BaseException | None]) -> Outcome:
        """Perform an async function; `reason` returns why the worker canceled its task, if it did."""
        started, running = time.time(), self._running(call)
        running.task = asyncio.current_task()
        try:
            with running:
                try:
                    body = call.type.function
                    if hooks.performers:
                        body = hooked.async_body(call, lambda error: reason() or running.verdict(error))
                    value = await body(*call.args, **call.kwargs)
                except (Exception, Waiting, Interrupted):
                    await durable.settled(running)
                    raise
            return with_result(call, self._result(call, running, value, started))
        except BaseException as error:
            return self.ended_by(call, reason() or running.verdict(error), started)

    def ended_by(self, call: Call, error: BaseException, started: float) -> Outcome:
        """The outcome of a job that `error` ended."""
        self._leave_if_forked()
        extras.complete(error)
        job, traits = call.job, call.type.traits
        if self.note_error and not job.due and not isinstance(error, Interrupted | Stopped | Retry | Waiting):
            self.note_error(job.id, error)
        now = time.time()
        hushed = call.hush.text if call.hush else str
        match error:
            case Interrupted() | Waiting():
                return outcome.waiting(job, error) if isinstance(error, Waiting) else outcome.returned(job)
            case _ if job.due:
                log.error("job %s: its %s callback failed\n%s", job.id, job.due.kind, trace(error))
                return outcome.settled(job)
            case Stopped():
                return outcome.failed(job, hushed(trace(error)), started, now, retry=False, status="stopped")
            case Retry() if error.limit is None or job.attempt < error.limit:
                return outcome.again(job, hushed(str(error)), started, now, error.after, traits.at_once)
            case Returned():
                return outcome.exceeded(job, error.result, started, now, traits.at_once)
            case _:
                retry = traits.may_retry(error) and not isinstance(error, Retry | FINAL | NOT_KEPT)
                failure = failure_of(error, call.type.name)
                return outcome.failed(
                    job, hushed(trace(error)), started, now, retry=retry, at_once=traits.at_once,
                    failure=call.hush.failure(failure) if call.hush else failure,
                )  # fmt: skip

    def _running(self, call: Call) -> context.Running:
        job = call.job

        def report(done: float, total: float | None, message: str) -> None:
            self.report(job.id, job.execution, job.attempt, done, total, message)

        def open_steps(task: asyncio.Task[Any] | None) -> Steps:
            if job.due:
                raise InvalidStep(
                    "RQ's callbacks have no steps: let the callback enqueue a job that has them"
                )
            version = call.type.traits.version_text
            remember = partial(self.remember, job.id, job.execution, version)
            return Steps(job.recorded, version, remember, self.is_draining, task)

        hear = call.hush.hearing(self.hear) if self.hear and call.hush else self.hear
        fence = self.fences.get(job.execution)
        return context.Running(
            job.id, job.attempt, report, job.checkpoint, partial(self.save, job.id, job.execution),
            self.is_draining, fence, job.batch, call.type.name, job.queue, open_steps, job.execution,
            hear, partial(self.spend, job.id, job.execution), self.claims,
            partial(self.prolong, job.execution), job.enqueued_at, call.hush.text if call.hush else None,
        )  # fmt: skip

    def _result(self, call: Call, running: context.Running, value: Any, started: float) -> Result:
        self._leave_if_forked()
        version = None
        if running.steps is not None or call.job.recorded is not None:
            version = running.own_steps().finish()
        if value is None or call.job.due:
            return Result(b"", started, time.time(), version)
        result = encoded(value, call.type.name, call.job.attempt, self.lookup, self.max_result_bytes)
        return Result(result, started, time.time(), version)

    def _leave_if_forked(self) -> None:
        """End a child that the job forked, which would return here as a second worker."""
        if os.getpid() != self.process:
            os._exit(1)


def with_result(call: Call, result: Result) -> Outcome:
    """The outcome of a call that returned."""
    if call.job.due:
        return outcome.settled(call.job)
    value, started, ended, version = result
    plain = finished(call.job, value, started, ended, call.type.traits.at_once)
    return plain if version is None else outcome.with_steps(plain, version)


def finished(job: Claimed, result: bytes, started: float, ended: float, at_once: bool = False) -> Outcome:
    """The job returned a value; `result` is that value as JSON, empty for None."""
    plain = Outcome(
        job.id,
        job.execution,
        job.queue,
        "finished",
        job.result_ttl,
        FINISHED,
        time_text(started),
        time_text(ended),
        f"{started:.6f}",
        f"{ended:.6f}",
        "return_value",
        b64encode(result).decode() if result else NO_RESULT,
        at_once=at_once,
        limits=job.limits,
        batch=job.batch,
        callback="success" if job.calls_back else "",
    )
    return outcome.repeated(job, plain) if job.repeats_left > 0 else plain


def _call(job: Claimed, called: JobType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    hush = Hush(called, args, kwargs) if called.secrets else None
    if called.is_async:
        return Call(job, called, args, kwargs, "async", False, hush)
    if called.traits.isolate:
        return Call(job, called, args, kwargs, "isolated", called.traits.leaves_network(args, kwargs), hush)
    return Call(job, called, args, kwargs, "plain", False, hush)
