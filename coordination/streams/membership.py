"""One member of a consumer group in Redis: what it reads, holds, hands back and acknowledges."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.coordination.streams.dead_letters import rest_key, set_aside
from packmule.coordination.streams.stream import Stream, block_ms, parse
from packmule.units import DAY

Fields = dict[bytes, bytes]

MOST_HELD = 2000
"""Entries of which `held` reports at most."""

REST_TTL = 7 * DAY
_REWIND = 3

_take_over = Script("coordination.streams", "take_over")

log = logging.getLogger("packmule.stream")


class Membership:
    """The member `name` of `group`. An entry is held by the member that read it until it is acknowledged.

    A group that doesn't exist begins after the id `since`, "$" for now. Entries that a member has held for
    `min_idle` seconds without renewal may be taken over by another. Methods raise redis-py's errors.
    """

    def __init__(self, stream: Stream, group: str, name: str, since: str, min_idle: float) -> None:
        self.stream = stream
        self.client = stream.client
        self.group = group
        self.name = name
        self.min_idle = min_idle
        self.rest_key = rest_key(stream.key, group)
        self.last: str | None = None
        """The last entry that was read."""
        self._since = since if since == "$" else parse(since)[0]
        self._cursor = "0-0"

    def create_group(self) -> None:
        """Create the group and the stream if they are missing.

        If this member has read from the group before, so that somebody deleted it, it begins three times
        `min_idle` before the last entry, to skip nothing.
        """
        start = self._start()
        self.client.xgroup_create(self.stream.key, self.group, id=start, mkstream=True)
        log.info("%s: created the group %s, starting after %s", self.stream.key, self.group, start)

    def take_over(self, forget_after: float) -> None:
        """Take over what dead members hold, and remove those unseen for `forget_after` that hold nothing."""
        args = [self.group, self.name, _ms(self.min_idle), self._cursor, _ms(forget_after)]
        self._cursor = as_text(_take_over(self.client, [self.stream.key], args))

    def read(self, count: int, seconds: float) -> list[tuple[str, Fields]]:
        """Up to `count` new entries; wait up to `seconds` for the first. They are then held."""
        reply: Any = self.client.xreadgroup(
            self.group,
            self.name,
            {self.stream.key: ">"},
            count=count,
            block=block_ms(self.client, max(0.0, seconds)),
        )
        if not reply:
            return []
        # For one stream, in either version of the protocol.
        entries = next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1]
        return [(as_text(id), fields) for id, fields in entries]

    def held(self) -> dict[str, int]:
        """The ids of the entries held, oldest first, each with its number of deliveries."""
        pending: list[dict[str, Any]] = self.client.xpending_range(
            self.stream.key, self.group, "-", "+", MOST_HELD, consumername=self.name
        )
        return {as_text(entry["message_id"]): int(entry["times_delivered"]) for entry in pending}

    def find(self, id: str) -> Fields | None:
        """The entry's fields, without counting a delivery; None if it was trimmed."""
        found: Any = self.client.xrange(self.stream.key, id, id)
        return found[0][1] if found else None

    def claim(self, id: str) -> tuple[Fields, int] | None:
        """Deliver a held entry again: its fields and the first event to handle; None if it was trimmed."""
        with self.client.pipeline(transaction=False) as pipeline:
            pipeline.xclaim(self.stream.key, self.group, self.name, 0, [id])
            pipeline.hget(self.rest_key, id)
            claimed, rest = pipeline.execute()
        if not claimed or claimed[0][1] is None:
            return None
        return claimed[0][1], int(rest or 0)

    def renew(self) -> None:
        """Restart the idle time of all held entries, except those taken over by another member."""
        if held := list(self.held()):
            self.client.xclaim(self.stream.key, self.group, self.name, 0, held, justid=True)  # type: ignore[arg-type]

    def put_back(self, id: str, index: int, deliveries: int) -> None:
        """Record the first event that is still to be handled, and how many deliveries count."""
        with self.client.pipeline(transaction=True) as pipeline:
            pipeline.hset(self.rest_key, id, str(index))
            pipeline.expire(self.rest_key, REST_TTL)
            pipeline.execute()
        self.set_deliveries([id], deliveries)

    def set_deliveries(self, ids: Sequence[str], deliveries: int) -> None:
        """Set the number of deliveries that count for these held entries."""
        if ids:
            self.client.xclaim(
                self.stream.key,
                self.group,
                self.name,
                0,
                list(ids),
                retrycount=max(0, deliveries),
                justid=True,
            )

    def acknowledge(self, ids: Sequence[str]) -> None:
        """Release entries that were handled to their end."""
        with self.client.pipeline(transaction=True) as pipeline:
            pipeline.xack(self.stream.key, self.group, *ids)
            pipeline.hdel(self.rest_key, *ids)
            pipeline.execute()

    def set_aside(self, record: bytes, entry: str | None = None) -> None:
        """Add a dead letter, and acknowledge the `entry` if it is all of that one."""
        set_aside(self.client, self.stream.key, self.group, record, entry)

    def _start(self) -> str:
        """The id after which a new group begins."""
        last = self.stream.last_id()
        if self._since == "$":
            self._since = last
        if self.last is None:
            return self._since
        if _order(last) < _order(self.last):
            return "0-0"  # the stream is a new one
        rewound = max(0, _order(self.last)[0] - _ms(self.min_idle * _REWIND))
        return max(f"{rewound}-0", self._since, key=_order)


def _order(id: str) -> tuple[int, int]:
    ms, _, sequence = id.partition("-")
    return int(ms), int(sequence)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
