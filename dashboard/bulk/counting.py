"""The dry run of a bulk action: how many jobs it would meet, and some of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from redis import Redis

from packmule.coordination.redis.replies import pipelined
from packmule.jobs import acts, keys, queues
from packmule.jobs.job_filter import JobFilter, look
from packmule.jobs.places import places, scan

LONGEST = 1.5
"""Seconds after which a count says `at least`."""

MOST_EXAMPLES = 10


@dataclass(slots=True)
class Counted:
    """How many jobs an act would meet: `count`, or more of them if it `is_partial`; ids of some."""

    count: int = 0
    is_partial: bool = False
    examples: list[str] = field(default_factory=list)


def counted(client: Redis, act: str, wanted: JobFilter, more: Sequence[str] = ()) -> Counted:
    """What the act would meet. Raises `UnknownAct`, and `InvalidFilter` for a status that it isn't for.

    >>> counted(client, "retry", JobFilter(name="report")).count  # doctest: +SKIP
    12
    """
    statuses, ends_at = acts.statuses_of(act, wanted), time.monotonic() + LONGEST
    found, seen = Counted(), set[str]()
    names = queues.names(client, more) if wanted.queue is None else [wanted.queue]
    for place, ids, _ in scan(client, places(client, names, statuses, wanted.fingerprint, most_groups=None)):
        here = [status for status in place.statuses if status in statuses]
        fitting = {each.id for each in look(client, ids, wanted, here)} - seen
        seen |= fitting
        found.count = len(seen)
        found.examples += [id for id in ids if id in fitting][: MOST_EXAMPLES - len(found.examples)]
        if time.monotonic() > ends_at:
            found.is_partial = True
            found.count = max(found.count, _at_least(client, names, wanted, statuses))
            return found
    return found


def _at_least(client: Redis, names: Sequence[str], wanted: JobFilter, statuses: Sequence[str]) -> int:
    """How many jobs the registries have, if nothing but queue and status is asked for."""
    if JobFilter(queue=wanted.queue, status=wanted.status) != wanted:
        return 0
    held = [each for each in statuses if each in keys.REGISTRIES]
    return sum(
        pipelined(client, [("ZCARD", keys.registry_key(each, name)) for name in names for each in held], 0)
    )
