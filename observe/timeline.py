"""The timeline of a job: how each of its attempts ended, and what else became of it, as far as it is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis import Redis

from packmule.coordination.redis.replies import as_text, as_texts, pipelined
from packmule.coordination.streams import stream
from packmule.jobs import keys, wire
from packmule.jobs.reader import JobInfo
from packmule.observe import events
from packmule.observe.events import JobEvent

MOST_ATTEMPTS = 20
MOST_NEAR, NEAR_MS = 40, 100
"""Entries that are read around each moment at which something is known to have happened, and milliseconds."""

MOST_LATEST = 100
"""Entries at the end of the stream of events that are looked through."""

OUTCOMES = {number: name for name, number in wire.RESULT_TYPES.items()} | {
    wire.MAX_RETRIES_EXCEEDED: "failed"
}

_TAIL = re.compile(r"-\d+$")
_NUMBER = re.compile(r"\d{1,12}(?:\.\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A run that has ended: `outcome` is finished, failed, stopped or retried; times are Unix seconds."""

    outcome: str
    worker: str
    started: float | None
    ended: float | None
    error: str | None

    @property
    def seconds(self) -> float | None:
        """For how long it ran."""
        return max(0.0, self.ended - self.started) if self.ended and self.started else None

    @property
    def reason(self) -> str | None:
        """The last line of the error."""
        return wire.reason(self.error) if self.error else None


class Timeline(NamedTuple):
    """The attempts of a job and the other events of it that were found, the earliest first."""

    attempts: list[Attempt]
    events: list[JobEvent]


def read(client: Redis, info: JobInfo) -> Timeline:
    """What is kept of the job's past, in two round trips.

    RQ and Packmule keep the last ten results or so. Events are looked for where the job's times say that
    there should be some, and among the latest of all jobs.

    >>> read(client, info).attempts[-1].outcome  # doctest: +SKIP
    'finished'
    """
    (results,) = pipelined(
        client, [("XREVRANGE", keys.results_key(info.id), "+", "-", "COUNT", MOST_ATTEMPTS)], ()
    )
    attempts = [_attempt(as_text(id), as_texts(fields)) for id, fields in reversed(results)]
    moments = [
        *filter(None, map(instant, (info.created_at, info.enqueued_at, info.started_at, info.ended_at)))
    ]
    moments += [each.ended for each in attempts if each.ended]
    return Timeline(attempts, _events(client, info.id, moments))


def _events(client: Redis, id: str, moments: Sequence[float]) -> list[JobEvent]:
    starts = sorted({int(at * 1000) for at in moments})
    commands: list[tuple[Any, ...]] = [
        ("XRANGE", keys.JOB_EVENTS, f"{max(0, at - NEAR_MS)}", f"{at + NEAR_MS}", "COUNT", MOST_NEAR)
        for at in starts
    ]
    commands.append(
        ("XREVRANGE", keys.JOB_EVENTS, "+", f"{starts[0]}" if starts else "-", "COUNT", MOST_LATEST)
    )
    entries: dict[str, Mapping[bytes, bytes]] = {}
    for reply in pipelined(client, commands, ()):
        entries.update((as_text(entry), fields) for entry, fields in reply)
    found = (event for entry, fields in entries.items() for event in _of_job(entry, fields, id))
    return sorted(found, key=lambda event: event.at)


def _of_job(entry: str, fields: Mapping[bytes, bytes], id: str) -> Iterator[JobEvent]:
    packed = fields.get(stream.FIELD.encode(), b"")
    if id.encode() not in packed:
        return
    for each in stream.unpack(entry, packed)[0]:
        parsed = events.parse(each)
        if parsed is not None and parsed.job == id:
            yield parsed


def _attempt(entry: str, fields: Mapping[str, str]) -> Attempt:
    kind = wire.whole(fields.get("type"))
    ended = instant(fields.get("execution_ended_at")) or wire.whole(_TAIL.sub("", entry)) / 1000
    exceeded = wire.EXCEEDED if kind == wire.MAX_RETRIES_EXCEEDED else None
    return Attempt(
        OUTCOMES.get(kind, "unknown"),
        fields.get("worker_name", ""),
        instant(fields.get("execution_started_at")),
        ended or None,
        exceeded or wire.traceback(fields.get("exc_string")),
    )


def instant(text: str | None) -> float | None:
    """A time in Unix seconds, from RQ's text of it or from such a number; None if it is neither."""
    if not text:
        return None
    try:
        at = float(text) if _NUMBER.fullmatch(text) else wire.time_seconds(text)
    except (ValueError, OverflowError):
        return None
    return at if at is not None and 0 <= at < events.LAST_AT else None
