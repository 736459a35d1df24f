"""What pages show of a job: its times, its call on one line, and only what the viewer may see."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from packmule.dashboard.rights import HIDDEN
from packmule.dashboard.typed_values import as_json
from packmule.dashboard.viewer import Viewer
from packmule.jobs import filter_text, masking, wire
from packmule.jobs.filter_text import InvalidWord
from packmule.jobs.job_filter import JobFilter
from packmule.jobs.reader import JobInfo, Progress
from packmule.observe.waits import of_steps

LONGEST_CALL = 120
"""Characters of a call's arguments in a row."""

LONGEST_REASON = 200


class Row(NamedTuple):
    """A job in a table; `text` says what is most worth knowing of it, "" if nothing may be shown."""

    id: str
    name: str
    status: str
    queue: str
    at: float | None
    seconds: float | None
    began: float | None
    progress: Progress | None
    waits: str | None
    text: str


def readable(text: str, viewer: Viewer, now: float | None = None) -> JobFilter:
    """The filter that `text` describes, if it says nothing of what the viewer may not see.

    Otherwise those who may not see arguments could guess them, and everybody could guess secrets. Raises
    `InvalidWord`.
    """
    for word in filter_text.words(text):
        if not word.field.startswith(filter_text.ARGUMENT):
            continue
        if not viewer.may_see_payloads:
            raise InvalidWord(f"{word.field} can't be searched: arguments are {HIDDEN}", word.start, word.end)
        if masking.SECRET.search(word.field.removeprefix(filter_text.ARGUMENT)):
            raise InvalidWord(f"{word.field} can't be searched: it is a secret", word.start, word.end)
    return filter_text.parse(text, now)


def row(info: JobInfo, viewer: Viewer) -> Row:
    """The row of a job, for this viewer.

    >>> row(info, viewer).text  # doctest: +SKIP
    'month="2026-11", copies=2'
    """
    began, ended = seconds(info.started_at), seconds(info.ended_at)
    at = (began if info.status == "started" else ended) or seconds(info.created_at)
    ran = max(0.0, ended - began) if began and ended and info.has_ended else None
    is_running = info.status == "started"
    if info.status in ("failed", "stopped") and info.reason:
        text = info.reason if viewer.may_see_payloads else info.error_type or ""
        text = text[:LONGEST_REASON]
    else:
        text = (info.unread or call_text(info)) if viewer.may_see_payloads else ""
    return Row(
        info.id,
        info.name,
        info.status,
        info.queue,
        at,
        ran,
        began if is_running else None,
        _progress(info, viewer) if is_running else None,
        of_steps(info),
        text,
    )


def _progress(info: JobInfo, viewer: Viewer) -> Progress | None:
    found = info.progress
    return found and replace(found, message=found.message if viewer.may_see_payloads else "")


def call_text(info: JobInfo) -> str:
    """The arguments of a job on one line, secrets masked: `"2026-11", copies=2`."""
    args, kwargs = masking.masked_job(info)
    parts: list[str] = []
    length = 0
    for name, value in [*(("", value) for value in args), *kwargs.items()]:
        if length > LONGEST_CALL:
            break
        parts.append(f"{name}={as_json(value)}" if name else as_json(value))
        length += len(parts[-1]) + 2
    shown = ", ".join(parts)
    return shown if len(shown) <= LONGEST_CALL else f"{shown[: LONGEST_CALL - 1]}…"


def seconds(text: str | None) -> float | None:
    """RQ's text of a time as Unix seconds; None if there is none, or it makes no sense."""
    try:
        return wire.time_seconds(text) if text else None
    except (ValueError, OverflowError):
        return None
