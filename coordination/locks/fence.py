"""Guarded values: a lock's holder that was overtaken can neither read nor write them."""

from __future__ import annotations

import math
from typing import Any

from redis import Redis

from packmule.coordination.redis.scripts import Script
from packmule.errors import Conflict
from packmule.units import DAY

KEEP_SECONDS = DAY
"""How many seconds longer than an expiring value its token is kept; a holder frozen longer isn't refused."""

_read = Script("coordination.locks", "fenced_read")
_write = Script("coordination.locks", "fenced_write")


class Overtaken(Conflict, RuntimeError):
    """A later holder of the lock has used the value: nothing was read or written."""


def read(client: Redis, key: str, fence: int) -> bytes | None:
    """The value of `key`; from now on, holders with a token lower than `fence` are refused.

    Use it to read everything that the new value depends on: otherwise an overtaken holder could still write
    between your read and your write. Raises `Overtaken`.
    """
    answer: list[Any] = _read(client, _keys(key), [_token(fence)])
    _refuse(answer, key, fence)
    value: bytes | None = answer[1]
    return value


def write(
    client: Redis, key: str, value: bytes | str | float, fence: int, *, ttl: float | None = None
) -> None:
    """Set `key` to `value`, for `ttl` seconds if given, unless a holder with a higher token has used it.

    The same holder may write any number of times. Raises `Overtaken`, and `ValueError` if `ttl` is not above
    zero.

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
        raise ValueError(f"{fence} is not a fencing token: use the `fence` of a lock that is held")
    return fence


def _refuse(answer: list[Any], key: str, fence: int) -> None:
    if not answer[0]:
        raise Overtaken(f"{key}: a holder with the later token {int(answer[1])} has used it; ours is {fence}")
