"""Values as people type them into the fields of a form, and as JSON has them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from packmule.coordination.redis.replies import UNREADABLE
from packmule.errors import UsageError

Kind = Literal["text", "int", "float", "bool", "date", "datetime", "choice", "json", "any"]

EMPTY = '""'
"""What stands for an empty text, since an empty field means the default."""

_INT = re.compile(r"[+-]?\d{1,4000}", re.ASCII)
_MINUTES = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", re.ASCII)


class WrongField(UsageError, ValueError):
    """What was typed into a field can't be meant."""


def typed(kind: Kind, text: str) -> Any:
    """The value that a field of this kind has. Raises `WrongField`.

    >>> typed("int", "9007199254740993")
    9007199254740993
    """
    return _READ[kind](text)


def _int(text: str) -> int:
    if not _INT.fullmatch(text.strip()):
        raise WrongField("that is not a whole number")
    return int(text)


def _float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise WrongField("that is not a number") from None
    if not math.isfinite(value):
        raise WrongField("that is not a number that JSON can hold")
    return value


def _from_json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (UnicodeEncodeError, *UNREADABLE) as error:
        raise WrongField(f"that is not JSON: {error}") from None


def _any(text: str) -> Any:
    return msgspec.json.decode(text) if is_json(text) else text


def is_json(text: str) -> bool:
    """Whether a text is JSON."""
    try:
        msgspec.json.decode(text)
    except (UnicodeEncodeError, *UNREADABLE):
        return False
    return True


def _datetime(text: str) -> str:
    text = text.strip()
    return f"{text}:00" if _MINUTES.fullmatch(text) else text


def as_json(value: Any) -> str:
    """A value as JSON on one line, whole numbers exact."""
    try:
        return json.dumps(value, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):
        return "…"


_READ: Mapping[Kind, Callable[[str], Any]] = {
    "text": lambda text: "" if text == EMPTY else text,
    "int": _int,
    "float": _float,
    "bool": _from_json,
    "date": lambda text: text.strip(),
    "datetime": _datetime,
    "choice": _from_json,
    "json": _from_json,
    "any": _any,
}
