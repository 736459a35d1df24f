"""What is in use: the files that jobs and schedules name, and what jobs know that have not ended."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from redis import Redis

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.jobs import keys, schedule_store, wire
from packmule.jobs.places import places, scan
from packmule.jobs.queues import names
from packmule.jobs.reader import collected
from packmule.jobs.retention.made import place_of

LIVING = ("queued", "scheduled", "deferred", "started")
FIELDS = ("data", "batch", "steps", "dependency_ids", "takes", "checkpoint")

AT_ONCE = 500
PASSES = 2
"""How often it looks: one look misses a job that is given back or retried meanwhile."""

WRONG = "WRONGTYPE"
"""The one error of the server that says nothing is there: by another, what is used might be deleted."""

NOTHING = (None,) * len(FIELDS)

LONGEST_PATH = 1024
"""Characters of a text that may be a path: mails that wait have longer ones, which would fill the memory."""


def in_use(client: Redis) -> set[str]:
    """The ids of living jobs, of their flows and of those they wait for, and all texts that they name.

    A living job also knows what its steps, its checkpoint and its signals say, and what its batch has
    collected. Schedules name what their next jobs will.
    """
    living, found, batches = set[str](), set[str](), set[str]()
    for _ in range(PASSES):
        for ids in _living(client):
            new = [*set(ids) - living]
            living.update(new)
            found.update(_known(client, new, batches))
    for each in schedule_store.entries(client):
        if each.schedule is not None and each.state not in ("removed", "ended"):
            found.update(_texts([*each.schedule.args, *each.schedule.kwargs.values()]))
    found |= living
    return found | {place_of(each) for each in found if "/" in each}


def is_used(path: str, used: Collection[str]) -> bool:
    """Whether a living job names `path`, its place, a folder around that, or its id, which is a job's."""
    place = place_of(path)
    above = {place.rsplit("/", each)[0] for each in range(place.count("/"))}  # but for a bare name
    return path in used or place.rpartition("/")[2] in used or not above.isdisjoint(used)


def _living(client: Redis) -> Iterator[list[str]]:
    """The ids of jobs that wait, those that workers hold last: a started job isn't marked at once."""
    for _, ids, _ in scan(client, places(client, names(client), LIVING, most_groups=None)):
        yield ids
    (workers,) = pipelined(client, [("ZRANGE", keys.LEASES, 0, -1)], (), WRONG)
    for worker in map(as_text, workers):
        held = [("LRANGE", keys.waiting_key(worker), 0, -1), ("HKEYS", keys.claims_key(worker))]
        yield [as_text(id) for each in pipelined(client, held, (), WRONG) for id in each]


def _known(client: Redis, jobs: Sequence[str], batches: set[str]) -> Iterator[str]:
    """The texts that these jobs know; `batches` get those of theirs whose results were read."""
    for first in range(0, len(jobs), AT_ONCE):
        page = jobs[first : first + AT_ONCE]
        records = pipelined(client, [("HMGET", keys.job_key(id), *FIELDS) for id in page], None, WRONG)
        stepping = []
        for id, (data, batch, steps, *lists) in zip(page, (each or NOTHING for each in records), strict=True):
            yield from _texts(_arguments(data))
            for each in lists:
                yield from _texts(_decoded(each))
            stepping += [] if steps is None else [keys.steps_key(id), keys.job_key(id)]
            name = as_text(batch or b"").partition(" ")[0]  # behind it a callback has another word
            if name and name not in batches:
                batches.add(name)
                yield name
                yield from _collected(client, name)
        for fields in pipelined(client, [("HVALS", key) for key in stepping], (), WRONG):
            for value in fields:  # in the record these are its signals
                yield from _texts(_decoded(value))


def _collected(client: Redis, batch: str) -> Iterator[str]:
    """What the jobs of a batch that have ended returned, if it collects that, and their ids."""
    cursor = 0
    while True:
        command = ("HSCAN", f"{keys.batch_key(batch)}:results", cursor, "COUNT", AT_ONCE)
        (found,) = pipelined(client, [command], None, WRONG)
        cursor, results = found or (0, {})
        for id, text in results.items():
            yield as_text(id)
            yield from _texts(collected(as_text(text))[0])
        if not cursor:
            return


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
    """The texts in a value that may be paths or ids."""
    if isinstance(value, str):
        if len(value) <= LONGEST_PATH and "\n" not in value:
            yield value.rstrip("/")
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
