"""Compact settings: those of a server by which jobs take less of its memory and time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

from packmule.config import child_environment

SETTINGS = {"stream-node-max-bytes": 256, "hash-max-listpack-value": 512}
"""A job's result is a stream of its own, for which the server reserves 4 KiB unless told otherwise. A record
with arguments of over 64 bytes would be a table, which is larger and slower than a list."""


def environment() -> dict[str, str]:
    """This process's environment for a server that it starts, with a setting of glibc unless it has its own.

    By default, glibc puts off merging the memory of small values that were freed: once thousands of jobs have
    expired, one command takes 0.1 s.
    """
    return {"GLIBC_TUNABLES": "glibc.malloc.mxfast=0"} | child_environment()


def advice(client: redis.Redis) -> list[str]:
    """The commands after which the server would keep jobs in less memory."""
    return [
        f"CONFIG SET {name} {wanted}"
        for name, wanted in SETTINGS.items()
        if (found := _setting(client, name)) is not None and not _is_met(name, found)
    ]


def _is_met(name: str, value: int) -> bool:
    if name == "stream-node-max-bytes":
        return 0 < value <= SETTINGS[name]  # 0 means no limit
    return value >= SETTINGS[name]


def _setting(client: redis.Redis, name: str) -> int | None:
    """The value of a setting; None if the server doesn't know it, or keeps it to itself."""
    try:
        found: Mapping[Any, Any] = client.config_get(name)
    except redis.ResponseError:
        return None  # managed services forbid CONFIG
    return int(found[name]) if name in found else None
