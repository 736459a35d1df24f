"""Replies of Redis as text, what can't be read of them, and pipelines that survive a key of another type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from redis import Redis  # declaring jobs does without

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that it can't read: no JSON, no UTF-8, or brackets nested without end."""


def as_text(value: bytes | str) -> str:
    """A reply as text; bytes that are not UTF-8 become replacement characters.

    >>> as_text(b"mail")
    'mail'
    """
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def as_texts(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """The fields of a hash as text.

    >>> as_texts({b"status": b"queued"})
    {'status': 'queued'}
    """
    return {as_text(name): as_text(value) for name, value in fields.items()}


def pipelined(
    client: Redis, commands: Sequence[tuple[Any, ...]], otherwise: Any, only: str = ""
) -> list[Any]:
    """The replies to `commands`, in one round trip; `otherwise` in the place of each error.

    If `only` is given, an error that doesn't begin with it is raised.

    >>> pipelined(client, [("LLEN", "a"), ("LLEN", "b")], 0)  # doctest: +SKIP
    [3, 0]
    """
    if not commands:
        return []
    with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
        replies = pipeline.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, Exception) and not str(reply).startswith(only):
            raise reply
    return [otherwise if isinstance(reply, Exception) else reply for reply in replies]
