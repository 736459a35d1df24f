"""Spans of time as jobs' authors give them: seconds, a `timedelta`, or a text such as `"5m"`."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, TypeAlias

import msgspec

from packmule.errors import UsageError
from packmule.units import CENTURY, duration

Span: TypeAlias = float | timedelta | str
"""Seconds, a `timedelta`, or a text: `"90s"`, `"5m"`, `"1h30m"`, `"2d"`; ISO 8601's `"PT5M"`, too."""

LONGEST_SPAN = float(CENTURY)
"""Seconds, a hundred years: far beyond, Redis refuses to expire a key and RQ to show a date."""


class UnfitSpan(UsageError, ValueError):
    """What is given for a span of time is none."""


def in_seconds(span: Span, name: str = "") -> float:
    """A span in seconds. Raises `UnfitSpan`, with the `name` of what it is given for.

    >>> in_seconds("1h30m"), in_seconds(timedelta(minutes=5)), in_seconds(2)
    (5400.0, 300.0, 2.0)
    """
    what = f"{name}=" if name else ""
    if isinstance(span, timedelta):
        return span.total_seconds()
    if isinstance(span, str):
        try:
            return duration(span) if span[:1] not in ("P", "-") else _iso(span)
        except (ValueError, msgspec.ValidationError):
            raise UnfitSpan(
                f"{what}{span!r:.100}: give seconds, a timedelta, or a text such as '90s', '5m' or '1h30m'"
            ) from None
    if isinstance(span, bool) or not isinstance(span, int | float) or math.isnan(span):
        raise UnfitSpan(f"{what}{span!r:.100}: give seconds, a timedelta, or a text such as '5m'")
    return float(span)


def _iso(text: str) -> float:
    found: Any = msgspec.convert(text, timedelta)
    return float(found.total_seconds())
