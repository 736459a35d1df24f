"""Lookup: read what is stored; if it is due, take the lease to compute it or wait for the holder."""

from __future__ import annotations

import math
import random
from typing import Any, NamedTuple

from packmule.coordination.cache.entry import OVERSIZE, Entry, id_of, unpacked
from packmule.coordination.cache.lease import Lease, Place, tag_key, take
from packmule.coordination.cache.link import TIMEOUT, Link
from packmule.coordination.redis.replies import UNREADABLE
from packmule.coordination.release_listener import ReleaseListener

LOOK_AGAIN = 0.25
"""Seconds, varied by half, after which a waiter looks again; four times that while it is subscribed."""

SHORTEST_WAIT = 0.05


class Found(NamedTuple):
    """What is stored for a key: the entry's `id`, and the entry and value unless they are invalid.

    `left` is the number of seconds it stays valid; zero or less if it is stale.
    """

    id: bytes
    entry: Entry | None
    value: Any
    left: float

    @property
    def is_kept(self) -> bool:
        """Whether there is a value, perhaps a stale one."""
        return self.entry is not None and self.entry.kind != OVERSIZE

    def is_due(self) -> bool:
        """Whether to compute it again: if it is no longer valid, or at random shortly before.

        This is likelier the longer the computation took and the closer the end is (XFetch): one of many
        readers refreshes the entry in time, and the others never wait.
        """
        if self.entry is None or self.left <= 0:
            return True
        return self.left <= self.entry.cost * -math.log(1.0 - random.random())  # noqa: S311


NOTHING = Found(b"", None, None, 0.0)


def look(link: Link, at: Place) -> Found:
    """What is stored at a place: one round trip, or two if it has tags that the place doesn't name."""
    stored_at = at.entry
    (raw, *versions), left = link.call(("MGET", stored_at, *at.tag_keys()), ("PTTL", stored_at))
    entry = unpacked(raw)
    if entry is None or left < 0:
        return NOTHING._replace(id=id_of(raw))
    if entry.tags or at.tags:
        known = dict(zip(at.tags, versions, strict=True))
        if unknown := [tag for tag in entry.tags if tag not in known]:
            (asked,) = link.call(("MGET", *(tag_key(at.name, tag) for tag in unknown)))
            known.update(zip(unknown, asked, strict=True))
        # An entry stored without a tag that is named now would survive that tag's invalidation.
        if any(version is None or entry.tags.get(tag) != version.decode() for tag, version in known.items()):
            return NOTHING._replace(id=entry.id)
    try:
        value = entry.value() if entry.kind != OVERSIZE else None
    except UNREADABLE:
        return NOTHING._replace(id=entry.id)
    return Found(entry.id, entry, value, (left - entry.stale_ms) / 1000)


def lease_or_wait(
    link: Link, at: Place, found: Found, life_ms: int, seconds: float, longest: float
) -> tuple[Found, Lease | None]:
    """The lease to compute an entry that is due; or, without a lease, the entry to return instead.

    While another process computes, that is the stale entry; if there is none, wait for the new one. Raises
    `redis.RedisError`.
    """
    listener: ReleaseListener | None = None
    try:
        while True:
            lease = take(link, at, found.id, life_ms, seconds, longest)
            if isinstance(lease, Lease):
                return found, lease
            if lease is not None:
                if found.entry is not None:
                    return found, None
                if listener is None:  # look once more: the lease may have ended before the subscription
                    listener = ReleaseListener([link.connection], at.channel, TIMEOUT)
                else:
                    listener.wait(LOOK_AGAIN, max(SHORTEST_WAIT, lease + 0.01))
            found = look(link, at)
            if found.left > 0:
                return found, None
    finally:
        if listener is not None:
            listener.close()
