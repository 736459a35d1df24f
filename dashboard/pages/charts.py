"""Charts: the numbers of a bar, a sparkline or a column chart as coordinates of SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH = 1000
LEAST = 8
"""Of a bar's thousand parts, those that even the smallest segment gets."""

GAP = 3


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


def line(values: Sequence[float | None], width: int, height: int) -> str:
    """A sparkline's path, from the left to the right; the highest value touches the top.

    >>> line([0, 2, 1], 100, 10)
    'M0 9.5L50 0.5L100 5'
    """
    points = _points(values, width, height)
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) if points else ""


def area(values: Sequence[float | None], width: int, height: int) -> str:
    """The closed path under a sparkline."""
    path = line(values, width, height)
    return f"{path}L{width} {height}L0 {height}Z" if path else ""


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


def _points(values: Sequence[float | None], width: int, height: int) -> list[tuple[float, float]]:
    known = [_finite(value) for value in values]
    if not known:
        return []
    most, step, room = max(known) or 1.0, width / max(1, len(known) - 1), height - 1
    return [
        (round(number * step, 1), round(0.5 + room * (1 - value / most), 1))
        for number, value in enumerate(known)
    ]


def _finite(value: float | None) -> float:
    return max(0.0, float(value)) if value is not None and math.isfinite(value) else 0.0


FILTERS = {"area": area, "columns": columns, "line": line, "segments": segments}
