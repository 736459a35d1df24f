"""Reading requests: a body of JSON, bounded, and the values of a query, each checked against a struct."""

from __future__ import annotations

from typing import Any, TypeVar, get_type_hints

import msgspec
from starlette.requests import Request

from packmule.dashboard.api.problems import Fault, Refused, explained, malformed
from packmule.units import MIB

T = TypeVar("T")

MOST_BODY_BYTES = 8 * MIB
"""Bytes of JSON, or of a mail, that a request may have; files are apart."""

_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}


async def body_of(request: Request, kind: type[T]) -> T:
    """The body as a `kind`. Raises `Refused`."""
    said = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if said != "application/json":
        raise Refused(415, "NotJSON", f"send application/json, not {said or 'an empty type'}")
    content = await bounded_body(request)
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        found: T = decoder.decode(content or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(error) from None
    return found


async def bounded_body(request: Request) -> bytes:
    """The whole body. Raises `Refused` if it is too large."""
    if length_of(request) > MOST_BODY_BYTES:
        raise _too_large()
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BODY_BYTES:
            raise _too_large()
        parts.append(part)
    return b"".join(parts)


def length_of(request: Request) -> int:
    """How many bytes a body is said to have; 0 if nobody says it."""
    said = request.headers.get("content-length", "")
    return int(said) if said.isascii() and said.isdecimal() and len(said) <= 18 else 0  # noqa: PLR2004


def _too_large() -> Refused:
    return Refused(413, "BodyTooLarge", f"a body has at most {MOST_BODY_BYTES:,} bytes")


def query_of(request: Request, kind: type[T]) -> T:
    """The query as a `kind`: a name that is there several times is a list. Raises `Refused`."""
    given: dict[str, Any] = {}
    hints = get_type_hints(kind)
    for name in dict.fromkeys(request.query_params):
        values = request.query_params.getlist(name)
        if name == "token":
            continue
        if name not in hints:
            raise _invalid(name, f"there is no parameter {name}: there are {', '.join(hints) or 'none'}")
        is_list = "list" in str(hints[name])
        if len(values) > 1 and not is_list:
            raise _invalid(name, f"{name} is given {len(values)} times")
        given[name] = values if is_list else values[0]
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        detail, pointer = explained(str(error))
        raise _invalid(pointer.removeprefix("#/").partition("/")[0], detail) from None


def _invalid(name: str, detail: str) -> Refused:
    return Refused(422, "InvalidQuery", f"{name}: {detail}", Fault(detail, parameter=name))
