"""Ids by their beginnings, as people copy them from a screen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from redis import Redis

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.errors import UsageError
from packmule.jobs import keys
from packmule.jobs.job_filter import STATUSES
from packmule.jobs.places import places
from packmule.jobs.queues import names

ALONE = 8
"""Characters that make a beginning unique enough if more jobs are kept than were looked at."""

MOST, MOST_OF_A_PLACE = 200_000, 20_000
"""Ids that one look reads, of all lists and registries and of each, the newest."""

MOST_NAMED = 4

_WHOLE = re.compile("[0-9a-f]{32}")
"""The ids that we make."""


class Ambiguous(UsageError, LookupError):
    """Several jobs or batches have ids that begin like this, or may have."""


def job_id(client: Redis, given: str, more_queues: Sequence[str] = ()) -> str:
    """The id of the job that is called `given`, or whose id alone begins like this; else `given` as it is.

    It takes one round trip if such a job exists, and looks at the newest ids of all lists and registries if
    not. Raises `Ambiguous`.

    >>> job_id(client, "2a9f")  # doctest: +SKIP
    '2a9f03b1c4d54e6f8a7b6c5d4e3f2a1b'
    """
    if _WHOLE.fullmatch(given) or client.exists(keys.job_key(given)):
        return given
    found = places(client, names(client, more_queues), STATUSES)
    most = min(MOST_OF_A_PLACE, MOST // max(1, len(found)))
    replies = pipelined(client, [each.newest(most) for each in found], ())
    ids = (id for place, reply in zip(found, replies, strict=True) for id in place.ids(reply))
    return _unique("jobs", given, ids, is_all=all(len(reply) < most for reply in replies))


def batch_id(client: Redis, given: str) -> str:
    """The id of the batch or flow that is called `given`, or whose id alone begins like this; else `given`.

    Raises `Ambiguous`.
    """
    if _WHOLE.fullmatch(given) or client.exists(keys.batch_key(given)):
        return given
    (reply,) = pipelined(client, [("ZREVRANGE", keys.BATCHES, 0, MOST_OF_A_PLACE - 1)], ())
    return _unique("batches", given, map(as_text, reply), is_all=len(reply) < MOST_OF_A_PLACE)


def _unique(what: str, given: str, ids: Iterable[str], *, is_all: bool) -> str:
    """The one of `ids` that begins like `given`, which may end with the … of a shortened one."""
    beginning = given.removesuffix("…")
    if len(beginning) < keys.SHORTEST_BEGINNING:
        return given
    found = dict.fromkeys(id for id in ids if id.startswith(beginning))
    named = ", ".join([*found][:MOST_NAMED])
    if len(found) > 1:
        more = f" and {len(found) - MOST_NAMED:,} more" if len(found) > MOST_NAMED else ""
        raise Ambiguous(f"{given:.100} is the beginning of {len(found):,} {what}: {named}{more}")
    if found and not is_all and len(beginning) < ALONE:
        raise Ambiguous(
            f"{given:.100} is the beginning of {named} and perhaps of others: there are more {what} than one "
            f"look reads; give {ALONE} characters or the whole id"
        )
    return named or given
