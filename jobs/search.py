"""Searching jobs: a page of those that fit a filter, newest first, over all queues and statuses."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from redis import Redis

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.errors import UsageError
from packmule.jobs import index, queues, reader
from packmule.jobs.index import Hit
from packmule.jobs.job_filter import JobFilter, look_at
from packmule.jobs.places import places

PAGE, MOST = 50, 1000
"""Jobs of a page, unless told otherwise and at most."""

LONGEST = 0.02
"""Seconds that a search takes to go through the indexes, about."""

MOST_PLACES, MOST_IN_A_PLACE, MOST_IN_PLACES = 200, 200, 4_000
"""Lists and registries that a search reads, and the ids of each and of all of them, about."""

MOST_LOOKS = 600
"""Records that it reads of those, so that a page takes no longer if everything is full."""


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
    if type(limit) is not int or not 1 <= limit <= MOST:
        raise InvalidPage(f"limit={limit!r:.100}: a page has 1 to {MOST:,} jobs")
    wanted = wanted or JobFilter()
    after = _Position.parse(cursor)
    newest = after.at if after else None
    states = [
        state
        for state, statuses in index.STATES.items()
        if not wanted.fingerprint and not set(statuses).isdisjoint(wanted.statuses)
    ]
    began = time.monotonic()
    founds = {
        state: index.read(client, state, wanted, limit + 1, newest, began + LONGEST * number / len(states))
        for number, state in enumerate(states, start=1)
    }
    down_to = max((found.down_to for found in founds.values()), default=0)
    waiting, ended, is_partial = _in_places(client, wanted, more_queues, founds)

    def is_here(hit: Hit) -> bool:
        return hit.at >= down_to and (not after or after.is_before(hit))

    hits = {hit for found in founds.values() for hit in found.hits}
    hits.update(waiting, _unnamed(client, ended, is_here, [at for at in (newest, down_to) if at]))
    seen = filter(is_here, hits)
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
            raise InvalidPage(
                f"cursor {cursor!r:.100} is not valid: give the one that the previous page returned"
            )
        return cls(int(found[1]), found[2] or "")

    def __str__(self) -> str:
        return f"{self.at}-{self.id}" if self.id else f"{self.at}"

    def is_before(self, hit: Hit) -> bool:
        return _order(Hit(*self)) < _order(hit)


def _order(hit: Hit) -> tuple[int, str]:
    return -hit.at, hit.id


def _in_places(
    client: Redis, wanted: JobFilter, more: Sequence[str], founds: Mapping[str, index.Found]
) -> tuple[list[Hit], dict[str, list[Hit]], bool]:
    """The newest jobs of each list and registry that fit.

    Returns those that have not ended or were canceled; those that ended and were not found by the index that
    should name them; and whether there are more of the first than were looked at.
    """
    names = queues.names(client, more) if wanted.queue is None else [wanted.queue]
    found = places(client, names, wanted.statuses, wanted.fingerprint)
    share = MOST_IN_PLACES // max(1, len(found))
    most = share if wanted.fingerprint else min(MOST_IN_A_PLACE, max(10, share))
    is_partial = len(found) > MOST_PLACES
    found = found[:MOST_PLACES]
    unseen: list[Sequence[bytes]] = []
    for place, reply in zip(found, pipelined(client, [each.newest(most) for each in found], ()), strict=True):
        indexed = founds.get(place.statuses[0])
        unseen.append([id for id in reply if as_text(id) not in indexed.named] if indexed else reply)
        is_partial = is_partial or (len(reply) == most and place.statuses[0] not in index.STATES)
    by_statuses: dict[tuple[str, ...], dict[str, None]] = {}
    for place, some, most in zip(found, unseen, _shares(list(map(len, unseen)), MOST_LOOKS), strict=True):
        by_statuses.setdefault(place.statuses, {}).update(dict.fromkeys(place.ids(some, most)))
        is_partial = is_partial or (len(some) > most and place.statuses[0] not in index.STATES)
    waiting: list[Hit] = []
    ended: dict[str, list[Hit]] = {}
    groups = [
        ([*some], [status for status in statuses if status in wanted.statuses])
        for statuses, some in by_statuses.items()
    ]
    for statuses, seen in zip(by_statuses, look_at(client, groups, wanted), strict=True):
        hits = [Hit(int(each.at * 1000), each.id) for each in seen]
        if statuses[0] in founds:
            ended[statuses[0]] = hits
        else:
            waiting += hits
    return waiting, ended, is_partial


def _shares(sizes: Sequence[int], total: int) -> list[int]:
    """How many of each place to look at, `total` in all; what small ones leave goes to the others.

    >>> _shares([1, 9, 9], 10)
    [1, 4, 5]
    """
    shares = [0] * len(sizes)
    for left, position in zip(
        range(len(sizes), 0, -1), sorted(range(len(sizes)), key=sizes.__getitem__), strict=True
    ):
        shares[position] = min(sizes[position], total // left)
        total -= shares[position]
    return shares


def _unnamed(
    client: Redis, ended: dict[str, list[Hit]], is_here: Callable[[Hit], bool], edges: list[int]
) -> list[Hit]:
    """Those of the page that ended and that no page has from the index: stock RQ performed them.

    A job's end and its entry are moments apart, and the page's `edges` may lie in between.
    """
    unnamed = []
    for state, hits in ended.items():
        here = [hit for hit in hits if is_here(hit)]
        named: set[str] = set()
        for edge in edges:
            if any(abs(hit.at - edge) <= index.NEAR for hit in here):
                named |= index.named_near(client, state, edge)
        unnamed += [hit for hit in here if hit.id not in named]
    return unnamed
