"""Hooked bodies: the hooks around a run of a job (`packmule/hooks.py`), and the outcome that they learn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, ExitStack
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from packmule import hooks
from packmule.hooks import Performing, PerformOutcome
from packmule.jobs.interrupts import Interrupted, Retry, Stopped, Waiting
from packmule.jobs.steps import FINAL

if TYPE_CHECKING:
    from packmule.worker.process.call import Call

Verdict = Callable[[BaseException], BaseException]
"""What ends a run whose body raised an error."""


def body(call: Call, verdict: Verdict) -> Callable[..., Any]:
    """The plain function of a call within the hooks. Those of async generators are left out."""
    if not _has_hooks(call):
        return call.type.function

    def hooked(*args: Any, **kwargs: Any) -> Any:
        subject = _performing(call)
        with ExitStack() as stack:
            for hook in hooks.performers:
                around = hook(subject)
                if isinstance(around, AbstractContextManager):
                    stack.enter_context(around)
                    stack.push(_noting(subject, call, verdict))
            subject.result = call.type.function(*args, **kwargs)
            subject.outcome = "finished"
        return _ended(subject)

    # A hook that is broken off may leave variables of the context set: the next job sees nothing of it.
    return partial(copy_context().run, hooked)


def async_body(call: Call, verdict: Verdict) -> Callable[..., Any]:
    """The async function of a call within the hooks."""
    if not _has_hooks(call):
        return call.type.function

    async def hooked(*args: Any, **kwargs: Any) -> Any:
        subject = _performing(call)
        async with AsyncExitStack() as stack:
            for hook in hooks.performers:
                around = hook(subject)
                if isinstance(around, AbstractAsyncContextManager):
                    await stack.enter_async_context(around)
                else:
                    stack.enter_context(around)
                stack.push(_noting(subject, call, verdict))
            subject.result = await call.type.function(*args, **kwargs)
            subject.outcome = "finished"
        return _ended(subject)

    return hooked


def _has_hooks(call: Call) -> bool:
    """Whether hooks apply: they do to jobs and RQ's callbacks, and not to webhooks."""
    return call.job.due is None or call.job.due.step == "callback"


def _performing(call: Call) -> Performing:
    job = call.job
    callback = job.due.kind if job.due else ""
    return Performing(
        job.id, call.type.name, job.queue, job.attempt, call.args, call.kwargs,
        job.batch, callback, job.trace, call.kind == "isolated",
    )  # fmt: skip


def _noting(subject: Performing, call: Call, verdict: Verdict) -> Callable[..., None]:
    """What stands within each hook, so that it learns of what ended the body or a hook within it."""

    def note(_: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            subject.error, subject.result = verdict(error), None
            subject.outcome = _outcome(call, subject.error)

    return note


def _outcome(call: Call, error: BaseException) -> PerformOutcome:
    job = call.job
    match error:
        case Interrupted():
            return "returned"
        case Waiting():
            return "waiting"
        case Stopped():
            return "stopped"
        case Retry():
            return "retried" if error.limit is None or job.attempt < error.limit else "failed"
        case _:
            again = job.retries_left > 0 and call.type.traits.may_retry(error)
            return "retried" if again and not isinstance(error, FINAL) else "failed"


def _ended(subject: Performing) -> Any:
    """The body's value, or its error, which a hook swallowed."""
    if subject.error is not None:
        raise subject.error
    return subject.result
