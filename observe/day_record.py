"""The record of a day: what each queue and type of job performed in each of its hours, in few bytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from packmule.coordination.counters.histogram import LAST_BUCKET
from packmule.jobs.wire import MOST_COUNTED
from packmule.observe import statistics
from packmule.observe.statistics import Key, Statistics
from packmule.units import KIB, MIB

DAY, HOURS = 86_400, 24

PARTS = {"queue": statistics.queue_of, "type": statistics.type_of}
"""By what a day is counted."""

MOST_NAMES = 100
"""Queues, and types, that an hour and a day count by name; what performed least is `OTHER`."""

MOST_BYTES = {"queue": 128 * KIB, "type": 256 * KIB}
"""Bytes that the hours of all queues, and of all types, of a day take at most."""

OTHER = "other"
ALL = "hours"
"""The field of a record with the hours of all jobs together, which every record has."""

MOST_UNPACKED = 4 * MIB

_Flat = Annotated[list[int], Meta(max_length=2 * (LAST_BUCKET + 1))]  # a longer one costs much to read

Hour = Mapping[str, Mapping[str, Statistics]]
"""What was performed in an hour, by part and name: `hour["queue"]["mail"]`."""


class _Row(msgspec.Struct, array_like=True):
    """Statistics, as a record has them; a histogram is a list of distances between buckets and counts."""

    finished: int
    failed: int
    stopped: int
    retried: int
    microseconds: int
    waits: _Flat
    runs: _Flat


_encode = msgspec.msgpack.Encoder().encode
_hours = msgspec.msgpack.Decoder(Annotated[list[_Row | None], Meta(max_length=HOURS)])
_sums = msgspec.msgpack.Decoder(Annotated[dict[str, _Row], Meta(max_length=MOST_NAMES + 1)])


def hour(counted: Mapping[Key, Statistics]) -> Hour:
    """An hour by queue and by type, the least of many together.

    >>> hour({("mail", "shop.send"): Statistics(finished=2)})["type"]["shop.send"].finished
    2
    """
    return {part: _folded(statistics.by(dict(counted), of)) for part, of in PARTS.items()}


def fields(hours: Sequence[Hour]) -> dict[str, bytes]:
    """The record of a day: the fields of a hash, from its 24 hours.

    `hours` has all jobs together, `queue` and `type` the sums of each name in the day, and `queue\\x1f<name>`
    its hours.
    """
    record = {ALL: _packed([statistics.combined(each["queue"].values()) for each in hours])}
    for part in PARTS:
        names = dict.fromkeys(name for each in hours for name in each[part])
        sums = {name: statistics.combined(_of(each, part, name) for each in hours) for name in names}
        kept, left = dict[str, bytes](), MOST_BYTES[part]
        for name in _largest(sums):
            packed = _packed([_of(each, part, name) for each in hours])
            if name == OTHER or len(kept) >= MOST_NAMES or len(packed) > left:
                continue
            kept[name], left = packed, left - len(packed)
        rest = [name for name in sums if name not in kept]
        if rest:
            kept[OTHER] = _packed(
                [statistics.combined(_of(each, part, name) for name in rest) for each in hours]
            )
            sums[OTHER] = statistics.combined(sums[name] for name in rest)
        record[part] = zlib.compress(_encode({name: _row(sums[name]) for name in kept}))
        record |= {field(part, name): packed for name, packed in kept.items()}
    return record


def field(part: str, name: str) -> str:
    """The field with the hours of a name; "" stands for all together.

    >>> field("queue", "mail"), field("queue", "")
    ('queue\\x1fmail', 'hours')
    """
    return f"{part}\x1f{name}" if name else ALL


def sums(packed: Any) -> dict[str, Statistics]:
    """What a record has of each name in the day; nothing if it can't be read."""
    return {name: _statistics(row) for name, row in (_unpacked(_sums, packed) or {}).items()}


def hours(packed: Any) -> list[Statistics]:
    """The 24 hours that a field of a record has; hours without any jobs if it can't be read."""
    rows = _unpacked(_hours, packed) or []
    return [_statistics(row) if row else Statistics() for row in (rows[:HOURS] + [None] * HOURS)[:HOURS]]


def _of(hour: Hour, part: str, name: str) -> Statistics:
    return hour[part].get(name) or Statistics()


def _largest(found: Mapping[str, Statistics]) -> list[str]:
    return sorted(found, key=lambda name: (-found[name].performed, name))


def _folded(found: dict[str, Statistics]) -> dict[str, Statistics]:
    """The largest, under names that a record can hold, and the rest together."""
    names = [name for name in _largest(found) if name][:MOST_NAMES]
    rest = [each for name, each in found.items() if name not in names]
    kept = {name: found[name] for name in names}
    if rest:
        kept[OTHER] = statistics.combined([*rest, *([kept[OTHER]] if OTHER in kept else [])])
    return kept


def _packed(hours: Iterable[Statistics]) -> bytes:
    return zlib.compress(_encode([_row(each) if each != Statistics() else None for each in hours]), 9)


def _unpacked(decoder: msgspec.msgpack.Decoder[Any], packed: Any) -> Any:
    if not isinstance(packed, bytes):
        return None
    try:
        return decoder.decode(zlib.decompressobj().decompress(packed, MOST_UNPACKED))
    except (zlib.error, msgspec.MsgspecError, RecursionError):
        return None


def _row(found: Statistics) -> _Row:
    return _Row(
        _bounded(found.finished),
        _bounded(found.failed),
        _bounded(found.stopped),
        _bounded(found.retried),
        _bounded(round(found.seconds * 1_000_000)),
        _flat(found.waits),
        _flat(found.runs),
    )


def _bounded(count: int) -> int:
    return min(count, MOST_COUNTED)


def _statistics(row: _Row) -> Statistics:
    return Statistics(
        max(0, row.finished),
        max(0, row.failed),
        max(0, row.stopped),
        max(0, row.retried),
        max(0, row.microseconds) / 1_000_000,
        _buckets(row.waits),
        _buckets(row.runs),
    )


def _flat(histogram: Mapping[int, int]) -> list[int]:
    found, before = list[int](), 0
    for number in sorted(histogram):
        found += number - before, _bounded(histogram[number])
        before = number
    return found


def _buckets(flat: Sequence[int]) -> dict[int, int]:
    found, number = dict[int, int](), 0
    for step, count in zip(flat[::2], flat[1::2], strict=False):
        number += step
        if 0 <= number <= LAST_BUCKET and count > 0:
            found[number] = count
    return found
