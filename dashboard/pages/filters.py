"""Filters: values as people read them, for templates."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from markupsafe import Markup

from packmule.jobs import wire
from packmule.observe import tracebacks
from packmule.plain_text import plain, plain_json, plain_lines
from packmule.units import span

WORDS = {"queued": "waiting", "started": "running"}
"""Statuses that have another word for people."""

NO_TIME = Markup('<span class="none">-</span>')

MOST_KEPT = 2048
"""Times and statuses that are kept as pages show them."""

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


def time_tag(at: object, form: str) -> Markup:
    """An instant as `<time>`, which the script shows in that form; "-" for none.

    >>> time_tag(0, "ago")[:57]
    Markup('<time datetime="1970-01-01T00:00:00.000Z" data-form="ago"')
    """
    found = seconds(at)
    return NO_TIME if found is None else _time_tag(found, form)


@lru_cache(MOST_KEPT)
def _time_tag(at: float, form: str) -> Markup:
    tag = Markup('<time datetime="{0}" data-form="{1}" title="{0}">{2}</time>')
    return tag.format(iso(at), form, utc(at))


@lru_cache(MOST_KEPT)
def status_tag(name: str, count: int | None, text: str | None) -> Markup:
    """A status by colour, shape and word, with a count in front of it if there is one.

    >>> status_tag("queued", 1200, None)
    Markup('<span class="s s-queued"><strong>1,200</strong> waiting</span>')
    """
    before = Markup("<strong>{}</strong> ").format(number(count)) if count is not None else ""
    tag = Markup('<span class="s s-{}">{}{}</span>')
    return tag.format(short(name, 20).replace(" ", "-"), before, short(text or WORDS.get(name, name), 40))


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
    "status_tag": status_tag,
    "status_word": lambda name: WORDS.get(name, name),
    "time_tag": time_tag,
    "utc": utc,
}
