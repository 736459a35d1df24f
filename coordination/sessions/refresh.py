"""Refresh tokens: each is used once and followed by the next; one that is used again ends its family."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from redis import Redis

from packmule.coordination.keys import named
from packmule.coordination.redis.replies import UNREADABLE, as_text
from packmule.coordination.redis.scripts import Script
from packmule.coordination.sessions.opaque import hashed, is_id, new_id
from packmule.coordination.sessions.sessions import ENDING_KEPT, encoded, user_key
from packmule.errors import Conflict, UsageError
from packmule.units import DAY, YEAR

LONGEST_GRACE = 60.0
SEPARATOR = "."

_begin = Script("coordination.sessions", "begin_refresh")
_use = Script("coordination.sessions", "use_refresh")


class TokenReused(Conflict, RuntimeError):
    """A refresh token was used twice, so one of its holders is a thief: its family is over."""


class InvalidSpan(UsageError, ValueError):
    """A span of time that refresh tokens may not have."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """What a refresh token was good for: the `token` that follows it, and what is known of its family.

    `family` names the family without letting anybody in; `ends_at` is in Unix seconds.
    """

    token: str
    family: str
    user: str
    ends_at: float
    data: Mapping[str, Any] = field(default_factory=dict)


class RefreshTokens:
    """The refresh tokens of one site; a family begins at a login and lasts as long as its tokens are used.

    A token that stays unused for `idle` seconds is over, and so is the family after `absolute` seconds. The
    token that was used last may be used again for `grace` seconds, and the same token follows it: an honest
    client whose reply was lost, or that refreshes in two tabs at once, stays logged in. Later, or once the
    following token was used, it raises `TokenReused` and ends the family, because one of two is a thief.
    `Sessions.end_all` of the same name ends a user's families too. Safe in threads.

    >>> tokens = RefreshTokens(client, "shop")  # doctest: +SKIP
    >>> first = tokens.begin("ada")  # doctest: +SKIP
    >>> renewed = tokens.use(first)  # doctest: +SKIP
    >>> renewed.user, renewed.token != first  # doctest: +SKIP
    ('ada', True)
    """

    def __init__(
        self,
        client: Redis,
        name: str,
        *,
        idle: float = 30.0 * DAY,
        absolute: float = 90.0 * DAY,
        grace: float = 10.0,
    ) -> None:
        for what, seconds, least, most in (
            ("idle", idle, 1, YEAR),
            ("absolute", absolute, 1, YEAR),
            ("grace", grace, 0, LONGEST_GRACE),
        ):
            is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
            if not is_number or not least <= seconds <= most:
                raise InvalidSpan(f"{what}={seconds!r}: give a number of seconds from {least} to {most:,.0f}")
        self.client = client
        self.name = named(name)
        self.absolute = absolute
        self.grace = grace
        self._idle_ms = math.ceil(idle * 1000)
        self._ending_ms = math.ceil((absolute + ENDING_KEPT) * 1000)
        self._prefix = f"pm:refresh:{name}:"
        self._endings = f"pm:ended:{name}:"

    def begin(self, user: str, data: Mapping[str, Any] | None = None) -> str:
        """The first token of a new family of `user`'s; `data` is a small JSON object."""
        family, secret, by = new_id(), new_id(), user_key(user)
        keys = [self._prefix + hashed(family), self._endings + by]
        token = family + SEPARATOR + secret
        args = [user, by, hashed(token), encoded(data or {}), self._idle_ms, self.absolute, self._ending_ms]
        _begin(self.client, keys, args)
        return token

    def use(self, token: str) -> Renewed | None:
        """Use a token up: what it was good for, with the token that follows it. None if it is over.

        One round trip. Raises `TokenReused`.
        """
        family = _family(token)
        if family is None:
            return None
        salt = secrets.token_hex(16)
        args = [
            hashed(token),
            hashed(_following(token, salt)),
            salt,
            self._endings,
            self._idle_ms,
            self.grace,
        ]
        outcome, *known = _use(self.client, [self._prefix + hashed(family)], args)
        if outcome == b"reused":
            raise TokenReused(
                f"a refresh token of {as_text(known[1])!r:.120} was used twice: all tokens issued from it "
                "are revoked, log in again"
            )
        if outcome == b"over":
            return None
        given_salt, user, data, ends = known
        try:
            decoded = msgspec.json.decode(data, type=dict[str, Any])
            following = _following(token, as_text(given_salt))
            return Renewed(following, hashed(family), user.decode(), float(ends), decoded)
        except (*UNREADABLE, ValueError):
            return None

    def end(self, token: str) -> None:
        """End the family of `token`, whichever of its tokens it is: at a log-out."""
        family = _family(token)
        if family is not None:
            self.client.delete(self._prefix + hashed(family))

    def is_alive(self, family: str) -> bool:
        """Whether `Renewed.family` goes on: for tokens that name it and are checked without this class.

        An end of all of a user's sessions is seen when the family's next token is used.
        """
        found: list[Any] = self.client.hmget(self._prefix + family, "token", "dead")
        return found[0] is not None and found[1] is None


def _family(token: object) -> str | None:
    parts = token.split(SEPARATOR) if isinstance(token, str) and len(token) < 100 else []  # noqa: PLR2004
    return parts[0] if len(parts) == 2 and all(map(is_id, parts)) else None  # noqa: PLR2004


def _following(token: str, salt: str) -> str:
    """The token after `token`: only its holder can make it, from the salt that Redis keeps."""
    made = hmac.digest(token.encode(), salt.encode(), hashlib.sha256)
    secret = base64.urlsafe_b64encode(made).decode().rstrip("=")
    return token.partition(SEPARATOR)[0] + SEPARATOR + secret
