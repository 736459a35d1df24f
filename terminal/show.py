"""Tables, facts and JSON: what a command has found, for a person and for a program."""

from __future__ import annotations

import re
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from packmule.plain_text import plain, plain_json, plain_lines

WIDE = 500
"""Columns where the output is no terminal: nothing is folded in a pipe."""

NARROW = 120
"""Columns of tables that hold sentences, which are folded at words even in a pipe."""

LINE = 80
"""Columns within which a list or an object of JSON is kept on a line."""

DEEPEST = 40
"""Columns by which JSON is indented at most."""

CUT = 12
"""Columns that a text keeps at least before a table becomes wider than its terminal."""

SHORT = 8
"""Characters that are shown of an id at least."""

AGES = ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600))

# Text is never taken for rich's markup: what a job wrote may look like it.
out = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)


def as_json(value: Any) -> None:
    """Print `value` as one line of JSON."""
    print(json_text(value))


def as_pretty_json(value: Any) -> None:
    """Print `value` as JSON in lines that a person reads."""
    print(pretty_json(value))


class _Table(Table):
    """A table whose lines end with their last text, where rich's are filled up with blanks."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        filled = cast(Iterable[Segment], super().__rich_console__(console, options))
        for line in Segment.split_lines(filled):
            while line and not line[-1].text.strip(" "):
                line.pop()
            if line:
                text, style, control = line.pop()
                line.append(Segment(text.rstrip(" "), style, control))
            yield from line
            yield Segment.line()


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    empty: str,
    widest: int = WIDE,
    cut: str | None = None,
    shorten: str | None = None,
    ids: str | None = None,
) -> None:
    """Print rows under their columns, or the line `empty` if there are none.

    Where the terminal is too narrow, the ids in the column `ids` are shortened to what tells them apart; then
    the column `cut` loses the beginnings of its texts, or the column `shorten` their ends; then texts are
    folded at words.
    """
    if rows:
        out.print(grid(columns, rows, min(out.width, widest), cut, shorten, ids))
    else:
        out.print(plain(empty))


def grid(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    width: int,
    cut: str | None = None,
    shorten: str | None = None,
    ids: str | None = None,
) -> Table:
    """A table that fits into `width` columns, with figures at the right; see `table`."""
    cells = [[_text(cell) for cell in row] for row in rows]
    whole, words = _widths(columns, cells, (cut, shorten))
    if ids in columns and sum(whole) + 2 * (len(columns) - 1) > width:
        position = columns.index(ids)
        short = short_ids(row[position].plain for row in cells)
        for row in cells:
            row[position] = Text(short[row[position].plain], row[position].style)
        whole, words = _widths(columns, cells, (cut, shorten))
    gap = 2 if sum(whole) + 2 * (len(columns) - 1) <= width else 1
    widths = _fitted(whole, words, width - gap * (len(columns) - 1))
    made = _Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for position, column in enumerate(columns):
        is_figure = position > 0 and all(_is_figure(row[position]) for row in rows)
        justify = "right" if is_figure else "left"
        made.add_column(column, width=widths[position], overflow="fold", justify=justify)  # type: ignore[arg-type]
    for row in cells:
        made.add_row(
            *(
                _last(cell, width) if column == cut else _first(cell, width) if column == shorten else cell
                for column, width, cell in zip(columns, widths, row, strict=True)
            )
        )
    return made


def _widths(
    columns: Sequence[str], cells: Sequence[Sequence[Text]], cut: Sequence[str | None]
) -> tuple[list[int], list[int]]:
    """The widths of whole columns, and of their longest words; those of `cut` ones need be no longer."""
    whole, words = [], []
    for position, column in enumerate(columns):
        texts = [column, *(row[position].plain for row in cells)]
        whole.append(max(cell_len(line) for text in texts for line in text.splitlines() or [""]))
        words.append(max(cell_len(word) for text in texts for word in text.split() or [""]))
        if column in cut:
            words[-1] = min(words[-1], CUT)
    return whole, words


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """What is shown of each id: its beginning, long enough to tell it from the others; short ones are whole.

    >>> short_ids(["2a9f03b1c4d5", "2a9f03b1c4e6", "17cc5e60a1b2", "nightly-7"])["17cc5e60a1b2"]
    '17cc5e60…'
    """
    ordered = sorted({*ids})
    found = {}
    for before, id, after in zip(["", *ordered], ordered, [*ordered[1:], ""], strict=False):
        most = max(SHORT, _shared(id, before) + 1, _shared(id, after) + 1)
        found[id] = id if len(id) <= most + 1 else f"{id[:most]}…"
    return found


def _shared(one: str, other: str) -> int:
    """With how many equal characters two texts begin."""
    places = range(min(len(one), len(other)))
    return next((place for place in places if one[place] != other[place]), len(places))


def _fitted(whole: Sequence[int], words: Sequence[int], room: int) -> list[int]:
    """Widths of columns that sum to `room` at most: whole, else as `words` need them, else as CUT allows."""
    widths = list(whole)
    for floor in (words, [min(each, CUT) for each in words]):
        while sum(widths) > room:
            slack = [width - least for width, least in zip(widths, floor, strict=True)]
            if max(slack) <= 0:
                break
            widths[slack.index(max(slack))] -= 1
    return widths


def _first(text: Text, width: int) -> Text:
    return text if len(text.plain) <= width else Text(text.plain[: width - 1] + "…", text.style)


def _last(text: Text, width: int) -> Text:
    return text if len(text.plain) <= width else Text("…" + text.plain[1 - width :], text.style)


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) or re.fullmatch(r"-|[\d.,]+( [a-z%]+)?", str(value)) is not None


def wrapped(text: str, indent: str = "") -> None:
    """Print one paragraph, folded at words with the other lines indented."""
    out.print(textwrap.fill(plain(text), out.width, subsequent_indent=indent, break_on_hyphens=False))


def facts(pairs: Mapping[str, Any]) -> None:
    """Print names and values in two columns; what is unknown or empty is left out."""
    grid = _Table(box=None, pad_edge=False, show_header=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        if value not in (None, "", [], ()):
            grid.add_row(name, _text(value))
    out.print(grid)


def ago(at: str | float | None) -> str:
    """A time as a person reads it, by its distance from now: `5 min ago`, `in 3 h`; `exact` in a pipe.

    Text is ISO 8601; other text stays as it is.
    """
    if at is None:
        return "-"
    return distance(at) if out.is_terminal else exact(at)


def moment(at: str | float | None) -> str | None:
    """A time by this machine's clock, and its distance from now: `2026-12-01 08:00:00, 5 min ago`.

    It is `exact` in a pipe.
    """
    if at is None:
        return None
    if not out.is_terminal:
        return exact(at)
    found = _instant(at)
    return f"{found.astimezone():%Y-%m-%d %H:%M:%S}, {distance(at)}" if found else str(at)


def distance(at: str | float) -> str:
    """How far a time is from now: `5 min ago`, `in 3 h`."""
    found = _instant(at)
    if found is None:
        return str(at)
    seconds = time.time() - found.timestamp()
    return f"{age(seconds)} ago" if seconds >= 0 else f"in {age(-seconds)}"


def age(seconds: float) -> str:
    """A long span in whole units: `5 min`."""
    unit, size = next(((unit, size) for bound, unit, size in AGES if seconds < bound), ("d", 86_400))
    return f"{seconds / size:.0f} {unit}"


def exact(at: str | float) -> str:
    """A time for a script, one word: `2026-12-01T07:00:00Z`."""
    found = _instant(at)
    return f"{found.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if found else str(at)


def _instant(at: str | float) -> datetime | None:
    try:
        found = datetime.fromisoformat(at) if isinstance(at, str) else datetime.fromtimestamp(at, UTC)
        return found.astimezone()
    except (ValueError, OverflowError, OSError):
        return None


def lines(text: str) -> Text:
    """A cell of several lines, for text that is shown beside its name: other text is one line."""
    return Text(plain_lines(text))


def json_text(value: Any) -> str:
    """`value` as JSON on one line."""
    return plain_json(msgspec.json.encode(value).decode())


def pretty_json(value: Any) -> str:
    """`value` as JSON in which a list or an object that fits into a line is on one."""
    return plain_json(_spread(value, "", 0))


def _spread(value: Any, indent: str, before: int) -> str:
    """`value` where each line begins with `indent`, and the first of them has `before` characters already."""
    line = msgspec.json.format(msgspec.json.encode(value), indent=0).decode()
    fits = len(indent) + before + len(line) < LINE
    if fits or len(indent) > DEEPEST or not value or not isinstance(value, dict | list):
        return line
    inner = f"{indent}  "
    if isinstance(value, dict):
        named = {f"{msgspec.json.encode(key).decode()}: ": each for key, each in value.items()}
        parts = [name + _spread(each, inner, len(name)) for name, each in named.items()]
    elif all(isinstance(each, int | float) for each in value):
        parts = textwrap.wrap(line[1:-1], LINE - len(inner))
        return f"[\n{inner}" + f"\n{inner}".join(parts) + f"\n{indent}]"
    else:
        parts = [_spread(each, inner, 0) for each in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{closing}"


def _text(value: Any) -> Text:
    if isinstance(value, Text):
        return value
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}")
    return Text(plain(value))
