"""Slots: the limits of jobs, the keys of their slots, and the jobs that hold these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from redis import Redis

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.jobs import keys, wire

MOST_WORKERS = 1_000
MOST_CLAIMS = 10_000
MOST_HOLDERS = 20
"""Holders that are listed of one key; if there are more, these are chosen at random."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What limits a job: a `singleton`, `slots` (`most` at once) or `rate` of `key`, or `turns` between keys.

    A rate lets one job start every `interval` seconds, and after a pause `most` of them at once. The job
    takes `cost` of the slots, or of those intervals; None for a limit without costs. If they are `per_host`,
    each machine has so many slots.
    """

    kind: str
    key: str
    most: int = 1
    interval: float = 0.0
    cost: int | None = None
    per_host: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """A job that holds `slots` of `key`, one or its cost; `is_alive` if its worker still claims it."""

    key: str
    job: str
    worker: str
    is_alive: bool
    slots: int = 1


def limits_of(group: str, text: bytes | None) -> list[Limit]:
    """The limits of the group called `group`, whose first job's record has the limits `text`."""
    try:
        rows = msgspec.json.decode(text or b"[]", type=list[list[str | int]])
        limits = [_limit(*row) for row in rows]
    except (msgspec.DecodeError, TypeError, ValueError):
        return []
    if not group.startswith("fair "):
        return limits
    rest = "".join(f" {row[0]} {row[1]}" for row in rows)
    return [Limit("turns", group.removeprefix("fair ").removesuffix(rest)), *limits]


def _limit(kind: Any, key: Any, most: Any = 1, further: Any = None, cost: Any = None) -> Limit:
    if kind == "rate":
        paid = None if cost is None else int(cost)
        return Limit("rate", str(key), max(1, int(further or 1) // int(most)), int(most) / 1e6, paid)
    if kind == "lock":
        return Limit("singleton", str(key), int(most))
    paid = None if further is None else int(further)
    return Limit("slots", str(key), int(most), cost=paid, per_host=cost == "host")


def holders(client: Redis, slots: Sequence[str]) -> list[Holder]:
    """The holders of slots of the keys `slots`, at most `MOST_HOLDERS` of each, in two round trips."""
    slots = list(dict.fromkeys(slots))
    commands = [("HRANDFIELD", keys.holders_key(key), MOST_HOLDERS, "WITHVALUES") for key in slots]
    found = [
        (key, *map(as_text, (job, *holder.rsplit(b" ", 1))))
        for key, pairs in zip(slots, pipelined(client, commands, []), strict=True)
        for job, holder in sorted(_pairs(pairs))
        if b" " in holder
    ]
    asked = [("HGET", keys.claims_key(worker), job) for _, job, worker, _ in found]
    asked += [("HGET", keys.weights_key(key), job) for key, job, _, _ in found]
    replies = pipelined(client, asked, None)
    claims, weights = replies[: len(found)], replies[len(found) :]
    return [
        Holder(key, job, worker, claim is not None and as_text(claim) == execution, 1 + wire.whole(more))
        for (key, job, worker, execution), claim, more in zip(found, claims, weights, strict=True)
    ]


def claimed_keys(client: Redis, queues: Sequence[str]) -> list[str]:
    """The keys of slots that jobs claimed from `queues` hold."""
    (workers,) = pipelined(client, [("ZRANGE", keys.LEASES, 0, MOST_WORKERS - 1)], (), only="WRONGTYPE")
    claims = pipelined(client, [("HKEYS", keys.claims_key(as_text(each))) for each in workers], [])
    ids = [id for each in claims for id in map(as_text, each) if not id.startswith(".")][:MOST_CLAIMS]
    fields = ("origin", "limits", "slots_host")
    records = pipelined(client, [("HMGET", keys.job_key(id), *fields) for id in ids], [None] * len(fields))
    return [
        keys.key_of_host(limit.key, as_text(host)) if limit.per_host and host else limit.key
        for origin, text, host in records
        if text and origin and as_text(origin) in queues
        for limit in limits_of("", text)
        if limit.kind != "rate"
    ]


def _pairs(flat: Sequence[Any]) -> list[tuple[bytes, bytes]]:
    """Pairs of fields and values, from the reply of either protocol version."""
    if flat and isinstance(flat[0], list | tuple):
        return [(pair[0], pair[1]) for pair in flat]
    return list(zip(flat[::2], flat[1::2], strict=True))
