"""Mergeable histograms of durations, in growing buckets: percentiles are accurate to 10 %."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

BUCKETS_A_DOUBLING = 4
LAST_BUCKET = 44 * BUCKETS_A_DOUBLING
"""More than half a year in microseconds; longer durations count in it too."""


def bucket(seconds: float) -> int:
    """The bucket of a duration: 0 for up to a microsecond, four more for each doubling.

    >>> bucket(0.000_001), bucket(0.001), bucket(60)
    (0, 39, 103)
    """
    microseconds = max(1.0, seconds * 1_000_000)
    return min(LAST_BUCKET, int(math.log2(microseconds) * BUCKETS_A_DOUBLING))


def upper_bound(number: int) -> float:
    """The upper end of a bucket, in seconds."""
    return float(2.0 ** ((number + 1) / BUCKETS_A_DOUBLING) / 1_000_000)


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """The duration in seconds that a `share` of all doesn't exceed, to 10 %; None if there are none.

    `counts` maps buckets to counts. Add two histograms by adding their counts.

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
    """The sum of the histograms."""
    sums: dict[int, int] = {}
    for counts in histograms:
        for number, count in counts.items():
            sums[number] = sums.get(number, 0) + count
    return sums
