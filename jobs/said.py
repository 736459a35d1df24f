"""What a job says: lines for its log and chunks of its output, as they are kept in Redis."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from packmule.errors import UsageError
from packmule.jobs import wire
from packmule.units import KIB

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

OFF = 1000
"""A level that no line has."""

LONGEST_TEXT = 8 * KIB
"""Characters of a line that are kept: a longer one loses its middle, since an error's name is at its end."""

MOST_CHUNK_BYTES = 256 * KIB
"""Bytes of JSON that a chunk of output may take."""

FAULTS = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What a value or a record may raise that can't be written; never an interruption of the job."""

Entry = tuple[int, int, int, str]
"""Lines or chunks that are stored together: a number, how many they are, their bytes, and a JSON list."""

Spoken = tuple[int, tuple[Entry, ...], tuple[Entry, ...]]
"""What an execution said: its attempt, and entries of its log and of its output."""


class UnknownLevel(UsageError, ValueError):
    """A line has a level that is none."""


class ChunkTooLarge(UsageError, ValueError):
    """A chunk of a job's output takes more bytes than one should."""


class Line(NamedTuple):
    """A line of a job's log: `at` is Unix time, `level` one of `LEVELS`, and `attempt` counts from 1.

    A line of one of RQ's callbacks has the attempt 0.
    """

    at: float
    level: str
    text: str
    fields: Mapping[str, Any]
    attempt: int


def level_number(level: str) -> int:
    """The number that `logging` has for a level. Raises `UnknownLevel`."""
    try:
        return LEVELS[level]
    except (KeyError, TypeError):
        names = ", ".join(LEVELS)
        raise UnknownLevel(f"{level!r:.100} is not a level: use one of {names}") from None


def level_name(number: int) -> str:
    """The level of a number, or the one below it."""
    return next((name for name, least in reversed(LEVELS.items()) if number >= least), "debug")


def line(at: float, level: int, text: str, fields: Mapping[str, Any] | None = None) -> bytes:
    """A line as JSON. What JSON can't hold in it becomes text, so it never fails."""
    if len(text) > LONGEST_TEXT:
        half = LONGEST_TEXT // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"
    try:
        written = _encode((at, level, text, fields)) if fields else _encode((at, level, text))
    except FAULTS as error:
        told = {"fields": _sound(f"could not be kept: {error}")} if fields else {}
        return _encode((at, level, _sound(text), told))
    if fields and len(written) > 2 * LONGEST_TEXT:
        return line(at, level, text, {"fields": f"were too large, {len(written):,} bytes"})
    return written


def chunk(value: Any) -> bytes:
    """A chunk as JSON. Raises `TypeError` or `ValueError` if JSON can't hold it, and `ChunkTooLarge`."""
    written = wire.encode_value(_sound(value) if type(value) is str and not value.isascii() else value)
    if len(written) > MOST_CHUNK_BYTES:
        raise ChunkTooLarge(
            f"the chunk takes {len(written)} bytes, over the limit of {MOST_CHUNK_BYTES}: emit it in pieces"
        )
    return written


def _sound(text: str) -> str:
    """A file's name may hold half a character, which is not valid JSON."""
    return text.encode(errors="backslashreplace").decode()


_encode = msgspec.json.Encoder(enc_hook=str).encode
