"""What a worker lends to a job while it performs it: its identity, where its reports go, and resources."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from packmule import hooks

if TYPE_CHECKING:
    from packmule.jobs.steps import Steps

Report = Callable[[float, float | None, str], None]
Save = Callable[[bytes], None]

REPORT_INTERVAL = 0.1
"""Seconds between two reports of progress that leave the process; the last one always does."""

LONGEST_MESSAGE = 1000
"""Characters of a progress message that are kept."""

REPORTER = "packmule progress"
"""The name of the thread that sends late reports."""

REPORT_SLACK = 0.02
"""Seconds that a late report waits longer, so that one wake of the thread serves all jobs of that time."""


class Printing(Protocol):
    """Takes what a job prints."""

    def write(self, name: str, text: str) -> None:
        """Take a piece of text that goes to the stream `name`."""

    def end(self) -> None:
        """Take the end of the job."""


class Said(Protocol):
    """Takes what a job says, as JSON (`jobs/said.py`), in any of its threads."""

    level: int
    """The least level of the lines that are kept."""

    def line(self, line: bytes) -> None:
        """Take a line of its log."""

    def chunk(self, chunk: bytes) -> None:
        """Take a chunk of its output."""


Hear = Callable[[str, str, int], Said]
"""Returns what takes the words of a job: its id, execution and attempt are given."""


@dataclass(slots=True)
class Running:
    """A job being performed: `id`, its `attempt` (1 the first time) and where its progress goes.

    The worker performs each body within it as a context; at its end, it sends what throttling held back.
    `cursor` is its latest checkpoint as JSON, None before the first one; `save` keeps it in Redis.
    `is_draining` tells whether the worker stops; `fence` is a singleton's token; `batch` is its batch; `name`
    is that of its function, and `queue` its queue. `printing` holds the line that it prints. `open_steps`
    makes its `steps` when it first asks for one; it takes the job's `task` if that is async.
    `hear` returns what takes its lines and output once it says something, and `said` is that. `spend` takes
    what it has spent of its rate, and `prolong` for how many seconds its timeout is to spare it. `claims` is
    the key of its worker's claims, which name its `execution` for as long as the job is this run's.
    `enqueued_at` is RQ's text of when it was queued last. `hush` hides its secrets in a text.
    """

    id: str
    attempt: int
    report: Report
    cursor: bytes | None = None
    save: Save = lambda cursor: None
    is_draining: Callable[[], bool] = lambda: False
    fence: int | None = None
    batch: str = ""
    name: str = ""
    queue: str = ""
    open_steps: Callable[[Any], Steps] | None = None
    execution: str = ""
    hear: Hear | None = None
    spend: Callable[[int], None] = lambda spent: None
    claims: str = ""
    prolong: Callable[[float], None] = lambda seconds: None
    enqueued_at: bytes | None = None
    hush: Callable[[str], str] | None = None
    said: Said | None = None
    printing: Printing | None = None
    task: Any = None
    steps: Steps | None = None
    saved: bytes | None = None
    saved_at: float = float("-inf")
    added: dict[str, int] | None = None
    """How many nodes it has added to its flow, by the steps within which it did; "" for outside of them."""
    done: float = 0.0
    reported_at: float = float("-inf")
    has_reported: bool = False
    pending: deque[tuple[float, float | None, str]] = field(default_factory=partial(deque, maxlen=1))
    is_late: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    token: Token[Running | None] | None = None

    # A generator's context would take a microsecond or two more of each job.
    def __enter__(self) -> Running:
        self.saved = self.cursor
        self.token = _running.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self.keep()
        finally:
            if self.printing is not None:
                self.printing.end()
            self.hear = None  # a thread that it left behind may say its first word later
            if self.token is not None:
                _running.reset(self.token)
            if self.pending or self.lock.locked():  # or the thread of late reports is about to send one
                self.flush()

    def own_steps(self) -> Steps:
        """The steps of this run."""
        if self.steps is None:
            if self.open_steps is None:
                from packmule.jobs.steps import in_memory  # noqa: PLC0415  most jobs have no steps

                self.open_steps = in_memory
            self.steps = self.open_steps(self.task)
        return self.steps

    def verdict(self, error: BaseException) -> BaseException:
        """What ends the run whose body raised `error`."""
        return self.steps.verdict(error) if self.steps is not None else error

    def flush(self, after: float = 0.0) -> None:
        """Send the report that throttling held back if the last is `after` seconds old, from any thread."""
        with self.lock:
            now = time.monotonic()
            if self.pending and now - self.reported_at >= after:
                self.reported_at, self.has_reported = now, True
                done, total, message = self.pending.pop()
                # A file's name may hold bytes that are not UTF-8, and no report is worth a failed job.
                text = message[:LONGEST_MESSAGE].encode(errors="backslashreplace").decode()
                self.report(done, total, text)

    def report_late(self, done: float, total: float | None, message: str) -> None:
        """Hold a report back: it leaves if nothing has replaced or dropped it after `REPORT_INTERVAL`."""
        self.pending.append((done, total, message))
        if not self.is_late:
            self.is_late, self.reported_at = True, time.monotonic()
            late_reports.send(self)

    def report_unless_brief(self, done: float, total: float, message: str) -> None:
        """Report that, unless the job ends within `REPORT_INTERVAL`: then it reports nothing at all.

        A report costs a short job more than it tells anybody.
        """
        if done < total:
            self.report_late(done, total, message)
            return
        with self.lock:
            self.pending.clear()
            if self.has_reported:
                self.pending.append((done, total, message))
        self.flush()

    def keep(self) -> None:
        """Save the checkpoint that throttling held back, if any."""
        if self.cursor is not None and self.cursor is not self.saved:
            self.saved = self.cursor
            self.saved_at = time.monotonic()
            self.save(self.cursor)


class LateReports:
    """Sends from a thread the reports that throttling held back, if their jobs report nothing more."""

    def __init__(self) -> None:
        self.begin()
        os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        """Start without a thread, as in a process that was just forked."""
        self._jobs: SimpleQueue[Running] = SimpleQueue()
        self._has_thread = False

    def send(self, job: Running) -> None:
        """Flush `job` when its next report is due."""
        if not self._has_thread:
            self._has_thread = True
            threading.Thread(target=self._run, args=(self._jobs,), name=REPORTER, daemon=True).start()
        self._jobs.put(job)

    def _run(self, jobs: SimpleQueue[Running]) -> None:
        while True:
            job = jobs.get()
            if (left := job.reported_at + REPORT_INTERVAL - time.monotonic()) > 0:
                time.sleep(left + REPORT_SLACK)
            job.is_late = False
            with suppress(OSError):  # a fork that ends closes its pipe
                job.flush(REPORT_INTERVAL)


late_reports = LateReports()
_running: ContextVar[Running | None] = ContextVar("running", default=None)

running = _running.get
"""The job that this code runs in, or None outside of one."""


def said() -> Said | None:
    """What takes what the running job says; None outside of a job, or where nobody keeps it."""
    job = _running.get()
    if job is None:
        return None
    if job.said is None and job.hear is not None:
        job.said = job.hear(job.id, job.execution, job.attempt)
    return job.said


resources: dict[type, object] = {}
"""What this process lends its jobs, by type."""


leaving: list[Callable[[], object]] = []
"""How the isolated job that this process performs leaves the network, if it does so itself."""


def provide(*lent: object) -> None:
    """Lend each of `lent` to every job of this process by its type, in place of one lent before."""
    for each in lent:
        resources[type(each)] = each


def close() -> None:
    """Close the resources that have a `close` method, as a worker does when it stops, and flush hooks."""
    for each in resources.values():
        if callable(closing := getattr(each, "close", None)):
            closing()
    hooks.flush()
