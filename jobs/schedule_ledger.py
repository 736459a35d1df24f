"""The ledger of a schedule: its last ticks, which of them were enqueued or skipped, and why."""

from __future__ import annotations

from typing import Any

import msgspec
from redis import Redis

from packmule.coordination.redis.replies import UNREADABLE

MOST_ENTRIES = 500


def ticks_key(name: str) -> str:
    """The list of a schedule's last ticks, the newest last."""
    return f"pm:ticks:{name}"


def read(client: Redis, name: str, most: int = MOST_ENTRIES) -> list[dict[str, Any]]:
    """The last `most` entries of a schedule, the newest last.

    Each has `tick` in Unix time and, if it covers several ticks, `to` of the last. `did` is enqueued, skipped
    or failed, with `why` and `job`; `at` is the Unix time of the decision.
    """
    found = []
    for entry in client.lrange(ticks_key(name), -most, -1):
        try:
            found.append(msgspec.json.decode(entry, type=dict[str, Any]))
        except UNREADABLE:
            continue
    return found


def append(client: Redis, name: str, entry: dict[str, Any]) -> None:
    """Add an entry for a job that was enqueued by hand."""
    with client.pipeline() as pipeline:
        pipeline.rpush(ticks_key(name), msgspec.json.encode(entry))
        pipeline.ltrim(ticks_key(name), -MOST_ENTRIES, -1)
        pipeline.execute()


def correct(client: Redis, name: str, entry: bytes, changes: dict[str, str]) -> None:
    """Change the last entry, if it still is `entry`: only the script's reply shows what happened."""
    key = ticks_key(name)
    if client.lindex(key, -1) == entry:
        corrected = msgspec.json.encode({**msgspec.json.decode(entry), **changes})
        client.lset(key, -1, corrected.decode())
