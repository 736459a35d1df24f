"""Claimed jobs: what the claim script returns for each, read once into a frozen value."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from packmule.jobs.options import (
    DEFAULT_FAILURE_TTL,
    DEFAULT_RESULT_TTL,
    DEFAULT_TIMEOUT,
    MOST_RETRIES,
)
from packmule.jobs.spans import LONGEST_SPAN
from packmule.jobs.steps import Recorded

LONGEST_TTL = int(LONGEST_SPAN)
MOST_ATTEMPTS = 10**9
CALLBACK_TIMEOUT = 60.0
"""Seconds for a callback that names none, as in RQ, and for all webhooks of a job."""

FURTHEST = 10.0**11
"""Seconds, some three thousand years."""


class Due(NamedTuple):
    """A callback, or the webhooks, of a job whose outcome is recorded.

    `step` is `callback` or `webhooks`, and `kind` is `success`, `failure` or `stopped`. `record` is the whole
    record, and `name` and `value` are its last result's field, as both are in Redis.
    """

    step: str
    kind: str
    record: dict[bytes, bytes]
    name: str = ""
    value: bytes = b""


class Claimed(msgspec.Struct, frozen=True):
    """A job that this worker holds under `execution`; spans are in seconds, and `attempt` starts at 1."""

    id: str
    execution: str
    queue: str
    data: bytes
    timeout: float = DEFAULT_TIMEOUT
    result_ttl: int = int(DEFAULT_RESULT_TTL)
    failure_ttl: int = int(DEFAULT_FAILURE_TTL)
    retries_left: int = 0
    retry_intervals: tuple[float, ...] = ()
    attempt: int = 1
    front_on_retry: bool = False
    expires_at: float | None = None
    """Unix seconds of this host by which the first attempt must start."""
    checkpoint: bytes | None = None
    """The checkpoint that an earlier run saved, as JSON."""
    limits: str = ""
    """The limits that apply to it, as they stand in the record."""
    lock: str | None = None
    """The name of the singleton's lock."""
    is_grouped: bool = False
    """Whether the record names the group with which it waits; if not, nobody has checked its limits."""
    enqueued_at: bytes | None = None
    batch: str = ""
    """The id of its batch; in a batch's callback a word follows the id."""
    trace: str = ""
    """The W3C `traceparent` of its enqueue."""
    unknown_since: float | None = None
    """Unix seconds of this host at which a worker first did not know its function or its callback."""
    repeats_left: int = 0
    repeat_intervals: tuple[float, ...] = ()
    callbacks: tuple[str, ...] = ()
    """The dotted names of its RQ callbacks."""
    takes: bytes | None = None
    """Which results of other nodes of its flow take the place of arguments, as JSON (`jobs/handed.py`)."""
    given: bytes | None = None
    """These results, as JSON."""
    calls_back: bool = False
    """Whether it has callbacks or webhooks."""
    recorded: Recorded | None = None
    """What its earlier runs recorded of their steps, if they did."""
    has_said: bool = False
    """Whether an earlier run of it has said something that is kept."""
    due: Due | None = None
    """What is due instead of the job itself, whose outcome is recorded."""


_Interval = Annotated[float, msgspec.Meta(ge=0, le=LONGEST_SPAN)]
_Intervals = tuple[_Interval, ...]
_Key = Annotated[str, msgspec.Meta(min_length=1)]
_Number = Annotated[int, msgspec.Meta(ge=1, lt=10**17)]


class _Lock(msgspec.Struct, frozen=True, array_like=True, tag="lock"):
    key: _Key
    most: _Number


class _Slots(msgspec.Struct, frozen=True, array_like=True, tag="slots"):
    key: _Key
    most: _Number
    cost: _Number = 1


class _Rate(msgspec.Struct, frozen=True, array_like=True, tag="rate"):
    key: _Key
    interval: _Number
    capacity: _Number
    cost: _Number = 1


class Row(NamedTuple):
    """A job as the script returns it; `rare` are names and values of fields that most jobs lack, in turn."""

    id: bytes
    execution: bytes
    queue: bytes | None
    data: bytes
    timeout: bytes | None
    rare: Sequence[bytes] | None
    enqueued_at: bytes | None = None
    due: Sequence[Any] | None = None

    @property
    def fields(self) -> dict[bytes, bytes]:
        """The rare fields by their names."""
        return dict(zip(*[iter(self.rare or ())] * 2, strict=True))


CALLBACKS = (b"success_callback_name", b"failure_callback_name", b"stopped_callback_name")


def read(row: Row, default_result_ttl: int) -> Claimed:
    """The job in a row of the script's reply. Raises `ValueError` for a field that is not a number.

    It reads any row; `claim.py` reads those of most jobs itself.
    """
    if not row.queue:
        raise ValueError("the record names no queue")
    id, execution, queue = row.id.decode(), row.execution.decode(), row.queue.decode()
    timeout = _seconds(row.timeout, DEFAULT_TIMEOUT)
    if row.due:
        return _due(row, *row.due)
    fields = row.fields
    get = fields.get
    limits = get(b"limits")
    callbacks = tuple(name.decode() for each in CALLBACKS if (name := get(each)))
    return Claimed(
        id=id,
        execution=execution,
        queue=queue,
        data=row.data,
        timeout=timeout,
        result_ttl=_whole(get(b"result_ttl"), default_result_ttl, LONGEST_TTL),
        failure_ttl=_whole(get(b"failure_ttl"), int(DEFAULT_FAILURE_TTL), LONGEST_TTL),
        retries_left=_whole(get(b"retries_left"), 0, MOST_RETRIES),
        retry_intervals=_intervals(get(b"retry_intervals")),
        attempt=_whole(get(b"attempts"), 0, MOST_ATTEMPTS) + 1,
        front_on_retry=get(b"enqueue_at_front_on_retry") == b"1",
        expires_at=_instant(get(b"expires_at")),
        checkpoint=get(b"checkpoint"),
        limits=(limits or b"").decode(),
        lock=_lock(limits) if limits else None,
        is_grouped=b"group" in fields,
        enqueued_at=row.enqueued_at,
        batch=get(b"batch", b"").decode(),
        trace=get(b"trace", b"").decode(errors="replace"),
        unknown_since=_instant(get(b"unknown_since")),
        repeats_left=_whole(get(b"repeats_left"), 0, MOST_RETRIES),
        repeat_intervals=_intervals(get(b"repeat_intervals")),
        callbacks=callbacks,
        takes=get(b"takes"),
        given=get(b"given"),
        calls_back=bool(callbacks or get(b"webhooks")),
        recorded=_recorded(fields) if b"steps" in fields else None,
        has_said=b"said" in fields,
    )


def _due(
    row: Row,
    step: bytes,
    kind: bytes,
    fields: Sequence[bytes],
    result: Sequence[bytes],
    since: bytes | None,
) -> Claimed:
    """The callback in a row, as a job of the callback's own timeout."""
    record = dict(zip(fields[::2], fields[1::2], strict=True))
    timeout = _seconds(record.get(kind + b"_callback_timeout"), 0) if step == b"callback" else 0
    results = dict(zip(result[::2], result[1::2], strict=True))
    name = next((name for name in (b"return_value", b"exc_string") if name in results), b"")
    return Claimed(
        row.id.decode(),
        row.execution.decode(),
        (row.queue or b"").decode(),
        b"",
        timeout if timeout > 0 else CALLBACK_TIMEOUT,
        unknown_since=_instant(since),
        attempt=0,
        has_said=b"said" in record,
        due=Due(step.decode(), kind.decode(), record, name.decode(), results.get(name, b"")),
    )


def _recorded(fields: dict[bytes, bytes]) -> Recorded:
    """What earlier runs left, off a record and the msgpack that came with it. Raises `ValueError`."""
    found = msgspec.msgpack.decode(fields[b"recorded"])
    if isinstance(found, str):
        raise ValueError(found)  # noqa: TRY004  it says what is wrong
    names = msgspec.convert(found[::2], list[str])
    values = [value.encode() for value in msgspec.convert(found[1::2], list[str])]
    retried_at = _seconds(fields.get(b"retried_at"), 0)
    return Recorded(fields[b"steps"].decode(), dict(zip(names, values, strict=True)), retried_at)


def _lock(limits: bytes) -> str | None:
    """The name of the lock among a record's limits. Raises `DecodeError` if they are corrupt."""
    found = msgspec.json.decode(limits, type=list[_Lock | _Slots | _Rate])
    return next((limit.key for limit in found if isinstance(limit, _Lock)), None)


def _intervals(text: bytes | None) -> tuple[float, ...]:
    """The spans in a field, a list of seconds. Raises `DecodeError`."""
    return msgspec.json.decode(text, type=_Intervals) if text else ()


def _whole(text: bytes | None, otherwise: int, most: int) -> int:
    """The number in a field, within bounds that Redis and Lua can hold. Raises `ValueError`."""
    return max(-1, min(int(text or otherwise), most))


def _instant(seconds: bytes | None) -> float | None:
    """The instant, by this host's clock, that is so many seconds from now. Raises `ValueError`."""
    return time.time() + _seconds(seconds, 0) if seconds else None


def _seconds(text: bytes | None, otherwise: float) -> float:
    """The span or instant in a field. Raises `ValueError` for one beyond all calendars."""
    seconds = float(text or otherwise)
    if not -FURTHEST <= seconds <= FURTHEST:
        raise ValueError(f"{seconds} seconds are beyond all calendars")
    return seconds
