"""What the cache stores for a key: a value, as bytes, behind what its readers must know of it."""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple

import msgspec

RAW, JSON, OVERSIZE = b"b", b"j", b"x"
"""Kinds of entries: bytes, JSON, and none at all because the value was too large to keep."""

ID_BYTES = 16

# Mark, id, kind, milliseconds for which it is kept when stale, seconds to compute it, length of the tags.
_HEAD = struct.Struct(">4s16scQfH")
_MARK = b"pmc1"


class NotCacheable(TypeError):
    """A value that is neither bytes nor what JSON can carry; the text says what is in it."""


class Entry(NamedTuple):
    """A stored value. `id` is another for each computation, `tags` maps its tags to their versions then."""

    id: bytes
    kind: bytes
    stale_ms: int
    cost: float
    tags: dict[str, str]
    body: bytes | memoryview

    def packed(self) -> bytes:
        """As it is stored."""
        tags = msgspec.json.encode(self.tags) if self.tags else b""
        head = _HEAD.pack(_MARK, self.id, self.kind, self.stale_ms, self.cost, len(tags))
        return b"".join((head, tags, self.body))

    def value(self) -> Any:
        """The value, made anew for each reader."""
        return decoded(self.kind, self.body)


def id_of(raw: bytes | None) -> bytes:
    """The id of the entry stored as `raw`, or whatever stands in its place."""
    return raw[len(_MARK) : len(_MARK) + ID_BYTES] if raw else b""


def unpacked(raw: bytes | None) -> Entry | None:
    """The entry stored as `raw`; None for what is none."""
    if raw is None or len(raw) < _HEAD.size or not raw.startswith(_MARK):
        return None
    _, id, kind, stale_ms, cost, length = _HEAD.unpack_from(raw)
    begin = _HEAD.size + length
    try:
        tags = msgspec.json.decode(raw[_HEAD.size : begin], type=dict[str, str]) if length else {}
    except msgspec.DecodeError:
        return None
    return Entry(id, kind, stale_ms, cost, tags, memoryview(raw)[begin:])


def encoded(value: Any, max_bytes: int) -> tuple[bytes, bytes]:
    """The kind and body of `value`: `OVERSIZE` and none over `max_bytes`. Raises `NotCacheable`."""
    if isinstance(value, bytes | bytearray | memoryview):
        size = value.nbytes if isinstance(value, memoryview) else len(value)
        return (RAW, bytes(value)) if size <= max_bytes else (OVERSIZE, b"")
    if isinstance(value, str) and len(value) > max_bytes:
        return OVERSIZE, b""
    try:
        # Strict where msgspec is lenient: what a hit returned could differ in type from what was computed.
        body = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise NotCacheable(
            f"the cache keeps bytes and what JSON can carry, not this {type(value).__name__}: {error}"
        ) from None
    return (JSON, body) if len(body) <= max_bytes else (OVERSIZE, b"")


def decoded(kind: bytes, body: bytes | memoryview) -> Any:
    """The value of an encoded one."""
    return bytes(body) if kind == RAW else msgspec.json.decode(body)
