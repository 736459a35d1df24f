"""Whether limits were kept: who began beside too many others, and who sooner than a rate allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from packmule.coordination.limits.rate import MICROSECONDS, Rate

Span = tuple[float, float, str, int]
"""When a job began and ended, its name, and what it cost."""


def crowded(spans: Iterable[Span], most: int) -> Iterator[str]:
    """The jobs that began beside others with which they cost more than `most`."""
    running: list[tuple[float, int]] = []
    taken = 0
    for began, ended, job, cost in sorted(spans):
        while running and running[0][0] <= began:
            taken -= heappop(running)[1]
        heappush(running, (ended, cost))
        taken += cost
        if taken > most:
            yield job


def hasty(begins: Iterable[tuple[float, str]], rate: Rate, late: float) -> Iterator[str]:
    """The jobs that began sooner than `rate` allows, though each may have begun up to `late` seconds late.

    In any span, a burst may begin and what the rate lets through in the span and the delay.
    """
    interval, burst = rate.interval_us / MICROSECONDS, rate.capacity_us / MICROSECONDS
    full_at = 0.0  # when the bucket is full again, if each job took its token as early as it may have
    for began, job in sorted(begins):
        full_at = max(full_at, began - late) + interval
        if full_at - began > burst:
            yield job
