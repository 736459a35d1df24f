"""Which jobs are meant: a filter by name, queue, status, error, time, argument and id."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, NamedTuple, cast

import msgspec
from redis import Redis

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.coordination.redis.scripts import Script
from packmule.errors import UsageError
from packmule.jobs import keys, registry, wire
from packmule.jobs.masking import masked
from packmule.jobs.secrets import EACH_NAMED, Parts, part, recorded

STATUSES = ("queued", "started", "scheduled", "deferred", "canceled", "finished", "failed", "stopped")

LATEST = 253_402_300_799.0
"""The end of the year 9999: all later times are this one, and those before 1970 are its begin."""

FIELDS = ("status", "origin", "created_at", "started_at", "ended_at", "fingerprint")

A_CALL = 1000
"""Records that one call reads: few enough that it takes the server a millisecond or two."""

_read_records = Script("jobs", "read_records")


class InvalidFilter(UsageError, ValueError):
    """A filter names an unknown status, or an invalid time or argument."""


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Selects jobs: those that match all given fields.

    `name` is a function's dotted name or its end (`report` matches `shop.jobs.report`), `error` the class of
    the error without its module, or a part of its last line such as `disk is full`, `id` how an id begins,
    `fingerprint` an error of which it failed last. `since` and `until` are Unix seconds or `datetime`s: when
    the job began if it runs, or when it or its last attempt ended, or when it was made. `args` are arguments
    by name, or by position from 0, as text: other values than texts as JSON. Positional arguments have names
    if the function is registered in this process. Raises `InvalidFilter`.

    >>> JobFilter(name="report", status="failed", args={"month": "2026-11"}).status
    'failed'
    """

    name: str | None = None
    queue: str | None = None
    status: str | None = None
    error: str | None = None
    since: float | datetime | None = None
    until: float | datetime | None = None
    args: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        if self.status is not None and self.status not in STATUSES:
            raise InvalidFilter(f"no status is called {self.status!r:.100}: use one of {', '.join(STATUSES)}")
        for name in ("name", "queue", "error", "id", "fingerprint"):
            if getattr(self, name) is not None and not isinstance(getattr(self, name), str):
                raise InvalidFilter(f"{name}={getattr(self, name)!r:.100}: give a text")
        for name in ("since", "until"):
            object.__setattr__(self, name, _seconds(name, getattr(self, name)))
        is_mapping = isinstance(self.args, Mapping)
        if not is_mapping or not all(isinstance(each, str) for pair in self.args.items() for each in pair):
            raise InvalidFilter(f"args={self.args!r:.100}: give names and values as texts")

    @classmethod
    def of(cls, asked: object, args: Mapping[str, str]) -> JobFilter:
        """The filter of a request whose fields have the names of ours. Raises `InvalidFilter`."""
        names = [each.name for each in fields(cls) if each.name != "args" and hasattr(asked, each.name)]
        return cls(**{name: getattr(asked, name) for name in names}, args=args)

    @property
    def is_empty(self) -> bool:
        """Whether it fits all jobs."""
        return self == JobFilter()

    @property
    def statuses(self) -> tuple[str, ...]:
        """Those that fit; an error has only what failed or was stopped."""
        if self.status:
            return (self.status,)
        return ("failed", "stopped") if self.error else STATUSES

    @property
    def error_class(self) -> str | None:
        """The class of the error that is meant, if `error` looks like one; else it is a part of the text."""
        return self.error if self.error and self.error.isidentifier() and self.error[0].isupper() else None

    def fits_error(self, reason: str) -> bool:
        """Whether an error's last line, such as `ValueError: no such month`, is of the one that is meant."""
        if self.error_class:
            return wire.error_type(reason) == self.error_class
        return self.error is None or self.error.casefold() in reason.casefold()

    @property
    def times(self) -> tuple[float | None, float | None]:
        """`since` and `until` as Unix seconds."""
        return cast(tuple[float | None, float | None], (self.since, self.until))

    def fits_name(self, name: str) -> bool:
        """Whether a function's dotted name is the one that is meant."""
        return self.name is None or name == self.name or name.endswith(f".{self.name}")

    def fits_time(self, at: float) -> bool:
        """Whether an instant is within the times."""
        since, until = self.times
        return (since is None or at >= since) and (until is None or at <= until)

    def fits_call(self, data: bytes, secrets: bytes | None = None) -> bool:
        """Whether the payload `data` calls what is meant, with the arguments that are meant.

        What annotations say is secret fits nothing, by the record's `secrets` or those known here.
        """
        try:
            call = wire.decode_call(data)
        except wire.InvalidPayload:
            return self.name is None and not self.args
        if not self.fits_name(call.name):
            return False
        given = _named(call, secrets) if self.args else {}
        return all(name in given and _text(given[name]) == value for name, value in self.args.items())


class Sighting(NamedTuple):
    """What a look at a record found: `at` is since when the job has its status, in Unix seconds."""

    id: str
    status: str
    queue: str
    at: float
    fingerprint: str


def look(
    client: Redis, ids: Sequence[str], wanted: JobFilter, statuses: Sequence[str], knows_error: bool = False
) -> list[Sighting]:
    """Those of the jobs `ids` that are there, in one of `statuses`, and fit: in order.

    It takes a round trip for every `A_CALL` of them, and another one if errors are compared. They are not if
    the caller `knows_error`.
    """
    return look_at(client, [(ids, statuses)], wanted, knows_error)[0]


def look_at(
    client: Redis,
    groups: Sequence[tuple[Sequence[str], Sequence[str]]],
    wanted: JobFilter,
    knows_error: bool = False,
) -> list[list[Sighting]]:
    """What `look` finds of several groups of ids, each with its statuses, in no more trips.

    >>> look_at(client, [(["2a9f"], ["queued"]), (["17cc"], ["failed"])], JobFilter())  # doctest: +SKIP
    [[], [Sighting(id='17cc', status='failed', ...)]]
    """
    needs_call = wanted.name is not None or bool(wanted.args)
    names = (*FIELDS, "data", "secrets") if needs_call else FIELDS
    records = _records(client, [id for ids, _ in groups for id in ids], names)
    fits_all = replace(wanted, name=None, args={}, status=None, error=None).is_empty
    found: list[list[Sighting]] = []
    for ids, statuses in groups:
        known = {status.encode(): status for status in statuses}
        some: list[Sighting] = []
        for id, values in zip(ids, records, strict=False):
            seen = _sighting(id, values, known) if values else None
            if seen is None or not (fits_all or _fits(seen, wanted)):
                continue
            if not needs_call or wanted.fits_call(values[-2] or b"", values[-1]):
                some.append(seen)
        found.append(some)
    if wanted.error is None or (knows_error and wanted.error_class):
        return found
    commands = [
        ("XREVRANGE", keys.results_key(seen.id), "+", "-", "COUNT", 1) for some in found for seen in some
    ]
    fits = iter([wanted.fits_error(_reason(each)) for each in pipelined(client, commands, None)])
    return [[seen for seen in some if next(fits)] for some in found]


def _fits(seen: Sighting, wanted: JobFilter) -> bool:
    return (
        wanted.queue in (None, seen.queue)
        and wanted.fingerprint in (None, seen.fingerprint)
        and (wanted.id is None or seen.id.startswith(wanted.id))
        and wanted.fits_time(seen.at)
    )


def _records(client: Redis, ids: Sequence[str], names: Sequence[str]) -> Iterator[Sequence[bytes | None]]:
    """The values of the fields `names` of each job; nothing for a key of another type."""
    for first in range(0, len(ids), A_CALL):
        some = [keys.job_key(id) for id in ids[first : first + A_CALL]]
        yield from (values or () for values in _read_records(client, some, names))


def _sighting(id: str, values: Sequence[bytes | None], statuses: Mapping[bytes, str]) -> Sighting | None:
    """What the values of `FIELDS` say, if the job is in one of `statuses`."""
    given, queue, made, began, ended, fingerprint, *_ = values
    if given is None or (status := statuses.get(given)) is None:
        return None
    at = _seconds_of((began if status == "started" else ended) or made)
    return Sighting(id, status, as_text(queue or b""), at, as_text(fingerprint) if fingerprint else "")


def _seconds_of(said: bytes | None) -> float:
    """RQ's text of a time as Unix seconds; 0 if it makes no sense."""
    try:
        return wire.time_seconds(as_text(said or b"")) or 0.0
    except (ValueError, OverflowError):
        return 0.0


def _reason(results: Any) -> str:
    """The last line of the error in a job's last result."""
    try:
        fields = results[0][1]
        if fields.get(b"type") == str(wire.MAX_RETRIES_EXCEEDED).encode():
            return wire.EXCEEDED
        text = wire.traceback(as_text(fields[b"exc_string"])) or ""
    except (KeyError, IndexError, TypeError):
        return ""
    return wire.reason(text)


def _named(call: wire.Invocation, secrets: bytes | None) -> dict[str, Any]:
    """A call's arguments by name, and those that are given by position by that, too."""
    job = registry.get(call.name)
    names = list(job.signature.parameters) if job else []
    known: Mapping[str, Parts] = job.secrets if job else {}
    args: Sequence[Any] = call.args
    kwargs: Mapping[str, Any] = call.kwargs
    if known or secrets:
        hidden = {**known, **recorded(secrets)}
        args = [masked(value, part(hidden, str(place))) for place, value in enumerate(args)]
        kwargs = {name: masked(value, part(hidden, name, EACH_NAMED)) for name, value in kwargs.items()}
    given = {str(position): value for position, value in enumerate(args)}
    return {**given, **dict(zip(names, args, strict=False)), **kwargs}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _seconds(name: str, at: Any) -> float | None:
    if at is None:
        return None
    try:
        seconds = at.timestamp() if isinstance(at, datetime) else float(at)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if isinstance(at, bool | str | bytes) or not math.isfinite(seconds):
        raise InvalidFilter(f"{name}={at!r:.100}: give Unix seconds or a datetime")
    return min(max(0.0, seconds), LATEST)
