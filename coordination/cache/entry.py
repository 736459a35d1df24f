"""What the cache stores for a key: a header for its readers, and the value as bytes."""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple

import msgspec

from packmule.coordination.redis.replies import UNREADABLE
from packmule.errors import UsageError

RAW, JSON, OVERSIZE = b"b", b"j", b"x"
"""Kinds of entries: bytes, JSON, and no value because it was too large to keep."""

ID_BYTES = 16

# Mark, id, kind, milliseconds it is kept stale, seconds it took to compute, length of the tags.
_HEAD = struct.Struct(">4s16scQfH")
_MARK = b"pmc1"


class NotCacheable(UsageError, TypeError):
    """A value is neither bytes nor JSON; the text says what it contains."""


class Entry(NamedTuple):
    """A stored value. Each computation has its own `id`; `tags` maps tags to their versions at that time."""

    id: bytes
    kind: bytes
    stale_ms: int
    cost: float
    tags: dict[str, str]
    body: bytes | memoryview

    def packed(self) -> bytes:
        """The entry as bytes."""
        tags = msgspec.json.encode(self.tags) if self.tags else b""
        head = _HEAD.pack(_MARK, self.id, self.kind, self.stale_ms, self.cost, len(tags))
        return b"".join((head, tags, self.body))

    def value(self) -> Any:
        """The value, decoded afresh for each reader."""
        return decoded(self.kind, self.body)


def id_of(raw: bytes | None) -> bytes:
    """The id of the entry `raw`, or the bytes in its place."""
    return raw[len(_MARK) : len(_MARK) + ID_BYTES] if raw else b""


def unpacked(raw: bytes | None) -> Entry | None:
    """The entry `raw`; None if it isn't one."""
    if raw is None or len(raw) < _HEAD.size or not raw.startswith(_MARK):
        return None
    _, id, kind, stale_ms, cost, length = _HEAD.unpack_from(raw)
    begin = _HEAD.size + length
    try:
        tags = msgspec.json.decode(raw[_HEAD.size : begin], type=dict[str, str]) if length else {}
    except UNREADABLE:
        return None
    return Entry(id, kind, stale_ms, cost, tags, memoryview(raw)[begin:])


def encoded(value: Any, max_bytes: int) -> tuple[bytes, bytes]:
    """The kind and body of `value`; `OVERSIZE` without a body above `max_bytes`. Raises `NotCacheable`."""
    if isinstance(value, bytes | bytearray | memoryview):
        size = value.nbytes if isinstance(value, memoryview) else len(value)
        return (RAW, bytes(value)) if size <= max_bytes else (OVERSIZE, b"")
    if isinstance(value, str) and len(value) > max_bytes:
        return OVERSIZE, b""
    try:
        # Strict, unlike msgspec: otherwise a hit could return another type than the one computed.
        body = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise NotCacheable(
            f"the cache keeps bytes and JSON values, not this {type(value).__name__}: {error}"
        ) from None
    return (JSON, body) if len(body) <= max_bytes else (OVERSIZE, b"")


def decoded(kind: bytes, body: bytes | memoryview) -> Any:
    """The value of an encoded body."""
    return bytes(body) if kind == RAW else msgspec.json.decode(body)
