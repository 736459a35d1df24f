"""Blocked jobs: which groups of jobs wait for each other or for a limit, and what a job waits for."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from redis import Redis

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.jobs import keys
from packmule.jobs.queues import paused, rates
from packmule.observe.slots import Holder, Limit, claimed_keys, holders, limits_of

MOST_GROUPS = 100_000
"""Groups that one call reads; if there are more, it describes only these."""

PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs of a queue that wait for each other: how many are `waiting`, and which `job` is the first.

    The first job waits for its `turn` in the queue, a `slot` of the key `lacks`, or a `time` that comes in
    `seconds`. If it waits for none of these any more, it waits for a `check` by the scheduler.
    """

    queue: str
    name: str
    limits: Sequence[Limit]
    job: str | None
    waiting: int
    waits_for: str
    lacks: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """The largest of `of` groups, the holders of slots, and the rates of queues."""

    groups: Sequence[Group]
    of: int
    holders: Sequence[Holder]
    rates: dict[str, str]


@dataclass(frozen=True, slots=True)
class Wait:
    """What a queued job waits for: the jobs `before` it in its `group`, its queue's `rate`, or a pause."""

    is_paused: bool
    rate: str | None
    group: Group | None
    before: int
    holders: Sequence[Holder]
    paused_batch: str | None = None


class _Place(NamedTuple):
    """A group of a queue, its head ("" while it is blocked), and how many jobs are `behind` the head."""

    queue: str
    group: str
    head: str
    behind: int


def waiting(client: Redis, queues: Sequence[str], limit: int) -> Waiting:
    """The `limit` largest groups of `queues`, and the holders of slots that they lack or their jobs have."""
    found = list(_groups(client, queues))
    groups = _described(client, heapq.nlargest(limit, found, key=lambda place: place.behind))
    lacked = [each.key for group in groups for each in group.limits if each.kind in ("singleton", "slots")]
    queue_rates = {queue: rate for queue, rate in rates(client).items() if queue in queues}
    return Waiting(groups, len(found), holders(client, [*lacked, *claimed_keys(client, queues)]), queue_rates)


def wait_of(client: Redis, id: str) -> Wait | None:
    """What the job `id` waits for; None if it is not queued any more."""
    status, queue, group = (as_text(each or b"") for each in _fields(client, id))
    if status != "queued":
        return None
    place = keys.group_key(queue, group)
    head, length, before = pipelined(
        client, [("HGET", keys.groups_key(queue), group), ("LLEN", place), ("LPOS", place, id)], None
    )
    if group and before is None and as_text(head or b"") != id:
        return None  # claimed, but not yet recorded as started
    described, held = None, []
    if group and head is not None:
        (described,) = _described(client, [_Place(queue, group, as_text(head), length or 0)])
        held = holders(client, [described.lacks] if described.lacks else [])
    if before is not None and head:
        before += 1  # the head is in the queue's list
    batch = as_text(client.hget(keys.job_key(id), "batch") or b"")
    waits_with = batch if batch and client.sismember(keys.PAUSED_BATCHES, batch) else None
    return Wait(queue in paused(client), rates(client).get(queue), described, before or 0, held, waits_with)


def behind(client: Redis, queues: Sequence[str]) -> dict[str, int]:
    """How many jobs of each queue wait outside of its list, behind others of their group or for a limit.

    Takes one round trip if there are no groups, otherwise two per thousand groups.
    """
    counts = dict.fromkeys(queues, 0)
    for place in _groups(client, queues):
        counts[place.queue] += place.behind
    return counts


def behind_at_least(client: Redis, queues: Sequence[str]) -> tuple[dict[str, int], set[str]]:
    """Those in the first groups of each queue, in two round trips, and the queues that have more groups."""
    counts, most = dict.fromkeys(queues, 0), max(10, PAGE // max(1, len(queues)))
    commands = [("HSCAN", keys.groups_key(queue), 0, "COUNT", most) for queue in queues]
    scans = dict(zip(queues, pipelined(client, commands, None), strict=True))
    places = [(queue, as_text(group)) for queue, scan in scans.items() if scan for group in scan[1]]
    lengths = pipelined(client, [("LLEN", keys.group_key(*place)) for place in places], 0)
    for (queue, _), length in zip(places, lengths, strict=True):
        counts[queue] += length
    return counts, {queue for queue, scan in scans.items() if scan and scan[0] != 0}


def behind_singleton(client: Redis, singletons: Sequence[str], queues: Sequence[str]) -> dict[str, int]:
    """How many jobs wait for each of `singletons`, in two round trips."""
    blocked = pipelined(client, [("ZRANGE", keys.blocked_key(key), 0, PAGE - 1) for key in singletons], [])
    places: dict[tuple[str, str, str], None] = {}
    for key, names in zip(singletons, blocked, strict=True):
        for name in map(as_text, names):
            queue, _, group = name.partition("\n")
            places[key, queue, group] = None
        for queue in queues:
            places[key, queue, f"lock {key}"] = None
    commands = [
        command
        for _, queue, group in places
        for command in (
            ("LLEN", keys.group_key(queue, group)),
            ("HSTRLEN", keys.groups_key(queue), group),
        )
    ]
    counts = dict.fromkeys(singletons, 0)
    replies = pipelined(client, commands, 0)
    for (key, _, _), length, head in zip(places, replies[::2], replies[1::2], strict=True):
        counts[key] += length + (head > 0)
    return counts


def _fields(client: Redis, id: str) -> list[bytes | None]:
    """Status, queue and group of a job, each None if the record lacks it."""
    (fields,) = pipelined(
        client, [("HMGET", keys.job_key(id), "status", "origin", "group")], [None, None, None]
    )
    return cast(list[bytes | None], fields)


def _groups(client: Redis, queues: Sequence[str]) -> Iterator[_Place]:
    """At most `MOST_GROUPS` groups of `queues`."""
    cursors: dict[str, int] = dict.fromkeys(queues, 0)
    seen: set[tuple[str, str]] = set()
    while cursors and len(seen) < MOST_GROUPS:
        scans = pipelined(
            client,
            [("HSCAN", keys.groups_key(queue), at, "COUNT", PAGE) for queue, at in cursors.items()],
            None,
        )
        page = {
            (queue, as_text(group)): as_text(head)
            for queue, scan in zip(cursors, scans, strict=True)
            for group, head in (scan[1].items() if scan else ())
        }
        cursors = {
            queue: scan[0] for queue, scan in zip(cursors, scans, strict=True) if scan and scan[0] != 0
        }
        new = [place for place in page if place not in seen]
        seen.update(new)
        lengths = pipelined(client, [("LLEN", keys.group_key(*place)) for place in new], 0)
        for (queue, group), length in zip(new, lengths, strict=True):
            yield _Place(queue, group, page[queue, group], length)


def _described(client: Redis, found: Sequence[_Place]) -> list[Group]:
    """Describe groups, in four round trips however many there are."""
    names = [keys.blocked_name(place.queue, place.group) for place in found]
    commands: list[tuple[Any, ...]] = [("TIME",)]
    for place, name in zip(found, names, strict=True):
        commands += [("LINDEX", keys.group_key(place.queue, place.group), 0), ("ZSCORE", keys.DUE, name)]
    (clock, *replies) = pipelined(client, commands, None)
    now = clock[0] + clock[1] / 1e6
    firsts = [
        place.head or (as_text(first) if first else None)
        for place, first in zip(found, replies[::2], strict=True)
    ]
    texts = pipelined(client, [("HGET", keys.job_key(first or ""), "limits") for first in firsts], None)
    limits = [limits_of(place.group, text) for place, text in zip(found, texts, strict=True)]
    asked = [
        (name, limit.key)
        for name, each, place in zip(names, limits, found, strict=True)
        for limit in each
        if not place.head and limit.kind in ("singleton", "slots")
    ]
    blocked = pipelined(client, [("ZSCORE", keys.blocked_key(key), name) for name, key in asked], None)
    lacks = {name: key for (name, key), score in zip(asked, blocked, strict=True) if score is not None}
    groups = []
    for place, name, each, first, due in zip(found, names, limits, firsts, replies[1::2], strict=True):
        reason, lacked, seconds = "check", lacks.get(name), None
        if place.head:
            reason, lacked = "turn", None
        elif due is not None:
            reason, lacked, seconds = "time", None, max(0.0, float(due) - now)
        elif lacked:
            reason = "slot"
        waits = place.behind + bool(place.head)  # the first of a blocked group is in its own list
        groups.append(Group(place.queue, place.group, each, first, waits, reason, lacked, seconds))
    return groups
