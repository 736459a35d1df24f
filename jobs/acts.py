"""Acts on many jobs: retry, cancel, delete or run now those that fit. Whatever steers many comes here.

`find` says which are meant, a part at a time, and `perform` does it to those that are chosen; `act` is both,
for all of them. Each job is looked at again when its turn comes, since it may have changed. So each call can
be repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from redis import Redis

from packmule.errors import Conflict, Error, UsageError
from packmule.jobs import control, queues
from packmule.jobs.job_filter import InvalidFilter, JobFilter, look
from packmule.jobs.places import Position, places, scan

MOST_LOOKS = 10_000
"""Jobs that one call of `find` looks at, about, unless told otherwise: some tenths of a second."""

MOST = 1_000
"""Jobs that one call of `perform` acts on at most."""

AT_ONCE = 100
"""Jobs that one round trip acts on."""

MOST_EXAMPLES = 5


class UnknownAct(UsageError, ValueError):
    """There is no act of that name."""


class InvalidPart(UsageError, ValueError):
    """A part is to begin at a cursor that isn't one, or to be of no job or too many."""


class Changed(Conflict):
    """A job has changed since it was found, and is not meant any more."""


class Act(NamedTuple):
    """What can be done to jobs: to those in `statuses`, of which `usual` are meant if a filter names none.

    `do` acts on some jobs and returns the error of each that was refused.
    """

    statuses: tuple[str, ...]
    usual: tuple[str, ...]
    do: Callable[..., list[Error | None]]


WAITING = ("queued", "scheduled", "deferred")
ENDED = ("finished", "failed", "stopped", "canceled")

ACTS: Mapping[str, Act] = {
    "retry": Act(("failed", "stopped", "canceled"), ("failed",), control.retry_each),
    "cancel": Act((*WAITING, "started"), (*WAITING, "started"), control.cancel_each),
    "delete": Act((*WAITING, *ENDED), (*WAITING, *ENDED), control.delete_each),
    "run": Act(("scheduled",), ("scheduled",), control.run_each),
}


class Found(NamedTuple):
    """A part of the jobs that an act is for: the `ids` of those that fit, among the `looked` that were seen.

    The next part begins at the `cursor`; there is none if that is None.
    """

    ids: Sequence[str]
    looked: int
    cursor: str | None


class Became(NamedTuple):
    """What became of the job `id`: it is done, unless there is an `error`."""

    id: str
    error: Error | None


@dataclass(slots=True)
class Acted:
    """How many jobs an act met: `matched` the filter, were `done`, or refused, by their errors' reasons."""

    matched: int = 0
    done: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    """Ids of the first that matched."""


def find(
    client: Redis,
    name: str,
    wanted: JobFilter,
    cursor: str | None = None,
    more_queues: Sequence[str] = (),
    most: int = MOST_LOOKS,
) -> Found:
    """A part of the jobs that fit `wanted` and that the act `name` is for, from the part's `cursor` on.

    A call looks at `most` jobs, or 500 more, and changes nothing. A part may be empty and have a `cursor`.
    All parts together have each job that stays as it is, usually once, also if `perform` acts on them in
    between. What comes into the queues meanwhile may be left out. Raises `UnknownAct`, `InvalidPart`, and
    `InvalidFilter` for a status that the act isn't for.

    >>> found = find(client, "retry", JobFilter(error="TimeoutError"))  # doctest: +SKIP
    >>> len(found.ids), found.looked, found.cursor  # doctest: +SKIP
    (12, 431, None)
    """
    return _find(client, wanted, statuses_of(name, wanted), cursor, more_queues, most)


def perform(
    client: Redis, name: str, ids: Sequence[str], wanted: JobFilter | None = None, timeout: float = 5.0
) -> list[Became]:
    """Do what `name` says to each of `ids`, `MOST` at most; what became of each, in order.

    A job that doesn't fit `wanted` any more is left alone. Jobs that run are canceled within `timeout`
    seconds for each 100 ids, or named. Raises what `find` does.

    >>> perform(client, "retry", ["2a9f", "17cc"])  # doctest: +SKIP
    [Became(id='2a9f', error=None), Became(id='17cc', error=NotRetried('job 17cc is queued; ...'))]
    """
    wanted_now = wanted or JobFilter()
    statuses, do = statuses_of(name, wanted_now), ACTS[name].do
    if len(ids) > MOST:
        raise InvalidPart(f"{len(ids):,} jobs are too many: {name} at most {MOST:,} at once")
    errors: dict[str, Error | None] = {}
    each = list(dict.fromkeys(ids))
    for first in range(0, len(each), AT_ONCE):
        some = each[first : first + AT_ONCE]
        if wanted is not None:
            still = [seen.id for seen in look(client, some, wanted, statuses)]
            errors |= {id: Changed(f"job {id} has changed since it was found") for id in some}
            some = still
        given = {"timeout": timeout} if name == "cancel" else {}
        errors |= dict(zip(some, do(client, some, **given), strict=True))
    return [Became(id, errors[id]) for id in ids]


def reason(id: str, error: Error) -> str:
    """Why a job was refused, without its id, so that equal reasons can be counted.

    >>> reason("2a9f", Changed("job 2a9f is queued"))
    'is queued'
    """
    return str(error).replace(f"job {id} ", "").replace(id, "ID")


def act(
    client: Redis,
    name: str,
    wanted: JobFilter,
    dry_run: bool = False,
    more_queues: Sequence[str] = (),
    acted: Acted | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Acted:
    """Do what `name` says to all jobs that fit `wanted`, or until it `is_stopped`; with `dry_run` only count.

    `acted` is counted up meanwhile, and returned. Raises what `find` does. What comes into the queues
    meanwhile may be left out.

    >>> act(client, "retry", JobFilter(name="report", error="TimeoutError"))  # doctest: +SKIP
    Acted(matched=12, done=12, refused=Counter(), examples=['2a9f', ...])
    """
    statuses = statuses_of(name, wanted)
    acted = Acted() if acted is None else acted
    for ids in matching(client, wanted, statuses, more_queues):
        if is_stopped():
            break
        acted.matched += len(ids)
        acted.examples += ids[: MOST_EXAMPLES - len(acted.examples)]
        if dry_run:
            continue
        for id, error in perform(client, name, ids, wanted):
            if error is None:
                acted.done += 1
            elif isinstance(error, Changed):
                acted.refused["it has changed"] += 1
            else:
                acted.refused[reason(id, error)] += 1
    return acted


def statuses_of(name: str, wanted: JobFilter) -> tuple[str, ...]:
    """The statuses of the jobs that the act `name` is meant for. Raises `UnknownAct` and `InvalidFilter`."""
    known = ACTS.get(name)
    if known is None:
        raise UnknownAct(f"no action is called {name!r:.100}: there are {', '.join(ACTS)}")
    if wanted.status is None:
        return tuple(status for status in known.usual if status in wanted.statuses)
    if wanted.status not in known.statuses:
        raise InvalidFilter(
            f"{name} is for jobs that are {', '.join(known.statuses)}, not for {wanted.status} ones"
        )
    return (wanted.status,)


def matching(
    client: Redis, wanted: JobFilter, statuses: Sequence[str], more: Sequence[str] = ()
) -> Iterator[list[str]]:
    """The ids of all jobs that fit, in parts of `AT_ONCE`, each once."""
    seen: set[str] = set()
    before = -1
    while before < len(seen) and statuses:
        before, cursor = len(seen), None
        while True:
            ids, _, cursor = _find(client, wanted, statuses, cursor, more, MOST_LOOKS)
            new = [id for id in ids if id not in seen]
            seen.update(new)
            for first in range(0, len(new), AT_ONCE):
                yield new[first : first + AT_ONCE]
            if cursor is None:
                break
        # When the head of a group leaves, the next one moves to its queue's list.
        statuses = [status for status in statuses if status == "queued"]


def _find(
    client: Redis,
    wanted: JobFilter,
    statuses: Sequence[str],
    cursor: str | None,
    more: Sequence[str],
    most: int,
) -> Found:
    start = Position.parse(cursor) if cursor is not None else None
    if cursor is not None and start is None:
        raise InvalidPart(
            f"cursor {cursor!r:.100} is not valid: give the one that the previous part returned"
        )
    names = queues.names(client, more) if wanted.queue is None else [wanted.queue]
    found: dict[str, None] = {}
    looked = 0
    for place, ids, position in scan(client, places(client, names, statuses, most_groups=None), start):
        here = [status for status in place.statuses if status in statuses]
        found.update((seen.id, None) for seen in look(client, ids, wanted, here))
        looked += len(ids)
        if looked >= most:
            return Found(list(found), looked, str(position))
    return Found(list(found), looked, None)
