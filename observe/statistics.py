"""Statistics: what was performed in the last minutes, hours or days, by queue and type of job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from redis import Redis

from packmule.coordination.counters.histogram import LAST_BUCKET, merged, percentile
from packmule.coordination.counters.leaderboard import Leaderboard
from packmule.coordination.redis.replies import as_text, pipelined
from packmule.jobs import keys, wire

MINUTE, HOUR = 60, 3600
MOST_MINUTES, MOST_HOURS = 120, 192
_BUCKETS = {str(number): number for number in range(LAST_BUCKET + 1)}
_KINDS = {"k1": "finished", "k2": "failed", "k3": "stopped", "k4": "retried"}


@dataclass(slots=True)
class Statistics:
    """Counts of one type of job in one queue, or of several together.

    `seconds` is the total time that jobs ran. `waits` and `runs` are histograms
    (`coordination.counters.histogram`) of the time from enqueue to start, and of the time that a job ran.
    """

    finished: int = 0
    failed: int = 0
    stopped: int = 0
    retried: int = 0
    seconds: float = 0.0
    waits: dict[int, int] = field(default_factory=dict)
    runs: dict[int, int] = field(default_factory=dict)

    @property
    def performed(self) -> int:
        """How many executions ended by themselves."""
        return self.finished + self.failed + self.stopped + self.retried

    def add(self, what: str, count: int) -> None:
        """Add `count` to a stored field, such as `k1` or `w40`; an unknown field is ignored."""
        if what in _KINDS:
            name = _KINDS[what]
            setattr(self, name, getattr(self, name) + count)
        elif what == "us":
            self.seconds += count / 1_000_000
        elif what[:1] in ("w", "r") and (number := _BUCKETS.get(what[1:])) is not None:
            histogram = self.waits if what[0] == "w" else self.runs
            histogram[number] = histogram.get(number, 0) + count


Key = tuple[str, str]
"""A queue and a type of job, the dotted name of its callable."""


class Summary(NamedTuple):
    """One line of a table; spans are in seconds, None if nothing was counted."""

    name: str
    performed: int
    failed: int
    retried: int
    seconds: float
    wait_p50: float | None
    wait_p95: float | None
    run_p50: float | None
    run_p95: float | None
    run_p99: float | None


def minutes(client: Redis, count: int) -> dict[Key, Statistics]:
    """The statistics of the last `count` minutes together, two hours at most."""
    return _read(client, _keys("minute", MINUTE, min(count, MOST_MINUTES)))


def hours(client: Redis, count: int) -> dict[Key, Statistics]:
    """The statistics of the last `count` hours together, eight days at most."""
    return _read(client, _keys("hour", HOUR, min(count, MOST_HOURS)))


def by_period(client: Redis, seconds: int, numbers: Sequence[int]) -> list[dict[str, Statistics]]:
    """The statistics of each queue in each of the minutes or hours `numbers`, counted from 1970.

    >>> by_period(client, MINUTE, [29_926_320])[0]["mail"].finished  # doctest: +SKIP
    12
    """
    period = "minute" if seconds == MINUTE else "hour"
    hashes = pipelined(
        client, [("HGETALL", f"{keys.STATISTICS}{period}:{number}") for number in numbers], None
    )
    return [by(_parsed([each]), queue_of) for each in hashes]


def each_hour(client: Redis, count: int) -> list[tuple[int, dict[Key, Statistics]]]:
    """The statistics of each of the last `count` hours, eight days at most; an hour begins at its Unix time.

    >>> each_hour(client, 24)[-1][0] % HOUR  # doctest: +SKIP
    0
    """
    last = int(time.time()) // HOUR
    numbers = range(last - max(1, min(count, MOST_HOURS)) + 1, last + 1)
    found = of_hours(client, numbers)
    return [(number * HOUR, each) for number, each in zip(numbers, found, strict=True)]


def of_hours(client: Redis, numbers: Sequence[int]) -> list[dict[Key, Statistics]]:
    """The statistics of some hours, counted from 1970, in one trip; nothing for a key of another type.

    Raises redis-py's errors.
    """
    commands = [("HGETALL", f"{keys.STATISTICS}hour:{number}") for number in numbers]
    replies = pipelined(client, commands, None, only="WRONGTYPE")
    return [_parsed([each]) for each in replies]


def totals(client: Redis) -> dict[Key, Statistics]:
    """The statistics since this server was first used."""
    return _read(client, [f"{keys.STATISTICS}total"])


def by(found: dict[Key, Statistics], part: Callable[[Key], str]) -> dict[str, Statistics]:
    """Sums by a part of the key: `by(minutes(client, 5), queue_of)`."""
    groups: dict[str, list[Statistics]] = {}
    for key, each in found.items():
        groups.setdefault(part(key), []).append(each)
    return {name: combined(each) for name, each in groups.items()}


def queue_of(key: Key) -> str:
    """The queue of a key."""
    return key[0]


def type_of(key: Key) -> str:
    """The type of a key."""
    return key[1]


def summary(name: str, found: Statistics) -> Summary:
    """The line of a table for `found`."""
    return Summary(
        name,
        found.performed,
        found.failed,
        found.retried,
        round(found.seconds, 6),
        percentile(found.waits, 0.5),
        percentile(found.waits, 0.95),
        percentile(found.runs, 0.5),
        percentile(found.runs, 0.95),
        percentile(found.runs, 0.99),
    )


def rates(client: Redis) -> dict[str, float]:
    """Executions per second of each queue, over the last one to two minutes."""
    now = time.time()
    span = MINUTE + now % MINUTE
    return {name: each.performed / span for name, each in by(minutes(client, 2), queue_of).items()}


def slowest(client: Redis, count: int = 10, hours: int = 1) -> list[tuple[str, float]]:
    """The ids of the jobs that ran longest, each with its seconds."""
    return Leaderboard(client, "slowest").top_best(count, hours)


def busiest(client: Redis, count: int = 10, hours: int = 1) -> list[tuple[str, float]]:
    """The workers that performed jobs for longest, each with its seconds."""
    return Leaderboard(client, "busiest").top(count, hours)


def combined(all: Iterable[Statistics]) -> Statistics:
    """The sum of several."""
    each = list(all)
    return Statistics(
        sum(one.finished for one in each),
        sum(one.failed for one in each),
        sum(one.stopped for one in each),
        sum(one.retried for one in each),
        sum(one.seconds for one in each),
        merged(one.waits for one in each),
        merged(one.runs for one in each),
    )


def _keys(period: str, seconds: int, count: int) -> list[str]:
    now = int(time.time()) // seconds
    return [f"{keys.STATISTICS}{period}:{number}" for number in range(now - max(1, count) + 1, now + 1)]


def _read(client: Redis, key_names: Sequence[str]) -> dict[Key, Statistics]:
    with client.pipeline(transaction=False) as pipeline:
        for key in key_names:
            pipeline.hgetall(key)
        hashes = pipeline.execute(raise_on_error=False)
    return _parsed(hashes)


def _parsed(hashes: Iterable[Any]) -> dict[Key, Statistics]:
    found: dict[Key, Statistics] = {}
    for counts in hashes:
        if not isinstance(counts, dict):
            continue  # the key holds another type
        for name, value in counts.items():
            queue, _, rest = as_text(name).partition("\x1f")
            kind, _, what = rest.rpartition("\x1f")
            if kind and (count := wire.whole(value)):
                found.setdefault((queue, kind), Statistics()).add(what, count)
    return found
