"""Events of jobs: read or follow what the scripts emitted."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from redis import Redis

from packmule.coordination.streams.stream import Event, Missed, Stream
from packmule.jobs import keys

MOST_ENTRIES = 10_000
MAX_AGE = 7 * 86_400.0
"""Seconds after which an event may be deleted."""

LAST_AT = 10.0**11
"""Unix time some three thousand years ahead: a later one is corrupt."""

TYPES = (
    "enqueued", "scheduled", "promoted", "started", "progress", "finished", "failed", "stopped", "retried",
    "returned", "rescued", "waiting", "signaled", "canceled", "quarantined", "error_new", "error_again",
)  # fmt: skip


class JobEvent(NamedTuple):
    """A change of a job: `type` is one of TYPES, `at` Unix time, and `worker` "" if none took part.

    `details` depend on the type, for example `started` and `ended` of a finished job (docs/events.md).
    """

    id: str
    type: str
    job: str
    queue: str
    worker: str
    at: float
    details: Mapping[str, Any]


class EventFilter(NamedTuple):
    """A filter: events of one job, of some types, of some queues; None or empty for all."""

    job: str | None = None
    types: Collection[str] = ()
    queues: Collection[str] = ()

    def __contains__(self, event: object) -> bool:
        return (
            isinstance(event, JobEvent)
            and self.job in (None, event.job)
            and (not self.types or event.type in self.types)
            and (not self.queues or event.queue in self.queues)
        )


ALL = EventFilter()


def stream(client: Redis) -> Stream:
    """The stream of all events, for your own consumers.

    >>> Consumer(stream(client), "mine", "host-1").run(lambda event: print(parse(event)))  # doctest: +SKIP
    """
    return Stream(client, keys.JOB_EVENTS, max_entries=MOST_ENTRIES, max_age=MAX_AGE)


def parse(event: Event) -> JobEvent | None:
    """The job's event in a stream's event; None if it is not ours."""
    match event.value:
        case [str(type), str(job), str(queue), str(worker), int() | float() as at, *rest] if (
            0 <= at < LAST_AT
        ):
            found = rest[0] if rest and isinstance(rest[0], dict) else {}
            # A value that JSON can't hold would stop whatever forwards it.
            details = {name: _plain(value) for name, value in found.items() if isinstance(name, str)}
            return JobEvent(event.id, type, job, queue, worker, float(at), details)
    return None


def _plain(value: Any) -> str | int | float | None:
    if value is None or isinstance(value, str | int | float):
        return value
    try:
        return repr(value)
    except RecursionError:
        return "nested too deep"


def read(client: Redis, since: str = "0", only: EventFilter = ALL) -> Iterator[JobEvent]:
    """The stored events after `since`, an id or Unix milliseconds, the oldest first."""
    for event in stream(client).read_all(since):
        if (parsed := parse(event)) in only:
            yield parsed  # type: ignore[misc]


def follow(
    client: Redis, since: str = "$", only: EventFilter = ALL, stop: threading.Event | None = None
) -> Iterator[JobEvent | Missed]:
    """Events after `since` ("$": from now on) as they come, and `Missed` if some were trimmed unread."""
    for event in stream(client).follow(since, stop=stop):
        if isinstance(event.value, Missed):
            yield event.value
        elif (parsed := parse(event)) in only:
            yield parsed  # type: ignore[misc]
