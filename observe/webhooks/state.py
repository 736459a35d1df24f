"""The state of webhooks: how far each is behind, what it delivered, and what it has given up."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from redis import Redis
from redis.exceptions import RedisError

from packmule.coordination.redis.replies import UNREADABLE, as_text, as_texts, pipelined
from packmule.coordination.streams.dead_letters import dead_letters_key
from packmule.coordination.streams.stream import Event
from packmule.jobs import keys, wire
from packmule.observe import events
from packmule.observe.events import JobEvent
from packmule.observe.webhooks.endpoints import Endpoint, group_of

KEEP_SECONDS = 90 * 86_400
"""How long the counts of a webhook are kept after its last delivery."""

_PREFIX = group_of("")


class WebhookState(NamedTuple):
    """What became of a webhook's events; `endpoint` is None if no file that was read names it.

    `waiting` counts entries of the stream that no sender has read, `sending` those that one is about to
    deliver, again or for the first time, and `given_up` dead letters; None if the server doesn't know.
    `delivered` and `refused` are attempts in the last 90 days, and `last_at` is when one was accepted.
    """

    name: str
    endpoint: Endpoint | None
    waiting: int | None
    sending: int
    given_up: int
    delivered: int
    refused: int
    last_at: float | None


class DeadLetter(NamedTuple):
    """An event that a webhook has given up: which, why, when, and after how many deliveries."""

    id: str
    reason: str
    at: float | None
    deliveries: int
    events: Sequence[JobEvent]


def count(client: Redis, name: str, *, accepted: bool) -> None:
    """Count an attempt of a webhook. A count that fails is lost, as the delivery matters more."""
    key = keys.webhook_counts_key(name)
    commands: list[tuple[Any, ...]] = [("HINCRBY", key, "delivered" if accepted else "refused", 1)]
    if accepted:
        commands.append(("HSET", key, "last_at", int(time.time())))
    with suppress(RedisError):
        pipelined(client, [*commands, ("EXPIRE", key, KEEP_SECONDS)], None)


def read(client: Redis, endpoints: Sequence[Endpoint]) -> list[WebhookState]:
    """The state of each of the `endpoints`, then of those that only Redis knows.

    >>> [each.given_up for each in read(client, endpoints)]  # doctest: +SKIP
    [0, 2]
    """
    groups = _groups(client)
    known = {endpoint.name: endpoint for endpoint in endpoints}
    names = [*known, *sorted(groups.keys() - known.keys())]
    commands = [
        each
        for name in names
        for each in (
            ("LLEN", dead_letters_key(keys.JOB_EVENTS, group_of(name))),
            ("HGETALL", keys.webhook_counts_key(name)),
        )
    ]
    replies = pipelined(client, commands, None)
    return [
        _state(name, known.get(name), groups.get(name, {}), given_up, counts)
        for name, given_up, counts in zip(names, replies[::2], replies[1::2], strict=True)
    ]


def dead(client: Redis, name: str, start: int = 0, size: int = 50) -> list[DeadLetter]:
    """Some of a webhook's dead letters, the newest first."""
    key = dead_letters_key(keys.JOB_EVENTS, group_of(name))
    (records,) = pipelined(client, [("LRANGE", key, start, start + size - 1)], ())
    return [dead_letter(record) for record in records or ()]


def dead_letter(record: bytes | str) -> DeadLetter:
    """The dead letter of a record, which may be corrupt."""
    try:
        found = msgspec.json.decode(record, type=dict[str, Any])
    except UNREADABLE as error:
        return DeadLetter("", f"the record is corrupt: {error}", None, 0, ())
    id, reason, at = found.get("id"), found.get("reason"), found.get("at")
    rows, deliveries = found.get("events"), found.get("deliveries")
    id = id if isinstance(id, str) else ""
    parsed = [events.parse(Event(id, row)) for row in rows] if isinstance(rows, list) else []
    return DeadLetter(
        id,
        reason if isinstance(reason, str) else "",
        float(at) if isinstance(at, int | float) and 0 <= at < events.LAST_AT else None,
        deliveries if isinstance(deliveries, int) else 0,
        [each for each in parsed if each is not None],
    )


def _groups(client: Redis) -> dict[str, Mapping[str, Any]]:
    """The consumer groups of webhooks by name; none if there is no stream."""
    (found,) = pipelined(client, [("XINFO GROUPS", keys.JOB_EVENTS)], ())
    groups: dict[str, Mapping[str, Any]] = {}
    for each in found or ():
        name = as_text(each.get("name", b""))
        if name.startswith(_PREFIX):
            groups[name.removeprefix(_PREFIX)] = each
    return groups


def _state(
    name: str, endpoint: Endpoint | None, group: Mapping[str, Any], given_up: Any, counts: Any
) -> WebhookState:
    told = as_texts(counts) if isinstance(counts, dict) else {}
    lag = group.get("lag")
    return WebhookState(
        name,
        endpoint,
        lag if isinstance(lag, int) else None,
        int(group.get("pending", 0)),
        given_up or 0,
        wire.whole(told.get("delivered")),
        wire.whole(told.get("refused")),
        float(wire.whole(told.get("last_at"))) or None,
    )
