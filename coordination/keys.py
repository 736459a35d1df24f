"""Names of keys in Redis, made from what users and strangers say, at a bounded length."""

from __future__ import annotations

import hashlib
import re

from redis.exceptions import ResponseError

LONGEST = 160
"""Bytes up to which a key stays readable; beyond, its end is a hash."""

HEAD = 95

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_MARK = "~"


class InvalidName(ValueError):
    """A name that would make keys ambiguous."""


class KeyTaken(RuntimeError):
    """What is stored where a limit counts was not written by it; the text says what to do."""


def taken(error: ResponseError, key: str, kind: str) -> RuntimeError | ResponseError:
    """What to raise for `error`: `KeyTaken` where it says that `key` is no `kind`, otherwise itself."""
    if "WRONGTYPE" not in str(error):
        return error
    return KeyTaken(f"{key} holds something that is no {kind}: delete it, or give the limit another name")


def named(name: str) -> str:
    """`name`, if it can be a part of keys. Raises `InvalidName`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidName(f"{name!r:.120} can't be a name: use up to 100 letters, digits and signs of . _ -")
    return name


def bounded(key: str) -> str:
    """`key` itself if it is short, otherwise its beginning and a hash; different keys stay different.

    >>> bounded("10.0.0.1")
    '10.0.0.1'
    >>> len(bounded("a" * 1_000_000))
    160

    A key that has the mark of a hashed one is hashed as well, so that nobody can write another's. Raises
    `TypeError` for what is no text.
    """
    if not isinstance(key, str):
        raise TypeError(f"a key is text, not {key!r:.120}")
    if key.isascii() and len(key) <= LONGEST and _MARK not in key:
        return key
    # What came as JSON may hold halves of characters, which are no UTF-8.
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
