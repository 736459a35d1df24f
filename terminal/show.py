"""Tables and JSON: the same facts for a person and for a program."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from packmule.jobs.reader import JobInfo

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

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What would forge lines or steer a terminal, were it printed as a job gave it."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True, highlight=False)


def as_json(value: Any) -> None:
    """Print `value` as one line of JSON."""
    print(msgspec.json.encode(value).decode())


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str, widest: int = WIDE) -> None:
    """Print rows under their columns, or the line `empty` where there is none."""
    if not rows:
        out.print(empty, markup=False)
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for position, column in enumerate(columns):
        grid.add_column(column, overflow="fold", no_wrap=position == 0)
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, str) else str(cell) for cell in map(_cell, row)))
    out.print(grid, width=min(out.width, widest))


def facts(pairs: Mapping[str, Any]) -> None:
    """Print names and values in two columns; what is unknown or empty is left out."""
    grid = Table(box=None, pad_edge=False, show_header=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        if value not in (None, "", [], ()):
            grid.add_row(name, _cell(value))
    out.print(grid)


def job(info: JobInfo, traceback: bool = False, waits_for: str | None = None) -> None:
    """Print all that is known of a job and what it `waits_for`; its whole `traceback` only if asked for."""
    facts(
        {
            "job": info.id,
            "status": status(info.status),
            "calls": info.name,
            "arguments": msgspec.json.encode(info.kwargs).decode() if info.kwargs else None,
            "positional": msgspec.json.encode(info.args).decode() if info.args else None,
            "description": info.description if info.description != info.name else None,
            "queue": info.queue,
            "created": info.created_at,
            "enqueued": info.enqueued_at,
            "waits for": waits_for,
            "started": info.started_at,
            "ended": info.ended_at,
            "worker": info.worker,
            "timeout": f"{info.timeout} s" if info.timeout else None,
            "failed attempts": info.attempts or None,
            "deaths of its process": info.deaths or None,
            "last crash": _crash(info),
            "retries left": info.retries_left or None,
            "progress": progress(info),
            "result": msgspec.json.format(msgspec.json.encode(info.result)).decode()
            if info.result is not None
            else None,
            "error": info.error.strip() if info.error and traceback else info.reason,
        }
    )


def _crash(info: JobInfo) -> str | None:
    if info.crash is None:
        return None
    memory = info.crash.get("peak_memory", 0) / 2**20
    at, worker, host = (info.crash.get(name) for name in ("at", "worker", "host"))
    return f"{info.crash.get('cause')}; peak memory {memory:.0f} MiB; {at}, worker {worker} on {host}"


def result(info: JobInfo) -> None:
    """Print a finished job's result alone, as JSON; nothing for None."""
    if info.result is not None:
        print(msgspec.json.format(msgspec.json.encode(info.result)).decode())


def status(name: str) -> str:
    """A status in its colour."""
    style = STATUS_STYLES.get(name)
    return f"[{style}]{name}[/]" if style else name


def progress(info: JobInfo) -> str | None:
    """`40 % resizing`, as far as the job has told."""
    if info.progress is None:
        return None
    percent = info.progress.percent
    amount = f"{info.progress.done:g}" if percent is None else f"{percent:.0f} %"
    return f"{amount} {info.progress.message}".strip()


def plain(text: str) -> str:
    """`text` with its control characters written out."""
    return _CONTROLS.sub(_shown, text)


def _shown(control: re.Match[str]) -> str:
    return f"\\x{ord(control[0]):02x}"


def _cell(value: Any) -> str:
    """Text from outside must not be taken for colours; a status is ours."""
    text = str(value)
    if text.startswith("[") and text.endswith("[/]"):
        return text
    return text.replace("[", r"\[")
