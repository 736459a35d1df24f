"""A job's type: a callable, the options of its jobs, and the check of a call against its annotations."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import takewhile
from typing import Any, Literal, cast

import msgspec

from packmule.errors import UsageError, meant
from packmule.jobs.arguments import arguments_type, converted, explained, ways_to_give
from packmule.jobs.limits import InvalidLimit, JobLimits, job_limits
from packmule.jobs.options import JobOptions, Options
from packmule.jobs.secrets import Parts, secrets_of
from packmule.jobs.spans import Span, in_seconds

MOST_REUSE = 10_000


class InvalidCall(UsageError, TypeError):
    """A call does not fit the job's signature; nothing was enqueued."""


class InvalidJob(UsageError, TypeError):
    """A function can't be a job; raised when it is decorated."""


class JobSettings(JobOptions, total=False):
    """What `@job(...)` accepts: default options for its jobs, and traits that apply to all of them."""

    give_up_on: tuple[type[BaseException], ...]
    """Exceptions that are never retried."""
    check: Callable[..., object] | None
    """Called with the arguments before a call is enqueued: if it raises a `ValueError`, it is refused."""
    retry_on: tuple[type[BaseException], ...] | None
    """The only exceptions that are retried; all of them by default."""
    at_once: bool
    """Acknowledge each job before the next starts: for what is not lightly done twice, such as a mail."""
    isolate: bool
    """Run each job in a fresh process: for functions that read what strangers sent."""
    max_memory: int | None
    """Bytes that an isolated job may take beyond what the worker has."""
    max_cpu: Span | None
    """How much processor time an isolated job may take."""
    reuse: int
    """How many jobs one isolated process performs: for functions that keep nothing between two calls."""
    network: bool | Callable[..., bool]
    """Whether isolated jobs may connect to anything, on Linux; those that may not use local files alone.

    A function takes the arguments and says which jobs may, until they call `current.leave_network()`.
    """
    version: int | str | None
    """Only workers with the same version go on behind a job's recorded steps: change it with the steps."""
    singleton: bool | str | None
    """Run one job at a time in the whole cluster, or one for each value of an argument (`"{account_id}"`)."""
    singleton_policy: Literal["wait", "skip", "replace"]
    """What becomes of a second singleton.

    It waits; or is not enqueued while there is one; or replaces those that wait and stops the one that runs.
    """
    concurrency: int | str | None
    """How many jobs may run at a time: `5`, or `"5 by {tenant}"`."""
    rate: str | None
    """How many jobs may start per interval: `"100/m"`, `"100/m burst 20"` or `"100/m by {to@}"`."""
    fair: str | None
    """Let the values of an argument take turns in their queue: `"{tenant}"`."""
    cron: str | None
    """Enqueue a job at each tick of a cron expression: `"30 2 * * *"`."""
    every: str | int | None
    """Enqueue a job at an interval: `"5m"`, or seconds."""
    tz: str | None
    """The time zone of `cron`, UTC by default."""
    schedule: Mapping[str, Any] | None
    """What else a schedule may say: `{"kwargs": {"month": "{tick}"}, "overlap": "skip"}`."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What `JobSettings` says of how all jobs of a type are performed and scheduled, as a checked value.

    `jobs.limits` reads `singleton`, `concurrency`, `rate` and `fair`, and `jobs.schedule` reads `cron`,
    `every`, `tz` and `schedule`. Raises `InvalidJob` for what can't be meant.
    """

    give_up_on: tuple[type[BaseException], ...] = ()
    check: Callable[..., object] | None = None
    retry_on: tuple[type[BaseException], ...] | None = None
    at_once: bool = False
    isolate: bool = False
    max_memory: int | None = None
    max_cpu: float | None = None
    reuse: int = 1
    network: bool | Callable[..., bool] = True
    version: int | str | None = None
    singleton: bool | str | None = None
    singleton_policy: str = "wait"
    concurrency: int | str | None = None
    rate: str | None = None
    fair: str | None = None
    cron: str | None = None
    every: str | int | None = None
    tz: str | None = None
    schedule: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check the values, together and alone."""
        for name in ("give_up_on", "retry_on"):
            kinds = getattr(self, name)
            if kinds is not None and not (
                isinstance(kinds, tuple)
                and all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds)
            ):
                raise InvalidJob(f"{name}={kinds!r}: give a tuple of exception types")
        if isinstance(self.max_cpu, str | timedelta):
            object.__setattr__(self, "max_cpu", in_seconds(self.max_cpu, "max_cpu"))
        for name in ("max_memory", "max_cpu"):
            bound = getattr(self, name)
            if bound is not None and (not isinstance(bound, int | float) or bound <= 0):
                raise InvalidJob(f"{name}={bound!r}: give a number above 0")
            if bound is not None and not self.isolate:
                raise InvalidJob(f"{name} needs a process for each job: add isolate=True")
        if not isinstance(self.reuse, int) or not 1 <= self.reuse <= MOST_REUSE:
            raise InvalidJob(f"reuse={self.reuse!r}: give a whole number from 1 to {MOST_REUSE:,}")
        if (self.reuse != 1 or self.network is not True) and not self.isolate:
            raise InvalidJob("reuse and network need a process for each job: add isolate=True")
        if self.check is not None and not callable(self.check):
            raise InvalidJob(f"check={self.check!r}: give a function that takes the job's arguments")
        if not isinstance(self.version, int | str | None) or not self.version_text.isprintable():
            raise InvalidJob(f"version={self.version!r}: give a number or a printable text")
        if self.cron is None and self.every is None and (self.tz is not None or self.schedule is not None):
            raise InvalidJob("tz and schedule are for scheduled jobs: add cron or every")

    def leaves_network(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call may connect until it leaves the network itself."""
        return callable(self.network) and bool(self.network(*args, **kwargs))

    @property
    def version_text(self) -> str:
        """`version` as text, empty if there is none."""
        return "" if self.version is None else str(self.version)

    def may_retry(self, error: BaseException) -> bool:
        """Whether a job that raised `error` may run again if it has retries left."""
        if isinstance(error, self.give_up_on):
            return False
        return self.retry_on is None or isinstance(error, self.retry_on)


@dataclass(frozen=True, slots=True)
class JobType:
    """One registered callable: its dotted `name`, its function, and the options its jobs start from."""

    name: str
    function: Callable[..., Any]
    options: Options
    traits: Traits
    signature: inspect.Signature
    arguments: type[msgspec.Struct]
    is_async: bool
    limits: JobLimits | None = None
    names: tuple[str, ...] = ()
    """The parameters that a call may give by position; none if it may give any number of others."""
    named: frozenset[str] = frozenset()
    """Those that it may give by name; none in the same case."""
    required: frozenset[str] = frozenset()
    secrets: Mapping[str, Parts] = field(default_factory=dict)
    """Which parts of its arguments and result are secret (`jobs/secrets.py`)."""

    def validate(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Check a call against the annotations.

        Raises `InvalidCall` with the argument's name for a missing, unknown or ill-typed one, and with what
        the type's own `check` said.
        """
        if self.name.startswith("__main__."):
            raise InvalidCall(
                f"{self.name}: a worker can't import the program itself: move the job to another module"
            )
        if self.traits.check is not None:
            positional, named = self.bind(args, kwargs)
            try:
                self.traits.check(*positional, **named)
            except ValueError as error:
                raise InvalidCall(f"{self.name}: {error}") from None
            return
        given = self._given(args, kwargs)
        if given is None:
            self._bound(args, kwargs)
        else:
            self._typed(given, kwargs)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments off the wire, converted to what the annotations say (a text to a date).

        Raises `InvalidCall`.
        """
        given = self._given(args, kwargs)
        if given is None:
            bound = self._bound(args, kwargs)
            return bound.args, bound.kwargs
        if not given:
            return (), {}
        typed = self._typed(given, kwargs)
        first = tuple(takewhile(given.__contains__, self.names))
        named = {name: getattr(typed, name) for name in given if name not in first}
        return tuple([getattr(typed, name) for name in first]), named

    def arguments_of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of a call by name, converted to what the annotations say, with defaults.

        Raises `InvalidCall`.
        """
        bound = self._bound(args, kwargs)
        bound.apply_defaults()
        return bound.arguments

    def _given(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The arguments of a call by name; None if they don't fit, or if only Python's own binding can tell.

        That takes long.
        """
        if len(args) > len(self.names) or not kwargs.keys() <= self.named:
            return None
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        fits = len(given) == len(args) + len(kwargs) and self.required <= given.keys()
        return given if fits else None

    def _bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise self.invalid(error, kwargs) from None
        typed = self._typed(bound.arguments, kwargs)
        for argument in bound.arguments:
            bound.arguments[argument] = getattr(typed, argument)
        return bound

    def _typed(self, arguments: Mapping[str, Any], kwargs: Mapping[str, Any]) -> msgspec.Struct:
        try:
            return cast(msgspec.Struct, converted(arguments, self.arguments))
        except (TypeError, UnicodeEncodeError, msgspec.ValidationError) as error:
            raise self.invalid(error, kwargs) from None

    def invalid(self, error: Exception, kwargs: Mapping[str, Any]) -> InvalidCall:
        """What to raise for a call that doesn't fit."""
        return InvalidCall(f"{self.name}: {self._unknown(kwargs) or explained(error)}")

    def _unknown(self, kwargs: Mapping[str, Any]) -> str:
        """What is wrong with the first of `kwargs` that is no argument, if there is one."""
        known = self.signature.parameters
        name = next((each for each in kwargs if each not in known), None)
        if name is None or any(each.kind is each.VAR_KEYWORD for each in known.values()):
            return ""
        said, near = f"got an unexpected keyword argument {name!r:.100}", meant(name, known)
        if name in JobOptions.__annotations__:
            return f"{said}, which is an option: give it to .options({name}=...)"
        return f"{said}: did you mean {near}?" if near else f"{said}: there are {', '.join(known) or 'none'}"


def job_type(
    name: str,
    function: Callable[..., Any],
    options: Options,
    traits: Traits | None = None,
    typed: bool = True,
) -> JobType:
    """The type of the jobs that call `function`; with `typed` its annotations are checked in each call.

    Raises `InvalidJob` where calls of it could not be checked.
    """
    try:
        signature = inspect.signature(function)
        hints = typing.get_type_hints(function, include_extras=True) if typed else {}
    except (AttributeError, NameError, SyntaxError, TypeError, ValueError) as error:
        raise InvalidJob(f"{name} can't be a job: its signature can't be read: {error}") from None
    try:
        arguments = arguments_type(signature, hints)
    except (TypeError, RuntimeError) as error:
        raise InvalidJob(f"{name} can't be a job: its arguments must be JSON values ({error})") from None
    is_async = inspect.iscoroutinefunction(function)
    traits = traits or Traits()
    if is_async and traits.isolate:
        raise InvalidJob(f"{name} can't be a job: an async function can't be isolated; make it a plain one")
    try:
        limits = job_limits(
            name, signature, traits.singleton, traits.singleton_policy, traits.concurrency, traits.rate,
            traits.fair,
        )  # fmt: skip
    except InvalidLimit as error:
        raise InvalidJob(f"{name} can't be a job: {error}") from None
    ways, secrets = ways_to_give(signature), secrets_of(signature, hints)
    return JobType(name, function, options, traits, signature, arguments, is_async, limits, *ways, secrets)
