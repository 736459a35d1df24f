"""Hooks: code of yours around every enqueue and every run of a job.

    @hooks.perform
    @contextmanager
    def timed(job):
        began = time.perf_counter()
        yield
        print(job.name, job.outcome, time.perf_counter() - began)

What stands before `yield` runs before the job's body, in the same thread or task; what stands behind it runs
when the body has ended, and knows the `outcome`. A hook of an async generator (`@asynccontextmanager`) is for
async jobs alone. An error that a hook raises ends the job as one of its body would; a hook can't keep an
error from the job's end. A process that is killed runs no more of its hooks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, TypeVar

from packmule import project
from packmule.errors import UsageError

GROUP = "packmule.hooks"
"""The group of entry points whose modules register hooks when they are imported."""

PerformOutcome = Literal["", "finished", "failed", "retried", "stopped", "returned", "waiting"]
"""How a run ended; "" while it goes on.

`retried` means that the job runs again, `returned` that its worker stops and another takes it, and `waiting`
that its body waits for a time or a signal in one of its steps.
"""

log = logging.getLogger("packmule.hooks")


class BrokenHook(UsageError, RuntimeError):
    """A module of hooks can't be imported."""


@dataclass(slots=True)
class Performing:
    """One run of a job, as hooks see it; `attempt` is 1 the first time.

    `callback` is `success`, `failure` or `stopped` if it is a callback of RQ's, which `name` then names.
    `outcome`, and the `error` that ended the body or its `result`, are known when it has ended.
    """

    id: str
    name: str
    queue: str
    attempt: int
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    batch: str = ""
    callback: str = ""
    trace: str = ""
    """The W3C `traceparent` of its enqueue."""
    is_isolated: bool = False
    """Whether it has a process of its own."""
    outcome: PerformOutcome = ""
    error: BaseException | None = None
    result: Any = None


@dataclass(slots=True)
class Enqueueing:
    """One enqueue of `count` jobs of a type, as hooks see it; `ids` are known when they are sent."""

    name: str
    queue: str
    count: int = 1
    trace: str = ""
    """The W3C `traceparent` that the jobs carry."""
    ids: Sequence[str] = field(default=())


PerformHook = Callable[[Performing], AbstractContextManager[Any] | AbstractAsyncContextManager[Any]]
"""Returns what is around a run; if that is both, an async job takes the async one."""
EnqueueHook = Callable[[Enqueueing], AbstractContextManager[Any]]
Hook = TypeVar("Hook", bound=Callable[..., Any])

performers: list[PerformHook] = []
"""The hooks around each run, the outermost first."""

enqueuers: list[EnqueueHook] = []
"""The hooks around each enqueue, the outermost first."""

postponers: list[Callable[[Callable[[], object]], bool]] = []
"""What may send jobs later, such as when a transaction of the application ends: it takes the call that sends
them, and returns whether it makes that call later."""

flushers: list[Callable[[], object]] = []
"""What sends the rest that hooks collected: called in a thread before a process that performs jobs ends."""

FLUSH_SECONDS = 2.0

_loaded: set[str] = set()


def perform(hook: Hook) -> Hook:
    """Register a hook around each run: it takes a `Performing` and returns a context manager."""
    if hook not in performers:
        performers.append(hook)
    return hook


def enqueue(hook: Hook) -> Hook:
    """Register a hook around each enqueue: it takes an `Enqueueing` and returns a context manager."""
    if hook not in enqueuers:
        enqueuers.append(hook)
    return hook


def forget(hook: Callable[..., Any]) -> None:
    """Remove a hook wherever it was registered, as tests do."""
    for hooks in (performers, enqueuers, postponers, flushers):
        if hook in hooks:
            hooks.remove(hook)


def postponed(send: Callable[[], object]) -> bool:
    """Whether something will send jobs later by this call."""
    return any(each(send) for each in postponers)


def flush() -> None:
    """Send the rest of what hooks collected, as far as that takes no longer than `FLUSH_SECONDS` for each.

    Nothing that goes wrong there may keep a process from its end, or an isolated job from its outcome.
    """
    for each in flushers:
        with suppress(RuntimeError):  # the system has no room for another thread
            sending = threading.Thread(target=_flushed, args=[each], name="flushing hooks", daemon=True)
            sending.start()
            sending.join(FLUSH_SECONDS)


def _flushed(flusher: Callable[[], object]) -> None:
    try:
        flusher()
    except Exception as error:
        name = f"{flusher.__module__}.{getattr(flusher, '__qualname__', flusher)}"
        log.warning("%s can't send what hooks collected: %s: %s", name, type(error).__name__, error)


def load(modules: Iterable[str]) -> None:
    """Import the modules of hooks that are installed as entry points, and `modules`. Raises `BrokenHook`.

    The working directory is importable for `modules`, after everything installed.
    """
    if GROUP not in _loaded:
        from importlib import metadata  # noqa: PLC0415  a module that only declares jobs does without

        _loaded.add(GROUP)
        for each in metadata.entry_points(group=GROUP):
            _imported(each.module, f"the entry point {each.name} of {GROUP}")
    for module in modules:
        project.let_import()
        _imported(module, "PACKMULE_HOOKS")


def _imported(module: str, source: str) -> None:
    if module in _loaded:
        return
    try:
        import_module(module)
    except Exception as error:
        raise BrokenHook(f"{source}: can't import {module}: {type(error).__name__}: {error}") from error
    _loaded.add(module)
