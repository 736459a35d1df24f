"""The job that runs now: its id, progress and checkpoints, and the resources that the worker lends it."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar, cast

import msgspec

from packmule.jobs.interrupts import Interrupted

T = TypeVar("T")
Report = Callable[[float, float | None, str], None]
Save = Callable[[bytes], None]

REPORT_INTERVAL = 0.1
"""Seconds between two reports of progress that leave the process; the last one always does."""

CHECKPOINT_INTERVAL = 1.0
"""Seconds between two checkpoints that leave the process; the last before a failure always does."""


class NoResource(LookupError):
    """A job asked for a resource that this process was not given."""


@dataclass(slots=True)
class Running:
    """A job being performed: `id`, its `attempt` (1 the first time) and where its progress goes.

    `cursor` is its latest checkpoint as JSON, None before the first one; `save` keeps it in Redis.
    `is_draining` tells whether the worker stops; `fence` is a singleton's token; `batch` is its batch.
    """

    id: str
    attempt: int
    report: Report
    cursor: bytes | None
    save: Save
    is_draining: Callable[[], bool]
    fence: int | None = None
    batch: str = ""
    saved: bytes | None = None
    saved_at: float = float("-inf")
    done: float = 0.0
    reported_at: float = float("-inf")
    pending: deque[tuple[float, float | None, str]] = field(default_factory=lambda: deque(maxlen=1))
    is_late: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def flush(self, after: float = 0.0) -> None:
        """Send the report that throttling held back, if the last is `after` seconds old; from any thread."""
        with self.lock:
            now = time.monotonic()
            if self.pending and now - self.reported_at >= after:
                self.reported_at = now
                done, total, message = self.pending.pop()
                # A file's name may hold bytes that are not UTF-8, and no report is worth a failed job.
                self.report(done, total, message.encode(errors="backslashreplace").decode())

    def keep(self) -> None:
        """Save the checkpoint that throttling held back, if any."""
        if self.cursor is not None and self.cursor is not self.saved:
            self.saved = self.cursor
            self.saved_at = time.monotonic()
            self.save(self.cursor)


class Late:
    """Sends, from a thread, the reports that were held back of jobs that then say nothing more."""

    def __init__(self) -> None:
        self.begin()
        os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        """Have no thread, as a process that was just forked."""
        self._jobs: SimpleQueue[Running] = SimpleQueue()
        self._has_thread = False

    def send(self, job: Running) -> None:
        """Flush `job` when its next report is due."""
        if not self._has_thread:
            self._has_thread = True
            threading.Thread(target=self._run, args=(self._jobs,), name="progress", daemon=True).start()
        self._jobs.put(job)

    def _run(self, jobs: SimpleQueue[Running]) -> None:
        while True:
            job = jobs.get()
            time.sleep(max(0.0, job.reported_at + REPORT_INTERVAL - time.monotonic()))
            job.is_late = False
            with suppress(OSError):  # the pipe of a fork that ends
                job.flush(REPORT_INTERVAL)


_late = Late()
_running: ContextVar[Running | None] = ContextVar("running", default=None)
_resources: dict[type, object] = {}


def running() -> Running | None:
    """The job that this code runs in, or None outside of one."""
    return _running.get()


def job_id() -> str | None:
    """The id of the job that this code runs in, or None outside of one."""
    job = _running.get()
    return job.id if job else None


def fence() -> int | None:
    """The fencing token of the running singleton, higher than that of any before; None in any other job.

    Give it to whatever the job changes, so that a run that was frozen and overtaken changes nothing any more:
    `coordination.locks.fence` does it for a value in Redis, a column `fence` in SQL
    (`UPDATE ... WHERE fence <= :fence`).
    """
    job = _running.get()
    return job.fence if job else None


def batch_id() -> str | None:
    """The id of the batch that this job is in, or is called back about; None where it is in none."""
    job = _running.get()
    return job.batch.partition(" ")[0] or None if job else None


def progress(done: float, total: float | None = None, message: str = "") -> None:
    """Report how far the running job is: `done` of `total` units, and what it is doing.

    Cheap enough for an inner loop: it leaves the process at most ten times a second, the latest one within
    a tenth of a second. Within an attempt `done` never goes back, and no number makes the job fail: a
    negative `done` is 0, a `total` that is no number above 0 is none.
    Outside of a job it does nothing, so a job stays callable as a plain function.

    >>> from packmule import current
    >>> current.progress(40, 100, "resizing")
    """
    job = _running.get()
    if job is None:
        return
    # Floats of other libraries, such as numpy's, are written in ways that nobody reads.
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
        _late.send(job)


def track(items: Iterable[T], total: float | None = None, message: str = "") -> Iterator[T]:
    """Go over `items` and report how many are done, of `total` or of as many as `items` says it holds.

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


def checkpoint(cursor: Any) -> None:
    """Keep `cursor`, any value that JSON can hold, as the place from which this job goes on.

    A retry, a run after a crash, or the next worker after a deploy gets it from `resume`. Call it as often as
    you like, it leaves the process once a second; what was done since the last one is done again, so let a
    second time do no harm. While the worker stops, the job ends here and goes on elsewhere.
    Outside of a job it does nothing. Raises `TypeError` for a value that JSON can't hold.

    >>> from packmule import current
    >>> for row in range(current.resume(0), 1000):
    ...     current.checkpoint(row + 1)
    """
    job = _running.get()
    if job is None:
        return
    job.cursor = msgspec.json.encode(cursor)
    if job.is_draining():
        job.keep()
        raise Interrupted
    if time.monotonic() - job.saved_at >= CHECKPOINT_INTERVAL:
        job.keep()


def resume(default: Any = None) -> Any:
    """The cursor of this job's latest checkpoint; `default` where an earlier run left none."""
    job = _running.get()
    return msgspec.json.decode(job.cursor) if job and job.cursor is not None else default


@contextmanager
def performing(
    id: str,
    attempt: int,
    report: Report,
    cursor: bytes | None = None,
    save: Save = lambda cursor: None,
    is_draining: Callable[[], bool] = lambda: False,
    fence: int | None = None,
    batch: str = "",
) -> Iterator[Running]:
    """Make `id` the running job of this context; at its end what throttling held back is sent.

    The worker wraps each body in it; the arguments are those of `Running`.
    """
    job = Running(id, attempt, report, cursor, save, is_draining, fence, batch, saved=cursor)
    token = _running.set(job)
    try:
        yield job
    except BaseException:
        job.keep()
        raise
    finally:
        _running.reset(token)
        job.flush()


def provide(*resources: object) -> None:
    """Lend `resources` to every job of this process, each found by its type; a later one replaces."""
    for resource in resources:
        _resources[type(resource)] = resource


def close() -> None:
    """Let each resource that has a `close` take its leave, as a worker does when it stops."""
    for lent in _resources.values():
        if callable(leave := getattr(lent, "close", None)):
            leave()


def resource(kind: type[T]) -> T:
    """The resource of type `kind` lent to this process. Raises `NoResource` where there is none.

    >>> from packmule.jobs.storage import Storage
    >>> current.resource(Storage).read_bytes("uploads/a.txt")  # doctest: +SKIP
    """
    try:
        return cast(T, _resources[kind])
    except KeyError:
        raise NoResource(
            f"no {kind.__name__} here: perform the job in a worker, or lend one with current.provide(...)"
        ) from None
