"""Steps that run once per job, and waits that hold no process: `current.step`, `sleep` and `wait_for`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from typing import Any, Final, Literal, ParamSpec, TypeVar, get_args, overload

import msgspec

from packmule.errors import JobFailed
from packmule.jobs.context import Running
from packmule.jobs.interrupts import Interrupted
from packmule.jobs.spans import LONGEST_SPAN, Span, UnfitSpan, in_seconds
from packmule.jobs.steps import ANSWER, InvalidStep, Kept, Steps, checked_name, own_job, said
from packmule.units import span as span_text

P = ParamSpec("P")
T = TypeVar("T")

Policy = Literal["again", "ask", "fail"]

WRITERS = 8
"""Threads that record the steps of async jobs."""

_NOTHING: Final[Any] = object()

_Plan = Generator[Callable[[], object] | None, Any, Any]
"""Yields what to do: a write, or None for the call of the function, whose result it is sent."""

_inside: ContextVar[str | None] = ContextVar("inside", default=None)
inside = _inside.get
"""The name of the step that this code is part of, or None."""


class SignalTimeout(JobFailed, TimeoutError):
    """A job waited for a signal that did not come in time."""


@dataclass(frozen=True, slots=True)
class Step:
    """Runs a function once per job: `current.step(name, function, *args, **kwargs)`.

    The result is recorded before the call returns. Each later run of the job gets it at once, as JSON carries
    it. If a run ends in the middle of a step, `if_unknown` says what the next one does: `again` runs the step
    again, `fail` fails the job, and `ask` waits for an operator.

    >>> from packmule import current
    >>> current.step("charge", pow, 2, 10)
    1024
    >>> current.step.options(if_unknown="ask")("charge", pow, 2, 10)
    1024
    """

    if_unknown: Policy = "again"

    def __post_init__(self) -> None:
        """Refuse an unknown policy."""
        if self.if_unknown not in get_args(Policy):
            raise InvalidStep(f"if_unknown={self.if_unknown!r}: give {', '.join(get_args(Policy))}")

    def options(self, if_unknown: Policy) -> Step:
        """The same with another policy. Raises `InvalidStep` for one that doesn't exist."""
        return Step(if_unknown)

    @overload
    def __call__(
        self, name: str, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]: ...

    @overload
    def __call__(self, name: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    def __call__(self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """The result of the step `name`, for which `function` is called unless an earlier run has it.

        In an async job the function is async, and the call is awaited. Outside of a job the function is just
        called. What it raises is raised here, and then the next attempt calls it again.
        """
        job = own_job()
        if job is None:
            return function(*args, **kwargs)
        steps = job.own_steps()
        is_async = inspect.iscoroutinefunction(function)
        if is_async is not steps.is_async:
            raise steps.ends_by(InvalidStep(_wrong_kind(name, steps.is_async)))
        plan, call = self._plan(job, steps, name), partial(function, *args, **kwargs)
        return _follow_async(steps, plan, call) if is_async else _follow(plan, call)

    def _plan(self, job: Running, steps: Steps, name: str) -> _Plan:
        """Run the step, or return its recorded result."""
        field = f"step:{checked_name('step', name)}"
        kept = _asked(steps, field)
        if kept and kept.state == "done":
            return kept.value
        if steps.is_draining():
            raise steps.ends_by(Interrupted())
        value, answer = self._known(job, steps, field, kept) if kept else (_NOTHING, "")
        if value is _NOTHING:
            marks = self.if_unknown != "again"
            if marks:
                yield partial(steps.begin, field, answer)
            token = _inside.set(name)
            try:
                value = yield None
            except Exception as error:
                if marks and not _is_timeout(error):
                    yield partial(steps.forget, field)
                raise
            finally:
                _inside.reset(token)
        encoded = steps.written(value, field)
        yield partial(steps.end, field, encoded)
        return msgspec.json.decode(encoded)

    def _known(self, job: Running, steps: Steps, field: str, kept: Kept) -> tuple[Any, str]:
        """What an operator says that the step returned, or that it runs again and the field that says so."""
        if self.if_unknown == "fail":
            steps.refuse_unknown(field, kept, job.id)
        if self.if_unknown != "ask":
            return _NOTHING, ""
        answer = ANSWER + field.partition(":")[2]
        given = steps.find(answer)
        match given.value if given and given.state == "done" else None:
            case "again":
                return _NOTHING, answer
            case {"done": value, **others} if not others:
                return value, ""
        raise steps.wait(answer, None)


step = Step()


def sleep(
    seconds: Span = 0,
    /,
    *,
    minutes: float = 0,
    hours: float = 0,
    days: float = 0,
    name: str | None = None,
) -> None:
    """Suspend the job for this span, by the server's clock; meanwhile it holds no process, slot or lock.

    Then the job's function runs from its beginning, past its recorded steps. `name` distinguishes this sleep
    from others of the job; by default they are numbered. Call it without `await` in async jobs, too. Outside
    of a job it does nothing. Raises `InvalidStep` for a negative span or one of more than a hundred years.

    >>> from packmule import current
    >>> current.sleep(days=3)
    """
    parts = {"minutes": minutes, "hours": hours, "days": days}
    total = _seconds("sleep", seconds, parts)
    job = own_job()
    if job is None:
        return
    steps = job.own_steps()
    field = f"sleep:{checked_name('sleep', name or str(steps.times_asked('sleep') + 1))}"
    kept = _asked(steps, field)
    if kept is None or kept.state != "done":
        raise steps.wait(field, total)


def wait_for(name: str, timeout: Span | None = None, default: Any = _NOTHING) -> Any:
    """Wait for the signal `name` and return its data; `handle.signal` or `packmule job signal` sends it.

    The signal may have been sent before. Until it comes, the job holds no process, slot or lock; then its
    function runs from its beginning, past its recorded steps. Each wait takes one signal, the first that was
    sent. If none comes within `timeout` (seconds, a `timedelta`, or a text such as `"1h"`), it returns
    `default`, or raises `SignalTimeout` if none is given. Call it without `await` in async jobs, too. Raises
    `InvalidStep` outside of a job, unless there is a default.

    >>> from packmule import current
    >>> current.wait_for("approved", timeout=3600, default=None)
    """
    checked_name("signal", name)
    seconds = None if timeout is None else _seconds("wait_for", timeout, {})
    job = own_job()
    if job is None:
        if default is not _NOTHING:
            return default
        raise InvalidStep(f"signal {name!r}: only a job can wait for it; give a default for other callers")
    if name.startswith("step:"):
        raise InvalidStep(f"signal {name!r}: names that begin with step: are reserved for steps")
    steps = job.own_steps()
    earlier = steps.times_asked("signal", name)
    field = f"signal#{earlier + 1}:{name}" if earlier else f"signal:{name}"
    kept = _asked(steps, field)
    if kept and kept.state == "done":
        return kept.value
    if kept is None or kept.state != "late" or (default is _NOTHING and steps.may_wait_again(kept)):
        raise steps.wait(field, seconds)
    if default is _NOTHING:
        within = f" within {span_text(seconds)}" if seconds is not None else ""
        raise SignalTimeout(f"no signal {name!r} came{within}")
    return default


def _asked(steps: Steps, field: str) -> Kept | None:
    """What is recorded of a field. Raises `InvalidStep` within a step, where it would not be asked again."""
    if (around := inside()) is not None:
        raise steps.ends_by(InvalidStep(f"{said(field)} is inside step {around!r}: move it after that step"))
    return steps.ask(field)


def _follow(plan: _Plan, call: Callable[[], Any]) -> Any:
    try:
        write = next(plan)
        while True:
            try:
                given = write() if write else call()
            except BaseException as raised:
                write = plan.throw(raised)
            else:
                write = plan.send(given)
    except StopIteration as end:
        return end.value


async def _follow_async(steps: Steps, plan: _Plan, call: Callable[[], Awaitable[Any]]) -> Any:
    """`_follow` on the event loop: writes take a thread, so that other jobs go on."""
    import asyncio  # noqa: PLC0415  loaded already where there are coroutines, and slow to load

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    try:
        write = next(plan)
        if task:
            steps.in_flight.add(task)
        while True:
            try:
                given = await (loop.run_in_executor(_writers(), write) if write else call())
            except BaseException as raised:
                write = plan.throw(raised)
            else:
                write = plan.send(given)
    except StopIteration as end:
        return end.value
    finally:
        if task:
            steps.in_flight.discard(task)


async def settled(job: Running) -> None:
    """Wait until the steps that run beside the job's body, which has ended, have ended too.

    Its next run would be told that their ends are unknown, or run them at the same time.
    """
    import asyncio  # noqa: PLC0415  loaded already where there are coroutines, and slow to load

    beside = job.steps.in_flight - {asyncio.current_task()} if job.steps else set()
    try:
        if beside:
            await asyncio.wait(beside)
    except asyncio.CancelledError:
        for each in beside:
            each.cancel()
        raise


@cache
def _writers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WRITERS, "steps")


def _seconds(what: str, span: Any, parts: dict[str, Any]) -> float:
    """A span of some parts in seconds. Raises `InvalidStep`."""
    total = math.nan
    with suppress(TypeError, ValueError, OverflowError, UnfitSpan):
        total = in_seconds(span) + timedelta(**parts).total_seconds()
    if not 0 <= total <= LONGEST_SPAN:
        given = ", ".join([repr(span), *(f"{name}={value!r}" for name, value in parts.items() if value)])
        raise InvalidStep(
            f"{what}: {given:.200} is not a span: give 0 seconds or more, or a text such as '5m', "
            "at most a hundred years"
        )
    return total


def _is_timeout(error: Exception) -> bool:
    """Whether the worker has ended a step, so that nobody knows what it did."""
    from rq.timeouts import BaseTimeoutException  # noqa: PLC0415  a worker has loaded it

    return isinstance(error, BaseTimeoutException)


def _wrong_kind(name: str, is_async_job: bool) -> str:
    if is_async_job:
        return (
            f"step {name!r}: in an async job give an async function; asyncio.to_thread is one: "
            "await current.step(name, asyncio.to_thread, function, ...)"
        )
    return f"step {name!r}: its function is async: make the job async, too, and await the step"
