"""A user: name, role, rights and what proves them, as Redis stores it; which names and passwords are fit."""

from __future__ import annotations

import re
import unicodedata

import msgspec

from packmule.dashboard.viewer import Role
from packmule.errors import UsageError
from packmule.plain_text import plain

LONGEST_NAME = 64
SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 1_000
"""Characters; more would be a way to keep the server busy."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]*")


class InvalidUser(UsageError, ValueError):
    """A name or password that no user may have."""


class User(msgspec.Struct, frozen=True):
    """A user. `password` is a hash, or empty if only a link or a proxy lets the user in.

    `totp` is the secret of an authenticator app, or empty. `totp_step` is the time step of the last code that
    was accepted: no code is accepted twice. `changed_at` is when an admin or the user changed anything.
    """

    name: str
    role: Role
    payloads: bool = False
    password: str = ""
    totp: str = ""
    totp_step: int = 0
    made_at: float = 0.0
    changed_at: float = 0.0


def checked_name(name: str) -> str:
    """`name`, if a user may be called that. Raises `InvalidUser`.

    >>> checked_name("ada@example.com")
    'ada@example.com'
    """
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        raise InvalidUser(
            f"'{plain(name)[:100]}' is not a user name: use up to {LONGEST_NAME} letters, digits "
            "and . _ @ + -, with a letter or digit in front"
        )
    return name


def checked_password(name: str, password: str) -> str:
    """`password`, if the user `name` may have it. Raises `InvalidUser`, which doesn't quote it."""
    if len(password) < SHORTEST_PASSWORD:
        raise InvalidUser(f"the password is too short: use at least {SHORTEST_PASSWORD} characters")
    if len(password) > LONGEST_PASSWORD:
        raise InvalidUser(f"the password is too long: use at most {LONGEST_PASSWORD:,} characters")
    if normal(password).casefold() == name.casefold():
        raise InvalidUser("the password is the user's name: choose another")
    if len(set(password)) == 1:
        raise InvalidUser("the password is a single repeated character: choose another")
    return password


def normal(password: str) -> str:
    """The form in which a password is hashed: the same on keyboards that compose letters in other ways."""
    return unicodedata.normalize("NFKC", password)
