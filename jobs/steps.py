"""Steps: what a run of a job knows of its earlier runs, and what it adds for those that come after it.

A field of `pm:steps:<id>` is `step:<name>`, `sleep:<name>` or `signal:<name>` (`signal#2:<name>` the second
time). Its value is a JSON list: a state, the field's place among those that the run asked for (from 1), 1 if
it was asked for beside the job's own task or thread, Unix seconds by the server's clock, and a value.

- `done`: it ended with this value. The body gets it at once.
- `begun`: it began under a policy that wants to know. Without an end the outcome is unknown.
- `waits`: the job waits until that time, or for ever if it's null.
- `late`: no signal came before that time.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from packmule.coordination.redis.replies import UNREADABLE
from packmule.errors import Conflict, JobFailed, UsageError
from packmule.jobs import wire
from packmule.jobs.context import Running, running
from packmule.jobs.interrupts import Interrupted, Waiting
from packmule.units import KIB

if TYPE_CHECKING:
    import asyncio

E = TypeVar("E", bound=BaseException)

MOST_STEPS = 1000
MOST_BYTES = 256 * KIB
"""Bytes that all steps of a job may take: names and results as JSON, and some forty bytes for each."""

OVERHEAD = 40
LONGEST_NAME = 200

ANSWER = "signal:step:"
"""How the field of an operator's answer to a step with an unknown end begins."""

Remember = Callable[[str, str, str, str], bool]
"""Writes a field: its value as far as the time, the rest behind that, and a field to forget, or "" for none.

An empty value forgets the field. False if the worker has lost its claim on the job.
"""


class InvalidStep(UsageError, ValueError):
    """A step, sleep or wait was asked for in a way that can't be meant."""


class StepNotKept(UsageError, ValueError):
    """A step returned what JSON can't hold, or the job's steps take more than may be kept."""


class StepsChanged(Conflict):
    """The code of a job no longer asks for a step that an earlier run has recorded."""


class StepUnknown(JobFailed):
    """A step began, but nobody knows whether it ended."""


class StepsUnreadable(Conflict):
    """What is recorded of a step makes no sense."""


FINAL = InvalidStep | StepNotKept | StepsChanged | StepUnknown | StepsUnreadable
"""The errors that another attempt would meet again: they end the job, whatever its body makes of them."""


class Recorded(NamedTuple):
    """What earlier runs left: the `version` of their code, the fields with their values, and when an operator
    last let the job run again, in Unix seconds.
    """

    version: str
    values: dict[str, bytes]
    retried_at: float = 0.0


class Kept(msgspec.Struct, array_like=True, frozen=True):
    """The value of a field."""

    state: str
    place: int
    beside: int
    at: float | None
    value: Any = None


_decode = msgspec.json.Decoder(Kept).decode


class Steps:
    """The steps of one run of a job, made when its body first asks for one.

    `task` is the job's own task if it is async. `remember` writes, and `is_draining` says whether the worker
    stops.
    """

    def __init__(
        self,
        recorded: Recorded | None,
        version: str,
        remember: Remember,
        is_draining: Callable[[], bool],
        task: asyncio.Task[Any] | None = None,
    ) -> None:
        recorded = recorded or Recorded(version, {})
        self.version = version
        self.retried_at = recorded.retried_at
        self.remember = remember
        self.is_draining = is_draining
        self.is_async = task is not None
        self.error: BaseException | None = None
        """What ends this run, even if the body goes on."""
        self.in_flight: set[asyncio.Task[Any]] = set()
        self._kept = dict(recorded.values)
        self._asked: dict[str, str] = {}
        self._left = {field for field in self._kept if not field.startswith(ANSWER)}
        self._bytes = sum(map(_size, self._kept, self._kept.values()))
        self._owner: object = task or threading.get_ident()

    def ask(self, field: str) -> Kept | None:
        """What is recorded of `field`, which a run asks for once, or None. Raises what ends the run."""
        if self.error:
            raise self.error
        if field in self._asked:
            raise self.ends_by(InvalidStep(f"{said(field)} came twice in one run: give each its own name"))
        self._place(field)
        self._left.discard(field)
        kept = self.find(field)
        if kept is None or kept.state in ("begun", "waits"):
            if self._asked[field].endswith("0"):
                self._check(field)
            if kept is None and (len(self._kept) >= MOST_STEPS or self._bytes > MOST_BYTES):
                most = f"a job has at most {MOST_STEPS}, of at most {MOST_BYTES} bytes in all"
                raise self.ends_by(StepNotKept(f"{said(field)} is one too many: {most}"))
        return kept

    def find(self, field: str) -> Kept | None:
        """What is recorded of `field`."""
        text = self._kept.get(field)
        if text is None:
            return None
        try:
            return _decode(text)
        except UNREADABLE as error:
            raise self.ends_by(StepsUnreadable(f"the record of {said(field)} is corrupt: {error}")) from None

    def written(self, value: Any, field: str) -> bytes:
        """The result of `field` as JSON. Raises `StepNotKept`."""
        try:
            encoded = wire.encode_value(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise self.ends_by(StepNotKept(f"{said(field)} returned what JSON can't hold: {error}")) from None
        if self._bytes + _size(field, encoded) > MOST_BYTES:
            raise self.ends_by(
                StepNotKept(
                    f"{said(field)} returned {len(encoded)} bytes, but all steps of a job may take "
                    f"{MOST_BYTES}: put the data in storage and return its path"
                )
            )
        self._bytes += _size(field, encoded)
        return encoded

    def refuse_unknown(self, field: str, kept: Kept, id: str) -> None:
        """Raise `StepUnknown` for a step without an end, unless an operator retried the job since."""
        began = kept.at or 0.0
        if began >= self.retried_at:
            raise self.ends_by(
                StepUnknown(
                    f"{said(field)} began at {wire.time_text(began)}, and its outcome is unknown: find out "
                    f"what it did; packmule job retry {id} runs it again"
                )
            )

    def begin(self, field: str, answered: str) -> None:
        """Record that `field` begins, and forget the field of the answer that allowed it, or ""."""
        self._write(field, self._head("begun", field), "]", answered)

    def end(self, field: str, encoded: bytes) -> None:
        """Record the result of `field`."""
        self._write(field, self._head("done", field), f",{encoded.decode()}]", "")
        self._kept[field] = b""  # nobody asks for it again in this run

    def forget(self, field: str) -> None:
        """Record that `field` ended without a result: its error is known."""
        self._write(field, "", "", "")

    def wait(self, field: str, seconds: float | None) -> Waiting:
        """The exception that lets the job wait under `field`, for ever if `seconds` is None."""
        if field not in self._asked:
            self._place(field)
        return self.ends_by(Waiting(self.version, field, self._head("waits", field), seconds))

    def may_wait_again(self, kept: Kept) -> bool:
        """Whether a wait without a signal begins anew: it ended the run that an operator retried."""
        return (kept.at or 0.0) < self.retried_at and not self._left

    def times_asked(self, kind: str, name: str | None = None) -> int:
        """How often this run has asked for something of this kind, and this name if one is given."""
        parts = [field.partition(":") for field in self._asked]
        return sum(of.partition("#")[0] == kind and name in (None, its) for of, _, its in parts)

    def ends_by(self, error: E) -> E:
        """Let `error` end this run; the first one does."""
        self.error = self.error or error
        return error

    def finish(self) -> str | None:
        """The body has returned: the version of its steps, if it has some.

        Raises what the body should have let pass, and `StepsChanged`.
        """
        if self.error:
            raise self.error
        self._check(None)
        return self.version if self._kept else None

    def verdict(self, error: BaseException) -> BaseException:
        """What ends the run whose body raised `error`."""
        if isinstance(self.error, FINAL) and isinstance(error, Exception):
            return self.error
        if isinstance(error, BaseExceptionGroup) and error.split((Waiting, Interrupted))[1] is None:
            return self.error or error
        return error

    def _head(self, state: str, field: str) -> str:
        return f'["{state}",{self._asked[field]},'

    def _place(self, field: str) -> None:
        """Note a field's place, and whether it was asked for beside the job's own task or thread."""
        self._asked[field] = f"{len(self._asked) + 1},{int(not self._is_own())}"

    def _write(self, field: str, head: str, rest: str, other: str) -> None:
        if not self.remember(field, head, rest, other):
            raise self.ends_by(Interrupted("another worker has this job now"))

    def _is_own(self) -> bool:
        """Whether this is the job's own task, or the thread that asked first."""
        if not self.is_async:
            return threading.get_ident() == self._owner
        import asyncio  # noqa: PLC0415

        return asyncio.current_task() is self._owner

    def _check(self, field: str | None) -> None:
        """Raise `StepsChanged` if a step was recorded that should have come before `field`, or the end."""
        left = [each for each in self._left if field is None or not self._was_beside(each)]
        if not left:
            return
        first = min(left, key=lambda each: kept.place if (kept := self.find(each)) else 0)
        what = f"asked for {said(field)}" if field else "ended"
        raise self.ends_by(
            StepsChanged(
                f"the job {what} without {said(first)}, which an earlier run recorded: its code has changed; "
                "go back to that code, or give the new one a version: @job(version=...)"
            )
        )

    def _was_beside(self, field: str) -> bool:
        kept = self.find(field)
        return kept is not None and kept.beside == 1


def own_job() -> Running | None:
    """The job that this code runs in. Raises `InvalidStep` in one that RQ's own worker performs."""
    job = running()
    if job is None and (rq := sys.modules.get("rq.job")) and rq.get_current_job():
        raise InvalidStep("RQ's own worker keeps no steps: let a Packmule worker serve the queue")
    return job


def in_memory(task: asyncio.Task[Any] | None) -> Steps:
    """The steps of a run that nothing records."""
    return Steps(None, "", lambda *_: True, lambda: False, task)


def said(field: str) -> str:
    """A field as a text names it: `step 'charge'`."""
    kind, _, name = field.partition(":")
    return f"{kind.partition('#')[0]} {name!r}"


def checked_name(kind: str, name: object) -> str:
    """`name`, if a step, sleep or signal can have it. Raises `InvalidStep`."""
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
        raise InvalidStep(f"{kind} {name!r:.210}: give a name of 1 to {LONGEST_NAME} printable characters")
    return name


def _size(field: str, value: bytes) -> int:
    return len(field) + len(value) + OVERHEAD
