"""Read jobs back: one job with its progress, result and error, and the ids of a queue's jobs by status."""

from __future__ import annotations

import math
import time
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.replies import UNREADABLE, as_text, as_texts, pipelined
from packmule.errors import NotFound
from packmule.jobs import keys, wire
from packmule.jobs.options import MOST_PRIORITY
from packmule.jobs.secrets import recorded
from packmule.jobs.spans import Span, in_seconds
from packmule.units import given_span

POLL_INTERVAL = 0.05
MOST_FAILED = 10_000
"""Stopped jobs are looked for among at most this many of a queue's latest failed ones."""


class NoSuchJob(NotFound, LookupError):
    """No job has that id: it never existed, or its time to live is over."""


def no_such_job(id: str) -> NoSuchJob:
    """The error to raise for an id that names no job."""
    advice = keys.or_too_short("check it; the job may have outlived its result TTL", id)
    return NoSuchJob(f"no job has the id {id:.200}: {advice}")


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress that a job reports: `done` of `total` units (None if unknown), and a message."""

    done: float
    total: float | None
    message: str

    @property
    def percent(self) -> float | None:
        """0 to 100, or None without a total."""
        return min(100.0, 100 * self.done / self.total) if self.total else None


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as Redis has it now. Times are RQ's texts in UTC; what is unknown is None.

    `attempts` counts the attempts after which the job was retried, and `deaths` the processes that died
    performing it; `crash` is the report of the last of them (`worker/crash_report.py`). `timeout` is in
    seconds, as text.
    """

    id: str
    name: str
    args: Sequence[Any]
    kwargs: dict[str, Any]
    status: str
    queue: str
    description: str | None
    created_at: str | None
    enqueued_at: str | None
    started_at: str | None
    ended_at: str | None
    worker: str | None
    timeout: str | None
    priority: int
    attempts: int
    deaths: int
    crash: dict[str, Any] | None
    waits: str | None
    """What it waits for: a field of its steps (`jobs/steps.py`)."""
    waits_until: float | None
    """Unix seconds, None if it waits for a signal alone."""
    retries_left: int
    progress: Progress | None
    result: Any
    error: str | None
    fingerprint: str | None = None
    """That of the error that it failed of (`observe/errors.py`)."""
    unread: str | None = None
    """Why its call can't be read, such as a pickle's: then its arguments are unknown."""
    secrets: Mapping[str, Any] = field(default_factory=dict)
    """Which parts of its arguments and result annotations mark as secret, by name and by position."""

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended, so that nothing more happens to it by itself."""
        return self.status in wire.ENDED

    @property
    def is_pickled(self) -> bool:
        """Whether stock RQ pickled its call, which is never opened."""
        return self.unread == wire.PICKLED

    @property
    def reason(self) -> str | None:
        """The last line of the error, without the module of its class: `ValueError: no such month`."""
        return wire.reason(self.error) if self.error else None

    @property
    def error_type(self) -> str | None:
        """The class of the error, without its module: `ValueError`."""
        return wire.error_type(self.reason or "") or None


def read(client: Redis, id: str) -> JobInfo:
    """The job `id`, in one round trip. Raises `NoSuchJob`, also if its record is not that of a job.

    >>> read(client, "2a9f").status  # doctest: +SKIP
    'finished'
    """
    with client.pipeline(transaction=False) as pipeline:
        pipeline.hgetall(keys.job_key(id))
        pipeline.xrevrange(keys.results_key(id), count=1)
        pipeline.hgetall(keys.progress_key(id))
        try:
            fields, results, progress = pipeline.execute()
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise  # the server is busy or refuses: the job may well be there
            raise NoSuchJob(f"job {id} can't be read: {error}") from None
    data = fields.pop(b"data", None)
    if data is None:
        raise no_such_job(id)
    result = as_texts(results[0][1]) if results else {}
    return job_info(id, as_texts(fields), data, result, as_texts(progress))


def read_many(client: Redis, ids: Sequence[str]) -> list[JobInfo | None]:
    """The jobs `ids` in their order, in one round trip; None for one that isn't there or can't be read."""
    commands: list[tuple[Any, ...]] = []
    for id in ids:
        commands += ("HGETALL", keys.job_key(id)), ("XREVRANGE", keys.results_key(id), "+", "-", "COUNT", 1)
        commands += (("HGETALL", keys.progress_key(id)),)
    replies = iter(pipelined(client, commands, None))
    return [_info(id, next(replies), next(replies), next(replies)) for id in ids]


def _info(id: str, fields: Any, results: Any, progress: Any) -> JobInfo | None:
    """The job in three replies, each None if its key is of another type."""
    data = fields.pop(b"data", None) if fields else None
    if data is None:
        return None
    return job_info(
        id, as_texts(fields), data, as_texts(results[0][1]) if results else {}, as_texts(progress or {})
    )


def read_if_there(client: Redis, id: str) -> JobInfo | None:
    """The job `id`, or None if there is none or its time to live is over."""
    try:
        return read(client, id)
    except NoSuchJob:
        return None


def wait(client: Redis, id: str, timeout: Span | None = None) -> JobInfo:
    """Wait until the job `id` has ended, and return it.

    Raises `NoSuchJob`, also if the job was deleted when it finished (a result TTL of 0), and `TimeoutError`
    if the `timeout` (seconds, or a text such as `"5m"`) is not enough.
    """
    seconds = math.inf if timeout is None else in_seconds(timeout, "timeout")
    deadline = time.monotonic() + seconds
    while True:
        info = read(client, id)
        if info.has_ended:
            return info
        if time.monotonic() > deadline:
            raise TimeoutError(f"job {id} is still {info.status} after {given_span(seconds)}")
        time.sleep(POLL_INTERVAL)


def ids(client: Redis, queue: str, status: str, limit: int) -> list[str]:
    """Up to `limit` ids of the jobs of `queue` in `status`: the next to run first, or the last to end first.

    Ended jobs are ordered as RQ keeps them, by when their time to live ends. RQ keeps stopped jobs among the
    failed ones, so only the latest `MOST_FAILED` of those are searched for them.
    """
    if status == "stopped":
        return _stopped(client, ids(client, queue, "failed", MOST_FAILED))[:limit]
    found: Sequence[bytes | str]
    if status == "queued":
        lists = [("LRANGE", key, 0, limit - 1) for key in keys.queue_keys(queue)]
        found = [id for ids in pipelined(client, lists, []) for id in ids][:limit]
    elif status in ("finished", "failed"):
        found = cast(list[bytes], client.zrevrange(keys.registry_key(status, queue), 0, limit - 1))
    else:
        found = cast(list[bytes], client.zrange(keys.registry_key(status, queue), 0, limit - 1))
    if status == "started":  # RQ writes `<job id>:<execution id>`
        return [as_text(id).rpartition(":")[0] or as_text(id) for id in found]
    return [as_text(id) for id in found]


def _stopped(client: Redis, failed: Sequence[str]) -> list[str]:
    with client.pipeline(transaction=False) as pipeline:
        for id in failed:
            pipeline.hget(keys.job_key(id), "status")
        statuses = pipeline.execute(raise_on_error=False)
    return [id for id, status in zip(failed, statuses, strict=True) if status == b"stopped"]


def collected(text: str) -> tuple[Any, str | None]:
    """The value and the error of a job, decoded from the form in which a batch collects them."""
    if text == "!":
        return None, "the result was too large to be collected"
    return (_value(text[1:]), None) if text.startswith("+") else (None, wire.traceback(text[1:]))


def job_info(
    id: str, fields: dict[str, str], data: bytes, result: dict[str, str], progress: dict[str, str]
) -> JobInfo:
    unread = None
    try:
        call = wire.decode_call(data)
    except wire.InvalidPayload as error:
        unread = str(error)
        call = wire.Invocation(wire.called(fields.get("description", "")) or f"({error})", None, [], {})
    is_exceeded = result.get("type") == str(wire.MAX_RETRIES_EXCEEDED)
    is_waiting = fields.get("status") in ("scheduled", "deferred")
    waits, _, until = (fields.get("waits", "") if is_waiting else "").rpartition(" ")
    return JobInfo(
        id=str(id),
        name=call.name,
        args=call.args,
        kwargs=dict(call.kwargs),
        status=fields.get("status", ""),
        queue=fields.get("origin", ""),
        description=fields.get("description") or None,
        created_at=fields.get("created_at") or None,
        enqueued_at=fields.get("enqueued_at") or None,
        started_at=fields.get("started_at") or None,
        ended_at=fields.get("ended_at") or None,
        worker=fields.get("worker_name") or None,
        timeout=fields.get("timeout") or None,
        priority=_priority(fields.get("priority")),
        attempts=wire.whole(fields.get("attempts")),
        deaths=wire.whole(fields.get("deaths")),
        crash=_crash(fields.get("crash")),
        waits=waits or None,
        waits_until=_instant(until),
        retries_left=wire.whole(fields.get("retries_left")),
        progress=progress_in(progress),
        result=None if is_exceeded else _value(result.get("return_value")),
        error=wire.EXCEEDED if is_exceeded else wire.traceback(result.get("exc_string")),
        fingerprint=fields.get("fingerprint") if fields.get("status") == "failed" else None,
        unread=unread,
        secrets=recorded(fields.get("secrets")),
    )


def _priority(text: str | None) -> int:
    try:
        return max(-MOST_PRIORITY, min(int(text or 0), MOST_PRIORITY))
    except ValueError:
        return 0


def _instant(text: str) -> float | None:
    try:
        return float(text) if text and math.isfinite(float(text)) else None
    except ValueError:
        return None


def _crash(text: str | None) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any]) if text else None
    except UNREADABLE:
        return None


def progress_in(counters: dict[str, str]) -> Progress | None:
    """The progress that the fields of its hash say; None without any."""
    try:
        total = float(counters["total"]) if counters.get("total") else None
        return Progress(float(counters["done"]), total, counters.get("message", ""))
    except (KeyError, ValueError):
        return None


def _value(text: str | None) -> Any:
    if not text:
        return None
    try:
        return msgspec.json.decode(b64decode(text))
    except (ValueError, *UNREADABLE):
        return "(a result that is not JSON)"
