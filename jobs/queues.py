"""Queues: list, measure, pause, resume and purge them, and limit how many of their jobs start."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import islice

from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.limits.rate import Rate
from packmule.coordination.redis.replies import as_text, pipelined
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys, wire
from packmule.jobs.cluster import wake_workers

PURGED_A_CALL = 500
"""Few enough that one call holds the server for only a few milliseconds."""

_purge = Script("jobs", "purge")
_purge_held = Script("jobs", "purge_held")


def names(client: Redis, first: Sequence[str] = ()) -> list[str]:
    """The names of all queues that jobs were ever enqueued to, sorted; those of `first` come before them.

    >>> names(client, ["high", "low"])  # doctest: +SKIP
    ['high', 'low', 'default', 'mail']
    """
    try:
        known = client.smembers(keys.QUEUES)
    except ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        known = set()  # the next enqueue sets the key aside
    found = (keys.queue_name(as_text(key)) for key in known)
    return [*dict.fromkeys([*first, *sorted(name for name in found if name is not None)])]


def depths(client: Redis, queues: Sequence[str]) -> dict[str, dict[str, int]]:
    """The number of jobs in each status, by queue; one round trip, and nothing is cleaned up.

    >>> depths(client, ["mail"])  # doctest: +SKIP
    {'mail': {'queued': 3, 'scheduled': 0, 'started': 1, 'finished': 9, 'failed': 0, ...}}
    """
    commands: list[tuple[str, str]] = []
    for queue in queues:
        commands += [("LLEN", key) for key in keys.queue_keys(queue)]
        commands += [("ZCARD", keys.registry_key(status, queue)) for status in keys.REGISTRIES]
    counts = iter(pipelined(client, commands, 0))
    return {
        queue: {
            "queued": sum(islice(counts, len(keys.queue_keys(queue)))),
            **{status: next(counts) for status in keys.REGISTRIES},
        }
        for queue in queues
    }


def ages(client: Redis, queues: Sequence[str]) -> dict[str, float]:
    """The seconds that the next job of each queue has waited, or that of a band if it has waited for longer.

    Queues without jobs are left out. Two trips.
    """
    lists = [(queue, key) for queue in queues for key in keys.queue_keys(queue)]
    found = pipelined(client, [("LINDEX", key, 0) for _, key in lists], None)
    heads = [(queue, as_text(head)) for (queue, _), head in zip(lists, found, strict=True) if head]
    answers = pipelined(client, [("HGET", keys.job_key(head), "enqueued_at") for _, head in heads], None)
    now, spans = time.time(), dict[str, float]()
    for (queue, _), answer in zip(heads, answers, strict=True):
        if (at := _instant(answer)) is not None:
            spans[queue] = max(0.0, now - at, spans.get(queue, 0.0))
    return spans


def pause(client: Redis, queue: str) -> bool:
    """Keep all workers from taking jobs of `queue`; False if it was already paused.

    Running jobs run to their end, and jobs can still be enqueued.
    """
    return bool(client.sadd(keys.PAUSED, queue))


def resume(client: Redis, queue: str) -> bool:
    """Let workers take jobs of `queue` again, and notify them; False if it was not paused."""
    was_paused = bool(client.srem(keys.PAUSED, queue))
    wake_workers(client)
    return was_paused


def paused(client: Redis) -> set[str]:
    """The names of paused queues."""
    (found,) = pipelined(client, [("SMEMBERS", keys.PAUSED)], (), only="WRONGTYPE")
    return {as_text(name) for name in found}


def purge(client: Redis, queue: str, longest: float = math.inf) -> int:
    """Delete the jobs of `queue` that wait, wherever they do, and return how many.

    Those that are blocked, scheduled, held by a paused batch or waiting for a signal are among them. Running
    ones stay, and so do those that wait for other jobs. It continues until the queue is empty, so jobs that
    are enqueued meanwhile are deleted too. After `longest` seconds it leaves the rest.
    """
    total, until = 0, time.monotonic() + longest
    while (deleted := _purge_once(client, queue, until)) and time.monotonic() < until:
        total += deleted
    return total + deleted


def _purge_once(client: Redis, queue: str, until: float) -> int:
    """Go through all places in which jobs of `queue` wait, until then; how many were deleted."""
    total, now = 0, wire.time_text(time.time())
    registries = [keys.registry_key(status, queue) for status in ("scheduled", "deferred")]
    key_names = [keys.queue_key(queue), keys.groups_key(queue), *registries]
    for place in ("list", "groups", "scheduled", "deferred"):
        cursor = ""
        while cursor != "0" and time.monotonic() < until:
            deleted, following = _purge(client, key_names, [queue, place, cursor, PURGED_A_CALL, now])
            total += int(deleted)
            cursor = as_text(following)
    for batch in client.sscan_iter(keys.PAUSED_BATCHES):
        first = 0
        while first >= 0 and time.monotonic() < until:
            args = [queue, first, PURGED_A_CALL, now]
            deleted, first = map(int, _purge_held(client, [f"{keys.batch_key(as_text(batch))}:held"], args))
            total += deleted
    return total


def set_rate(client: Redis, queue: str, rate: Rate | None) -> None:
    """Limit how many jobs of `queue` may start per interval, across all workers; None lifts the limit.

    Each worker keeps to it from its next claim on, and it survives restarts.
    """
    if rate is None:
        client.hdel(keys.QUEUE_RATES, queue)
    else:
        client.hset(keys.QUEUE_RATES, queue, f"{rate.interval_us} {rate.capacity_us} {rate}")
    wake_workers(client)


def rates(client: Redis) -> dict[str, str]:
    """The rates of the queues that have one, as text: `{"mail": "100/m"}`."""
    (found,) = pipelined(client, [("HGETALL", keys.QUEUE_RATES)], {}, only="WRONGTYPE")
    return {as_text(queue): as_text(value).split(" ", 2)[-1] for queue, value in found.items()}


def _instant(answer: object) -> float | None:
    """A record's field as Unix seconds; None if it is absent or corrupt."""
    try:
        return wire.time_seconds(as_text(answer)) if isinstance(answer, bytes) else None
    except (ValueError, OverflowError):
        return None
