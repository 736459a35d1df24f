"""Performing a job in this process, without a server, to the end of its last retry."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar

from packmule.errors import UsageError
from packmule.jobs import keys, reader, wire
from packmule.jobs.entry import Call as Arguments
from packmule.jobs.entry import Entry
from packmule.jobs.interrupts import Waiting
from packmule.jobs.job_type import JobType
from packmule.jobs.options import Options
from packmule.jobs.spans import in_seconds
from packmule.jobs.steps import Recorded
from packmule.jobs.watch import Watch
from packmule.units import given_span
from packmule.worker.process.call import Call
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Performer

T = TypeVar("T")

MOST_ATTEMPTS = 1000
"""A job that has run this often without an end never has one."""


class EndlessJob(UsageError):
    """A job asked to run again each time it ran."""


@dataclass
class LocalJob:
    """A job that was enqueued without a server, and what became of it."""

    type: JobType
    options: Options
    entry: Entry
    status: str
    retries_left: int
    began: float = field(default_factory=time.monotonic)
    attempts: int = 0
    checkpoint: bytes | None = None
    steps: dict[str, bytes] = field(default_factory=dict)
    waits: Waiting | None = None
    """What it waits for: a signal that nobody has sent."""
    signals: list[tuple[str, bytes]] = field(default_factory=list)
    """Names and data that it has yet to ask for."""
    progress: dict[str, str] = field(default_factory=dict)
    result: dict[str, str] = field(default_factory=dict)
    times: dict[str, str] = field(default_factory=dict)
    error: BaseException | None = None
    lines: list[tuple[bytes, int]] = field(default_factory=list)
    """The lines of its log as JSON, each with its attempt."""
    chunks: list[bytes] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.status in wire.ENDED

    def call(self) -> Arguments:
        """Its arguments, as a worker reads them."""
        call = wire.decode_call(self.entry.payload)
        return call.args, call.kwargs

    def end_wait(self, wait: Waiting) -> bool:
        """Whether what the job waits for has come: its sleep is over, or it takes a signal."""
        kind, _, name = wait.field.partition(":")
        if kind == "sleep":
            self._end(wait, "done", b"null")
            return True
        for signal in self.signals:
            if signal[0] == name:
                self.signals.remove(signal)
                self._end(wait, "done", signal[1])
                return True
        return False

    def time_out(self) -> bool:
        """Let its wait end without a signal; whether it waits with a timeout."""
        if self.waits is None or self.waits.seconds is None:
            return False
        self._end(self.waits, "late", b"null")
        return True

    def _end(self, wait: Waiting, state: str, value: bytes) -> None:
        head = wait.head.replace("waits", state, 1)
        self.steps[wait.field] = head.encode() + b"0," + value + b"]"

    def info(self) -> reader.JobInfo:
        """What a reader would find in Redis."""
        kept = self.entry.run.fields
        texts = {name: str(value) for name, value in zip(kept[::2], kept[1::2], strict=True)}
        texts |= {
            "status": self.status,
            "attempts": str(self.attempts),
            "retries_left": str(self.retries_left),
            "waits": f"{self.waits.field} inf" if self.waits else "",
        }
        return reader.job_info(self.entry.id, texts, self.entry.payload, self.result, self.progress)

    def __str__(self) -> str:
        args, kwargs = self.call()
        said = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
        at, delay = self.options.at, self.options.delay
        due = f" at {at}" if at else f" in {given_span(in_seconds(delay))}" if delay else ""
        return f"{self.type.name}({', '.join(said)}) in {self.entry.run.queue}, {self.status}{due}"


@dataclass
class Words:
    """Takes what an attempt of `job` says."""

    job: LocalJob
    attempt: int
    level: int = logging.INFO

    def line(self, line: bytes) -> None:
        """Take a line of its log."""
        self.job.lines.append((line, self.attempt))

    def chunk(self, chunk: bytes) -> None:
        """Take a chunk of its output."""
        self.job.chunks.append(chunk)


class LocalWatch(Watch[T]):
    """What a job without a server has said: all of it is here."""

    def __init__(self, found: Sequence[T]) -> None:
        self.dropped = 0
        self._found = found

    @property
    def cursor(self) -> str:
        """The end."""
        return f"0-0/{len(self._found)}"

    def __iter__(self) -> Iterator[T]:
        """Yield what the job has said."""
        return iter(self._found)

    async def __aiter__(self) -> AsyncIterator[T]:
        """Yield what the job has said."""
        for each in self._found:
            yield each

    def kept(self) -> Iterator[T]:
        """Yield what the job has said."""
        return iter(self._found)


class LocalPerformer(Performer):
    """Performs jobs as a worker does, and keeps in each the error that ended its last run."""

    def __init__(self, max_result_bytes: int) -> None:
        super().__init__(
            self._keep_progress,
            self._keep_checkpoint,
            max_result_bytes=max_result_bytes,
            remember=self._keep_step,
            hear=lambda id, execution, attempt: Words(self._jobs[id], attempt),
        )
        self._jobs: dict[str, LocalJob] = {}
        self._tokens = itertools.count(1)

    def perform_to_end(self, job: LocalJob) -> None:
        """Run `job`, and again while it has retries or asks for it, until it ends or waits for a signal.

        Raises `EndlessJob`.
        """
        job.waits = None
        while not job.has_ended:
            job.attempts += 1
            if job.attempts > MOST_ATTEMPTS:
                raise EndlessJob(f"{job} has run {MOST_ATTEMPTS} times: give its Retry a limit")
            job.status = "started"
            ended = self._run(job)
            if isinstance(job.error, Waiting):
                job.attempts -= 1
                if job.end_wait(job.error):
                    continue
                job.waits, job.status = job.error, "deferred" if job.error.seconds is None else "scheduled"
                return
            job.status = ended.status
            job.result = {ended.name: ended.value} if ended.name else {}
            job.times = {"started_at": ended.started_at, "ended_at": ended.ended_at}
            changed = dict(zip(ended.fields[::2], ended.fields[1::2], strict=True))
            job.retries_left = int(changed.get("retries_left", job.retries_left))

    def ended_by(self, call: Call, error: BaseException, started: float) -> Outcome:
        """The outcome of a job that `error` ended, which is kept."""
        self._jobs[call.job.id].error = error
        return super().ended_by(call, error, started)

    def _run(self, job: LocalJob) -> Outcome:
        job.error = None
        execution = keys.new_job_id()
        if job.type.limits and job.type.limits.lock:
            self.fences[execution] = next(self._tokens)
        call = self.prepare(
            Claimed(
                job.entry.id,
                execution,
                job.entry.run.queue,
                job.entry.payload,
                retries_left=job.retries_left,
                attempt=job.attempts,
                checkpoint=job.checkpoint,
                recorded=Recorded(job.type.traits.version_text, job.steps) if job.steps else None,
                is_grouped=True,  # its limits don't hold here
                batch=job.options.batch or "",
            )
        )
        if isinstance(call, Outcome):
            return call
        self._jobs[job.entry.id] = job
        is_async = call.type.is_async
        return _awaited(self.perform_async(call, lambda: None)) if is_async else self.perform(call)

    def _keep_progress(
        self, id: str, execution: str, attempt: int, done: float, total: float | None, message: str
    ) -> None:
        self._jobs[id].progress = {"done": f"{done}", "total": f"{total or ''}", "message": message}

    def _keep_checkpoint(self, id: str, execution: str, cursor: bytes) -> None:
        self._jobs[id].checkpoint = cursor

    def _keep_step(
        self, id: str, execution: str, version: str, field: str, head: str, rest: str, other: str
    ) -> bool:
        steps = self._jobs[id].steps
        steps.pop(other, None)
        if head:
            steps[field] = f"{head}0{rest}".encode()
        else:
            steps.pop(field, None)
        return True


def _awaited(coroutine: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run `coroutine` to its end: in this thread, or beside a loop that runs here in another one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as beside:
        return beside.submit(copy_context().run, asyncio.run, coroutine).result()
