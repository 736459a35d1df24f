"""The places where jobs wait, run and end: the lists and registries that hold their ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.jobs import keys

A_CALL = 500
"""Ids that one command reads at most."""

MOST_GROUPS = 1000
"""Groups of a queue whose jobs a search looks for."""


class Place(NamedTuple):
    """A key that holds ids of jobs of these statuses.

    It is a list, the newest last; a `stack`, which is a list with the newest first; or a sorted set.
    """

    key: str
    statuses: tuple[str, ...]
    kind: Literal["list", "stack", "set"] = "set"

    def newest(self, most: int) -> tuple[Any, ...]:
        """The command that reads the newest ids, `most` at most."""
        if self.kind == "list":
            return ("LRANGE", self.key, -most, -1)
        return ("LRANGE" if self.kind == "stack" else "ZREVRANGE", self.key, 0, most - 1)

    def ids(self, reply: Sequence[bytes]) -> list[str]:
        """The ids in a reply, the newest first."""
        found = [as_text(each) for each in (reversed(reply) if self.kind == "list" else reply)]
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
            found += (Place(key, ("queued",), kind="list") for key in keys.queue_keys(queue))
        for status in keys.REGISTRIES:
            kinds = ("failed", "stopped") if status == "failed" else (status,)
            if not set(kinds).isdisjoint(statuses):
                found.append(Place(keys.registry_key(status, queue), kinds))
    if "queued" in statuses:
        groups = _groups(client, queues, most_groups)
        found += (Place(keys.group_key(*each), ("queued",), kind="list") for each in groups)
        held = pipelined(client, [("SMEMBERS", keys.PAUSED_BATCHES)], ())[0]
        found += (Place(f"{keys.batch_key(as_text(each))}:held", ("queued",), kind="list") for each in held)
    return found


def _groups(client: Redis, queues: Sequence[str], most: int | None) -> Iterator[tuple[str, str]]:
    """The queues' groups that jobs wait in."""
    lengths = pipelined(client, [("HLEN", keys.groups_key(queue)) for queue in queues], 0)
    for queue, length in zip(queues, lengths, strict=True):
        found = client.hscan_iter(keys.groups_key(queue), count=A_CALL) if length else ()
        for group, _ in islice(found, most):
            yield queue, as_text(group)


def all_ids(client: Redis, place: Place) -> Iterator[list[str]]:
    """All ids of a place, in parts; what comes or goes meanwhile may be missed or come twice."""
    cursor: Any = 0
    part: Any
    while True:
        try:
            if place.kind == "stack":
                part, cursor = client.lrange(place.key, 0, -1), 0
            elif place.kind == "list":  # from its end, so that what is taken from its head moves nothing
                part = client.lrange(place.key, -cursor - A_CALL, -cursor - 1)
                cursor = cursor + A_CALL if len(part) == A_CALL else 0
            else:
                cursor, pairs = client.zscan(place.key, cursor, count=A_CALL)
                part = [pair[0] for pair in pairs]
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            return
        yield place.ids(part)
        if not cursor:
            return
