"""Waiting: which groups of jobs wait for each other or for a limit, and who holds what they wait for."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from redis import Redis

from packmule.coordination.redis.replies import as_text
from packmule.jobs import keys
from packmule.jobs.queues import paused, rates

MOST_GROUPS = 100_000
"""Groups at which one call looks; of more, what it says is about these."""

MOST_WORKERS = 1_000
MOST_CLAIMS = 10_000
MOST_HOLDERS = 20
"""Holders of one slot that are told of; of more, these are any."""

PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Limit:
    """What limits a job: a `singleton`, `slots` (`most` at once) or `rate` of `key`, or `turns` between keys.

    A rate lets one begin every `interval` seconds, and `most` of them at once after a rest.
    """

    kind: str
    key: str
    most: int = 1
    interval: float = 0.0


@dataclass(frozen=True, slots=True)
class Holder:
    """A job that has a slot of `key`, and whether its worker's claims still say so."""

    key: str
    job: str
    worker: str
    is_alive: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs of a queue that wait for each other: how many are `waiting`, and which `job` is the first.

    That waits for its `turn` in the queue, a `slot` of the key `lacks`, or a `time` that comes in `seconds`;
    for a `look` of the scheduler where it is none of these any more.
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
    """The largest of `of` groups, who holds slots, and the rates of queues."""

    groups: Sequence[Group]
    of: int
    holders: Sequence[Holder]
    rates: dict[str, str]


@dataclass(frozen=True, slots=True)
class Wait:
    """What a queued job waits for: so many of its `group` stand `before` it; its queue may have a rate."""

    is_paused: bool
    rate: str | None
    group: Group | None
    before: int
    holders: Sequence[Holder]
    paused_batch: str | None = None


def waiting(client: Redis, queues: Sequence[str], limit: int) -> Waiting:
    """The `limit` largest groups of `queues`, and the holders of slots that they lack or their jobs have."""
    found = list(_groups(client, queues))
    groups = _told(client, heapq.nlargest(limit, found, key=lambda group: group[3]))
    lacked = [each.key for group in groups for each in group.limits if each.kind in ("singleton", "slots")]
    queue_rates = {queue: rate for queue, rate in rates(client).items() if queue in queues}
    return Waiting(
        groups, len(found), holders(client, [*lacked, *_claimed_keys(client, queues)]), queue_rates
    )


def wait_of(client: Redis, id: str) -> Wait | None:
    """What the job called `id` waits for; None where it isn't queued any more."""
    status, queue, group = (as_text(each or b"") for each in _fields(client, id))
    if status != "queued":
        return None
    place = keys.group_key(queue, group)
    head, length, before = _pipelined(
        client, [("HGET", keys.groups_key(queue), group), ("LLEN", place), ("LPOS", place, id)], None
    )
    if group and before is None and as_text(head or b"") != id:
        return None  # claimed, and not yet shown as started
    told, held = None, []
    if group and head is not None:
        (told,) = _told(client, [(queue, group, as_text(head), length or 0)])
        held = holders(client, [told.lacks] if told.lacks else [])
    if before is not None and head:
        before += 1  # the one whose turn it is stands in the queue's list
    batch = as_text(client.hget(keys.job_key(id), "batch") or b"")
    waits_with = batch if batch and client.sismember(keys.PAUSED_BATCHES, batch) else None
    return Wait(queue in paused(client), rates(client).get(queue), told, before or 0, held, waits_with)


def behind(client: Redis, queues: Sequence[str]) -> dict[str, int]:
    """How many jobs of each queue wait outside of its list, behind others of their group or for a limit.

    One round trip where there are no groups, otherwise two for a thousand groups.
    """
    counts = dict.fromkeys(queues, 0)
    for queue, _, _, length in _groups(client, queues):
        counts[queue] += length
    return counts


def behind_singleton(client: Redis, key_names: Sequence[str], queues: Sequence[str]) -> dict[str, int]:
    """How many jobs wait for each of the singletons `keys`, in two round trips."""
    blocked = _pipelined(client, [("ZRANGE", keys.blocked_key(key), 0, PAGE - 1) for key in key_names], [])
    places: dict[tuple[str, str, str], None] = {}
    for key, names in zip(key_names, blocked, strict=True):
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
    counts = dict.fromkeys(key_names, 0)
    replies = _pipelined(client, commands, 0)
    for (key, _, _), length, head in zip(places, replies[::2], replies[1::2], strict=True):
        counts[key] += length + (head > 0)
    return counts


def holders(client: Redis, key_names: Sequence[str]) -> list[Holder]:
    """Who holds slots of `keys`, at most `MOST_HOLDERS` of each, in two round trips."""
    key_names = list(dict.fromkeys(key_names))
    commands = [("HRANDFIELD", keys.holders_key(key), MOST_HOLDERS, "WITHVALUES") for key in key_names]
    found = [
        (key, *map(as_text, (job, *holder.rsplit(b" ", 1))))
        for key, pairs in zip(key_names, _pipelined(client, commands, []), strict=True)
        for job, holder in sorted(_pairs(pairs))
        if b" " in holder
    ]
    claims = _pipelined(client, [("HGET", keys.claims_key(each[2]), each[1]) for each in found], None)
    return [
        Holder(key, job, worker, claim is not None and as_text(claim) == execution)
        for (key, job, worker, execution), claim in zip(found, claims, strict=True)
    ]


def _fields(client: Redis, id: str) -> list[bytes | None]:
    """Status, queue and group of a job, each None where there is none."""
    (fields,) = _pipelined(
        client, [("HMGET", keys.job_key(id), "status", "origin", "group")], [None, None, None]
    )
    return cast(list[bytes | None], fields)


def _groups(client: Redis, queues: Sequence[str]) -> Iterator[tuple[str, str, str, int]]:
    """Queue, group, head and how many are behind it, of at most `MOST_GROUPS` groups."""
    cursors: dict[str, int] = dict.fromkeys(queues, 0)
    seen: set[tuple[str, str]] = set()
    while cursors and len(seen) < MOST_GROUPS:
        scans = _pipelined(
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
        lengths = _pipelined(client, [("LLEN", keys.group_key(*place)) for place in new], 0)
        for (queue, group), length in zip(new, lengths, strict=True):
            yield queue, group, page[queue, group], length


def _told(client: Redis, found: Sequence[tuple[str, str, str, int]]) -> list[Group]:
    """What is to be known of groups: four round trips, however many."""
    names = [keys.blocked_name(queue, group) for queue, group, _, _ in found]
    commands: list[tuple[Any, ...]] = [("TIME",)]
    for (queue, group, _, _), name in zip(found, names, strict=True):
        commands += [("LINDEX", keys.group_key(queue, group), 0), ("ZSCORE", keys.DUE, name)]
    (clock, *replies) = _pipelined(client, commands, None)
    now = clock[0] + clock[1] / 1e6
    firsts = [
        head or (as_text(first) if first else None)
        for (_, _, head, _), first in zip(found, replies[::2], strict=True)
    ]
    texts = _pipelined(client, [("HGET", keys.job_key(first or ""), "limits") for first in firsts], None)
    limits = [limits_of(group, text) for (_, group, _, _), text in zip(found, texts, strict=True)]
    asked = [
        (name, limit.key)
        for name, each, (_, _, head, _) in zip(names, limits, found, strict=True)
        for limit in each
        if not head and limit.kind in ("singleton", "slots")
    ]
    blocked = _pipelined(client, [("ZSCORE", keys.blocked_key(key), name) for name, key in asked], None)
    lacks = {name: key for (name, key), place in zip(asked, blocked, strict=True) if place is not None}
    groups = []
    for place, name, each, first, due in zip(found, names, limits, firsts, replies[1::2], strict=True):
        queue, group, head, length = place
        reason, lacked, seconds = "look", lacks.get(name), None
        if head:
            reason, lacked = "turn", None
        elif due is not None:
            reason, lacked, seconds = "time", None, max(0.0, float(due) - now)
        elif lacked:
            reason = "slot"
        waits = length + bool(head)  # the first of a blocked group is in its own list
        groups.append(Group(queue, group, each, first, waits, reason, lacked, seconds))
    return groups


def limits_of(group: str, text: bytes | None) -> list[Limit]:
    """The limits of the group of that name, whose first job's record has `text` as its limits."""
    try:
        rows = msgspec.json.decode(text or b"[]", type=list[list[str | int]])
        limits = [_limit(*row) for row in rows]
    except (msgspec.DecodeError, TypeError, ValueError):
        return []
    if not group.startswith("fair "):
        return limits
    rest = "".join(f" {row[0]} {row[1]}" for row in rows)
    return [Limit("turns", group.removeprefix("fair ").removesuffix(rest)), *limits]


def _limit(kind: Any, key: Any, most: Any = 1, capacity: Any = 1) -> Limit:
    if kind == "rate":
        return Limit("rate", str(key), max(1, int(capacity) // int(most)), int(most) / 1e6)
    return Limit("singleton" if kind == "lock" else "slots", str(key), int(most))


def _claimed_keys(client: Redis, queues: Sequence[str]) -> list[str]:
    """The keys of slots of the jobs that workers have claimed from `queues`."""
    workers = cast(list[bytes], client.zrange(keys.LEASES, 0, MOST_WORKERS - 1))
    claims = _pipelined(client, [("HKEYS", keys.claims_key(as_text(each))) for each in workers], [])
    ids = [id for each in claims for id in map(as_text, each) if not id.startswith(".")][:MOST_CLAIMS]
    records = _pipelined(
        client, [("HMGET", keys.job_key(id), "origin", "limits") for id in ids], [None, None]
    )
    return [
        limit.key
        for origin, text in records
        if text and origin and as_text(origin) in queues
        for limit in limits_of("", text)
        if limit.kind != "rate"
    ]


def _pairs(flat: Sequence[Any]) -> list[tuple[bytes, bytes]]:
    """Fields and values, in whichever of the two forms they came."""
    if flat and isinstance(flat[0], list | tuple):
        return [(pair[0], pair[1]) for pair in flat]
    return list(zip(flat[::2], flat[1::2], strict=True))


def _pipelined(client: Redis, commands: Sequence[tuple[Any, ...]], otherwise: Any) -> list[Any]:
    """The replies to `commands`, in one round trip; `otherwise` for those to keys of a type that can't be."""
    if not commands:
        return []
    with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
        replies = pipeline.execute(raise_on_error=False)
    return [otherwise if isinstance(reply, Exception) else reply for reply in replies]
