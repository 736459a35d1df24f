"""Dead letters: what no consumer of a group could handle, set aside with the reason."""

from __future__ import annotations

import base64
import time
from typing import Any

import msgspec
from redis import Redis

from packmule.coordination.streams.stream import FIELD, unpack

MOST = 10_000
"""Records kept per group, the newest first."""

_REASON_LENGTH = 1000


def dead_letters_key(key: str, group: str) -> str:
    """The list of the dead letters of a group of the stream at `key`."""
    return f"{key}:dead:{group}"


def rest_key(key: str, group: str) -> str:
    """The hash of entries put back, each with the index of the first event to deliver again."""
    return f"{key}:rest:{group}"


def event_record(id: str, value: Any, **facts: Any) -> bytes:
    """The JSON record of one event: `id`, `at` in Unix seconds, `events` and the `facts`."""
    record = _record(id, facts)
    try:
        return msgspec.json.encode({**record, "events": [value]}, enc_hook=repr)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return msgspec.json.encode({**record, "events": [repr(value)]})


def entry_record(id: str, fields: dict[bytes, bytes], **facts: Any) -> bytes:
    """The JSON record of a whole entry: the events that can be unpacked, and its bytes as `raw`."""
    raw = fields.get(FIELD.encode(), b"")
    record = _record(id, facts) | {"raw": base64.b64encode(raw).decode()}
    try:
        values = [event.value for event in unpack(id, raw)[0]]
        return msgspec.json.encode({**record, "events": values}, enc_hook=repr)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return msgspec.json.encode({**record, "events": []})


def set_aside(client: Redis, key: str, group: str, record: bytes, entry: str | None = None) -> None:
    """Store a record and acknowledge the `entry` in one step. If repeated, the record may be there twice."""
    with client.pipeline(transaction=True) as pipeline:
        pipeline.lpush(dead_letters_key(key, group), record)
        pipeline.ltrim(dead_letters_key(key, group), 0, MOST - 1)
        if entry is not None:
            pipeline.xack(key, group, entry)
            pipeline.hdel(rest_key(key, group), entry)
        pipeline.execute()


def _record(id: str, facts: dict[str, Any]) -> dict[str, Any]:
    reason = str(facts.pop("reason"))[:_REASON_LENGTH]
    # A handler's error may quote lone surrogates, which are not valid JSON.
    reason = reason.encode("utf-8", "backslashreplace").decode()
    return {"id": id, "reason": reason, "at": time.time(), **facts}
