"""Redis keys made from names and texts of users and strangers, bounded in length."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from packmule.errors import Conflict, UsageError

if TYPE_CHECKING:  # a module that only declares jobs does without redis-py
    from redis.exceptions import ResponseError

LONGEST = 160
"""Bytes up to which a key stays readable; the end of a longer key is replaced by a hash."""

HEAD = 95

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_MARK = "~"


class InvalidName(UsageError, ValueError):
    """A name would make keys ambiguous."""


class KeyTaken(Conflict, RuntimeError):
    """A limit's key holds a value that no limit wrote; the text says what to do."""


def taken(error: ResponseError, key: str, kind: str) -> RuntimeError | ResponseError:
    """What to raise for `error`: `KeyTaken` if it says that `key` is not a `kind`, otherwise `error`."""
    if "WRONGTYPE" not in str(error):
        return error
    return KeyTaken(f"{key} holds a value that is not a {kind}: delete it, or give the limit another name")


def named(name: str) -> str:
    """`name`, checked to be fit as a part of keys. Raises `InvalidName`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidName(f"{name!r:.120} is not a valid name: use up to 100 letters, digits, or . _ -")
    return name


def bounded(key: str) -> str:
    """`key` if it is short, otherwise its beginning and a hash. Different keys stay different.

    >>> bounded("10.0.0.1")
    '10.0.0.1'
    >>> len(bounded("a" * 1_000_000))
    160

    A key that contains the mark of a hashed key is hashed too, so that nobody can forge one. Raises
    `TypeError` if `key` is not text.
    """
    if not isinstance(key, str):
        raise TypeError(f"a key must be text, not {key!r:.120}")
    if key.isascii() and len(key) <= LONGEST and _MARK not in key:
        return key
    # Text from JSON may contain lone surrogates, which are not valid UTF-8.
    raw = key.encode("utf-8", "surrogatepass")
    if len(raw) <= LONGEST and _MARK not in key and _is_utf8(raw):
        return key
    head = raw[:HEAD].decode("utf-8", "ignore")
    return f"{head}{_MARK}{hashlib.sha256(raw).hexdigest()}"


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
