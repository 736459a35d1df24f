"""What is in use: the files that jobs name which have not ended."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from redis import Redis

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.jobs import keys, wire
from packmule.jobs.places import places, scan
from packmule.jobs.queues import names
from packmule.jobs.retention.made import place_of

LIVING = ("queued", "scheduled", "deferred", "started")
FIELDS = ("data", "batch", "dependency_ids", "takes")


def in_use(client: Redis) -> set[str]:
    """The ids of living jobs, of their flows and of those they wait for, and all texts that they name."""
    found: set[str] = set()
    for _, ids, _ in scan(client, places(client, names(client), LIVING, most_groups=None)):
        found.update(ids)
        records = pipelined(client, [("HMGET", keys.job_key(id), *FIELDS) for id in ids], None)
        for data, batch, *lists in filter(None, records):
            found.update(_texts(_arguments(data)))
            found.add(as_text(batch or b""))
            for each in lists:
                found.update(_texts(_decoded(each)))
    return found | {place_of(each) for each in found if "/" in each}


def is_used(path: str, used: Collection[str]) -> bool:
    """Whether a living job names `path`, what was made with it, or its folder's id, which is a job's."""
    place = place_of(path)
    return path in used or place in used or place.rpartition("/")[2] in used


def _arguments(data: bytes | None) -> Any:
    try:
        return wire.decode_call(data or b"")[2:]
    except Exception:  # what can't be read is performed by nobody
        return None


def _decoded(text: bytes | None) -> Any:
    try:
        return json.loads(text or b"null")
    except (ValueError, RecursionError):
        return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value.rstrip("/")
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
