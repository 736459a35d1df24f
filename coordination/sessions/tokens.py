"""API tokens: named, with scopes and an end, and short ones that are bound to one thing."""

from __future__ import annotations

import re
import secrets
import string
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from redis import Redis

from packmule.coordination.keys import named
from packmule.coordination.redis.replies import UNREADABLE, as_text
from packmule.coordination.redis.scripts import Script
from packmule.coordination.sessions.opaque import BYTES, hashed
from packmule.errors import Conflict, NotFound, UsageError
from packmule.plain_text import plain
from packmule.units import DAY, YEAR

PREFIX = "pm_"
"""How every token begins, so that scanners find one that leaked."""

LONGEST_LIFETIME = float(YEAR)
LONGEST_LOAN = float(DAY)
SHORTEST_LIFETIME = 1.0
MOST_NAMED = 1_000
MOST_SCOPES = 20
LONGEST_BOUND = 400
NOTED_EVERY = 60.0
"""Seconds after which another use of a token is noted."""

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_LENGTH = 43
_CHECKSUM_LENGTH = 6
_TOKEN = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{_SECRET_LENGTH}}})([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})")
_SCOPE = re.compile(r"[a-z]{1,30}(:[a-z]{1,30})?")

_add = Script("coordination.sessions", "add_token")
_read = Script("coordination.sessions", "read_token")
_revoke = Script("coordination.sessions", "revoke_token")


class TokenExists(Conflict, RuntimeError):
    """A token of that name lives, or as many tokens as there may be."""


class NoSuchToken(NotFound, LookupError):
    """No token of that name lives."""


class InvalidToken(UsageError, ValueError):
    """A scope, a lifetime or a bound that no token may have."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token lets its holder do: its `scopes`, on all things or on the one that it is `bound_to`.

    Times are in Unix seconds, by Redis's clock. `used_at`, exact to a minute, is None before the first use.
    """

    name: str
    scopes: frozenset[str]
    bound_to: str | None
    expires_at: float
    made_by: str = ""
    used_at: float | None = None

    def allows(self, scope: str, thing: str | None = None) -> bool:
        """Whether its holder may do `scope` to `thing`; a bound token allows nothing but what it is bound to.

        >>> Grant("job:a", frozenset(["read"]), "job:a", 0.0).allows("read", "job:b")
        False
        """
        return scope in self.scopes and (self.bound_to is None or self.bound_to == thing)


class _About(msgspec.Struct, frozen=True):
    """What Redis keeps of a token, as JSON."""

    name: str
    scopes: tuple[str, ...]
    bound_to: str | None = None
    made_by: str = ""


class Tokens:
    """The tokens of one realm, such as the API; `name` is a word of letters, digits and `. _ -`.

    A token is shown once, when it is made: Redis stores its hash. Its last characters are a checksum, so what
    was mistyped or guessed is refused without asking Redis. Safe in threads.

    >>> tokens = Tokens(client, "api")  # doctest: +SKIP
    >>> shown = tokens.add("deploy", ["read", "enqueue"], lifetime=90 * 86_400)  # doctest: +SKIP
    >>> tokens.read(shown).scopes  # doctest: +SKIP
    frozenset({'read', 'enqueue'})
    """

    def __init__(self, client: Redis, name: str) -> None:
        self.client = client
        self.name = named(name)
        self._names = f"pm:tokens:{name}"
        self._prefix = f"pm:token:{name}:"

    def add(
        self, name: str, scopes: Iterable[str], *, lifetime: float = 90.0 * DAY, made_by: str = ""
    ) -> str:
        """A new token that is listed as `name`, for `lifetime` seconds: a year at most.

        `made_by` is who made it, for the list. Raises `TokenExists`, `InvalidName` or `InvalidToken`.
        """
        about = _About(named(name), _scopes(scopes), None, plain(made_by)[:LONGEST_BOUND])
        return self._make(about, name, _lifetime(lifetime, LONGEST_LIFETIME))

    def lend(self, bound_to: str, scopes: Iterable[str] = ("read",), *, lifetime: float = 600.0) -> str:
        """A short token, not listed, that is good for one thing only, such as `job:<id>`: a day at most.

        Give one to a user's browser to let it read one job. Whoever reads the token has to compare
        `Grant.bound_to`. Raises `InvalidToken`.
        """
        if not isinstance(bound_to, str) or not 0 < len(bound_to) <= LONGEST_BOUND:
            raise InvalidToken(f"a token is bound to a text of up to {LONGEST_BOUND} characters")
        about = _About(bound_to, _scopes(scopes), bound_to)
        return self._make(about, "", _lifetime(lifetime, LONGEST_LOAN))

    def read(self, token: str) -> Grant | None:
        """What `token` grants; None if it isn't a token, or is one that has ended: one round trip.

        >>> tokens.read("pm_garbage") is None  # doctest: +SKIP
        True
        """
        if not is_token(token):
            return None
        reply = _read(self.client, [self._prefix + hashed(token)], [NOTED_EVERY])
        return _grant(reply) if reply else None

    def revoke(self, name: str) -> None:
        """End the token of that name at once. Raises `NoSuchToken`."""
        if not _revoke(self.client, [self._names], [named(name), self._prefix]):
            raise NoSuchToken(f"no token is called {name!r}: see packmule token list")

    def all(self) -> list[Grant]:
        """The listed tokens that live, by name, in two round trips."""
        hashes = self.client.hvals(self._names) if self.client.type(self._names) == b"hash" else []
        with self.client.pipeline(transaction=False) as pipeline:
            for each in hashes[: 2 * MOST_NAMED]:
                pipeline.hmget(self._prefix + as_text(each), "about", "ends", "used")
            replies = pipeline.execute(raise_on_error=False)
        found = [_grant(reply) for reply in replies if isinstance(reply, list) and None not in reply[:2]]
        return sorted((each for each in found if each), key=lambda grant: grant.name)

    def _make(self, about: _About, listed_as: str, lifetime: float) -> str:
        token = _new_token()
        stored_as, known = hashed(token), msgspec.json.encode(about)
        keys = [self._prefix + stored_as, self._names]
        args = [stored_as, listed_as, round(lifetime * 1000), MOST_NAMED, self._prefix, known]
        match _add(self.client, keys, args):
            case b"taken":
                raise TokenExists(f"a token called {listed_as!r} exists: revoke it, or choose another name")
            case b"full":
                raise TokenExists(f"there are {MOST_NAMED:,} tokens, the maximum: revoke some")
        return token


def is_token(text: object) -> bool:
    """Whether `text` has a token's form and checksum: whether Redis need be asked.

    >>> is_token("pm_" + "0" * 43 + "000000")
    False
    """
    parts = _TOKEN.fullmatch(text) if isinstance(text, str) else None
    return parts is not None and parts[2] == _checksum(parts[1])


def _new_token() -> str:
    secret = _base62(int.from_bytes(secrets.token_bytes(BYTES)), _SECRET_LENGTH)
    return PREFIX + secret + _checksum(secret)


def _checksum(secret: str) -> str:
    return _base62(zlib.crc32(secret.encode()), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def _scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys([scopes] if isinstance(scopes, str) else scopes))
    for each in found:
        if not isinstance(each, str) or not _SCOPE.fullmatch(each):
            raise InvalidToken(f"{each!r:.60} is not a scope: write a word such as read, or two as jobs:read")
    if not 0 < len(found) <= MOST_SCOPES:
        raise InvalidToken(f"a token has 1 to {MOST_SCOPES} scopes, not {len(found)}")
    return found


def _lifetime(seconds: float, longest: float) -> float:
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not SHORTEST_LIFETIME <= seconds <= longest:
        raise InvalidToken(f"lifetime={seconds!r}: give a number of seconds from 1 to {longest:,.0f}")
    return float(seconds)


def _grant(reply: list[bytes | None]) -> Grant | None:
    about, ends, used = reply
    try:
        known = msgspec.json.decode(about or b"", type=_About)
        used_at = float(used) if used else None
        expires_at = float(ends or b"")
    except (*UNREADABLE, ValueError):
        return None
    return Grant(known.name, frozenset(known.scopes), known.bound_to, expires_at, known.made_by, used_at)
