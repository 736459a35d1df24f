"""The store of users: each change is one step in Redis, which also ends the sessions that it must end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.replies import UNREADABLE
from packmule.coordination.redis.scripts import Script
from packmule.coordination.sessions.sessions import MOST_SESSIONS, Sessions
from packmule.dashboard.users.user import User, checked_name
from packmule.errors import Conflict, NotFound

KEY = "pm:users"
SITE = "dashboard"
MOST_USERS = 1_000
TRIES = 10

_change = Script("dashboard.users", "change_user")


class NoSuchUser(NotFound, LookupError):
    """No user has that name."""


class UserExists(Conflict, RuntimeError):
    """A user of that name exists, or as many users as there may be."""


class LastAdmin(Conflict, RuntimeError):
    """Nobody could manage users any more."""


class UserChanged(Conflict, RuntimeError):
    """Others change the user all the time."""


class Users:
    """The users of the dashboard, at most 1,000.

    A change of password, role or rights ends the user's sessions in the same step. Safe in threads.

    >>> users = Users(client)  # doctest: +SKIP
    >>> users.add(User("ada", Role.ADMIN, payloads=True))  # doctest: +SKIP
    >>> users.change("ada", role=Role.OPERATOR)  # doctest: +SKIP
    """

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.sessions = Sessions(client, SITE)

    def find(self, name: str) -> User | None:
        """The user of that name, exactly; None if there is none or if it can't be read."""
        return self._read(name)[1]

    def get(self, name: str) -> User:
        """The user of that name. Raises `NoSuchUser`."""
        return _known(name, *self._read(checked_name(name)))

    def all(self) -> list[User]:
        """All users that can be read, by name."""
        if self.client.type(KEY) != b"hash":
            return []
        entries: dict[Any, Any] = self.client.hgetall(KEY)
        found = (_user(name, text) for name, text in entries.items())
        return sorted((user for user in found if user is not None), key=lambda user: user.name)

    def any(self) -> bool:
        """Whether there are users."""
        return self.client.type(KEY) == b"hash"

    def add(self, user: User, *, is_first: bool = False) -> None:
        """Add a user; with `is_first`, only if there is none yet. Raises `UserExists` or `InvalidUser`."""
        now = time.time()
        made = msgspec.structs.replace(user, name=checked_name(user.name), made_at=now, changed_at=now)
        match self._write(user.name, b"", made, "all", "first" if is_first else ""):
            case b"changed":
                raise UserExists(
                    f"the user {user.name!r} exists: change it with packmule user passwd or role"
                )
            case b"not first":
                raise UserExists("there are users already: log in, or ask an admin")
            case b"full":
                raise UserExists(f"there are {MOST_USERS:,} users, the maximum")

    def change(self, name: str, *, keep: str = "", force: bool = False, **fields: Any) -> User:
        """Change some fields of a user; the user's sessions end, but the one called `keep`.

        Raises `NoSuchUser`, and `LastAdmin` unless `force`.
        """
        fields["changed_at"] = time.time()
        guarded = "" if force else "admin"
        for _ in range(TRIES):
            text, found = self._read(checked_name(name))
            changed = msgspec.structs.replace(_known(name, text, found), **fields)
            if self._write(name, text, changed, keep or "all", guarded) == b"done":
                return changed
        raise _changing(name)

    def note(self, name: str, decide: Callable[[User], User | None]) -> bool:
        """Write what `decide` makes of the user, without ending sessions; False if it makes nothing of it.

        It is asked again if somebody else has changed the user meanwhile.
        """
        for _ in range(TRIES):
            text, found = self._read(name)
            changed = decide(found) if found is not None else None
            if changed is None:
                return False
            if changed == found or self._write(name, text, changed, "", "") == b"done":
                return True
        raise _changing(name)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a user, whose sessions end. Raises `NoSuchUser`, and `LastAdmin` unless `force`."""
        for _ in range(TRIES):
            text, _found = self._read(checked_name(name))
            if not text:
                raise _unknown(name)
            if self._write(name, text, None, "all", "" if force else "admin") == b"done":
                return
        raise _changing(name)

    def _read(self, name: str) -> tuple[bytes, User | None]:
        try:
            text: Any = self.client.hget(KEY, name.encode(errors="replace")) or b""
        except ResponseError:  # another type
            return b"", None
        return text, _user(name.encode(errors="replace"), text)

    def _write(self, name: str, before: bytes, after: User | None, ends: str, guarded: str) -> bytes:
        sessions = self.sessions
        keys = [KEY, sessions.index_key(name), sessions.ending_key(name)]
        text = b"" if after is None else msgspec.json.encode(after)
        spans = [sessions.prefix, sessions.ending_ms, 2 * MOST_SESSIONS, MOST_USERS]
        outcome: bytes = _change(self.client, keys, [name, before, text, ends, *spans, guarded])
        if outcome == b"last admin":
            raise LastAdmin(f"{name!r} is the last admin: make another one first, or use --force")
        return outcome


def _user(name: bytes, text: bytes) -> User | None:
    """The user of a field, if it is one under its own name."""
    try:
        user = msgspec.json.decode(text, type=User)
    except UNREADABLE:
        return None
    return user if user.name.encode(errors="replace") == name else None


def _known(name: str, text: bytes, user: User | None) -> User:
    if user is not None:
        return user
    if text:
        raise NoSuchUser(f"the user {name!r} can't be read: remove it and add it again")
    raise _unknown(name)


def _unknown(name: str) -> NoSuchUser:
    return NoSuchUser(f"the user {name!r} doesn't exist: see packmule user list")


def _changing(name: str) -> UserChanged:
    return UserChanged(f"the user {name!r} is being changed by others: try again")
