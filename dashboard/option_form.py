"""The options of a new job in a form: when it runs, where, and how often."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from packmule import units
from packmule.jobs.options import MOST_PRIORITY, MOST_RETRIES, InvalidOption, Options

PREFIX = "option:"


class Option(NamedTuple):
    """An option's field: what it holds, what it takes, and what is wrong with it."""

    name: str
    label: str
    text: str
    hint: str
    fault: str = ""


class Read(NamedTuple):
    """The options that were typed, None if one is wrong; the fields; and what is wrong with the whole."""

    options: Options | None
    fields: list[Option]
    fault: str = ""


def fields(given: Mapping[str, str], faults: Mapping[str, str] | None = None) -> list[Option]:
    """The fields with what was typed."""
    faults = faults or {}
    return [
        Option(name, label, given.get(PREFIX + name, ""), hint, faults.get(name, ""))
        for name, (label, hint, _) in _OPTIONS.items()
    ]


def read(given: Mapping[str, str], queues: Sequence[str], **more: Any) -> Read:
    """The options in a form; `more` are others that it doesn't name.

    >>> read({"option:delay": "5m"}, ["default"]).options.delay  # doctest: +SKIP
    300.0
    """
    values: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for name, (_, _, parse) in _OPTIONS.items():
        text = given.get(PREFIX + name, "").strip()
        if text:
            try:
                values[name] = parse(text)
            except (ValueError, OverflowError) as error:
                faults[name] = f"{error}"
    if "queue" in values and values["queue"] not in queues:
        faults["queue"] = f"no queue is called that: there are {', '.join(queues)}"
    if faults:
        return Read(None, fields(given, faults))
    try:
        return Read(Options(**values, **more), fields(given))
    except InvalidOption as error:
        return Read(None, fields(given), f"{error}")


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("not a time: write 2026-12-01T08:00, in UTC unless it names a zone") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = most + 1
        if not least <= value <= most:
            raise ValueError(f"not a whole number from {least:,} to {most:,}")
        return value

    return parse


def _yes(text: str) -> bool:
    return text == "yes"


_OPTIONS: Mapping[str, tuple[str, str, Callable[[str], Any]]] = {
    "queue": ("Queue", "the job's own if empty", str),
    "delay": ("Run it in", "90s, 5m, 1h30m; at once if empty", units.duration),
    "at": ("Or at", "2026-12-01T08:00, in UTC unless it names a zone", _time),
    "priority": ("Priority", "-100 to 100", _whole(-MOST_PRIORITY, MOST_PRIORITY)),
    "retries": ("Retries", "how many times it is retried if it fails", _whole(0, MOST_RETRIES)),
    "timeout": ("Timeout", "90s, 5m", units.duration),
    "description": ("Description", "shown with the job", str),
    "unique": ("Only if no equal job is pending", "", _yes),
    "at_front": ("At the front of its queue", "", _yes),
}
