"""What a worker claims and what performing it produced, as frozen values, and the rule for retries."""

from __future__ import annotations

import random
import time
from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from jobs import wire
from jobs.options import DEFAULT_FAILURE_TTL, DEFAULT_RESULT_TTL, DEFAULT_TIMEOUT, LONGEST_SPAN

RETRY_BASE = 1.0
RETRY_CAP = 3600.0
LONGEST_TTL = int(LONGEST_SPAN)

MAX_TRACEBACK = 32 * 1024
"""Characters of a traceback that are kept: its end, which tells what went wrong."""


class Claimed(msgspec.Struct, frozen=True):
    """A job that this worker holds under `execution`; spans are in seconds, `attempt` is 1 the first time."""

    id: str
    execution: str
    queue: str
    data: bytes
    timeout: float
    result_ttl: int
    failure_ttl: int
    retries_left: int
    retry_intervals: tuple[float, ...]
    attempt: int
    front_on_retry: bool
    by_rq: bool
    """Whether callbacks, webhooks or repeats ask for RQ's own way of performing."""


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """The end of one execution, in the form in which `finish_and_claim.lua` takes it.

    `status` is the job's next one, or `settled` where RQ's own code has recorded the end already. `fields`
    go into the record and `result` into the result stream, each as names and values in turn. `front` and
    `delay` (seconds) say where a job that runs again is put. `counter` is the worker's to raise by one, and
    `seconds` is the time that performing took.
    """

    id: str
    execution: str
    queue: str
    status: str
    ttl: int = 0
    fields: tuple[str | int, ...] = ()
    result: tuple[str | int, ...] = ()
    front: bool = False
    delay: float = 0.0
    counter: str = ""
    seconds: float = 0.0
    at_once: bool = False
    """Whether to hand it in before the next job starts: what the job did outside can't be undone."""


class Row(NamedTuple):
    """A job as the script hands it out; `fields` in the order that it names."""

    id: bytes
    execution: bytes
    fields: Sequence[bytes | None]


def claimed(row: Row) -> Claimed:
    """The job that a row of the script's reply means. Raises `ValueError` for numbers that are none."""
    queue, data, timeout, result_ttl, failure_ttl, retries_left, intervals, attempts, front, *rare = (
        row.fields
    )
    return Claimed(
        id=row.id.decode(),
        execution=row.execution.decode(),
        queue=queue.decode() if queue else "",
        data=data or b"",
        timeout=float(timeout or DEFAULT_TIMEOUT),
        result_ttl=min(int(result_ttl or DEFAULT_RESULT_TTL), LONGEST_TTL),
        failure_ttl=min(int(failure_ttl or DEFAULT_FAILURE_TTL), LONGEST_TTL),
        retries_left=int(retries_left or 0),
        retry_intervals=msgspec.json.decode(intervals, type=tuple[float, ...]) if intervals else (),
        attempt=int(attempts or 0) + 1,
        front_on_retry=front == b"1",
        by_rq=any(value not in (None, b"", b"0") for value in rare),
    )


def finished(job: Claimed, result: bytes, worker: str, started: float, ended: float) -> Outcome:
    """The job returned; `result` is its value as JSON, empty for None."""
    value = ("return_value", b64encode(result).decode()) if result else ()
    return Outcome(
        job.id,
        job.execution,
        job.queue,
        "finished",
        job.result_ttl,
        wire.ended_fields(started, ended),
        (*wire.result_fields("finished", worker, job.execution, started, ended), *value),
        counter="successful_job_count",
        seconds=ended - started,
    )


def failed(
    job: Claimed, traceback: str, worker: str, started: float, ended: float, retry: bool = True
) -> Outcome:
    """The job raised; it runs again if `retry` and it has retries left."""
    if len(traceback) > MAX_TRACEBACK:
        traceback = "...\n" + traceback[-MAX_TRACEBACK:]
    fields = wire.ended_fields(started, ended)
    again = retry and job.retries_left > 0
    result = (
        *wire.result_fields("retried" if again else "failed", worker, job.execution, started, ended),
        "exc_string",
        wire.error_text(traceback),
    )
    if not again:
        return Outcome(
            job.id,
            job.execution,
            job.queue,
            "failed",
            job.failure_ttl,
            fields,
            result,
            counter="failed_job_count",
            seconds=ended - started,
        )
    delay = retry_delay(job.retries_left, job.retry_intervals, job.attempt)
    return Outcome(
        job.id,
        job.execution,
        job.queue,
        "scheduled" if delay else "queued",
        job.failure_ttl,
        (*fields, "retries_left", job.retries_left - 1, "attempts", job.attempt),
        result,
        front=job.front_on_retry,
        delay=delay,
        counter="failed_job_count",
        seconds=ended - started,
    )


def refused(job: Claimed, error: Exception, worker: str, started: float) -> Outcome:
    """The job was not performed, for `error`: one line that no retry would change."""
    reason = f"{type(error).__module__}.{type(error).__qualname__}: {error}"
    return failed(job, reason, worker, started, time.time(), retry=False)


def corrupt(row: Row, error: Exception, worker: str, now: float) -> Outcome:
    """The failure of a claimed record whose fields make no sense."""
    id, execution, queue = (value.decode(errors="replace") for value in (*row[:2], row.fields[0] or b""))
    job = Claimed(id, execution, queue, b"", 0, 0, int(DEFAULT_FAILURE_TTL), 0, (), 1, False, False)
    return failed(job, f"the job's record is corrupt: {error}", worker, now, now)


def returned(job: Claimed) -> Outcome:
    """The job was not started: back to the front of its queue, its attempts as they were."""
    return Outcome(job.id, job.execution, job.queue, "queued", front=True)


def settled(job: Claimed) -> Outcome:
    """RQ's own code has performed the job and recorded its end."""
    return Outcome(job.id, job.execution, job.queue, "settled")


def retry_delay(retries_left: int, intervals: Sequence[float], attempt: int) -> float:
    """Seconds until a job that failed in its `attempt` (1 the first) runs again.

    With `intervals`, RQ's rule: the next of them, the first one while retries outnumber them. Without,
    exponential back-off with full jitter: anything up to 1, 2, 4, ... seconds, at most an hour.
    """
    if intervals:
        return intervals[max(len(intervals) - retries_left, 0)]
    ceiling = min(RETRY_CAP, RETRY_BASE * 2 ** min(attempt - 1, 30))
    return random.uniform(0, ceiling)  # noqa: S311  jitter needs no secrecy
