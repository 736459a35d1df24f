"""Statistics of the jobs that one call acknowledges, added up before they are sent."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import msgspec

from packmule.coordination.counters.histogram import bucket
from packmule.jobs import wire
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.outcome import FAILED, Outcome

SLOW_SECONDS = 0.1
"""A job that took less is not counted among the slowest."""

MOST_OF_A_NAME = 200
"""Bytes of a payload that its callable's name fits in; a longer name only costs a group of its own."""

_pack = msgspec.msgpack.Encoder().encode


def count_outcomes(outcomes: Sequence[Outcome], claimed: Mapping[str, Claimed | None]) -> bytes:
    """The counts of `outcomes` as `statistics.lua` takes them; empty if nothing was performed.

    `claimed` are the jobs by their executions. How long a job waited is counted at its first attempt. What
    RQ's code performed is not counted, for only its end is known here.
    """
    groups: dict[tuple[str, bytes], _Group] = {}
    busy = 0.0
    slowest: list[str | float] = []
    for ended in outcomes:
        job = claimed.get(ended.execution)
        if job is None or not ended.kind:
            continue
        name = job.data[:MOST_OF_A_NAME].partition(b'",')[0]
        group = groups.get((job.queue, name))
        if group is None:
            group = groups[job.queue, name] = _Group(f"{job.queue}\x1f{_name(job)}\x1f")
        began = float(ended.began)
        seconds = max(0.0, float(ended.ended) - began)
        busy += seconds
        group.kinds[FAILED if ended.kind == wire.MAX_RETRIES_EXCEEDED else ended.kind] += 1
        group.runs[bucket(seconds)] += 1
        group.seconds += seconds
        if job.attempt == 1 and (enqueued := _seconds(job.enqueued_at)) is not None:
            group.waits[bucket(began - enqueued)] += 1
        if seconds > SLOW_SECONDS:
            slowest += ended.id, round(seconds, 3)
    if not groups:
        return b""
    fields = [part for group in groups.values() for part in group.fields()]
    return _pack((fields, f"{busy:.6f}", slowest))


class _Group:
    """The counts of one type of job of one queue."""

    __slots__ = ("kinds", "prefix", "runs", "seconds", "waits")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.kinds: dict[int, int] = defaultdict(int)
        self.runs: dict[int, int] = defaultdict(int)
        self.waits: dict[int, int] = defaultdict(int)
        self.seconds = 0.0

    def fields(self) -> Iterator[str | int]:
        """Names of fields and their increments, in turn."""
        for letter, counts in (("k", self.kinds), ("r", self.runs), ("w", self.waits)):
            for number, count in counts.items():
                yield f"{self.prefix}{letter}{number}"
                yield count
        yield f"{self.prefix}us"
        yield int(self.seconds * 1_000_000)


def _name(job: Claimed) -> str:
    """The dotted name of the job's callable, which the payload starts with."""
    if job.data[:2] == b'["' and (end := job.data.find(b'"', 2)) > 0:
        return job.data[2 : min(end, MOST_OF_A_NAME)].decode(errors="replace")
    try:
        return wire.decode_call(job.data).name[:MOST_OF_A_NAME]
    except wire.InvalidPayload:
        return "(unreadable)"


def _seconds(text: bytes | None) -> float | None:
    """RQ's text of a time as Unix seconds; None if it isn't one."""
    try:
        return _second(text[:19]) + int(text[20:26]) / 1_000_000 if text else None
    except ValueError:
        return None


@lru_cache(maxsize=64)
def _second(text: bytes) -> float:
    seconds = wire.time_seconds(text.decode() + "Z")
    if seconds is None or not math.isfinite(seconds):
        raise ValueError(text)
    return seconds
