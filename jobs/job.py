"""`@job`: makes a function enqueueable, with options that hold for each of its jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, partial
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from packmule.jobs import registry, unique
from packmule.jobs.handle import JobHandle, JobHandles, sent_in_thread
from packmule.jobs.job_type import InvalidJob, JobSettings, JobType, Traits, job_type
from packmule.jobs.options import OPTION_NAMES, JobOptions, Options, refuse_unknown

if TYPE_CHECKING:
    from packmule.jobs.client import Client

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Calls = Iterable[Mapping[str, Any] | Sequence[Any]]
"""Calls of one function, each a mapping of argument names or a sequence of positional arguments."""

# One enqueue may change an option; a trait holds for every job of its type.
TRAITS = tuple(field.name for field in fields(Traits))
SETTINGS = OPTION_NAMES + TRAITS


class JobFunction(Protocol[P, R_co]):
    """A registered function: still directly callable with its own signature, and enqueueable by it."""

    job: JobType

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function here and now."""

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle:
        """Hand one call to the workers (see `JobCall.enqueue`)."""

    def enqueue_many(self, calls: Calls) -> JobHandles:
        """Hand many calls to the workers (see `JobCall.enqueue_many`)."""

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle:
        """Like `enqueue`, without blocking the event loop."""

    async def aenqueue_many(self, calls: Calls) -> JobHandles:
        """Like `enqueue_many`, without blocking the event loop."""

    def options(self, **changes: Unpack[JobOptions]) -> JobCall[P]:
        """The function with some options changed for the next enqueue."""

    def prepare(self, *args: P.args, **kwargs: P.kwargs) -> Prepared:
        """A call that something else enqueues later, such as a batch when it has ended."""

    def call(self, *args: Any, **kwargs: Any) -> Prepared:
        """A part of a flow, whose arguments may be results of others (see `JobCall.call`)."""


class Prepared(NamedTuple):
    """A call that something else enqueues later, such as a batch when it has ended."""

    job: JobType
    call: tuple[Sequence[Any], Mapping[str, Any]]
    options: Options


@dataclass(frozen=True, slots=True)
class JobCall(Generic[P]):
    """A registered function with some options changed for the next enqueue."""

    job: JobType
    changed: Options | None

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle:
        """Enqueue one job by the process's default client, and return its handle: a `str`, its id.

        Raises what `Client.enqueue` does.
        """
        return _client_class().default().send(self.job, [(args, kwargs)], self.changed)[0]

    def enqueue_many(self, calls: Calls) -> JobHandles:
        """Enqueue one job per call, hundreds per round trip, and return their handles in order.

        Each call is a mapping of argument names, or a sequence of positional arguments.
        """
        return _client_class().default().enqueue_many(self, calls)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle:
        """Like `enqueue`, without blocking the event loop (see `Client.aenqueue`)."""
        return await sent_in_thread(self.enqueue, *args, **kwargs)

    async def aenqueue_many(self, calls: Calls) -> JobHandles:
        """Like `enqueue_many`, without blocking the event loop (see `Client.aenqueue_many`)."""
        return await sent_in_thread(self.enqueue_many, calls)

    def prepare(self, *args: P.args, **kwargs: P.kwargs) -> Prepared:
        """The call, for something that enqueues it later, such as a batch when it has ended."""
        return Prepared(self.job, (args, kwargs), self.changed or Options())

    def call(self, *args: Any, **kwargs: Any) -> Prepared:
        """A part of a flow: the call, in which results of other parts may stand for arguments."""
        return Prepared(self.job, (args, kwargs), self.changed or Options())


@overload
def job(function: Callable[P, R], /) -> JobFunction[P, R]: ...


@overload
def job(**settings: Unpack[JobSettings]) -> Callable[[Callable[P, R]], JobFunction[P, R]]: ...


def job(function: Callable[..., Any] | None = None, /, **settings: Any) -> Any:
    """Register a function as a job and return it, still directly callable.

    The settings are those of `JobSettings`: options such as `queue`, `timeout` and `retries`, which one
    enqueue may change, and traits such as `isolate`, `singleton` and `cron`, which hold for every job. An
    `async def` runs on the worker's event loop, beside others.

    >>> from packmule import job
    >>> @job(queue="low", timeout=600, retries=3)
    ... def report(month: str, copies: int = 1) -> str:
    ...     return f"{copies} of {month}"
    >>> report("2026-11")
    '1 of 2026-11'

    `report.enqueue("2026-11")` hands it to a worker, and `report.options(delay=60,
    queue="high").enqueue("2026-11", copies=2)` changes options for one enqueue. Raises `InvalidOption` for an
    invalid setting, and `InvalidJob` for a function that a worker could not import or whose arguments JSON
    can't carry.
    """
    refuse_unknown(settings, SETTINGS)
    traits = Traits(**{name: settings.pop(name) for name in TRAITS if name in settings})
    options = Options(**settings)
    if function is not None:
        return _register(function, options, traits)
    return lambda decorated: _register(decorated, options, traits)


def _register(function: Callable[P, R], options: Options, traits: Traits) -> JobFunction[P, R]:
    if not hasattr(function, "__qualname__"):
        raise InvalidJob(f"{function!r} can't be a job: decorate a function")
    name = f"{function.__module__}.{function.__qualname__}"
    if "<locals>" in name or "<lambda>" in name:
        raise InvalidJob(
            f"{name} can't be a job: a worker imports jobs by name, so define it at a module's top"
        )
    registered_type = job_type(name, function, options, traits)
    unique.check(registered_type)
    _check_schedule(registered_type)
    registry.add(registered_type)
    call: JobCall[P] = JobCall(registered_type, None)
    registered: Any = function
    registered.job = registered_type
    for offered in ("enqueue", "enqueue_many", "aenqueue", "aenqueue_many", "prepare", "call"):
        setattr(registered, offered, getattr(call, offered))
    registered.options = partial(_with_options, registered_type)
    return cast(JobFunction[P, R], registered)


def _check_schedule(job: JobType) -> None:
    """Raise `InvalidJob` if the decorator declares a schedule that can't be kept."""
    if job.traits.cron is None and job.traits.every is None:
        return
    from packmule.jobs.schedule import InvalidSchedule, declared  # noqa: PLC0415  most jobs have none

    try:
        declared(job)
    except InvalidSchedule as error:
        raise InvalidJob(f"{job.name} can't be a job: {error}") from None


def _with_options(job: JobType, /, **changes: Any) -> JobCall[Any]:
    refuse_unknown(changes, OPTION_NAMES)
    return JobCall(job, Options(**changes))


@cache
def _client_class() -> type[Client]:
    """The class of clients, which loads redis-py: a module that only declares jobs does without."""
    from packmule.jobs.client import Client  # noqa: PLC0415

    return Client
