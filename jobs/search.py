"""Searching jobs: a page of those that fit a filter, newest first, over all queues and statuses."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from redis import Redis

from packmule.coordination.redis.replies import pipelined
from packmule.errors import UsageError
from packmule.jobs import index, queues, reader
from packmule.jobs.index import Hit
from packmule.jobs.job_filter import JobFilter, look
from packmule.jobs.places import places

PAGE, MOST = 50, 1000
"""Jobs of a page, unless told otherwise and at most."""

MOST_IN_A_PLACE, MOST_IN_PLACES = 200, 2_000
"""Ids that a search reads of each list and registry, and of all of them, about."""


class InvalidPage(UsageError, ValueError):
    """A page is to begin at a cursor that isn't one, or to be empty or too long."""


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs that fit, the newest first, and how far the search has looked for them.

    The next page begins at the `cursor`; there is none if that is None. A page may be short, or even empty,
    and have a `cursor`: the search then passed as many others as one call may. All ended jobs in the index
    since `back_to`, in Unix seconds, were looked at; None means all. The search `is_partial` if a queue has
    more jobs that wait, run or were canceled than it looks at.
    """

    jobs: Sequence[reader.JobInfo]
    cursor: str | None
    back_to: float | None
    is_partial: bool


def search(
    client: Redis,
    wanted: JobFilter | None = None,
    limit: int = PAGE,
    cursor: str | None = None,
    more_queues: Sequence[str] = (),
) -> Page:
    """A page of the jobs that fit `wanted`, from the page's `cursor` on. Raises `InvalidPage`.

    It looks in all queues that jobs were ever enqueued to, and in `more_queues`.

    >>> page = search(client, JobFilter(name="report", status="failed"))  # doctest: +SKIP
    >>> [job.id for job in page.jobs]  # doctest: +SKIP
    ['2a9f', '17cc']
    """
    if not 1 <= limit <= MOST:
        raise InvalidPage(f"a page of {limit} jobs: use 1 to {MOST:,}")
    wanted = wanted or JobFilter()
    after = _Position.parse(cursor)
    newest = after.at if after else None
    founds = {
        state: index.read(client, state, wanted, limit + 1, newest)
        for state, statuses in index.STATES.items()
        if not wanted.fingerprint and not set(statuses).isdisjoint(wanted.statuses)
    }
    down_to = max((found.down_to for found in founds.values()), default=0)
    waiting, ended, is_partial = _in_places(client, wanted, more_queues, founds.keys())
    hits = {hit for found in founds.values() for hit in found.hits}
    hits.update(waiting, _unnamed(client, ended, [at for at in (newest, down_to) if at], founds))
    seen = (hit for hit in hits if hit.at >= down_to and (not after or after.is_before(hit)))
    ordered = sorted(seen, key=_order)
    shown = ordered[:limit]
    following = None
    if len(ordered) > limit:
        following = str(_Position(shown[-1].at, shown[-1].id))
    elif down_to:
        following = str(_Position(down_to - 1, ""))
    infos = reader.read_many(client, [hit.id for hit in shown])
    back_to = (shown[-1].at if len(ordered) > limit else down_to) / 1000
    return Page([info for info in infos if info], following, back_to or None, is_partial)


class _Position(NamedTuple):
    """What the page before has shown last: its millisecond and id."""

    at: int
    id: str

    @classmethod
    def parse(cls, cursor: str | None) -> _Position | None:
        if cursor is None:
            return None
        found = re.fullmatch(r"(\d{1,16})(?:-(.*))?", cursor, re.DOTALL | re.ASCII)
        if not found:
            raise InvalidPage(f"no page begins at {cursor!r:.100}: give the cursor of the page before")
        return cls(int(found[1]), found[2] or "")

    def __str__(self) -> str:
        return f"{self.at}-{self.id}" if self.id else f"{self.at}"

    def is_before(self, hit: Hit) -> bool:
        return _order(Hit(*self)) < _order(hit)


def _order(hit: Hit) -> tuple[int, str]:
    return -hit.at, hit.id


def _in_places(
    client: Redis, wanted: JobFilter, more: Sequence[str], indexed: Collection[str]
) -> tuple[list[Hit], dict[str, list[Hit]], bool]:
    """The newest jobs of each list and registry that fit.

    Returns those that have not ended or were canceled; those that ended, by the index that should name them;
    and whether there are more of the first than were looked at.
    """
    names = [*dict.fromkeys([*more, *queues.names(client)])] if wanted.queue is None else [wanted.queue]
    found = places(client, names, wanted.statuses, wanted.fingerprint)
    share = MOST_IN_PLACES // max(1, len(found))
    most = share if wanted.fingerprint else min(MOST_IN_A_PLACE, max(10, share))
    is_partial = len(found) > MOST_IN_PLACES // 10
    found = found[: MOST_IN_PLACES // 10]
    by_statuses: dict[tuple[str, ...], dict[str, None]] = {}
    for place, reply in zip(found, pipelined(client, [each.newest(most) for each in found], ()), strict=True):
        by_statuses.setdefault(place.statuses, {}).update(dict.fromkeys(place.ids(reply)))
        is_partial = is_partial or (len(reply) == most and place.statuses[0] not in index.STATES)
    waiting: list[Hit] = []
    ended: dict[str, list[Hit]] = {}
    for statuses, ids in by_statuses.items():
        fitting = [status for status in statuses if status in wanted.statuses]
        hits = [Hit(int(each.at * 1000), each.id) for each in look(client, list(ids), wanted, fitting)]
        if statuses[0] in indexed:
            ended[statuses[0]] = hits
        else:
            waiting += hits
    return waiting, ended, is_partial


def _unnamed(
    client: Redis, ended: dict[str, list[Hit]], edges: list[int], founds: dict[str, index.Found]
) -> list[Hit]:
    """Those that ended and that no page has from the index, as a registry alone has what stock RQ performed.

    A job's end and its entry are moments apart, and the page's `edges` may lie in between.
    """
    unnamed = []
    for state, hits in ended.items():
        new = [hit for hit in hits if hit.id not in founds[state].named]
        named: set[str] = set()
        for edge in edges:
            if any(abs(hit.at - edge) <= index.NEAR for hit in new):
                named |= index.named_near(client, state, edge)
        unnamed += [hit for hit in new if hit.id not in named]
    return unnamed
