"""Histograms of durations that can be merged, in buckets that grow: percentiles are within 10 %."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

BUCKETS_A_DOUBLING = 4
LAST_BUCKET = 44 * BUCKETS_A_DOUBLING
"""Over half a year in microseconds; longer ones count as that."""


def bucket(seconds: float) -> int:
    """The bucket in which a duration counts: 0 for a microsecond or less, four more for each doubling.

    >>> bucket(0.000_001), bucket(0.001), bucket(60)
    (0, 39, 103)
    """
    microseconds = max(1.0, seconds * 1_000_000)
    return min(LAST_BUCKET, int(math.log2(microseconds) * BUCKETS_A_DOUBLING))


def upper_bound(number: int) -> float:
    """Seconds below which the durations of a bucket are."""
    return float(2.0 ** ((number + 1) / BUCKETS_A_DOUBLING) / 1_000_000)


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """The duration in seconds that `share` of those counted don't exceed, within 10 %; None where none is.

    `counts` are those of buckets. Add two histograms up by adding their counts.

    >>> percentile({bucket(0.1): 99, bucket(5): 1}, 0.5)
    0.101
    """
    left = share * sum(counts.values())
    for number in sorted(counts):
        left -= counts[number]
        if left <= 0 and counts[number] > 0:
            middle = 2.0 ** ((number + 0.5) / BUCKETS_A_DOUBLING) / 1_000_000
            return float(f"{middle:.3g}")
    return None


def merged(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """The counts of all of them together."""
    sums: dict[int, int] = {}
    for counts in histograms:
        for number, count in counts.items():
            sums[number] = sums.get(number, 0) + count
    return sums
