"""How one call is written for `enqueue.lua`: its payload, its record's fields, and where it waits."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
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
)
from packmule.jobs.spans import Span, in_seconds

JOBS_A_TRIP = 500
BYTES_A_TRIP = 4 * 1024 * 1024

LONGEST_DESCRIPTION = 1000
"""Characters of a job's description that are kept."""

pack = msgspec.msgpack.Encoder(enc_hook=wire.plain).encode

Call = tuple[Sequence[Any], Mapping[str, Any]]
"""The positional and the named arguments of one call."""


class JobTooLarge(InvalidCall):
    """A call whose arguments take more bytes than a job may hold."""


class Run(NamedTuple):
    """What the jobs of one enqueue have in common, as `enqueue.lua` takes it."""

    queue: str
    place: str
    fields: list[Any]
    batch: str | None
    expires: float | None
    priority: int | None = None


class Own(NamedTuple):
    """What a job of a run has alone besides its id, as `enqueue.lua` takes it."""

    call: str | None = None
    when: float = 0.0
    uniqueness: unique.Uniqueness | None = None
    group: str | None = None
    limits: str | None = None


class Taking(NamedTuple):
    """What a node of a flow has alone that takes results of others, likewise."""

    call: str | None
    when: float
    uniqueness: None
    group: None
    limits: None
    takes: str


NOTHING = Own()

_run_of = attrgetter("run")


class Entry(NamedTuple):
    """One job to be enqueued."""

    run: Run
    id: str
    payload: bytes
    own: Own | Taking = NOTHING


class EntryWriter:
    """Checks and writes the calls of one enqueue; what they have in common is worked out once.

    `options` are complete: those of the enqueue over those of the job's type.
    """

    def __init__(self, job: JobType, options: Options, max_bytes: int, trace: str = "") -> None:
        self.job = job
        self.options = options
        self.max_bytes = max_bytes
        queue = options.queue or DEFAULT_QUEUE
        place, self._time = _place(options)
        fields = _fields(job, queue, options)
        if options.batch:
            fields += "batch", options.batch
        if trace:
            fields += "trace", trace
        expires = in_seconds(options.expires) if options.expires is not None else None
        self.run = Run(queue, place, fields, options.batch, expires, options.priority or None)
        if options.after is not None:  # in the fields where RQ has them
            parents = options.parents
            more = ("enqueue_at_front", 1) if options.at_front else ()
            names = ("dependency_id", parents[0], "dependency_ids", json.dumps(parents))
            self.run = held(self.run, *names, *more)
        self._is_plain = not (options.job_id or options.is_scheduled or options.is_unique or job.limits)

    def write_all(self, calls: Sequence[Call]) -> list[Entry]:
        """The entries of `calls`. Raises `InvalidCall` or `JobTooLarge`; of many it names the position."""
        entries: list[Entry] = []
        ids = keys.new_job_ids(len(calls))
        try:
            for call, id in zip(calls, ids, strict=True):
                payload = self._payload(call)
                if self._is_plain:
                    entries.append(Entry(self.run, id, payload))
                else:
                    entries.append(self._with_own(call, id, payload, len(entries)))
        except InvalidCall as error:
            if len(calls) == 1:
                raise
            raise type(error)(f"calls[{len(entries)}]: {error}") from None
        return entries

    def write_taking(self, call: Call, takes: str) -> Entry:
        """The entry of a call that was validated, and takes results in place of some arguments.

        Its limits depend on these, so whoever claims it finds them.
        """
        return Entry(self.run, "", self._encoded(call), Taking(None, 0.0, None, None, None, takes))

    def _payload(self, call: Call) -> bytes:
        """One call as JSON. Raises `InvalidCall` and `JobTooLarge`."""
        self.job.validate(*call)
        return self._encoded(call)

    def _encoded(self, call: Call) -> bytes:
        job = self.job
        try:
            payload = wire.encode_call(job.name, *call)
        except (TypeError, ValueError) as error:
            raise InvalidCall(f"{job.name}: an argument can't be written as JSON: {error}") from None
        if len(payload) > self.max_bytes:
            raise JobTooLarge(
                f"{job.name}: the arguments take {len(payload)} bytes, but a job may hold {self.max_bytes}: "
                "put the data in storage and pass its path, or raise PACKMULE_MAX_JOB_BYTES"
            )
        return wire.packed(payload)

    def _with_own(self, call: Call, id: str, payload: bytes, position: int) -> Entry:
        """The entry of the `position`-th call, with what its arguments and options say of it alone."""
        job, options = self.job, self.options
        call_id = None
        if options.job_id:
            id, call_id = options.job_id, id
        uniqueness = unique.uniqueness(job, *call, options) if options.is_unique else None
        group = texts = None
        if job.limits:
            limits = _limits_of(job, job.limits, call)
            group, texts = limits.group, limits.limits or None
            if limits.lock and job.limits.policy == "skip" and not uniqueness:
                uniqueness = unique.skipping(limits.lock)
        # Jobs due at the same instant would run in the order of their ids; microseconds order them.
        when = self._time + position / 1_000_000 if options.is_scheduled else 0.0
        return Entry(self.run, id, payload, Own(call_id, when, uniqueness, group, texts))


def pair(call: Mapping[str, Any] | Sequence[Any]) -> Call:
    """Positional and named arguments. Raises `InvalidCall` for one bare value, above all a text."""
    if isinstance(call, Mapping):
        return (), call
    if isinstance(call, Sequence) and not isinstance(call, str | bytes):
        return call, {}
    raise InvalidCall(f"{call!r} is not a call: give a tuple of arguments, or a dict of named ones")


def called_back(entry: Entry, batch: str) -> Entry:
    """`entry` as the callback of a batch: stored with the batch, and enqueued when that has ended."""
    run = held(entry.run, "batch", f"{batch} callback")._replace(batch=None)
    return entry._replace(run=run, own=entry.own._replace(call=batch, when=0.0))


def held(run: Run, *fields: Any) -> Run:
    """`run` for jobs that a batch enqueues later, with more `fields`, names and values in turn."""
    changed = [*run.fields, *fields]
    changed[changed.index("status") + 1] = "deferred"
    return run._replace(place="held", fields=changed)


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
    """`entries` as the script takes them: the runs of jobs, then each payload."""
    runs = [_run(run, list(jobs)) for run, jobs in groupby(entries, _run_of)]
    return [pack(runs), *[each.payload for each in entries]]


def _run(run: Run, jobs: Sequence[Entry]) -> tuple[Any, ...]:
    owns = None if all(each.own is NOTHING for each in jobs) else [each.own for each in jobs]
    common, priority = run[:-1], run[-1:] if run.priority else ()
    return (*common, [each.id for each in jobs], owns, *priority)


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
    if options.priority:
        fields += "priority", options.priority
    if options.retries:
        fields += "retries_left", options.retries
    if job.secrets:
        fields += "secrets", json.dumps(job.secrets)
    if options.retries and options.retry_intervals:
        fields += "retry_intervals", json.dumps([_whole(seconds) for seconds in options.retry_intervals])
    return fields


def _whole(seconds: Span) -> int:
    """RQ keeps spans in whole seconds: rounded up, so that none is cut short."""
    return math.ceil(in_seconds(seconds))
