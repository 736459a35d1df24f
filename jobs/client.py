"""The producer: checks a call, writes it as RQ would, and enqueues it in one round trip."""

from __future__ import annotations

import atexit
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec
from redis import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from packmule.config import Settings
from packmule.coordination.key_template import UnfitValue
from packmule.coordination.redis.connection import connect as connect_redis
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.coordination.redis.scripts import Script
from packmule.jobs import registry, tracing, unique, wire
from packmule.jobs.job_type import InvalidCall, JobType
from packmule.jobs.limits import CallLimits, JobLimits
from packmule.jobs.options import (
    DEFAULT_FAILURE_TTL,
    DEFAULT_QUEUE,
    DEFAULT_RESULT_TTL,
    DEFAULT_TIMEOUT,
    InvalidOption,
    Options,
    in_seconds,
)
from packmule.jobs.registry import Prepared
from packmule.jobs.unique import Ids

JOBS_A_TRIP = 500
BYTES_A_TRIP = 4 * 1024 * 1024

_enqueue = Script("jobs", "enqueue", after=(*wire.LIMITS, ("jobs", "memory_limit")))
_create_batch = Script(
    "jobs", "enqueue", after=(*wire.LIMITS, ("jobs", "memory_limit"), ("jobs", "create_batch"))
)
_pack = msgspec.msgpack.Encoder().encode

Call = tuple[Sequence[Any], Mapping[str, Any]]


class Entry(NamedTuple):
    """One job on its way: what the script takes of it, and its payload."""

    job: tuple[str, str, str, str, float, list[Any], unique.Uniqueness | None, str | None, str | None]
    payload: bytes


class JobTooLarge(InvalidCall):
    """A call whose arguments take more bytes than a job may hold."""


class BatchClosed(RuntimeError):
    """A batch that takes no more jobs, for it has ended or was canceled, or that never was."""


class ServerFull(RuntimeError):
    """The server has no memory left for more jobs; nothing was enqueued."""


class UnknownQueue(ValueError):
    """A queue that is not among the settings' queues, where no worker would find the job."""


class Producer:
    """Enqueues jobs on `client`'s server.

    `queues` are the names it may enqueue to (all where None); `max_bytes` bounds a job's arguments as JSON.

    >>> mail = {"to": "ada@example.com", "subject": "Hi", "body": "Soon more."}
    >>> Producer(client).enqueue(email.job, [((), mail)])  # doctest: +SKIP
    ['5f1c...']
    """

    def __init__(
        self, client: Redis, queues: Sequence[str] | None = None, max_bytes: int = 256 * 1024
    ) -> None:
        self.client = client
        self.queues = queues
        self.max_bytes = min(max_bytes, wire.MAX_PAYLOAD_BYTES)

    def enqueue(self, job: JobType, calls: Sequence[Call], options: Options | None = None) -> Ids:
        """Enqueue one job of type `job` for each of `calls`, and return their ids in order.

        A call is its positional and its named arguments. One round trip for hundreds of calls; none is
        sent unless all are valid. Enqueueing an id that exists changes nothing, so with a `job_id` a call
        that failed can be made again. For a call that a unique job keeps out, the id is that job's; of the
        calls of one enqueue the first keeps the others out, but at the front the last. Raises `InvalidCall`,
        `JobTooLarge`, `UnknownQueue`, `InvalidOption`, `BatchClosed` where its batch takes no more jobs, or
        `ServerFull`.
        """
        options = options.over(job.options) if options else job.options
        if options.job_id is not None and len(calls) > 1:
            raise InvalidCall(f"{job.name}: one job_id can't name {len(calls)} jobs")
        with tracing.sending(job.name, options.queue or DEFAULT_QUEUE) as trace:
            return self._enqueue(job, calls, options, trace)

    def _enqueue(self, job: JobType, calls: Sequence[Call], options: Options, trace: str) -> Ids:
        entries = [self._entry(job, call, options, position) for position, call in enumerate(calls)]
        if trace:
            for entry in entries:
                entry.job[5].extend(("trace", trace))
        # At the front each goes before the one sent earlier, so that the first call's is sent last.
        at_front = options.at_front and not options.is_scheduled
        holders: dict[str, str] = {}
        for chunk in _chunks(entries[::-1] if at_front else entries):
            args = [_pack([entry.job for entry in chunk]), *(entry.payload for entry in chunk)]
            replies = self._call(_enqueue, [wire.QUEUES, wire.UNIQUE], args)
            if any(entry.job[6] for entry in chunk):
                for entry, reply in zip(chunk, replies, strict=True):
                    if not isinstance(reply, int):
                        holders[entry.job[0]] = wire.text(reply)
        ids = [entry.job[0] for entry in entries]
        held = [position for position, id in enumerate(ids) if id in holders] if holders else ()
        return Ids([holders.get(id, id) for id in ids], held)

    def written(self, job: JobType, call: Call, options: Options) -> tuple[bytes, bytes]:
        """One call as `enqueue.lua` takes it, its two arguments, for a script that has a condition in front.

        Raises what `enqueue` does.
        """
        entry = self._entry(job, call, options.over(job.options), 0)
        return _pack([entry.job]), entry.payload

    def create_batch(
        self, batch: str, parent: str | None, fields: Sequence[str], callbacks: Sequence[tuple[str, Prepared]]
    ) -> None:
        """Make the batch called `batch`, a hash of `fields` (names and values in turn), in one trip.

        Its `callbacks` are stored under their ids, and enqueued when it ends. Raises what `enqueue` does.
        """
        entries = []
        for id, (job, call, options) in callbacks:
            if options.over(job.options).is_scheduled or options.over(job.options).is_unique:
                raise InvalidOption(
                    f"{job.name} is called back when a batch has ended: leave its own time or unique out"
                )
            entry = self._entry(job, call, replace(options.over(job.options), job_id=id, batch=None), 0)
            _, _, queue, _, _, written, uniqueness, group, _ = entry.job
            written[written.index("status") + 1] = "deferred"
            written += "batch", f"{batch} callback"
            entries.append(
                entry._replace(job=(id, batch, queue, "held", 0.0, written, uniqueness, group, None))
            )
        args = [_pack([entry.job for entry in entries]), *(entry.payload for entry in entries)]
        keys = [wire.QUEUES, wire.UNIQUE, wire.batch_key(batch), wire.BATCHES]
        self._call(_create_batch, keys, [*args, _pack((batch, parent or "", fields))])

    def _call(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            return script(self.client, keys, args)
        except ResponseError as error:
            if str(error).startswith("BATCH "):
                raise BatchClosed(str(error).removeprefix("BATCH ")) from None
            if str(error).startswith("FULL "):
                used, allowed = (int(size) >> 20 for size in str(error).split()[1:3])
                raise ServerFull(
                    f"the server uses {used:,} MiB, and jobs are taken up to {allowed:,}: let workers "
                    "catch up, purge what nobody needs, or raise PACKMULE_MEMORY_HIGH_WATER"
                ) from None
            if isinstance(error, OutOfMemoryError):
                raise ServerFull(
                    "the server has reached its maxmemory: let workers catch up, or give it more"
                ) from None
            raise

    def _entry(self, job: JobType, call: Call, options: Options, position: int) -> Entry:
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
        queue = options.queue or DEFAULT_QUEUE
        if self.queues is not None:
            known_queue(queue, self.queues)
        place, when = _place(options, position)
        new = wire.new_job_id()
        id, call_id = (options.job_id, new) if options.job_id else (new, "")
        uniqueness = unique.uniqueness(job, *call, options) if options.is_unique else None
        fields = _fields(job, queue, options)
        group = None
        if job.limits:
            limits = _limits_of(job, job.limits, call)
            group = limits.group
            fields += ["group", group, *(("limits", limits.limits) if limits.limits else ())]
            if limits.lock and job.limits.policy == "skip" and not uniqueness:
                uniqueness = unique.skipping(limits.lock)
        if options.batch:
            fields += "batch", options.batch
        return Entry(
            (id, call_id, queue, place, when, fields, uniqueness, group, options.batch), wire.packed(payload)
        )


def _limits_of(job: JobType, limits: JobLimits, call: Call) -> CallLimits:
    """The limits of one call. Raises `InvalidCall` where no key can be made of its arguments."""
    try:
        return limits.of(job.arguments_of(*call))
    except UnfitValue as error:
        raise InvalidCall(f"{job.name}: {error}") from None


def known_queue(name: str, queues: Sequence[str]) -> str:
    """`name`, if it is one of `queues`. Raises `UnknownQueue`."""
    if name not in queues:
        raise UnknownQueue(
            f"no queue is called {name!r}: there are {', '.join(queues)} (see PACKMULE_QUEUES)"
        )
    return name


def connect(settings: Settings | None = None) -> Producer:
    """Make this process's `.enqueue(...)` calls go to the settings' Redis, the environment's by default.

    An embedded server is stopped when this process ends, unless others use it.
    """
    settings = settings or Settings.from_env()
    client = connect_redis(settings.redis_url, settings.data_dir, allow_eviction=settings.allow_eviction)
    producer = Producer(client, settings.queues, settings.max_job_bytes)
    registry.use(producer.enqueue)
    if settings.redis_url is None:
        atexit.register(EmbeddedServer(settings.data_dir).stop_if_unused, client)
    return producer


def _place(options: Options, position: int) -> tuple[str, float]:
    # Jobs due at the same instant would run in the order of their ids; microseconds keep that of the calls.
    after = position / 1_000_000
    if options.debounce is not None and options.is_debounced:
        return "in", in_seconds(options.debounce) + after
    if options.delay is not None:
        return "in", in_seconds(options.delay) + after
    if options.at is not None:
        return "at", options.at.timestamp() + after
    return ("front" if options.at_front else "back"), 0.0


def _fields(job: JobType, queue: str, options: Options) -> list[Any]:
    """A new record's fields and values in turn, but for its payload, as RQ's own Job.restore reads them."""
    seconds = time.time()
    now = wire.time_text(seconds)
    fields: list[Any] = [
        "created_at", now,
        "origin", queue,
        "description", options.description or job.name,
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
    if options.expires is not None:
        wait = (options.debounce if options.is_debounced else options.delay) or 0
        due = options.at.timestamp() if options.at else seconds + in_seconds(wait)
        fields += "expires_at", f"{due + in_seconds(options.expires):.6f}"
    if options.retries:
        fields += "retries_left", options.retries
    if options.retries and options.retry_intervals:
        fields += "retry_intervals", json.dumps([_whole(seconds) for seconds in options.retry_intervals])
    return fields


def _whole(seconds: float | timedelta) -> int:
    """RQ keeps spans in whole seconds: rounded up, so that none is cut short."""
    return math.ceil(in_seconds(seconds))


def _chunks(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
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
