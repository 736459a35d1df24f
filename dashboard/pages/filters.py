"""Filters: values as people read them, for templates."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from packmule.jobs import wire
from packmule.observe import tracebacks
from packmule.plain_text import plain, plain_json, plain_lines
from packmule.units import span

MOST_TEXT = 20_000
"""Characters of one text that a page shows at most."""


def number(value: float | None) -> str:
    """A count with separators, a rate with as many digits as say something, "-" for None.

    >>> number(1234567), number(0.1234), number(12.34), number(None)
    ('1,234,567', '0.12', '12.3', '-')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, int) or value >= 100:  # noqa: PLR2004
        return f"{round(value):,}"
    text = f"{value:.1f}" if value >= 10 else f"{value:.2f}"  # noqa: PLR2004
    return text.rstrip("0").rstrip(".") if "." in text else text


def size(count: float | None) -> str:
    """Bytes as people say them: `size(1536) == "1.5 KiB"`, "-" for None."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:  # noqa: PLR2004
            return f"{number(round(count, 1) if unit != 'B' else int(count))} {unit}"
        count /= 1024
    return f"{number(round(count, 1))} TiB"


def seconds(at: object) -> float | None:
    """An instant as Unix seconds, from a number, a datetime or RQ's text; None if it is none of them."""
    if isinstance(at, datetime):
        return at.timestamp()
    try:
        found = wire.time_seconds(at) if isinstance(at, str) else float(at)  # type: ignore[arg-type]
        if found is not None:
            datetime.fromtimestamp(found, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return found


def iso(at: object) -> str:
    """An instant as `<time datetime>` has it; "" if it is none.

    >>> iso(0)
    '1970-01-01T00:00:00.000Z'
    """
    found = seconds(at)
    if found is None:
        return ""
    return datetime.fromtimestamp(found, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc(at: object) -> str:
    """An instant for people without JavaScript: `utc(0) == "1970-01-01 00:00:00 UTC"`, "-" for none."""
    found = seconds(at)
    return "-" if found is None else f"{datetime.fromtimestamp(found, UTC):%Y-%m-%d %H:%M:%S} UTC"


def percent(share: float | None) -> str:
    """A share of 1: `percent(0.125) == "12.5%"`."""
    return "-" if share is None else f"{number(round(100 * share, 1))}%"


def short(text: object, most: int = 60) -> str:
    """A text on one line, plain, its middle left out beyond `most` characters.

    >>> short("a" * 99, 5)
    'aa…aa'
    """
    shown = plain(text)
    half = (most - 1) // 2
    return shown if len(shown) <= most else f"{shown[:half]}…{shown[-half:]}"


def json_text(value: Any) -> str:
    """A value as indented JSON, plain, with integers exact; as its repr if JSON can't hold it."""
    try:
        return plain_json(json.dumps(value, indent=2, ensure_ascii=False, default=repr))
    except RecursionError:
        return "nested too deep"
    except (TypeError, ValueError):
        return plain(repr(value))


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a text that is shown or folded."""

    text: str
    is_folded: bool
    count: int


def parts(text: str, lines: int) -> list[Part]:
    """The first lines of a text, and the rest folded. What is beyond `MOST_TEXT` characters is left out."""
    kept = plain_lines(text[:MOST_TEXT])
    if len(text) > MOST_TEXT:
        kept += f"\n… {len(text) - MOST_TEXT:,} more characters"
    rows = kept.split("\n")
    found = [Part("\n".join(rows[:lines]), False, min(lines, len(rows)))]
    if len(rows) > lines:
        found.append(Part("\n".join(rows[lines:]), True, len(rows) - lines))
    return found


FILTERS = {
    "frames": tracebacks.parts,
    "iso": iso,
    "json_text": json_text,
    "number": number,
    "parts": parts,
    "percent": percent,
    "plain": plain,
    "plain_lines": plain_lines,
    "short": short,
    "size": size,
    "span": lambda seconds: span(seconds).replace(" us", " µs"),
    "utc": utc,
}
