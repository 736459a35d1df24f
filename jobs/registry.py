"""The callables that workers may perform: `@job` registers them, and a worker finds them by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, NamedTuple, ParamSpec, Protocol, TypeVar, cast, overload

from packmule.jobs import unique
from packmule.jobs.job_type import InvalidCall, InvalidJob, JobType, Traits, job_type
from packmule.jobs.options import Options
from packmule.jobs.unique import Ids

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class NotRegistered(LookupError):
    """A name that no loaded module registered with `@job` and no setting allows."""


class JobFunction(Protocol[P, R_co]):
    """A registered function: still directly callable, and enqueueable."""

    job: JobType

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> str: ...

    def enqueue_many(self, calls: Iterable[Mapping[str, Any] | Sequence[Any]]) -> Ids: ...

    def options(self, **changes: Any) -> Call[P]: ...

    def prepare(self, *args: P.args, **kwargs: P.kwargs) -> Prepared: ...


class Enqueue(Protocol):
    """What a producer offers to registered functions."""

    def __call__(
        self, job: JobType, calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]], options: Options
    ) -> Ids: ...


_TRAITS = tuple(field.name for field in fields(Traits))
_registered: dict[str, JobType] = {}
_enqueue: Enqueue | None = None


class Prepared(NamedTuple):
    """A call that somebody else will enqueue, such as a batch when it has ended."""

    job: JobType
    call: tuple[Sequence[Any], Mapping[str, Any]]
    options: Options


@dataclass(frozen=True, slots=True)
class Call(Generic[P]):
    """A registered function with some options changed for the next enqueue."""

    job: JobType
    changed: Options

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Enqueue one job and return its id."""
        return producer()(self.job, [(args, kwargs)], self.changed)[0]

    def enqueue_many(self, calls: Iterable[Mapping[str, Any] | Sequence[Any]]) -> Ids:
        """Enqueue one job a call, hundreds a round trip, and return their ids in order.

        Each call is a mapping of argument names, or a sequence of positional arguments.
        """
        return producer()(self.job, [_pair(call) for call in calls], self.changed)

    def prepare(self, *args: P.args, **kwargs: P.kwargs) -> Prepared:
        """The call, to be enqueued later by what takes such: a batch's callback."""
        return Prepared(self.job, (args, kwargs), self.changed)


@overload
def job(function: Callable[P, R], /) -> JobFunction[P, R]: ...


@overload
def job(
    *,
    give_up_on: tuple[type[BaseException], ...] = (),
    retry_on: tuple[type[BaseException], ...] | None = None,
    at_once: bool = False,
    isolate: bool = False,
    max_memory: int | None = None,
    max_cpu: float | None = None,
    singleton: bool | str | None = None,
    singleton_policy: str = "wait",
    concurrency: int | str | None = None,
    rate: str | None = None,
    fair: str | None = None,
    cron: str | None = None,
    every: str | int | None = None,
    tz: str | None = None,
    schedule: Mapping[str, Any] | None = None,
    **options: Any,
) -> Callable[[Callable[P, R]], JobFunction[P, R]]: ...


def job(function: Callable[..., Any] | None = None, /, **settings: Any) -> Any:
    """Register a function as a job and return it, still directly callable.

    Options are those of `Options` (`queue`, `timeout`, `retries`, `unique`, ...) and hold for each of
    its jobs unless one enqueue says otherwise. An exception of a type in `give_up_on` is not retried, and
    with `retry_on` none but those types are.
    `at_once` is for a function that does what must not be done twice lightly, such as sending a mail: its
    outcomes never wait for a batch to end.
    `isolate` is for a function that eats what strangers sent: each of its jobs runs in a fresh process, which
    may take `max_memory` bytes beyond what the worker has and `max_cpu` seconds of processor time.
    An `async def` runs on the worker's event loop, beside others.
    `singleton` is for a function of which one job may run at a time in the whole cluster, or one for each
    value of an argument (`"{account_id}"`); a second one waits, or with `singleton_policy="skip"` is not
    enqueued while there is one, or with `"replace"` takes the place of those that wait and ends the one that
    runs. `concurrency=5`, or `"5 by {tenant}"`, bounds how many run at a time, `rate="100/m by {to@}"` how
    many begin in a time; what may not run yet waits in Redis, and no process for it. With `fair="{tenant}"`
    the values of an argument take turns in their queue.
    `cron="30 2 * * *"` or `every="5m"` lets a scheduler enqueue one at each tick, in the time zone `tz` (UTC
    by default); `schedule={"kwargs": {"month": "{tick}"}, "overlap": "skip"}` says more of how.

    >>> from packmule import job
    >>> @job(queue="low", timeout=600, retries=3)
    ... def report(month: str, copies: int = 1) -> str:
    ...     return f"{copies} of {month}"
    >>> report("2026-11")
    '1 of 2026-11'

    `report.enqueue("2026-11")` hands it to a worker, and
    `report.options(delay=60, queue="high").enqueue("2026-11", copies=2)` changes options for one enqueue.
    Raises `InvalidJob` for a function that a worker could not import or whose arguments JSON can't carry.
    """
    traits = Traits(**{name: settings.pop(name) for name in _TRAITS if name in settings})
    options = Options(**settings)
    if function is not None:
        return _register(function, options, traits)
    return lambda decorated: _register(decorated, options, traits)


def find(name: str) -> JobType:
    """The registered callable called `name`. Raises `NotRegistered`."""
    try:
        return _registered[name]
    except KeyError:
        raise NotRegistered(
            f"{name} is not a registered job: decorate it with @job and name its module in PACKMULE_MODULES"
        ) from None


def names() -> list[str]:
    """The dotted names of all registered callables, sorted."""
    return sorted(_registered)


def load(modules: Iterable[str], allow: Iterable[str] = ()) -> None:
    """Import `modules`, whose `@job` functions register themselves, and register the dotted names in `allow`.

    The working directory is importable, after everything installed. Raises `NotRegistered` with the
    module's name if one can't be imported.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    for module in modules:
        _imported(module)
    for name in allow:
        if name not in _registered:
            module, _, attribute = name.rpartition(".")
            function = getattr(_imported(module), attribute, None) if module else None
            if not callable(function):
                raise NotRegistered(f"PACKMULE_ALLOW names {name}, which is not a function of a module")
            # Under the name by which jobs ask for it, which need not be where it was defined.
            # Written for no wire, it may annotate what JSON can't carry, as RQ's callbacks do.
            _registered[name] = job_type(name, function, Options(), typed=False)


def _pair(call: Mapping[str, Any] | Sequence[Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Positional and named arguments. Raises `InvalidCall` for one bare value, above all a text."""
    if isinstance(call, Mapping):
        return (), call
    if isinstance(call, Sequence) and not isinstance(call, str | bytes):
        return call, {}
    raise InvalidCall(f"{call!r} is not a call: give a tuple of arguments, or a dict of named ones")


def use(enqueue: Enqueue) -> None:
    """Make `enqueue` what `.enqueue(...)` of registered functions calls in this process."""
    global _enqueue  # noqa: PLW0603  one process enqueues to one place, and functions find it here
    _enqueue = enqueue


def producer() -> Enqueue:
    """What `.enqueue(...)` calls in this process; without `use`, what the environment's settings say."""
    if _enqueue is None:
        importlib.import_module("packmule.jobs.client").connect()
    return cast(Enqueue, _enqueue)


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotRegistered(
            f"can't import {module}: {error} (looked in the working directory too)"
        ) from error
    except Exception as error:  # whatever the user's own code raises
        raise NotRegistered(f"can't import {module}: {type(error).__name__}: {error}") from error


def _register(
    function: Callable[P, R],
    options: Options,
    traits: Traits,
) -> JobFunction[P, R]:
    if not hasattr(function, "__qualname__"):
        raise InvalidJob(f"{function!r} can't be a job: decorate a function")
    name = f"{function.__module__}.{function.__qualname__}"
    if "<locals>" in name or "<lambda>" in name:
        raise InvalidJob(
            f"{name} can't be a job: a worker imports jobs by name, so define it at a module's top"
        )
    registered_type = job_type(name, function, options, traits)
    unique.check(registered_type)
    _registered[name] = registered_type
    call: Call[P] = Call(registered_type, Options())
    registered = cast(JobFunction[P, R], function)
    registered.job = registered_type
    registered.enqueue = call.enqueue  # type: ignore[method-assign]
    registered.enqueue_many = call.enqueue_many  # type: ignore[method-assign]
    registered.prepare = call.prepare  # type: ignore[method-assign]
    registered.options = lambda **changes: Call(  # type: ignore[method-assign]
        registered_type, Options(**changes)
    )
    return registered
