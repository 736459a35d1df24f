"""Acts on many jobs: retry, cancel, delete or run now all that fit a filter. Whatever steers jobs comes here.

The jobs are looked for in all lists and registries, some hundreds at a time, and each is looked at again when
its turn comes, since it may have changed. So a call that was interrupted can be repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from redis import Redis

from packmule.errors import Error, UsageError
from packmule.jobs import control, queues
from packmule.jobs.job_filter import InvalidFilter, JobFilter, look
from packmule.jobs.places import all_ids, places

AT_ONCE = 100
"""Jobs that one round trip acts on."""

MOST_EXAMPLES = 5


class UnknownAct(UsageError, ValueError):
    """There is no act of that name."""


class Act(NamedTuple):
    """What can be done to jobs: to those in `statuses`, of which `usual` are meant if a filter names none.

    `do` acts on some jobs and returns the error of each that was refused.
    """

    statuses: tuple[str, ...]
    usual: tuple[str, ...]
    do: Callable[[Redis, Sequence[str]], list[Error | None]]


WAITING = ("queued", "scheduled", "deferred")
ENDED = ("finished", "failed", "stopped", "canceled")

ACTS: Mapping[str, Act] = {
    "retry": Act(("failed", "stopped", "canceled"), ("failed",), control.retry_each),
    "cancel": Act((*WAITING, "started"), (*WAITING, "started"), control.cancel_each),
    "delete": Act((*WAITING, *ENDED), (*WAITING, *ENDED), control.delete_each),
    "run": Act(("scheduled",), ("scheduled",), control.run_each),
}


@dataclass(slots=True)
class Acted:
    """How many jobs an act met: `matched` the filter, were `done`, or refused, by their errors' reasons."""

    matched: int = 0
    done: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    """Ids of the first that matched."""


def act(
    client: Redis,
    name: str,
    wanted: JobFilter,
    dry_run: bool = False,
    more_queues: Sequence[str] = (),
    acted: Acted | None = None,
) -> Acted:
    """Do what `name` says to all jobs that fit `wanted`; with `dry_run` only count them.

    `acted` is counted up meanwhile, and returned. Raises `UnknownAct`, and `InvalidFilter` for a status that
    the act isn't for. What comes into the queues meanwhile may be left out.

    >>> act(client, "retry", JobFilter(name="report", error="TimeoutError"))  # doctest: +SKIP
    Acted(matched=12, done=12, refused=Counter(), examples=['2a9f', ...])
    """
    statuses, do = statuses_of(name, wanted), ACTS[name].do
    acted = Acted() if acted is None else acted
    for ids in matching(client, wanted, statuses, more_queues):
        acted.matched += len(ids)
        acted.examples += ids[: MOST_EXAMPLES - len(acted.examples)]
        if dry_run:
            continue
        still = [seen.id for seen in look(client, ids, wanted, statuses)]
        acted.refused.update({"it has changed": len(ids) - len(still)} if len(still) < len(ids) else {})
        for id, error in zip(still, do(client, still), strict=True):
            if error is None:
                acted.done += 1
            else:
                acted.refused[str(error).replace(f"job {id} ", "").replace(id, "ID")] += 1
    return acted


def statuses_of(name: str, wanted: JobFilter) -> tuple[str, ...]:
    """The statuses of the jobs that the act `name` is meant for. Raises `UnknownAct` and `InvalidFilter`."""
    known = ACTS.get(name)
    if known is None:
        raise UnknownAct(f"no act is called {name!r}: there are {', '.join(ACTS)}")
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
    """The ids of all jobs that fit, in parts and each once; all of a place before any of it is acted on."""
    names = [*dict.fromkeys([*more, *queues.names(client)])] if wanted.queue is None else [wanted.queue]
    seen: set[str] = set()
    before = -1
    while before < len(seen) and statuses:
        before = len(seen)
        for place in places(client, names, statuses, most_groups=None):
            here = [status for status in place.statuses if status in statuses]
            found = [each.id for ids in all_ids(client, place) for each in look(client, ids, wanted, here)]
            ids = [id for id in dict.fromkeys(found) if id not in seen]
            seen.update(ids)
            for first in range(0, len(ids), AT_ONCE):
                yield ids[first : first + AT_ONCE]
        # When the head of a group leaves, the next one moves to its queue's list.
        statuses = [status for status in statuses if status == "queued"]
