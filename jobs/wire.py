"""Job records as RQ writes and reads them: payloads, results, times and statuses."""

from __future__ import annotations

import json
import math
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from packmule.coordination.redis.replies import UNREADABLE
from packmule.errors import UsageError
from packmule.jobs.secrets import is_secret_text, revealed

ENDED = frozenset({"finished", "failed", "stopped", "canceled"})
"""The statuses in which nothing more happens to a job by itself."""

ALIVE = frozenset({"queued", "started", "scheduled", "deferred"})
"""The statuses in which a job has yet to end."""

COMPRESS_FROM = 512
"""Payloads of more bytes are compressed if that saves space; RQ reads both."""

MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
"""A payload that would unpack to more is refused before it is unpacked."""

MOST_COUNTED = 2**63 - 1
"""What a counter of the server can reach; somebody may have written more."""

_PICKLE = b"\x80"
"""The first byte of a pickle, and never of JSON or of zlib's output."""


PICKLED = "the payload is a pickle: enqueue with RQ's JSONSerializer"
"""Why a pickled payload is not read: to open a pickle is to run what it holds."""


class InvalidPayload(UsageError, ValueError):
    """A job's payload is not the JSON list that RQ's JSONSerializer writes."""


class Invocation(NamedTuple):
    """The call in a payload: the dotted `name` of a callable, and its arguments.

    RQ can call a method of the object `instance`; here it is always None.
    """

    name: str
    instance: None
    args: list[Any]
    kwargs: dict[str, Any]


_decode = msgspec.json.Decoder(Invocation).decode


def time_text(seconds: float) -> str:
    """Unix seconds as RQ writes times: `time_text(0) == "1970-01-01T00:00:00.000000Z"`."""
    whole = math.floor(seconds)
    return f"{_second_text(whole)}.{int((seconds - whole) * 1_000_000):06d}Z"


@lru_cache(maxsize=8)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def time_seconds(text: str) -> float | None:
    """RQ's text of a time as Unix seconds, None if it is empty. Raises `ValueError`."""
    if not text:
        return None
    return datetime.fromisoformat(text).timestamp()


def plain(value: Any) -> Any:
    """What msgspec alone can't write: a subclass of `str`, such as a job's handle, or a Pydantic model."""
    if isinstance(value, str):
        return str.__str__(value)
    if hasattr(type(value), "model_dump"):
        return type(value).model_dump(value, mode="json", by_alias=True, round_trip=True, warnings=False)
    if is_secret_text(type(value)):
        return str(value)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


def plain_argument(value: Any) -> Any:
    """Likewise for an argument: the secret texts in a model are written, of which results have stars."""
    return revealed(value, plain(value))


encode_json = msgspec.json.Encoder(enc_hook=plain).encode
"""Write a value that a job takes, returns or keeps; NaN and infinity become null without a word."""


encode_argument = msgspec.json.Encoder(enc_hook=plain_argument).encode
"""Write an argument, or a call, likewise."""


def encode_value(value: Any) -> bytes:
    """A value as JSON. Raises `TypeError` or `ValueError` if JSON can't carry it, as it can't carry NaN."""
    written = encode_json(value)
    if b"null" in written:
        _refuse_nan(value)
    return written


def encode_call(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """The payload of a call, as JSON. Raises `TypeError` or `ValueError` if JSON can't carry an argument."""
    try:
        payload = encode_argument((name, None, args, kwargs))
        if payload.count(b"null") > 1:
            _refuse_nan((args, kwargs))
    except RecursionError:
        raise ValueError("it is nested too deeply, or contains itself") from None
    return payload


def _refuse_nan(value: Any) -> None:
    json.dumps(msgspec.to_builtins(value, str_keys=True, enc_hook=plain), allow_nan=False)


def packed(payload: bytes) -> bytes:
    """`payload` as it is stored: compressed if that saves space."""
    if len(payload) <= COMPRESS_FROM:
        return payload
    return min(payload, zlib.compress(payload), key=len)


def decode_call(data: bytes) -> Invocation:
    """The call in the payload `data`. Raises `InvalidPayload` with the reason."""
    try:
        return _decode(data)
    except UNREADABLE:
        return _decode_rare(data)


def _decode_rare(data: bytes) -> Invocation:
    """The call in a compressed payload; raises for anything else."""
    content = unpacked(data)
    if content[:1] == _PICKLE:
        raise InvalidPayload(PICKLED)
    try:
        call = msgspec.json.decode(content)
    except UNREADABLE as error:
        raise InvalidPayload(f"the payload is not JSON: {error}") from None
    match call:
        case [str(name), None, list(args), dict(kwargs)]:
            return Invocation(name, None, args, kwargs)
        case [_, instance, _, _] if instance is not None:
            raise InvalidPayload("the payload calls a method of an object; only functions are performed")
    raise InvalidPayload("the payload is not [name, null, [positional], {named}]")


_CALLED = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\(|$)", re.ASCII)

LONGEST_DESCRIPTION = 300
"""Characters of a description in which a function's name is looked for."""


def called(description: str) -> str:
    """The function in a description by RQ, or "": `called("shop.report('2026-11')") == "shop.report"`.

    A job may have another description, so this is what is known of a call whose payload can't be read.
    """
    found = _CALLED.match(description[:LONGEST_DESCRIPTION])
    return found[1] if found else ""


def unpacked(data: bytes) -> bytes:
    """A payload that may be compressed, as it was. Raises `InvalidPayload` for one that is too large."""
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

MAX_RETRIES_EXCEEDED = 5
"""RQ's number for the end of a job that returned a `Retry` too often; to us it failed."""

EXCEEDED = "Retry: the job asked to be retried more often than it allows"

NO_RESULT = b64encode(b"null").decode()
"""What a result stream keeps for a job that returned None."""


_QUALIFIED = re.compile(r"^(?:\w+\.)+(\w+(?=: |$))")
"""The dotted name of an error's class, as a traceback writes it before the error's text."""


_FRAMES = re.compile(
    r'^(?:  File ".*\n(?:    .*\n|  \[Previous .*\n)*|  \|   File ".*\n(?:  \|   .*\n)*  \| )', re.MULTILINE
)
"""A frame of a traceback with its source, or all frames of a group of errors and the margin behind them."""

_CUT_OFF = {"", "...", "Traceback"}
"""How a text begins, as far as nine characters tell, if it has no frame but isn't an error's own text."""


def error_text(traceback: str) -> str:
    """A traceback as a result stream keeps it: compressed, in base64."""
    return b64encode(zlib.compress(traceback.encode("utf-8", "backslashreplace"))).decode()


def traceback(text: str | None) -> str | None:
    """The traceback that `error_text` wrote."""
    if text is None:
        return None
    try:
        return zlib.decompressobj().decompress(b64decode(text), MAX_PAYLOAD_BYTES).decode(errors="replace")
    except (ValueError, zlib.error):
        return "(an error text that can't be read)"


def reason(traceback: str) -> str:
    """What it ends in, without the module of the error's class: `ValueError: no such month`.

    That is the line behind the last frame: an error's own text may have more lines, and a group of errors has
    theirs. If no frame is left, because the beginning was cut off, it's the last line.
    """
    text = traceback.rstrip()
    behind = 0
    for frames in _FRAMES.finditer(text):
        behind = frames.end()
    line = text[behind:].partition("\n")[0]
    return _QUALIFIED.sub(r"\1", text.rpartition("\n")[2] if line[:9] in _CUT_OFF else line)


_TYPE = re.compile(r"[\w.]{1,100}(?=: |$)")


def error_type(reason: str) -> str:
    """The class of the error that a reason names, or "": `error_type("ValueError: no such month")`."""
    found = _TYPE.match(reason)
    return found[0] if found else ""


LAST_INSTANT = 10.0**11
"""The latest time that a record may name, some three thousand years from now."""


def instant(value: Any) -> float:
    """A time or count that others may have written: from 0 to `LAST_INSTANT`. Raises if it isn't a number."""
    number = float(value)
    return min(max(number, 0.0), LAST_INSTANT) if math.isfinite(number) else 0.0


def number(text: str | None) -> float | None:
    """A number of a record; None if there is none, or it makes no sense."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def whole(text: str | bytes | None) -> int:
    """A counter's value, `MOST_COUNTED` at most; 0 if it is negative or not a number."""
    try:
        return min(max(0, int(text or 0)), MOST_COUNTED)
    except ValueError:
        return 0
