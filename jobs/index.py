"""The index of ended jobs: where a search looks first. `lua/lib/index.lua` describes an entry."""

from __future__ import annotations

import time
from collections.abc import Iterator
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

MOST_LOOKS = 20_000
LONGEST = 0.015
"""Jobs that a search passes in an index at most, and seconds that it takes for that."""

FEWEST_ENTRIES, MOST_ENTRIES = 16, 1024
"""Entries that one command reads: at first, and at most."""

LONGEST_NAME = 190
"""An entry may have cut off what is longer."""

DELAY, SKEW = 1.0, 60.0
"""Seconds from a job's end to its entry, usually; and from the entry to a later end of the job at least."""

HEAD = 3
"""Texts of a group in front of its ids: name, queue, class of the error."""

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

    `named` are the ids of all jobs that the entries name, whether they fit or not.
    """

    hits: list[Hit] = field(default_factory=list)
    down_to: int = 0
    named: set[str] = field(default_factory=set)


class _Candidate(NamedTuple):
    at: int
    id: str
    knows_error: bool


def read(client: Redis, state: str, wanted: JobFilter, most: int, newest: int | None) -> Found:
    """The latest jobs of the index `state` that fit: `most` or a few more, none from after `newest`."""
    found, waiting = Found(), []
    ends_at, passed = time.monotonic() + LONGEST, 0
    for at, candidates, size in _moments(client, keys.INDEXES[state], wanted, newest):
        waiting += [each for each in candidates if each.id not in found.named]
        found.named.update(each.id for each in candidates)
        passed += size
        is_over = passed >= MOST_LOOKS or time.monotonic() > ends_at
        if is_over or len(waiting) >= LOOKS_A_TRIP:
            found.hits += _verified(client, state, waiting, wanted)
            waiting = []
            if is_over or len(found.hits) >= most:
                found.down_to = at
                return found
    found.hits += _verified(client, state, waiting, wanted)
    return found


def named_near(client: Redis, state: str, at: int) -> set[str]:
    """The ids of jobs that the last entries before the millisecond `at` name, and the first ones after it."""
    key = keys.INDEXES[state]
    commands = [("XREVRANGE", key, f"{at}", f"{max(0, at - NEAR)}", "COUNT", FEW)]
    commands += [("XRANGE", key, f"{at}", f"{at + NEAR}", "COUNT", FEW)]
    found = [_parsed(reply, JobFilter()) for reply in pipelined(client, commands, ())]
    return {each.id for entries in found for _, candidates, _ in entries for each in candidates}


def _moments(
    client: Redis, key: str, wanted: JobFilter, newest: int | None
) -> Iterator[tuple[int, list[_Candidate], int]]:
    """Each millisecond that has entries, the newest first, with what may fit and how many jobs it names."""
    since, until = wanted.times
    low = "-" if since is None else f"{max(0, int((since - DELAY) * 1000))}"
    tops = [] if newest is None else [newest]
    tops += [] if until is None else [int((until + DELAY) * 1000)]
    high, count = f"{max(0, min(tops))}" if tops else "+", FEWEST_ENTRIES
    while True:
        entries = _read(client, key, high, low, wanted, count)
        is_last = len(entries) < count
        ends = entries[-1][0] if entries and not is_last else -1
        whole = [each for each in entries if each[0] != ends]
        if not whole and count == MOST_ENTRIES:  # in one millisecond: we don't write so many
            whole, ends = entries, ends - 1
        for at, together in groupby(whole, key=itemgetter(0)):
            parts = list(together)
            yield at, [each for _, some, _ in parts for each in some], sum(size for *_, size in parts)
        if is_last or ends < 0:
            return
        high = f"{ends}"
        count = min(4 * count, MOST_ENTRIES)


def _read(
    client: Redis, key: str, high: str, low: str, wanted: JobFilter, count: int
) -> list[tuple[int, list[_Candidate], int]]:
    """The newest entries up to `high`: the millisecond, what may fit, and how many jobs it names."""
    try:
        found: Any = client.xrevrange(key, high, low, count=count)
    except ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        return []  # the next entry moves the key aside
    return _parsed(found, wanted)


def _parsed(found: Any, wanted: JobFilter) -> list[tuple[int, list[_Candidate], int]]:
    entries = []
    for id, fields in found:
        at = int(id.partition(b"-")[0])
        try:
            groups = _decode(fields[b"e"])
            size = sum(max(0, len(each) - HEAD) for each in groups)
        except (KeyError, *UNREADABLE):
            groups, size = [], 0
        entries.append((at, [each for group in groups for each in _fitting(at, group, wanted)], size + 1))
    return entries


def _fitting(at: int, group: list[str], wanted: JobFilter) -> Iterator[_Candidate]:
    """The jobs of a group that may fit, by what the entry says."""
    if len(group) <= HEAD:
        return
    name, queue, error, *ids = group
    if wanted.queue not in (None, queue) or (
        name and len(name) < LONGEST_NAME and not wanted.fits_name(name)
    ):
        return
    if wanted.error is not None and error not in ("", wanted.error):
        return
    for id in ids:
        if id.startswith(wanted.id or ""):
            yield _Candidate(at, id, bool(error))


def _verified(client: Redis, state: str, candidates: list[_Candidate], wanted: JobFilter) -> list[Hit]:
    """Those that are as the index says, by their records."""
    times = {each.id: each.at for each in candidates}
    statuses = [status for status in STATES[state] if status in wanted.statuses]
    hits = []
    for knows_error in (True, False):
        ids = [each.id for each in candidates if each.knows_error == knows_error]
        for seen in look(client, ids, wanted, statuses, knows_error):
            if seen.at * 1000 <= times[seen.id] + SKEW * 1000:
                hits.append(Hit(times[seen.id], seen.id))
    return hits
