"""The callables that workers may perform: `@job` registers them, `validate` checks a call against one."""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

import msgspec

from jobs.options import Options

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class InvalidCall(TypeError):
    """A call that the job's signature does not allow; nothing was enqueued."""


class NotRegistered(LookupError):
    """A name that no loaded module registered with `@job` and no setting allows."""


class InvalidJob(TypeError):
    """A function that can't be a job, told when it is decorated."""


class JobFunction(Protocol[P, R_co]):
    """A registered function: still directly callable, and enqueueable."""

    job: JobType

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> str: ...

    def enqueue_many(self, calls: Iterable[Mapping[str, Any] | Sequence[Any]]) -> list[str]: ...

    def options(self, **changes: Any) -> Call[P]: ...


class Enqueue(Protocol):
    """What a producer offers to registered functions."""

    def __call__(
        self, job: JobType, calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]], options: Options
    ) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class JobType:
    """One registered callable: its dotted `name`, its function, and the options its jobs start from.

    An exception of a type in `give_up_on` fails a job at once, whatever retries it has left. With `at_once`
    its outcome is handed in before the worker does anything else.
    """

    name: str
    function: Callable[..., Any]
    options: Options
    give_up_on: tuple[type[Exception], ...]
    at_once: bool
    signature: inspect.Signature
    arguments: type[msgspec.Struct]

    def validate(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Check a call against the annotations.

        Raises `InvalidCall` with the argument's name for a missing, unknown or ill-typed one.
        """
        if self.name.startswith("__main__."):
            raise InvalidCall(
                f"{self.name}: a worker can't import the program itself: move the job to another module"
            )
        self._checked(args, kwargs)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments as they come off the wire, made into what the annotations say (a date from its text).

        Raises `InvalidCall`.
        """
        bound, typed = self._checked(args, kwargs)
        for argument in bound.arguments:
            bound.arguments[argument] = getattr(typed, argument)
        return bound.args, bound.kwargs

    def _checked(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[inspect.BoundArguments, msgspec.Struct]:
        try:
            bound = self.signature.bind(*args, **kwargs)
            # JSON has text keys alone: they become the numbers or dates that an annotation asks for.
            return bound, msgspec.convert(bound.arguments, self.arguments, str_keys=True)
        except (TypeError, msgspec.ValidationError) as error:
            raise InvalidCall(f"{self.name}: {_explained(error)}") from None


_registered: dict[str, JobType] = {}
_enqueue: Enqueue | None = None


@dataclass(frozen=True, slots=True)
class Call(Generic[P]):
    """A registered function with some options changed for the next enqueue."""

    job: JobType
    changed: Options

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Enqueue one job and return its id."""
        return _producer()(self.job, [(args, kwargs)], self.changed)[0]

    def enqueue_many(self, calls: Iterable[Mapping[str, Any] | Sequence[Any]]) -> list[str]:
        """Enqueue one job a call, hundreds a round trip, and return their ids in order.

        Each call is a mapping of argument names, or a sequence of positional arguments.
        """
        return _producer()(self.job, [_pair(call) for call in calls], self.changed)


@overload
def job(function: Callable[P, R], /) -> JobFunction[P, R]: ...


@overload
def job(
    *, give_up_on: tuple[type[Exception], ...] = (), at_once: bool = False, **options: Any
) -> Callable[[Callable[P, R]], JobFunction[P, R]]: ...


def job(
    function: Callable[..., Any] | None = None,
    /,
    *,
    give_up_on: tuple[type[Exception], ...] = (),
    at_once: bool = False,
    **options: Any,
) -> Any:
    """Register a function as a job and return it, still directly callable.

    Options are those of `Options` (`queue`, `timeout`, `retries`, `result_ttl`, ...) and hold for each of
    its jobs unless one enqueue says otherwise. An exception of a type in `give_up_on` is not retried.
    `at_once` is for a function that does what must not be done twice lightly, such as sending a mail: its
    outcomes never wait for a batch to end.

    >>> from jobs import job
    >>> @job(queue="low", timeout=600, retries=3)
    ... def report(month: str, copies: int = 1) -> str:
    ...     return f"{copies} of {month}"
    >>> report("2026-11")
    '1 of 2026-11'

    `report.enqueue("2026-11")` hands it to a worker, and
    `report.options(delay=60, queue="high").enqueue("2026-11", copies=2)` changes options for one enqueue.
    Raises `InvalidJob` for a function that a worker could not import or whose arguments JSON can't carry.
    """
    if function is not None:
        return _register(function, Options(**options), give_up_on, at_once)
    return lambda decorated: _register(decorated, Options(**options), give_up_on, at_once)


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
            _add(name, function, Options(), typed=False)


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


def _producer() -> Enqueue:
    if _enqueue is None:
        importlib.import_module("jobs.producer").connect()
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
    give_up_on: tuple[type[Exception], ...] = (),
    at_once: bool = False,
) -> JobFunction[P, R]:
    if not hasattr(function, "__qualname__"):
        raise InvalidJob(f"{function!r} can't be a job: decorate a function")
    name = f"{function.__module__}.{function.__qualname__}"
    if "<locals>" in name or "<lambda>" in name:
        raise InvalidJob(
            f"{name} can't be a job: a worker imports jobs by name, so define it at a module's top"
        )
    job_type = _add(name, function, options, give_up_on, at_once)
    call: Call[P] = Call(job_type, Options())
    registered = cast(JobFunction[P, R], function)
    registered.job = job_type
    registered.enqueue = call.enqueue  # type: ignore[method-assign]
    registered.enqueue_many = call.enqueue_many  # type: ignore[method-assign]
    registered.options = lambda **changes: Call(job_type, Options(**changes))  # type: ignore[method-assign]
    return registered


def _add(
    name: str,
    function: Callable[..., Any],
    options: Options,
    give_up_on: tuple[type[Exception], ...] = (),
    at_once: bool = False,
    typed: bool = True,
) -> JobType:
    """Register `function` as `name`. Raises `InvalidJob` where calls of it could not be checked."""
    try:
        signature = inspect.signature(function)
        hints = typing.get_type_hints(function, include_extras=True) if typed else {}
    except (AttributeError, NameError, SyntaxError, TypeError, ValueError) as error:
        raise InvalidJob(f"{name} can't be a job: its signature can't be read: {error}") from None
    arguments = _arguments_type(name, signature, hints)
    _registered[name] = JobType(name, function, options, give_up_on, at_once, signature, arguments)
    return _registered[name]


def _arguments_type(
    name: str, signature: inspect.Signature, hints: Mapping[str, Any]
) -> type[msgspec.Struct]:
    """A struct with one field a parameter: what an enqueue is validated against."""
    fields: list[tuple[str, Any, Any]] = []
    for parameter in signature.parameters.values():
        kind: Any = hints.get(parameter.name, Any)
        if parameter.kind is parameter.VAR_POSITIONAL:
            kind = tuple[kind, ...]
        elif parameter.kind is parameter.VAR_KEYWORD:
            kind = dict[str, kind]
        # Binding has already refused a missing argument, so that here each may be absent.
        fields.append((parameter.name, kind, None))
    try:
        struct = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
        msgspec.json.Decoder(struct)
        msgspec.json.schema(struct, schema_hook=_refuse)
    except (TypeError, RuntimeError) as error:
        raise InvalidJob(
            f"{name} can't be a job: its arguments must be what JSON can carry ({error})"
        ) from None
    return struct


def _refuse(kind: Any) -> dict[str, Any]:
    """Asked for each type that is not JSON's: none is let through but `object`, which is anything."""
    if kind is object:
        return {"title": "anything"}
    raise TypeError(f"{getattr(kind, '__name__', kind)} is not")


def _explained(error: Exception) -> str:
    """msgspec's `Expected `int`, got `str` - at `$.width`` with the argument in front."""
    text, _, place = str(error).partition(" - at `$.")
    return f"argument {place.rstrip('`')}: {text[0].lower()}{text[1:]}" if place else text
