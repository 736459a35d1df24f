"""The wire: RQ's keys, fields, statuses and times, and the few keys of our own beside them."""

from __future__ import annotations

import json
import math
import re
import secrets
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

QUEUES = "rq:queues"
WORKERS = "rq:workers"
SUSPENDED = "rq:suspended"
LEASES = "pm:leases"
QUARANTINE = "pm:quarantine"
PARENTS = "pm:parents"
UNIQUE = "pm:unique"
JOB_EVENTS = "pm:events"
STATISTICS = "pm:stats:"
AUDIT = "pm:audit"
FULL = "pm:full"

SCHEDULER = "pm:scheduler"
"""The channel on which schedulers hear in how many seconds something is due, or that one has `"resigned"`."""

LEASE_SECONDS = 10.0
"""A worker's right to its claims lasts this long if nobody renews it."""

WORKER_TTL = 480
"""Seconds after which RQ forgets a worker that doesn't renew its registration: RQ's own default."""

COMPRESS_FROM = 512
"""Payloads from this many bytes on are compressed where that saves space; RQ reads both."""

MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
"""A payload that would unpack to more than this is refused before it does."""

_PICKLE = b"\x80"
"""How a pickle begins, and neither JSON nor zlib's output does."""

JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


class InvalidPayload(ValueError):
    """A job's payload that is not the JSON list that RQ's JSONSerializer writes."""


class Invocation(NamedTuple):
    """What a payload asks for: the dotted `name` of a callable and its arguments.

    `instance` is the object whose method RQ would call; here it is always None.
    """

    name: str
    instance: None
    args: list[Any]
    kwargs: dict[str, Any]


_decode = msgspec.json.Decoder(Invocation).decode


def queue_key(queue: str) -> str:
    """The list of waiting job ids of `queue`, the next one at its head."""
    return f"rq:queue:{queue}"


def queue_name(key: str) -> str:
    """The name of the queue whose list is `key`."""
    return key.removeprefix("rq:queue:")


def workers_key(queue: str) -> str:
    """The set of the keys of the workers that listen to a queue."""
    return f"rq:workers:{queue}"


def job_key(job_id: str) -> str:
    """The hash that holds the record of a job."""
    return f"rq:job:{job_id}"


def results_key(job_id: str) -> str:
    """The stream of a job's results, the newest last."""
    return f"rq:results:{job_id}"


def worker_key(worker: str) -> str:
    """The hash in which a worker registers."""
    return f"rq:worker:{worker}"


def worker_name(key: str) -> str:
    """The name of the worker whose hash is `key`."""
    return key.removeprefix("rq:worker:")


def claims_key(worker: str) -> str:
    """The hash of the jobs that `worker` has claimed: job id to execution id."""
    return f"pm:claims:{worker}"


def waiting_key(worker: str) -> str:
    """The list of ids moved to `worker` while it was idle, not yet claimed."""
    return f"pm:waiting:{worker}"


WAITERS = ".waiters"
"""The field of a worker's claims that holds the ids of the connections on which it waits for jobs."""


PAUSED = "pm:paused"
"""The set of the names of paused queues."""


QUEUE_RATES = "pm:queue-rates"
"""The hash of queues that have a rate, to microseconds a job, microseconds a burst, and the rate's text."""


EVENTS = (("jobs", "events"),)
"""The Lua file in front of scripts that emit events of jobs."""

CALL = (*EVENTS, ("jobs", "call"))
"""Those in front of scripts that go on though a key is of another type than it should be."""

GROUPS = (*CALL, ("jobs", "groups"), ("jobs", "batch"))
"""Those in front of scripts that move jobs of groups, or end jobs of batches."""

LIMITS = (*GROUPS, ("jobs", "limits"))
"""Those in front of scripts that claim jobs, return them, or enqueue new ones."""


def groups_key(queue: str) -> str:
    """The hash of a queue's groups of waiting jobs."""
    return f"pm:groups:{queue}"


def group_key(queue: str, group: str) -> str:
    """The list of the jobs of a group that wait behind its first."""
    return f"pm:group:{queue}:{group}"


def blocked_name(queue: str, group: str) -> str:
    """How a group is named among those that wait for a slot or a time."""
    return f"{queue}\n{group}"


def holders_key(key: str) -> str:
    """The hash of the jobs that hold slots of `key`: job id to worker and execution."""
    return f"pm:holders:{key}"


def blocked_key(key: str) -> str:
    """The sorted set of the groups that wait for a slot of `key`, in order."""
    return f"pm:blocked:{key}"


def batch_key(batch: str) -> str:
    """The hash of a batch; `:jobs`, `:results` and `:held` behind it make its other keys."""
    return f"pm:batch:{batch}"


BATCHES = "pm:batches"
"""The sorted set of batches by the time of their creation."""

PAUSED_BATCHES = "pm:batches-paused"
"""The set of the batches whose jobs wait until they are resumed."""


DUE = "pm:due"
"""The sorted set of the groups that wait for a time, by it."""


def connection_name(worker: str) -> str:
    """The name in `CLIENT LIST` of the connections on which `worker` waits; no spaces are allowed there."""
    return "packmule-wait:" + re.sub(r"[^!-~]", "_", worker)


def commands_channel(worker: str) -> str:
    """RQ's channel for commands to `worker`."""
    return f"rq:pubsub:{worker}"


def progress_key(job_id: str) -> str:
    """The hash of counters that tells how far a job is."""
    return f"pm:progress:{job_id}"


REGISTRIES = {
    "scheduled": "rq:scheduled:{}",
    "started": "rq:wip:{}",
    "finished": "rq:finished:{}",
    "failed": "rq:failed:{}",
    "deferred": "rq:deferred:{}",
    "canceled": "rq:canceled:{}",
}
"""RQ's sorted sets of job ids by status, one a queue; `started` holds `<job id>:<execution id>`."""


def registry_key(status: str, queue: str) -> str:
    """RQ's sorted set of the jobs of `queue` in `status`."""
    return REGISTRIES[status].format(queue)


def new_job_id() -> str:
    """A job id that nobody else has: 128 random bits in hex."""
    return secrets.token_hex(16)


def text(value: bytes | str) -> str:
    """An id or name as redis-py returns it."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def time_text(seconds: float) -> str:
    """Unix seconds as RQ writes times: `time_text(0) == "1970-01-01T00:00:00.000000Z"`."""
    whole = math.floor(seconds)
    return f"{_second_text(whole)}.{int((seconds - whole) * 1_000_000):06d}Z"


@lru_cache(maxsize=8)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def time_seconds(text: str) -> float | None:
    """RQ's text of a time as Unix seconds; None for an empty one."""
    if not text:
        return None
    return datetime.fromisoformat(text).timestamp()


def plain(value: object) -> str:
    """A subclass of `str`, such as a job's handle, as the text that msgspec can write."""
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


encode_json = msgspec.json.Encoder(enc_hook=plain).encode
"""Write a value that a job takes, returns or keeps."""


def encode_call(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """The payload of a call, as JSON. Raises `TypeError` or `ValueError` for what JSON can't carry."""
    try:
        payload = encode_json((name, None, args, kwargs))
        if payload.count(b"null") > 1:
            # NaN and infinity were written as null, without a word; json refuses them.
            json.dumps(msgspec.to_builtins((args, kwargs), str_keys=True, enc_hook=plain), allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested too deep, or holds itself") from None
    return payload


def packed(payload: bytes) -> bytes:
    """`payload` as it is stored: compressed where that saves space."""
    if len(payload) <= COMPRESS_FROM:
        return payload
    return min(payload, zlib.compress(payload), key=len)


def decode_call(data: bytes) -> Invocation:
    """What the payload `data` asks for. Raises `InvalidPayload` with the reason."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_rare(data)


def _decode_rare(data: bytes) -> Invocation:
    """A payload that is compressed, or what is wrong with it."""
    content = _unpacked(data)
    if content[:1] == _PICKLE:
        raise InvalidPayload("the payload is a pickle; enqueue with rq's JSONSerializer")
    try:
        call = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidPayload(f"the payload is not JSON: {error}") from None
    match call:
        case [str(name), None, list(args), dict(kwargs)]:
            return Invocation(name, None, args, kwargs)
        case [_, instance, _, _] if instance is not None:
            raise InvalidPayload("the payload calls a method of an object; only functions are performed")
    raise InvalidPayload("the payload is not [name, null, [positional], {named}]")


def _unpacked(data: bytes) -> bytes:
    if data[:1] in (b"[", _PICKLE):
        return data
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(data, MAX_PAYLOAD_BYTES + 1)
    except zlib.error as error:
        raise InvalidPayload(f"the payload is neither JSON nor compressed JSON: {error}") from None
    if len(content) > MAX_PAYLOAD_BYTES:
        raise InvalidPayload(f"the payload unpacks to more than {MAX_PAYLOAD_BYTES} bytes")
    if not unpacker.eof:
        raise InvalidPayload("the payload is cut short")
    return content


RESULT_TYPES = {"finished": 1, "failed": 2, "stopped": 3, "retried": 4}

NO_RESULT = b64encode(b"null").decode()
"""The return value of a job that returned None, as a result stream keeps it."""


def error_text(traceback: str) -> str:
    """A traceback as a result stream keeps it: compressed, in base64."""
    return b64encode(zlib.compress(traceback.encode("utf-8", "backslashreplace"))).decode()
