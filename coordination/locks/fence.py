"""Guards for what a lock's holder changes: a holder that was overtaken is refused, whatever it believes."""

from __future__ import annotations

import math
from typing import Any

from redis import Redis

from packmule.coordination.redis.scripts import Script
from packmule.units import DAY

KEEP_SECONDS = DAY
"""How much longer than a value with a TTL its last token is kept: who is frozen for longer is not refused."""

_read = Script("coordination.locks", "fenced_read")
_write = Script("coordination.locks", "fenced_write")


class Overtaken(RuntimeError):
    """A later holder of the lock was here: nothing was read or written."""


def read(client: Redis, key: str, fence: int) -> bytes | None:
    """The value of `key`, from now on closed to holders with a token lower than `fence`.

    Read so whatever the new value depends on: an overtaken holder could otherwise still write between
    your reading and your writing. Raises `Overtaken`.
    """
    answer: list[Any] = _read(client, _keys(key), [_token(fence)])
    _refuse(answer, key, fence)
    value: bytes | None = answer[1]
    return value


def write(
    client: Redis, key: str, value: bytes | str | float, fence: int, *, ttl: float | None = None
) -> None:
    """Set `key` to `value`, for `ttl` seconds if given, unless a holder with a higher token was there.

    The same holder may write any number of times. Raises `Overtaken`, and `ValueError` for a `ttl` of zero or
    less.

    >>> with redlock.acquire("stock") as lock:  # doctest: +SKIP
    ...     stock = int(read(client, "stock", lock.fence) or 0)
    ...     write(client, "stock", stock - 1, lock.fence)
    """
    if ttl is not None and not 0 < ttl < math.inf:
        raise ValueError(f"a value's TTL is a number of seconds above zero, not {ttl}")
    kept = 0 if ttl is None else math.ceil(ttl * 1000)
    answer: list[Any] = _write(
        client, _keys(key), [_token(fence), value, kept, kept + KEEP_SECONDS * 1000 if kept else 0]
    )
    _refuse(answer, key, fence)


def _keys(key: str) -> tuple[str, str]:
    if not key:
        raise ValueError("a guarded value needs a key")
    return key, f"pm:fenced:{{{key}}}"


def _token(fence: int) -> int:
    if not 0 < fence < 2**53:
        raise ValueError(f"{fence} is no fencing token: take the `fence` of a lock that is held")
    return fence


def _refuse(answer: list[Any], key: str, fence: int) -> None:
    if not answer[0]:
        raise Overtaken(f"{key}: a holder with the token {int(answer[1])} was here, after ours, {fence}")
