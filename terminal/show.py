"""Tables, facts and JSON: what a command has found, for a person and for a program."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from packmule.jobs.reader import JobInfo
from packmule.plain_text import plain, plain_json, plain_lines

STATUS_STYLES = {
    "finished": "green",
    "failed": "red",
    "stopped": "red",
    "started": "cyan",
    "scheduled": "yellow",
    "deferred": "yellow",
}

WIDE = 500
"""Columns where the output is no terminal: nothing is folded in a pipe."""

NARROW = 120
"""Columns of tables that hold sentences, which are folded at words even in a pipe."""

CUT = 12
"""Columns that a text keeps at least before a table becomes wider than its terminal."""

AGES = ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600))

# Text is never taken for rich's markup: what a job wrote may look like it.
out = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)


def as_json(value: Any) -> None:
    """Print `value` as one line of JSON."""
    print(_json(value))


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    empty: str,
    widest: int = WIDE,
    cut: str | None = None,
) -> None:
    """Print rows under their columns, or the line `empty` if there are none.

    Texts are folded at words where the terminal is too narrow, and first of all the column `cut` loses the
    beginnings of its texts.
    """
    if rows:
        out.print(grid(columns, rows, min(out.width, widest), cut))
    else:
        out.print(plain(empty))


def grid(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int, cut: str | None = None) -> Table:
    """A table that fits into `width` columns, with figures at the right; see `table`."""
    cells = [[_text(cell) for cell in row] for row in rows]
    whole, words = [], []
    for position, column in enumerate(columns):
        texts = [column, *(row[position].plain for row in cells)]
        whole.append(max(cell_len(line) for text in texts for line in text.splitlines() or [""]))
        words.append(max(cell_len(word) for text in texts for word in text.split() or [""]))
        if column == cut:
            words[-1] = min(words[-1], CUT)
    gap = 2 if sum(whole) + 2 * (len(columns) - 1) <= width else 1
    widths = _fitted(whole, words, width - gap * (len(columns) - 1))
    made = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for position, column in enumerate(columns):
        is_figure = position > 0 and all(_is_figure(row[position]) for row in rows)
        justify = "right" if is_figure else "left"
        made.add_column(column, width=widths[position], overflow="fold", justify=justify)  # type: ignore[arg-type]
    for row in cells:
        made.add_row(
            *(
                _last(cell, widths[position]) if columns[position] == cut else cell
                for position, cell in enumerate(row)
            )
        )
    return made


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


def _last(text: Text, width: int) -> Text:
    return text if len(text.plain) <= width else Text("…" + text.plain[1 - width :], text.style)


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) or re.fullmatch(r"-|[\d.,]+( [a-z%]+)?", str(value)) is not None


def facts(pairs: Mapping[str, Any]) -> None:
    """Print names and values in two columns; what is unknown or empty is left out."""
    grid = Table(box=None, pad_edge=False, show_header=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        if value not in (None, "", [], ()):
            grid.add_row(name, _text(value))
    out.print(grid)


def ago(at: str | float | None) -> str:
    """A time as its distance from now: `5 min ago`, `in 3 h`. Text is ISO 8601; other text stays as it is."""
    if at is None:
        return "-"
    try:
        seconds = time.time() - (datetime.fromisoformat(at).timestamp() if isinstance(at, str) else at)
    except (ValueError, OverflowError):
        return str(at)
    distance = abs(seconds)
    unit, size = next(((unit, size) for bound, unit, size in AGES if distance < bound), ("d", 86_400))
    return f"{distance / size:.0f} {unit} ago" if seconds >= 0 else f"in {distance / size:.0f} {unit}"


def moment(at: str | float | None) -> str | None:
    """A time by this machine's clock, and its distance from now: `2026-12-01 08:00:00, 5 min ago`."""
    if at is None:
        return None
    try:
        found = datetime.fromisoformat(at) if isinstance(at, str) else datetime.fromtimestamp(at).astimezone()
        return f"{found.astimezone():%Y-%m-%d %H:%M:%S}, {ago(at)}"
    except (ValueError, OverflowError, OSError):
        return str(at)


def job(
    info: JobInfo,
    traceback: bool = False,
    waits_for: str | None = None,
    logged: int = 0,
    last: Iterable[str] = (),
) -> None:
    """Print all that is known of a job and what it `waits_for`; its whole `traceback` only if asked for.

    It has `logged` so many lines, of which the `last` are shown.
    """
    facts(
        {
            "job": info.id,
            "status": status(info.status),
            "calls": info.name,
            "arguments": _arguments(info),
            "positional": _json(info.args) if info.args else None,
            "description": info.description if info.description != info.name else None,
            "queue": info.queue,
            "priority": info.priority or None,
            "created": moment(info.created_at),
            "enqueued": moment(info.enqueued_at),
            "waits for": waits_for,
            "started": moment(info.started_at),
            "ended": moment(info.ended_at),
            "worker": info.worker,
            "timeout": f"{info.timeout} s" if info.timeout else None,
            "failed attempts": info.attempts or None,
            "deaths of its process": info.deaths or None,
            "last crash": _crash(info),
            "retries left": info.retries_left or None,
            "progress": progress(info),
            "log": f"{logged:,} line{'s' if logged > 1 else ''}" if logged else None,
            "last lines": lines(text) if (text := "\n".join(last)) else None,
            "result": lines(_pretty(info.result)) if info.result is not None else None,
            "error": lines(info.error.strip()) if info.error and traceback else info.reason,
            "others like it": f"packmule errors show {info.fingerprint}" if info.fingerprint else None,
        }
    )


def _arguments(info: JobInfo) -> str | None:
    if info.unread:
        return f"unknown: {info.unread}"
    return _json(info.kwargs) if info.kwargs else None


def _crash(info: JobInfo) -> str | None:
    if info.crash is None:
        return None
    memory = info.crash.get("peak_memory", 0) / 2**20
    at, worker, host = (info.crash.get(name) for name in ("at", "worker", "host"))
    return f"{info.crash.get('cause')}; peak memory {memory:.0f} MiB; {at}, worker {worker} on {host}"


def result(info: JobInfo) -> None:
    """Print a finished job's result alone, as JSON; nothing for None."""
    if info.result is not None:
        print(_pretty(info.result))


def lines(text: str) -> Text:
    """A cell of several lines, for text that is shown beside its name: other text is one line."""
    return Text(plain_lines(text))


def _json(value: Any) -> str:
    return plain_json(msgspec.json.encode(value).decode())


def _pretty(value: Any) -> str:
    return plain_json(msgspec.json.format(msgspec.json.encode(value)).decode())


def status(name: str) -> Text:
    """A status in its colour."""
    return Text(plain(name), STATUS_STYLES.get(name, ""))


def progress(info: JobInfo) -> str | None:
    """`40 % resizing`, as far as the job has reported it."""
    if info.progress is None:
        return None
    percent = info.progress.percent
    amount = f"{info.progress.done:g}" if percent is None else f"{percent:.0f} %"
    return f"{amount} {info.progress.message}".strip()


def _text(value: Any) -> Text:
    if isinstance(value, Text):
        return value
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}")
    return Text(plain(value))
