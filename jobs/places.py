"""The places where jobs wait, run and end: the lists and registries that hold their ids."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple, cast

import msgspec
from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.replies import UNREADABLE, as_text, pipelined
from packmule.jobs import keys

A_CALL = 500
"""Ids that one command reads at most."""

LONGEST_LIST = 2**52

SEEN = -1
"""All of a place was seen."""

TRIES = 5
"""How often a scan looks for its way in a list that others change."""

BEHIND, IN_BAND, NEXT = 1, 2, 3
RANKS = {"scheduled": 0, "deferred": 0, "started": 4}
"""Those of jobs behind others, in bands and in queues' own lists; and of registries, the ended ones last."""

MOST_GROUPS = 1000
"""Groups of a queue whose jobs a search looks for."""


class Place(NamedTuple):
    """A key that holds ids of jobs of these statuses.

    It is a list, the newest last; a `stack`, which is a list with the newest first; or a sorted set.
    """

    key: str
    statuses: tuple[str, ...]
    kind: Literal["list", "stack", "set"] = "set"
    rank: int = 0
    """Jobs move from places of lower ranks to those of higher ones, until they are enqueued again."""

    def newest(self, most: int) -> tuple[Any, ...]:
        """The command that reads the newest ids, `most` at most."""
        if self.kind == "list":
            return ("LRANGE", self.key, -most, -1)
        return ("LRANGE" if self.kind == "stack" else "ZREVRANGE", self.key, 0, most - 1)

    def ids(self, reply: Sequence[bytes], most: int | None = None) -> list[str]:
        """The ids in a reply, the newest first, or so many of them."""
        found = [as_text(each) for each in (reply[::-1] if self.kind == "list" else reply)[:most]]
        if self.statuses == ("started",):  # RQ writes `<job id>:<execution id>`
            return [each.rpartition(":")[0] or each for each in found]
        return found


def places(
    client: Redis,
    queues: Sequence[str],
    statuses: Sequence[str],
    fingerprint: str | None = None,
    most_groups: int | None = MOST_GROUPS,
) -> list[Place]:
    """Where the jobs of `queues` in `statuses` are; of a queue's groups `most_groups` at most.

    Those that have failed of the error `fingerprint` are in one place, the latest thousand.
    """
    if fingerprint:
        return [Place(f"{keys.error_key(fingerprint)}:jobs", tuple(statuses), "stack")]
    found: list[Place] = []
    for queue in queues:
        if "queued" in statuses:
            own = keys.queue_key(queue)
            ranks = {key: NEXT if key == own else IN_BAND for key in keys.queue_keys(queue)}
            found += (Place(key, ("queued",), "list", rank) for key, rank in ranks.items())
        for status in keys.REGISTRIES:
            kinds = ("failed", "stopped") if status == "failed" else (status,)
            if not set(kinds).isdisjoint(statuses):
                found.append(Place(keys.registry_key(status, queue), kinds, rank=RANKS.get(status, 5)))
    if "queued" in statuses:
        groups = _groups(client, queues, most_groups)
        found += (Place(keys.group_key(*each), ("queued",), "list", BEHIND) for each in groups)
        held = pipelined(client, [("SMEMBERS", keys.PAUSED_BATCHES)], ())[0]
        found += (
            Place(f"{keys.batch_key(as_text(each))}:held", ("queued",), "list", BEHIND) for each in held
        )
    return found


def _groups(client: Redis, queues: Sequence[str], most: int | None) -> Iterator[tuple[str, str]]:
    """The queues' groups that jobs wait in."""
    lengths = pipelined(client, [("HLEN", keys.groups_key(queue)) for queue in queues], 0)
    for queue, length in zip(queues, lengths, strict=True):
        found = client.hscan_iter(keys.groups_key(queue), count=A_CALL) if length else ()
        for group, _ in islice(found, most):
            yield queue, as_text(group)


class Position(NamedTuple):
    """How far a scan has come: it has seen all places of lower `rank` and key, and a part of this one.

    Of a set, `at` is a cursor of the server's; of a list, how many ids were seen from its end, and
    `following` the next one, by which the scan finds its way if seen ones are gone.
    """

    rank: int
    key: str
    at: int
    following: bytes

    def __str__(self) -> str:
        return urlsafe_b64encode(msgspec.msgpack.encode(self)).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """The position of which this is the text; None if it is none. It names no place that isn't there."""
        try:
            packed = urlsafe_b64decode(f"{text}{'=' * (-len(text) % 4)}")
            found = msgspec.msgpack.decode(packed, type=cls)
        except (ValueError, *UNREADABLE):
            return None
        return found._replace(at=found.at if 0 <= found.at < 2**64 else SEEN)


def scan(
    client: Redis, found: Sequence[Place], start: Position | None = None
) -> Iterator[tuple[Place, list[str], Position]]:
    """All ids of these places in parts, from `start` on, each with the position behind it.

    Places come in the order in which jobs move through them, so that one that moves meanwhile is seen, once
    or twice. What is new may be missed.
    """
    for place in sorted(found, key=_order):
        order = _order(place)
        if start is not None and order < start[:2]:
            continue
        at, following = start[2:] if start is not None and order == start[:2] else (0, b"")
        while at != SEEN:
            ids, at, following = _part(client, place, at, following)
            yield place, ids, Position(*order, at, following)


def _order(place: Place) -> tuple[int, str]:
    return place.rank, place.key


def _part(client: Redis, place: Place, at: int, following: bytes) -> tuple[list[str], int, bytes]:
    """Some ids of a place, and how to go on behind them."""
    found: Any
    try:
        if place.kind == "stack":
            return place.ids(cast(list[bytes], client.lrange(place.key, 0, -1))), SEEN, b""
        if place.kind == "list":
            return _from_end(client, place, min(at, LONGEST_LIST), following)
        found = client.zscan(place.key, at, count=A_CALL)
    except ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        return [], SEEN, b""
    return place.ids([id for id, _ in found[1]]), found[0] or SEEN, b""


def _from_end(client: Redis, place: Place, at: int, following: bytes) -> tuple[list[str], int, bytes]:
    """The next ids from a list's end: what is taken from its head moves nothing."""
    for _ in range(TRIES):
        part = cast(list[bytes], client.lrange(place.key, -at - A_CALL - 1, -at - 1))
        if not following or part[-1:] == [following]:
            break
        at = _before(client, place.key, following, at)
        following = following if at else b""
    is_more = len(part) > A_CALL
    return place.ids(part[-A_CALL:]), at + A_CALL if is_more else SEEN, part[0] if is_more else b""


def _before(client: Redis, key: str, id: bytes, at: int) -> int:
    """How many ids come before this one from the list's end, near `at` if it is there twice; 0 without it."""
    positions, length = pipelined(client, [("LPOS", key, id, "COUNT", 0), ("LLEN", key)], None)
    if not positions or length is None:
        return 0
    numbers: list[int] = [max(0, length - 1 - each) for each in positions]
    return min(numbers, key=lambda before: abs(before - at))
