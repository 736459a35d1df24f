"""The index of ended jobs: where a search looks first. `lua/lib/index.lua` describes an entry."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.replies import UNREADABLE, pipelined
from packmule.jobs import keys
from packmule.jobs.job_filter import JobFilter, look
from packmule.jobs.keys import INDEX_HEAD

LEAST_LOOKS, MOST_LOOKS = 256, 20_000
"""Jobs that a search passes in an index: so many however late it is, and at most."""

FEWEST_ENTRIES, MOST_ENTRIES = 16, 1024
"""Entries that one command reads: at first, and at most."""

MOST_A_READ = 4096
"""Jobs that the entries of one command name at most, about: a page doesn't wait for more than it needs."""

LONGEST_NAME = 190
"""An entry may have cut off what is longer."""

DELAY, SKEW = 1.0, 60.0
"""Seconds from a job's end to its entry, usually; and from the entry to a later end of the job at least."""

LOOKS_A_TRIP = 64
FEW = 200

NEAR = 60_000
"""Milliseconds within which a job's end and its entry lie, unless Redis was away for longer."""

STATES = {"finished": ("finished",), "failed": ("failed", "stopped")}

_decode = msgspec.msgpack.Decoder(list[list[str]]).decode


class Hit(NamedTuple):
    """A job that fits, and the milliseconds of Unix time by which a search orders it."""

    at: int
    id: str


@dataclass(slots=True)
class Found:
    """What a look at an index found: it has seen all that ended since the millisecond `down_to`, 0 for all.

    `named` are the ids of the jobs that its entries name and that may fit by what these say.
    """

    hits: list[Hit] = field(default_factory=list)
    down_to: int = 0
    named: set[str] = field(default_factory=set)


class _Moment(NamedTuple):
    """What a millisecond's entries name, by whether they know the error; and how many jobs they name."""

    at: int
    ids: dict[bool, list[str]]
    size: int


def read(
    client: Redis, state: str, wanted: JobFilter, most: int, newest: int | None, ends_at: float
) -> Found:
    """The latest jobs of the index `state` that fit: `most` or a few more, none from after `newest`.

    It stops at `ends_at` of the monotonic clock, but not before it has passed `LEAST_LOOKS` jobs.
    """
    found, passed, waits = Found(), 0, 0
    times: dict[bool, dict[str, int]] = {True: {}, False: {}}
    for at, ids, size in _moments(client, keys.INDEXES[state], wanted, newest):
        for knows_error, some in ids.items():
            new = [id for id in some if id not in found.named]
            times[knows_error].update(dict.fromkeys(new, at))
            waits += len(new)
            found.named.update(new)
        passed += size
        is_over = passed >= MOST_LOOKS or (passed >= LEAST_LOOKS and time.monotonic() > ends_at)
        if is_over or waits >= LOOKS_A_TRIP:
            found.hits += _verified(client, state, times, wanted)
            times, waits = {True: {}, False: {}}, 0
            if is_over or len(found.hits) >= most:
                found.down_to = at
                return found
    found.hits += _verified(client, state, times, wanted)
    return found


def named_near(client: Redis, state: str, at: int) -> set[str]:
    """The ids of jobs that the last entries before the millisecond `at` name, and the first ones after it."""
    key = keys.INDEXES[state]
    commands = [("XREVRANGE", key, f"{at}", f"{max(0, at - NEAR)}", "COUNT", FEW)]
    commands += [("XRANGE", key, f"{at}", f"{at + NEAR}", "COUNT", FEW)]
    replies = pipelined(client, commands, ())
    return {
        id for reply in replies for _, entry in reply for group in _groups(entry) for id in group[INDEX_HEAD:]
    }


def _moments(client: Redis, key: str, wanted: JobFilter, newest: int | None) -> Iterator[_Moment]:
    """Each millisecond that has entries, the newest first, with what may fit."""
    since, until = wanted.times
    low = "-" if since is None else f"{max(0, int((since - DELAY) * 1000))}"
    tops = [] if newest is None else [newest]
    tops += [] if until is None else [int((until + DELAY) * 1000)]
    high, count = f"{max(0, min(tops))}" if tops else "+", FEWEST_ENTRIES
    while True:
        entries = _read(client, key, high, low, count)
        is_last = len(entries) < count
        ends = entries[-1][0] if entries and not is_last else -1
        whole = [each for each in entries if each[0] != ends]
        if not whole and count == MOST_ENTRIES:  # in one millisecond: we don't write so many
            whole, ends = entries, ends - 1
        jobs = 0
        for at, together in groupby(whole, key=itemgetter(0)):
            moment = _moment(at, [entry for _, entry in together], wanted)
            jobs += moment.size
            yield moment
        if is_last or ends < 0:
            return
        high = f"{ends}"
        most = max(1, MOST_A_READ * len(whole) // jobs) if jobs else MOST_ENTRIES
        count = min(4 * count, most, MOST_ENTRIES)


def _read(client: Redis, key: str, high: str, low: str, count: int) -> list[tuple[int, Any]]:
    """The newest entries up to `high`: the millisecond and the fields of each."""
    try:
        found: Any = client.xrevrange(key, high, low, count=count)
    except ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        return []  # the next entry moves the key aside
    return [(int(id.partition(b"-")[0]), fields) for id, fields in found]


def _moment(at: int, entries: Sequence[Any], wanted: JobFilter) -> _Moment:
    ids: dict[bool, list[str]] = {True: [], False: []}
    size = 0
    for entry in entries:
        groups = _groups(entry)
        size += sum(len(each) - INDEX_HEAD for each in groups) + 1
        for group in groups:
            if _may_fit(group, wanted):
                ids[bool(group[2])] += group[INDEX_HEAD:]
    if wanted.id is not None:
        ids = {knows: [id for id in some if id.startswith(wanted.id)] for knows, some in ids.items()}
    return _Moment(at, ids, size)


def _groups(entry: Any) -> list[list[str]]:
    """The groups of an entry; none if it makes no sense."""
    try:
        return [each for each in _decode(entry[b"e"]) if len(each) > INDEX_HEAD]
    except (KeyError, *UNREADABLE):
        return []


def _may_fit(group: list[str], wanted: JobFilter) -> bool:
    """Whether the jobs of a group may fit, by what the entry says of them."""
    name, queue, error = group[:INDEX_HEAD]
    return (
        wanted.queue in (None, queue)
        and (not name or len(name) >= LONGEST_NAME or wanted.fits_name(name))
        and (wanted.error_class is None or error in ("", wanted.error_class))
    )


def _verified(client: Redis, state: str, times: dict[bool, dict[str, int]], wanted: JobFilter) -> list[Hit]:
    """Those that are as the index says, by their records."""
    statuses = [status for status in STATES[state] if status in wanted.statuses]
    return [
        Hit(some[seen.id], seen.id)
        for knows_error, some in times.items()
        for seen in look(client, list(some), wanted, statuses, knows_error)
        if seen.at * 1000 <= some[seen.id] + SKEW * 1000
    ]
