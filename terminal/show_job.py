"""Jobs for a person: all that is known of one, and the words in which lists say which job a line is about."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec
from rich.text import Text

from packmule.jobs import registry, wire
from packmule.jobs.masking import masked_job, masked_result
from packmule.jobs.reader import JobInfo
from packmule.plain_text import one_line, plain
from packmule.terminal import show
from packmule.terminal.say import program
from packmule.units import given_span, span

STYLES = {
    "finished": "green",
    "failed": "red",
    "stopped": "red",
    "started": "cyan",
    "scheduled": "yellow",
    "deferred": "yellow",
}

LONGEST_VALUE = 40
"""Characters of an argument in a list."""

LONGEST_CALL = 200
"""Characters of a call in a list."""

LONGEST_NAME = 32
"""Characters of a function's name in a list, beyond which its last part is enough."""


def job(
    info: JobInfo,
    traceback: bool = False,
    waits_for: str | None = None,
    logged: int = 0,
    last: Iterable[str] = (),
    due: float | None = None,
) -> None:
    """Print all that is known of a job and what it `waits_for`; its whole `traceback` only if asked for.

    It has `logged` so many lines, of which the `last` are shown. `due` is when it runs, if that is known.
    """
    args, kwargs = masked_job(info)
    arguments = f"unknown: {info.unread}" if info.unread else show.json_text(kwargs) if kwargs else None
    show.facts(
        {
            "job": info.id,
            "status": status(info.status),
            "calls": info.name,
            "arguments": arguments,
            "positional": show.json_text(args) if args else None,
            "description": info.description if info.description != info.name else None,
            "queue": info.queue,
            "priority": info.priority or None,
            "created": show.moment(info.created_at),
            "enqueued": show.moment(info.enqueued_at),
            "next attempt" if info.attempts else "due": show.moment(due),
            "waits for": waits_for,
            "started": show.moment(info.started_at),
            "ended": show.moment(info.ended_at),
            "took": span(seconds) if (seconds := took(info)) is not None else None,
            "worker": info.worker,
            "timeout": _timeout(info),
            "retried": f"{info.attempts} time{'s' if info.attempts > 1 else ''}" if info.attempts else None,
            "deaths of its process": info.deaths or None,
            "last crash": _crash(info),
            "retries left": info.retries_left or None,
            "progress": progress(info),
            "log": f"{logged:,} line{'s' if logged > 1 else ''}" if logged else None,
            "last lines": show.lines(text) if (text := "\n".join(last)) else None,
            "result": show.lines(show.pretty_json(masked_result(info))) if info.result is not None else None,
            "error": show.lines(info.error.strip()) if info.error and traceback else info.reason,
            "similar jobs": f"{program()} errors show {info.fingerprint}" if info.fingerprint else None,
        }
    )


def result(info: JobInfo) -> None:
    """Print a finished job's result alone, as JSON; nothing for None."""
    if info.result is not None:
        show.as_pretty_json(info.result)


def status(name: str) -> Text:
    """A status in its colour."""
    return Text(plain(name), STYLES.get(name, ""))


def progress(info: JobInfo) -> str | None:
    """`40 % resizing`, as far as the job has reported it."""
    if info.progress is None:
        return None
    percent = info.progress.percent
    amount = f"{info.progress.done:g}" if percent is None else f"{percent:.0f} %"
    return f"{amount} {info.progress.message}".strip()


def took(info: JobInfo) -> float | None:
    """For how many seconds the job's last attempt ran, or runs so far; None if that isn't known."""
    try:
        began, ended = wire.time_seconds(info.started_at or ""), wire.time_seconds(info.ended_at or "")
    except (ValueError, OverflowError):
        return None
    if info.status == "started":
        ended = time.time()
    return max(0.0, ended - began) if began and ended and info.status in ("started", *wire.ENDED) else None


def pace(info: JobInfo) -> str:
    """How long the job took, or how far it is while it runs: `3.4 s`, `40 %`, `12 s`."""
    percent = info.progress.percent if info.progress and info.status == "started" else None
    return span(took(info)) if percent is None else f"{percent:.0f} %"


def called(info: JobInfo) -> str:
    """Which call a line is about: `shop.report month=2026-11`, secrets masked.

    A terminal has the end of a long name. Positional arguments of a function that isn't registered here are
    left out: nobody knows which of them are secrets.
    """
    name = info.name if not show.out.is_terminal else _short(info.name)
    args, kwargs = masked_job(info)
    if args and info.name not in registry.names():
        args = ["…"]
    said = [*map(_value, args), *(f"{each}={_value(value)}" for each, value in kwargs.items())]
    return one_line(" ".join([name, *said]), LONGEST_CALL)


def about(id: str, info: JobInfo | None) -> str:
    """Which job this is, as far as it was found: `2a9f03b1… shop.report month=2026-11`."""
    shown = show.short_ids([id])[id] if show.out.is_terminal else id
    return f"{shown} {called(info)}" if info else shown


def _short(name: str) -> str:
    if name in registry.READY:
        return name.rpartition(".")[2]
    return name if len(name) <= LONGEST_NAME else name.rpartition(".")[2]


def _value(value: Any) -> str:
    text = value if isinstance(value, str) and value else msgspec.json.encode(value).decode()
    shown = one_line(text[: 4 * LONGEST_VALUE], LONGEST_VALUE + 1)
    if len(shown) <= LONGEST_VALUE:
        return shown
    is_path = "/" in text and " " not in text  # whose end says more
    return (
        f"…{one_line(text[1 - LONGEST_VALUE :], LONGEST_VALUE)}" if is_path else f"{shown[:LONGEST_VALUE]}…"
    )


def _timeout(info: JobInfo) -> str | None:
    seconds = wire.number(info.timeout)
    return info.timeout if seconds is None else given_span(seconds)


def _crash(info: JobInfo) -> str | None:
    if info.crash is None:
        return None
    memory = info.crash.get("peak_memory", 0) / 2**20
    at, worker, host = (info.crash.get(name) for name in ("at", "worker", "host"))
    return f"{info.crash.get('cause')}; peak memory {memory:.0f} MiB; {at}, worker {worker} on {host}"
