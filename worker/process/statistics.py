"""Statistics of the jobs that a worker performed, and which of them ended, collected before they are sent."""

from __future__ import annotations

import math
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache

import msgspec

from packmule.coordination.counters.histogram import bucket
from packmule.jobs import wire
from packmule.jobs.keys import INDEX_HEAD
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.outcome import FAILED, FINISHED, Outcome

INTERVAL = 1.0
"""Seconds between two writes."""

INDEX_INTERVAL = 0.2
"""Seconds for which finished jobs are collected for the index: an entry each would cost claims of one 6 %."""

MOST_AN_ENTRY = 64
"""Finished jobs after which an entry is sent at once."""

LONGEST_ID = 200
"""Characters of an id that the index keeps; RQ allows longer ones."""

SLOW_SECONDS = 0.1
"""A job that took less is not counted among the slowest."""

MOST_OF_A_NAME = 200
"""Bytes of a payload that its callable's name fits in; a longer name only costs a group of its own."""

INDEXES = {"finished": "finished", "failed": "failed", "stopped": "failed"}
"""The index that names jobs of this status; stopped jobs are among the failed, where RQ keeps them."""

_pack = msgspec.msgpack.Encoder().encode


class Statistics:
    """Adds up what became of jobs, since writing it takes as long as moving a job; it is due once a second.

    A process that is killed takes its last second's statistics with it, and nothing else.

    It also collects the ids of jobs that ended, for the index (`jobs/index.py`). Failures are due at once,
    so that the step that fails a job names it there. Of the finished ones a kill loses the last
    `INDEX_INTERVAL`, or the last second of a worker that waits; a long job delays what came before it. An
    outcome may turn out to be stale, so what is sent is only a hint.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[str, bytes], _Group] = {}
        self._busy = 0.0
        self._slowest: dict[str, float] = {}
        self._due_at = 0.0
        self._ended: dict[str, dict[tuple[str, bytes, str], list[str]]] = {}
        self._finished = 0
        self._index_due_at = 0.0

    def add(self, outcomes: Sequence[Outcome], jobs: Mapping[str, Claimed | None], weight: int = 1) -> None:
        """Add `outcomes`, or take them away again by a `weight` of -1; `jobs` has theirs by execution.

        How long a job waited is counted at its first attempt. Outcomes of jobs that were not performed don't
        count.
        """
        for ended in outcomes:
            job = jobs.get(ended.execution)
            if not ended.kind:
                continue
            name = _head(job.data).partition(b'",')[0] if job else b""
            if weight > 0 and (state := INDEXES.get(ended.status)) and len(ended.id) <= LONGEST_ID:
                error = wire.error_type(ended.reason) if state == "failed" else ""
                ids = self._ended.setdefault(state, {}).get((ended.queue, name, error))
                if ids is None:
                    ids = [name_of(job) if job else "", ended.queue, error]
                    self._ended[state][ended.queue, name, error] = ids
                ids.append(ended.id)
                self._finished += state == "finished"
            if job is None:
                continue
            group = self._groups.get((job.queue, name))
            if group is None:
                group = self._groups[job.queue, name] = _Group(f"{job.queue}\x1f{name_of(job)}\x1f")
            began = float(ended.began)
            seconds = max(0.0, float(ended.ended) - began)
            self._busy += weight * seconds
            group.kinds[FAILED if ended.kind == wire.MAX_RETRIES_EXCEEDED else ended.kind] += weight
            group.runs[bucket(seconds)] += weight
            group.seconds += weight * seconds
            if job.attempt == 1 and (enqueued := _seconds(job.enqueued_at)) is not None:
                group.waits[bucket(began - enqueued)] += weight
            if seconds > SLOW_SECONDS:
                self._slowest[ended.id] = round(seconds, 3) * (weight > 0)

    @property
    def due_in(self) -> float | None:
        """Seconds until what was added should be sent; None if nothing was."""
        return max(0.0, self._due_at - time.monotonic()) if self._groups else None

    def to_send(self, has_time: bool) -> list[str | bytes | int]:
        """The statistics, or nothing before they are due, and behind them entries of the index.

        An entry is a state, how many jobs it names, and these, packed. Those that are not due yet are sent
        with statistics, and if the call `has_time`.
        """
        counts = self.packed() if self.due_in == 0 else b""
        is_urgent = "failed" in self._ended or self._finished >= MOST_AN_ENTRY
        if not (self._ended and (counts or has_time or is_urgent or time.monotonic() > self._index_due_at)):
            return [counts]
        sent: list[str | bytes | int] = [counts]
        for state, groups in self._ended.items():
            sent += state, sum(len(ids) - INDEX_HEAD for ids in groups.values()), _pack(list(groups.values()))
        return sent

    def clear_index(self) -> None:
        """Begin again with the index, once the server has its entries."""
        self._ended.clear()
        self._finished, self._index_due_at = 0, time.monotonic() + INDEX_INTERVAL

    def hasten(self) -> None:
        """Make it due now."""
        self._due_at = 0.0

    def packed(self) -> bytes:
        """What was added, as `statistics.lua` takes it."""
        fields = [part for group in self._groups.values() for part in group.fields()]
        slowest = [part for job in self._slowest.items() for part in job]
        kinds = [kinds for group in self._groups.values() for kinds in group.kinds.items()]
        finished = sum(count for kind, count in kinds if kind == FINISHED)
        others = sum(count for kind, count in kinds if kind != FINISHED)
        return _pack((fields, f"{self._busy:.6f}", slowest, finished, others))

    def clear(self) -> None:
        """Begin again, once the server has counted what was added."""
        self._groups.clear()
        self._slowest.clear()
        self._busy, self._due_at = 0.0, time.monotonic() + INTERVAL


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
                if count:
                    yield f"{self.prefix}{letter}{number}"
                    yield count
        yield f"{self.prefix}us"
        yield int(self.seconds * 1_000_000)


def name_of(job: Claimed) -> str:
    """The dotted name of the job's callable, which the payload starts with."""
    head = _head(job.data)
    if head[:2] == b'["' and (end := head.find(b'"', 2)) > 0:
        return head[2:end].decode(errors="replace")
    try:
        return wire.decode_call(job.data).name[:MOST_OF_A_NAME]
    except wire.InvalidPayload:
        return "(unreadable)"


def _head(data: bytes) -> bytes:
    """The first bytes of a payload that may be compressed, so that all calls of one name are in one group."""
    if data[:1] != b"[":
        with suppress(zlib.error):
            return zlib.decompressobj().decompress(data, MOST_OF_A_NAME)
    return data[:MOST_OF_A_NAME]


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
