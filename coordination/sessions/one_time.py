"""One-time secrets: links and steps of a login that are good once, for minutes, and for one subject."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.keys import bounded, named
from packmule.coordination.redis.replies import UNREADABLE
from packmule.coordination.redis.scripts import Script
from packmule.coordination.sessions.opaque import hashed, is_id, new_id
from packmule.errors import UsageError
from packmule.units import DAY

LONGEST_LIFETIME = float(DAY)

REPEATED_WITHIN = 10_000
"""Milliseconds in which a call that used a secret up may ask again, because its reply was lost."""

_make = Script("coordination.sessions", "make_once")
_use = Script("coordination.sessions", "use_once")


class InvalidLifetime(UsageError, ValueError):
    """A one-time secret lives for minutes, and for a day at most."""


class OneTime:
    """One-time secrets of one purpose, `name`, which is a word of letters, digits and `. _ -`.

    A subject has one at a time: a new one ends the one before. A secret can be looked at before it is used
    up, so that a link may be opened by a mail scanner and is only used by the button on its page.

    >>> links = OneTime(client, "login-links")  # doctest: +SKIP
    >>> secret = links.make("ada", {"next": "/"}, lifetime=900)  # doctest: +SKIP
    >>> links.use(secret), links.use(secret)  # doctest: +SKIP
    ({'next': '/'}, None)
    """

    def __init__(self, client: Redis, name: str) -> None:
        self.client = client
        self.name = named(name)
        self._prefix = f"pm:once:{name}:"

    def make(self, subject: str, data: dict[str, Any], *, lifetime: float = 900.0) -> str:
        """A secret for `subject` that gives `data`, a small JSON object, to whoever uses it first.

        Raises `InvalidLifetime`.
        """
        is_number = isinstance(lifetime, int | float) and not isinstance(lifetime, bool)
        if not is_number or not 1 <= lifetime <= LONGEST_LIFETIME:
            raise InvalidLifetime(f"lifetime={lifetime!r}: give a number of seconds from 1 to a day")
        secret = new_id()
        keys = [self._prefix + hashed(secret), f"pm:once-of:{self.name}:{bounded(subject)}"]
        args = [hashed(secret), msgspec.json.encode(data), round(lifetime * 1000), self._prefix]
        _make(self.client, keys, args)
        return secret

    def look(self, secret: str) -> dict[str, Any] | None:
        """What `use` would give, without using it up."""
        if not is_id(secret):
            return None
        keys = self._keys(secret)
        try:
            replies: list[Any] = self.client.mget(*keys)
        except ResponseError:
            return None
        data, used_by = replies
        return None if used_by else _decoded(data)

    def use(self, secret: str) -> dict[str, Any] | None:
        """The data of `secret`, for the first caller only; None for any other, and when it is over."""
        if not is_id(secret):
            return None
        return _decoded(_use(self.client, self._keys(secret), [secrets.token_hex(16), REPEATED_WITHIN]))

    def end(self, subject: str) -> None:
        """End the secret of `subject`, if it has one."""
        self.make(subject, {}, lifetime=1.0)

    def _keys(self, secret: str) -> tuple[str, str]:
        stored_as = hashed(secret)
        return self._prefix + stored_as, f"pm:once-used:{self.name}:{stored_as}"


def _decoded(data: bytes | None) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(data, type=dict[str, Any]) if data else None
    except UNREADABLE:
        return None
