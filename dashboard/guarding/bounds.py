"""Bounds: how large and how slow a request may be."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from packmule.units import KIB, MIB

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope

MAX_URL = 8 * KIB
MAX_HEADERS = 32 * KIB
MAX_HEADER_COUNT = 100
MAX_BODY = MIB
"""What a form may hold; the API has bounds of its own."""

BODY_TIMEOUT = 30.0
"""Seconds in which a form must have come in, and the longest silence within an upload."""

SLOWEST = 8 * KIB
"""Bytes a second that an upload must reach, once it had `BODY_TIMEOUT` seconds."""

LONGEST_NUMBER = 15
"""Digits of a length that Python is asked to read; servers pass on nothing but digits."""

CLOSE = {"Connection": "close"}


def check_head(scope: Scope) -> None:
    """Refuse what no browser and no client of the API sends."""
    raw = scope.get("raw_path") or scope["path"].encode()
    query = scope["query_string"]
    if len(raw) + len(query) > MAX_URL:
        raise HTTPException(414, f"The address is longer than {MAX_URL} bytes.", CLOSE)
    if not query.isascii():
        raise HTTPException(400, "The address has characters that must be written as %XX.", CLOSE)
    lengths = [len(name) + len(value) for name, value in scope["headers"]]
    if sum(lengths) > MAX_HEADERS or len(lengths) > MAX_HEADER_COUNT:
        raise HTTPException(
            431, f"The headers are more than {MAX_HEADERS} bytes or {MAX_HEADER_COUNT}.", CLOSE
        )


def check_length(scope: Scope, most: int) -> None:
    """Refuse a body that says itself that it is too large."""
    for name, value in scope["headers"]:
        if name == b"content-length" and (len(value) > LONGEST_NUMBER or int(value) > most):
            raise too_large(most)


def too_large(most: int) -> HTTPException:
    """The error of a body that is larger than it may be."""
    return HTTPException(413, f"What you sent is larger than {most:,} bytes.", CLOSE)


async def whole_body(receive: Receive, most: int) -> Receive:
    """What gives the site the whole body at once, when it has come in in time."""
    parts = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return _then(message, receive)
                parts += message.get("body", b"")
                if len(parts) > most:
                    raise too_large(most)
                if not message.get("more_body"):
                    return _then({**message, "body": bytes(parts)}, receive)
    except TimeoutError:
        raise HTTPException(408, f"The request took longer than {BODY_TIMEOUT:g} s.", CLOSE) from None


def _then(first: Message, rest: Receive) -> Receive:
    waiting = [first]

    async def receive() -> Message:
        return waiting.pop() if waiting else await rest()

    return receive


def steady_body(receive: Receive) -> Receive:
    """What hands an upload on as it comes in, and ends one that stalls or trickles."""
    began, size, ended = time.monotonic(), 0, False

    async def steady() -> Message:
        nonlocal size, ended
        if ended:
            return await receive()
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"Nothing arrived for {BODY_TIMEOUT:g} s.", CLOSE) from None
        size += len(message.get("body", b""))
        ended = not message.get("more_body", False)
        if not ended and size < (time.monotonic() - began - BODY_TIMEOUT) * SLOWEST:
            raise HTTPException(408, f"An upload must reach {SLOWEST:,} bytes a second.", CLOSE)
        return message

    return steady
