"""Outcomes: how the execution of a claimed job ended, as frozen values, and the rules for what runs again."""

from __future__ import annotations

import random
import time
from base64 import b64encode
from collections.abc import Sequence

import msgspec

from packmule.jobs import wire
from packmule.jobs.interrupts import Waiting
from packmule.jobs.limits import CallLimits
from packmule.jobs.said import Spoken
from packmule.jobs.spans import LONGEST_SPAN
from packmule.worker.process.claimed import CALLBACKS, Claimed, Row
from packmule.worker.process.failure import Failure, failure_of, name_of, plain_failure, with_example

RETRY_BASE = 1.0
RETRY_CAP = 3600.0

UNKNOWN_BASE = 1.0
UNKNOWN_CAP = 30.0
"""Seconds until a job whose function is unknown is tried again: at first, and at most."""

MAX_TRACEBACK = 32 * 1024
"""Characters of a traceback that are kept: its end, which names the error."""

FINISHED, FAILED, STOPPED, RETRIED = (wire.RESULT_TYPES[name] for name in wire.RESULT_TYPES)


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """The end of one execution, in the form that `finish_and_claim.lua` takes.

    `status` is the job's next one; a callback's is `settled`, or `due` if it was not called; one that is
    `waiting` becomes `scheduled` or `deferred`. `kind` is RQ's number for the result, or 0 if nothing was
    performed. `started_at` and `ended_at` are RQ's texts, `began` and `ended` the same in Unix seconds. The
    result's field is `name` and `value`. `fields` go into the record, as names and values in turn, unless the
    job waits (`waiting_jobs.lua`). `front` and `delay` (seconds) say where a job that runs again goes.
    """

    id: str
    execution: str
    queue: str
    status: str
    ttl: int = 0
    kind: int = 0
    started_at: str = ""
    ended_at: str = ""
    began: str = ""
    ended: str = ""
    name: str = ""
    value: str = ""
    fields: tuple[str | int, ...] = ()
    front: bool = False
    delay: float = 0.0
    is_marked: bool = True
    """Whether the job may be in the registry of started jobs."""
    at_once: bool = False
    """Whether to acknowledge it before the next job starts: the job's effects can't be undone."""
    limits: str = ""
    """The limits whose slots the job gives back, as they stand in its record."""
    batch: str = ""
    callback: str = ""
    """The kind of the job's callbacks that this end calls for, if it has any."""
    failure: Failure | None = None
    """What failed, to be counted with its like; None if nothing did."""
    said: Spoken | None = None
    """What it said last; None if it never said anything."""

    @property
    def reason(self) -> str:
        """The last line of the error that ended the job."""
        if self.kind == wire.MAX_RETRIES_EXCEEDED:
            return wire.EXCEEDED
        return wire.reason(wire.traceback(self.value) or "") if self.name == "exc_string" else ""


def with_steps(ended: Outcome, version: str) -> Outcome:
    """The outcome of a job that has recorded steps, which end with it, or before it repeats."""
    return msgspec.structs.replace(ended, fields=("steps", version, *ended.fields))


def repeated(job: Claimed, finished: Outcome) -> Outcome:
    """The job finished, and runs again since it still repeats."""
    delay = repeat_delay(job.repeats_left, job.repeat_intervals)
    fields = ("repeats_left", job.repeats_left - 1, "attempts", 0, "expires_at", "")
    status = "scheduled" if delay else "queued"
    return msgspec.structs.replace(finished, status=status, fields=fields, delay=delay)


def failed(
    job: Claimed,
    traceback: str,
    started: float,
    ended: float,
    *,
    retry: bool = True,
    status: str = "failed",
    at_once: bool = False,
    failure: Failure | None = None,
) -> Outcome:
    """The job raised an error; it runs again if `retry` and retries are left. `status` may be `stopped`."""
    if retry and job.retries_left > 0:
        delay = retry_delay(job.retries_left, job.retry_intervals, job.attempt)
        found = again(job, traceback, started, ended, delay, at_once)
        fields = _tried(job, "retries_left", job.retries_left - 1)
        found = msgspec.structs.replace(found, fields=fields, callback="failure" if job.calls_back else "")
    else:
        kind, callback = (STOPPED, "stopped") if status == "stopped" else (FAILED, "failure")
        found = _unfinished(job, status, kind, traceback, started, ended, at_once, callback)
    if failure is None:
        return found
    return msgspec.structs.replace(found, failure=with_example(failure, traceback, found.value))


def again(
    job: Claimed, reason: str, started: float, ended: float, delay: float, at_once: bool = False
) -> Outcome:
    """The job asked to run again in `delay` seconds: that is no failure."""
    status = "scheduled" if delay else "queued"
    retried = _unfinished(job, status, RETRIED, reason, started, ended, at_once)
    fields = _tried(job, "number_of_retries", job.attempt)
    return msgspec.structs.replace(retried, fields=fields, front=job.front_on_retry, delay=delay)


def _tried(job: Claimed, name: str, value: int) -> tuple[str | int, ...]:
    """The fields of a job that failed in an attempt, and a further one."""
    known = ("unknown_since", "") if job.unknown_since else ()
    return (name, value, "attempts", job.attempt, *known)


def exceeded(job: Claimed, returned: bytes, started: float, ended: float, at_once: bool = False) -> Outcome:
    """The job failed, because it `returned` RQ's `Retry` once too often."""
    failed = _unfinished(job, "failed", wire.MAX_RETRIES_EXCEEDED, "", started, ended, at_once, "failure")
    kind, _, text = wire.EXCEEDED.partition(": ")
    failure = plain_failure(kind, text, name_of(job.data))
    value = b64encode(returned).decode()
    return msgspec.structs.replace(failed, name="return_value", value=value, failure=failure)


def _unfinished(
    job: Claimed,
    status: str,
    kind: int,
    text: str,
    started: float,
    ended: float,
    at_once: bool,
    callback: str = "",
) -> Outcome:
    if len(text) > MAX_TRACEBACK:
        text = "...\n" + text[-MAX_TRACEBACK:]
    return Outcome(
        job.id,
        job.execution,
        job.queue,
        status,
        job.failure_ttl,
        kind,
        wire.time_text(started),
        wire.time_text(ended),
        f"{started:.6f}",
        f"{ended:.6f}",
        "exc_string",
        wire.error_text(text),
        at_once=at_once,
        limits=job.limits,
        batch=job.batch,
        callback=callback if job.calls_back else "",
    )


def refused(job: Claimed, error: BaseException, started: float) -> Outcome:
    """The job was not performed because of `error`, which a retry would not change."""
    reason = f"{type(error).__module__}.{type(error).__qualname__}: {error}"
    return failed(
        job, reason, started, time.time(), retry=False, failure=failure_of(error, name_of(job.data))
    )


def unknown(job: Claimed, error: Exception, now: float, patience: float) -> Outcome:
    """What is to be called, the job or its callback, is not registered here: it goes back for another worker.

    The job fails, or the callback is given up, once `patience` seconds have passed since the first worker did
    not know it. Neither the job's attempts nor its retries count.
    """
    since = job.unknown_since or now
    left = since + patience - now
    if left <= 0:
        return settled(job) if job.due else refused(job, error, now)
    delay = min(max(UNKNOWN_BASE, now - since), UNKNOWN_CAP, left)
    fields = () if job.unknown_since else ("unknown_since", "")  # the script writes its server's time
    back = returned(job)
    status = back.status if job.due else "scheduled"
    return msgspec.structs.replace(back, status=status, front=False, delay=delay, fields=fields)


def corrupt(row: Row, error: Exception, now: float) -> Outcome:
    """The job failed, since fields of its record are corrupt."""
    id, execution, queue = (value.decode(errors="replace") for value in (*row[:2], row.queue or b""))
    if row.due:
        return settled(Claimed(id, execution, queue, b""))
    fields = row.fields
    job = Claimed(
        id,
        execution,
        queue,
        row.data,
        limits=fields.get(b"limits", b"").decode(errors="ignore"),
        batch=fields.get(b"batch", b"").decode(errors="ignore"),
        calls_back=any(fields.get(name) for name in (*CALLBACKS, b"webhooks")),
    )
    text = f"the job's record is corrupt: {error}"
    return failed(job, text, now, now, failure=plain_failure("CorruptRecord", text, name_of(job.data)))


def returned(job: Claimed) -> Outcome:
    """The job was not started: it goes back to the front of its queue, and no attempt counts."""
    if job.due:
        return Outcome(job.id, job.execution, job.queue, "due", is_marked=False)
    return Outcome(job.id, job.execution, job.queue, "queued", front=True, limits=job.limits)


def waiting(job: Claimed, wait: Waiting) -> Outcome:
    """The job gives its process back until a time or a signal; no attempt counts."""
    seconds = "" if wait.seconds is None else f"{wait.seconds:.6f}"
    fields = ("steps", wait.version, wait.field, wait.head, seconds)
    delay = LONGEST_SPAN if wait.seconds is None else wait.seconds
    return Outcome(
        job.id,
        job.execution,
        job.queue,
        "waiting",
        fields=fields,
        delay=delay,
        limits=job.limits,
        batch=job.batch,
    )


def limited(job: Claimed, found: CallLimits) -> Outcome:
    """The job was enqueued without the limits of its type: back to its queue, to be claimed under them."""
    fields = ("group", found.group, *(("limits", found.limits) if found.limits else ()))
    return msgspec.structs.replace(returned(job), fields=fields)


def postponed(job: Claimed, seconds: float) -> Outcome:
    """The job may not start yet: it and the jobs behind it try again in `seconds`."""
    if job.due:
        return returned(job)
    return Outcome(job.id, job.execution, job.queue, "queued", delay=seconds, limits=job.limits)


def settled(job: Claimed) -> Outcome:
    """The callback that was due was called, however it ended."""
    return Outcome(job.id, job.execution, job.queue, "settled", is_marked=False)


def repeat_delay(repeats_left: int, intervals: Sequence[float]) -> float:
    """Seconds until a job runs again that still repeats: RQ counts its intervals from the end."""
    return intervals[min(repeats_left, len(intervals)) - 1] if intervals else 0.0


def retry_delay(retries_left: int, intervals: Sequence[float], attempt: int) -> float:
    """Seconds until a job that failed in its `attempt` (1 the first) runs again.

    With `intervals`, RQ's rule: the next of them, the first one while retries outnumber them. Without,
    exponential back-off with full jitter: anything up to 1, 2, 4, ... seconds, at most an hour.
    """
    if intervals:
        return intervals[max(len(intervals) - retries_left, 0)]
    ceiling = min(RETRY_CAP, RETRY_BASE * 2 ** min(attempt - 1, 30))
    return random.uniform(0, ceiling)  # noqa: S311  jitter needs no secrecy
