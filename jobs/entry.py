"""How one call is written for `enqueue.lua`: its payload, its record's fields, and where it waits."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec

from packmule.coordination.key_template import UnfitValue
from packmule.jobs import keys, unique, wire
from packmule.jobs.job_type import InvalidCall, JobType
from packmule.jobs.limits import CallLimits, JobLimits
from packmule.jobs.options import (
    DEFAULT_FAILURE_TTL,
    DEFAULT_QUEUE,
    DEFAULT_RESULT_TTL,
    DEFAULT_TIMEOUT,
    Options,
    in_seconds,
)

JOBS_A_TRIP = 500
BYTES_A_TRIP = 4 * 1024 * 1024

LONGEST_DESCRIPTION = 1000
"""Characters of a job's description that are kept."""

pack = msgspec.msgpack.Encoder(enc_hook=wire.plain).encode

Call = tuple[Sequence[Any], Mapping[str, Any]]
"""The positional and the named arguments of one call."""


class JobTooLarge(InvalidCall):
    """A call whose arguments take more bytes than a job may hold."""


class Entry(NamedTuple):
    """One job to be enqueued: what the script needs of it, and its payload."""

    job: tuple[
        str, str, str, str, float, list[Any], unique.Uniqueness | None, str | None, str | None, float | None
    ]
    """What `enqueue.lua` takes.

    Id, the call's id if the job's was chosen, queue, place, time, fields, uniqueness, group, batch, and the
    seconds after which the job expires.
    """
    payload: bytes

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job[0]

    @property
    def is_unique(self) -> bool:
        """Whether another job may hold its place."""
        return self.job[6] is not None


class EntryWriter:
    """Checks and writes the calls of one enqueue; what they have in common is worked out once.

    `options` are complete: those of the enqueue over those of the job's type.
    """

    def __init__(self, job: JobType, options: Options, max_bytes: int, trace: str = "") -> None:
        self.job = job
        self.options = options
        self.max_bytes = max_bytes
        self.queue = options.queue or DEFAULT_QUEUE
        self._fields = _fields(job, self.queue, options)
        if options.batch:
            self._fields += "batch", options.batch
        if trace:
            self._fields += "trace", trace
        self._place, self._time = _place(options)
        self._is_scheduled = options.is_scheduled
        self._expires = in_seconds(options.expires) if options.expires is not None else None

    def write_all(self, calls: Sequence[Call]) -> list[Entry]:
        """The entries of `calls`. Raises `InvalidCall` or `JobTooLarge`; of many it names the position."""
        entries: list[Entry] = []
        try:
            for position, call in enumerate(calls):
                entries.append(self.write(call, position))
        except InvalidCall as error:
            if len(calls) == 1:
                raise
            raise type(error)(f"calls[{len(entries)}]: {error}") from None
        return entries

    def write(self, call: Call, position: int = 0) -> Entry:
        """The entry of one call, the `position`-th of its enqueue. Raises `InvalidCall` and `JobTooLarge`."""
        job, options = self.job, self.options
        job.validate(*call)
        try:
            payload = wire.encode_call(job.name, *call)
        except (TypeError, ValueError) as error:
            raise InvalidCall(f"{job.name}: an argument can't be written as JSON: {error}") from None
        if len(payload) > self.max_bytes:
            raise JobTooLarge(
                f"{job.name}: the arguments take {len(payload)} bytes, and a job may hold {self.max_bytes}: "
                "put the data in storage and pass its path, or raise PACKMULE_MAX_JOB_BYTES"
            )
        new = keys.new_job_id()
        id, call_id = (options.job_id, new) if options.job_id else (new, "")
        uniqueness = unique.uniqueness(job, *call, options) if options.is_unique else None
        fields = self._fields.copy()
        group = None
        if job.limits:
            limits = _limits_of(job, job.limits, call)
            group = limits.group
            fields += ["group", group, *(("limits", limits.limits) if limits.limits else ())]
            if limits.lock and job.limits.policy == "skip" and not uniqueness:
                uniqueness = unique.skipping(limits.lock)
        # Jobs due at the same instant would run in the order of their ids; microseconds order them.
        when = self._time + position / 1_000_000 if self._is_scheduled else 0.0
        return Entry(
            (
                id,
                call_id,
                self.queue,
                self._place,
                when,
                fields,
                uniqueness,
                group,
                options.batch,
                self._expires,
            ),
            wire.packed(payload),
        )


def pair(call: Mapping[str, Any] | Sequence[Any]) -> Call:
    """Positional and named arguments. Raises `InvalidCall` for one bare value, above all a text."""
    if isinstance(call, Mapping):
        return (), call
    if isinstance(call, Sequence) and not isinstance(call, str | bytes):
        return call, {}
    raise InvalidCall(f"{call!r} is not a call: give a tuple of arguments, or a dict of named ones")


def called_back(entry: Entry, batch: str) -> Entry:
    """`entry` as the callback of a batch: stored with the batch, and enqueued when that has ended."""
    id, _, queue, _, _, fields, uniqueness, group, _, expires = entry.job
    fields[fields.index("status") + 1] = "deferred"
    fields += "batch", f"{batch} callback"
    return entry._replace(job=(id, batch, queue, "held", 0.0, fields, uniqueness, group, None, expires))


def chunks(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """`entries` in lists that one round trip carries."""
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        if chunk and (len(chunk) == JOBS_A_TRIP or size > BYTES_A_TRIP):
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += len(entry.payload)
    if chunk:
        yield chunk


def arguments(entries: Sequence[Entry]) -> list[bytes]:
    """`entries` as the script takes them: one list of all jobs, then each payload."""
    return [pack([entry.job for entry in entries]), *(entry.payload for entry in entries)]


def _limits_of(job: JobType, limits: JobLimits, call: Call) -> CallLimits:
    """The limits of one call. Raises `InvalidCall` if its arguments make no key."""
    try:
        return limits.of(job.arguments_of(*call))
    except UnfitValue as error:
        raise InvalidCall(f"{job.name}: {error}") from None


def _place(options: Options) -> tuple[str, float]:
    if options.debounce is not None and options.is_debounced:
        return "in", in_seconds(options.debounce)
    if options.delay is not None:
        return "in", in_seconds(options.delay)
    if options.at is not None:
        return "at", options.at.timestamp()
    return ("front" if options.at_front else "back"), 0.0


def _fields(job: JobType, queue: str, options: Options) -> list[Any]:
    """A new record's fields and values in turn, except its payload, as RQ's own Job.restore reads them."""
    now = wire.time_text(time.time())
    fields: list[Any] = [
        "created_at", now,
        "origin", queue,
        "description", (options.description or job.name)[:LONGEST_DESCRIPTION],
        "timeout", _whole(options.timeout or DEFAULT_TIMEOUT),
        "status", "scheduled" if options.is_scheduled else "queued",
    ]  # fmt: skip
    if not options.is_scheduled:
        fields += "enqueued_at", now
    elif options.at_front:
        fields += "enqueue_at_front", 1
    if options.result_ttl is not None and options.result_ttl != DEFAULT_RESULT_TTL:
        fields += "result_ttl", _whole(options.result_ttl)
    if options.failure_ttl is not None and options.failure_ttl != DEFAULT_FAILURE_TTL:
        fields += "failure_ttl", _whole(options.failure_ttl)
    if options.retries:
        fields += "retries_left", options.retries
    if options.retries and options.retry_intervals:
        fields += "retry_intervals", json.dumps([_whole(seconds) for seconds in options.retry_intervals])
    return fields


def _whole(seconds: float | timedelta) -> int:
    """RQ keeps spans in whole seconds: rounded up, so that none is cut short."""
    return math.ceil(in_seconds(seconds))
