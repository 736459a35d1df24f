"""Charts: the numbers of a bar, a sparkline or a column chart as coordinates of SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH = 1000
LEAST = 8
"""Of a bar's thousand parts, those that even the smallest segment gets."""

GAP = 3
TALL = 24


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of a bar, in thousandths of its width."""

    name: str
    count: int
    x: float
    width: float


def segments(counts: Mapping[str, int]) -> list[Segment]:
    """The segments of a bar; a count above zero is always visible.

    >>> [(each.name, round(each.width)) for each in segments({"queued": 3, "failed": 1, "started": 0})]
    [('queued', 748), ('failed', 249)]
    """
    shown = [(name, count) for name, count in counts.items() if count > 0]
    total = sum(count for _, count in shown)
    room = WIDTH - GAP * (len(shown) - 1)
    small = {name for name, count in shown if count * room < LEAST * total}
    rest = sum(count for name, count in shown if name not in small) or 1
    found, x = list[Segment](), 0.0
    for name, count in shown:
        width = LEAST if name in small else count / rest * (room - LEAST * len(small))
        found.append(Segment(name, count, round(x, 1), round(width, 1)))
        x += width + GAP
    return found


def spark(values: Sequence[float | None]) -> str:
    """A sparkline's path in a box of a width of one less than the values, and a height of `TALL`.

    It is closed outside of the box, so that one path has a line and the area under it.

    >>> spark([0, 2, 1])
    'M-1 27v-4l1 0 1-22 1 11 1 0v15z'
    """
    heights = [_finite(value) for value in values]
    if not heights:
        return ""
    most = max(heights) or 1.0
    ys = [round(1 + (TALL - 2) * (1 - height / most)) for height in heights]
    steps = [ys[0] - ys[0], *(y - before for before, y in pairwise(ys)), 0]
    below = TALL + 3
    moves = " ".join(f"1 {step}" if step >= 0 else f"1{step}" for step in steps)
    return f"M-1 {below}v{ys[0] - below}l{moves}v{below - ys[-1]}z"


def columns(
    values: Sequence[float | None], width: int, height: int
) -> list[tuple[float, float, float, float]]:
    """The rectangles of a column chart: x, y, width and height of each."""
    known = [_finite(value) for value in values]
    most, step = max(known, default=0.0) or 1.0, width / max(1, len(known))
    found = []
    for number, value in enumerate(known):
        tall = max(value / most * height, 0.75 if value else 0.0)
        found.append((round(number * step, 2), round(height - tall, 2), round(step * 0.8, 2), round(tall, 2)))
    return found


def _finite(value: float | None) -> float:
    return max(0.0, float(value)) if value is not None and math.isfinite(value) else 0.0


FILTERS = {"columns": columns, "segments": segments, "spark": spark}
