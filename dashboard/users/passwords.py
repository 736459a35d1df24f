"""Passwords: hashed by argon2, few at a time, and checked as long for unknown users as for known ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from packmule.dashboard.users.user import LONGEST_PASSWORD, normal
from packmule.errors import Unavailable

AT_ONCE = 2
"""How many hashes a process computes at a time: each takes 64 MiB."""

LONGEST_WAIT = 20.0

hasher = PasswordHasher()

NOBODYS = "$argon2id$v=19$m=65536,t=3,p=4$VdHHpyL4gQDGMRVqTHQqFg$bPz8b1aYQb3oZhHPe2JxWQ7cZ2jOaEcVqOQhJ7Y0y0E"
"""A hash of no password, for names that nobody has: checking it takes as long as checking any other."""

_turns = threading.BoundedSemaphore(AT_ONCE)


class TooBusy(Unavailable, RuntimeError):
    """More passwords are waiting to be checked than can be in time."""


def hash_of(password: str) -> str:
    """What is stored of `password`. Raises `TooBusy`."""
    with _turn():
        return hasher.hash(_bytes(password))


def is_right(stored: str, password: str) -> bool:
    """Whether `password` is the one that was `stored`; for "" it takes as long, and is False.

    Raises `TooBusy`.
    """
    with _turn():
        if len(password) > LONGEST_PASSWORD:
            stored, password = "", ""
        try:
            return hasher.verify(stored or NOBODYS, _bytes(password)) and bool(stored)
        except (VerificationError, InvalidHashError):
            return False


def is_outdated(stored: str) -> bool:
    """Whether a hash was made with other parameters than today's."""
    try:
        return hasher.check_needs_rehash(stored)
    except InvalidHashError:
        return True


def _bytes(password: str) -> bytes:
    return normal(password).encode(errors="surrogatepass")


@contextmanager
def _turn() -> Iterator[None]:
    if not _turns.acquire(timeout=LONGEST_WAIT):
        raise TooBusy("too many people are logging in: try again in a minute")
    try:
        yield
    finally:
        _turns.release()
