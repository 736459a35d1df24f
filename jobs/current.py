"""The job that runs now, for the authors of jobs: its id, progress, checkpoints and resources."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from packmule.errors import NotFound, UsageError
from packmule.jobs import context, said, wire
from packmule.jobs.context import REPORT_INTERVAL, running
from packmule.jobs.durable import SignalTimeout, sleep, step, wait_for
from packmule.jobs.interrupts import Interrupted
from packmule.jobs.limits import is_number
from packmule.jobs.spans import Span, in_seconds
from packmule.units import KIB

__all__ = [
    "NoResource", "SignalTimeout", "attempt", "batch_id", "checkpoint", "fence", "flow", "job_id",
    "leave_network", "progress", "prolong", "resource", "resume", "sleep", "spent", "step", "track",
    "wait_for",
]  # fmt: skip

if TYPE_CHECKING:
    from packmule.jobs.flow import Flow

T = TypeVar("T")

CHECKPOINT_INTERVAL = 1.0
"""Seconds between two checkpoints that leave the process; the last before a failure always does."""


MOST_SPENT = 10**15

MOST_PROLONGED = 3600.0

MOST_CHECKPOINT_BYTES = 256 * KIB
"""Bytes of JSON that a checkpoint may take."""


_log = logging.getLogger("packmule.current")


class CheckpointTooLarge(UsageError, ValueError):
    """A job's checkpoint takes more bytes than its record should hold."""


class UnfitSpending(UsageError, ValueError):
    """A job said that it spent what is no amount."""


class NoResource(NotFound, LookupError):
    """A job asked for a resource that its process does not have."""


def job_id() -> str | None:
    """The id of the job that this code runs in, or None outside of one."""
    job = running()
    return job.id if job else None


def attempt() -> int:
    """Which attempt of the job this is: 1 the first time, 2 in its first retry; 1 outside of a job.

    A run that its process's death or a deploy broke off doesn't count, nor does one that slept or waited.

    >>> from packmule import current
    >>> current.attempt()
    1
    """
    job = running()
    return job.attempt if job else 1


def fence() -> int | None:
    """The fencing token of the running singleton, higher than that of any before; None in any other job.

    Pass it to whatever the job changes, so that a run that was frozen and overtaken can't change it later:
    `coordination.locks.fence` compares it for a value in Redis, a column `fence` does in SQL
    (`UPDATE ... WHERE fence <= :fence`).
    """
    job = running()
    return job.fence if job else None


def spent(amount: float) -> None:
    """Correct what the running job takes from its rate: it has cost this `amount` so far, rounded up.

    Use it in a job whose `rate` has a `cost`. The rate gets tokens back, or loses more, up to a whole burst.
    The last call of an attempt counts. Outside of a job, and in one without such a rate, it does nothing.
    Raises `UnfitSpending` for anything but a number of 0 or more.

    >>> from packmule import current
    >>> current.spent(1_250)
    """
    if not is_number(amount) or not 0 <= amount <= MOST_SPENT:
        raise UnfitSpending(f"spent={amount!r:.40}: give a number from 0 to {MOST_SPENT:,}")
    job = running()
    if job is not None:
        job.spend(math.ceil(amount))


def prolong(seconds: Span) -> None:
    """Keep the timeout from ending the running job within the next `seconds` (or `"5m"`), at most an hour.

    Use it for work that must not be cut short, such as a pending call. A job with more time left keeps it; a
    cancel still ends the job. Outside of a job it does nothing.

    >>> from packmule import current
    >>> current.prolong(30)
    """
    span, job = in_seconds(seconds, "seconds"), running()
    if job is not None and span > 0:
        job.prolong(min(span, MOST_PROLONGED))


def batch_id() -> str | None:
    """The id of the batch that this job is in, or is the callback of; None if there is none."""
    job = running()
    return job.batch.partition(" ")[0] or None if job else None


def flow() -> Flow | None:
    """The flow that this job is a node of, to which it may add nodes; None if it is in no batch.

    >>> current.flow().add(resize.call("a.jpg"), after=current.job_id())  # doctest: +SKIP
    """
    from packmule.jobs.flow import Flow  # noqa: PLC0415  few jobs are nodes

    return Flow.current()


def progress(done: float, total: float | None = None, message: str = "") -> None:
    """Report how far the running job is: `done` of `total` units, and what it is doing.

    It is cheap enough for an inner loop: a report leaves the process at most ten times a second, and the
    latest within about a tenth of a second. Within an attempt `done` never decreases. No number makes the job
    fail: a negative `done` counts as 0, and a `total` that is not above 0 as none. Of `message` the first
    1,000 characters are kept. Outside of a job it does nothing, so a job stays callable as a plain function.

    >>> from packmule import current
    >>> current.progress(40, 100, "resizing")
    """
    job = running()
    if job is None:
        return
    # Floats of other libraries, such as numpy's, have a text that readers don't understand.
    before, job.done = job.done, max(job.done, float(done))
    if total is not None:
        total = float(total)
        total = total if 0 < total < math.inf else None
    job.pending.append((job.done, total, message))
    if total is not None and before < total <= job.done:
        job.flush()
    elif time.monotonic() - job.reported_at >= REPORT_INTERVAL:
        job.flush(REPORT_INTERVAL)
    elif not job.is_late:
        job.is_late = True
        context.late_reports.send(job)


def track(items: Iterable[T], total: float | None = None, message: str = "") -> Iterator[T]:
    """Iterate over `items` and report how many are done, of `total` or of the length of `items`.

    >>> from packmule import current
    >>> [page * 2 for page in current.track([1, 2, 3], message="printing")]
    [2, 4, 6]
    """
    if total is None:
        total = len(items) if isinstance(items, Sized) else None
    done = 0
    for item in items:
        progress(done, total, message)
        yield item
        done += 1
    progress(done, total, message)


def log(text: str, level: str = "info", **fields: Any) -> None:
    """Add a line to the running job's log, which `packmule job logs` and a job's handle show.

    `level` is debug, info, warning, error or critical, and `fields` are kept as JSON. It is cheap enough for
    an inner loop: lines leave the process together, twice a second. Lines below `PACKMULE_JOB_LOG_LEVEL` are
    not kept, and a text of more than 8,192 characters loses its middle. Outside of a job the line goes to
    `logging`. Raises `UnknownLevel`.

    >>> from packmule import current
    >>> current.log("half of the rows are in", rows=500)
    """
    number = said.level_number(level)
    text = text if type(text) is str else str(text)
    if (heard := context.said()) is None:
        told = "".join(f" {name}={value}" for name, value in fields.items())
        _log.log(number, "%s%s", text, told, stacklevel=2)
    elif number >= heard.level:
        heard.line(said.line(time.time(), number, text, fields))


def emit(chunk: Any) -> None:
    """Add a chunk, a text or another value that JSON can hold, to the running job's output.

    Watchers get it within a tenth of a second; chunks leave the process together. The last mebibyte of a
    job's output is kept as long as its record. Outside of a job it does nothing. Raises `TypeError` or
    `ValueError` for a value that JSON can't hold, and `ChunkTooLarge` for one of more than 256 KiB.

    >>> from packmule import current
    >>> for word in ("once ", "upon ", "a time"):
    ...     current.emit(word)
    """
    if (heard := context.said()) is not None:
        heard.chunk(said.chunk(chunk))


def checkpoint(cursor: Any) -> None:
    """Store `cursor`, any JSON value, as the point from which this job continues.

    A retry, a run after a crash and the next worker after a deploy get it from `resume`. Call it as often as
    you like: it is sent once a second. Whatever was done after the last one is done again, so doing it twice
    must be harmless. If the worker is stopping, the job ends here and continues elsewhere. Outside of a job
    it does nothing. Raises `TypeError` or `ValueError` for a value that JSON can't hold, such as NaN, and
    `CheckpointTooLarge` for one of more than 256 KiB.

    >>> from packmule import current
    >>> for row in range(current.resume(0), 1000):
    ...     current.checkpoint(row + 1)
    """
    job = running()
    if job is None:
        return
    encoded = wire.encode_value(cursor)
    if len(encoded) > MOST_CHECKPOINT_BYTES:
        raise CheckpointTooLarge(
            f"the checkpoint takes {len(encoded)} bytes, over the limit of {MOST_CHECKPOINT_BYTES}: put the "
            "data in storage and keep its path"
        )
    job.cursor = encoded
    if job.is_draining():
        job.keep()
        raise Interrupted
    if time.monotonic() - job.saved_at >= CHECKPOINT_INTERVAL:
        job.keep()


def resume(default: Any = None) -> Any:
    """The cursor of this job's latest checkpoint, or `default` if no run has left one."""
    job = running()
    return msgspec.json.decode(job.cursor) if job and job.cursor is not None else default


def leave_network() -> None:
    """Cut this job off from the network before it reads what it has fetched (see `network` of `@job`).

    Only isolated jobs are cut off, so the function can be called anywhere.
    """
    while context.leaving:
        context.leaving.pop()()


def resource(kind: type[T]) -> T:
    """The resource of type `kind` that this process provides to its jobs. Raises `NoResource`.

    >>> from packmule.jobs.storage import Storage
    >>> current.resource(Storage).read_bytes("uploads/a.txt")  # doctest: +SKIP
    """
    try:
        return cast(T, context.resources[kind])
    except KeyError:
        raise NoResource(
            f"no {kind.__name__} here: perform the job in a worker, or lend one with context.provide(...)"
        ) from None
