"""Opaque ids: 256 random bits that their holder shows, and the hash under which Redis knows them."""

from __future__ import annotations

import hashlib
import re
import secrets

BYTES = 32

_ID = re.compile(r"[A-Za-z0-9_-]{43}")


def new_id() -> str:
    """A new id of 43 characters that can be part of a URL or a cookie.

    >>> len(new_id())
    43
    """
    return secrets.token_urlsafe(BYTES)


def is_id(text: object) -> bool:
    """Whether `text` has the form of an id; what has not needs no question to Redis."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def hashed(secret: str) -> str:
    """What Redis stores in the place of `secret`: SHA-256, in hexadecimal digits.

    Whoever reads Redis then has nothing to show. The secrets are random, so they need no salt.
    """
    return hashlib.sha256(secret.encode()).hexdigest()
