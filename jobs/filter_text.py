"""A filter as people type it into a search box: `name:report status:failed since:2h args.month:2026-11`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, NamedTuple

from packmule import units
from packmule.errors import UsageError
from packmule.jobs.job_filter import STATUSES, JobFilter

FIELDS = ("name", "queue", "status", "error", "since", "until", "id", "fingerprint")
ARGUMENT = "args."
"""How the field of an argument begins: the argument's name, or its position from 0, follows."""

LONGEST, MOST_WORDS = 2_000, 30
"""Characters and words of a filter."""

_WORD = re.compile(r'(?:[^\s"]|"(?:[^"\\]|\\.)*(?:"|\\?\Z))+', re.DOTALL)
_WHOLE = re.compile(r'(?:[^\s"]|"(?:[^"\\]|\\.)*")+', re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_HEAD = re.compile(r'((?:[^":]|"(?:[^"\\]|\\.)*")*):', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ID = re.compile(r"[0-9a-f]{6,32}")


class InvalidWord(UsageError, ValueError):
    """A word of a filter can't be meant; `start` and `end` are its place in the text."""

    def __init__(self, text: str, start: int, end: int) -> None:
        super().__init__(text)
        self.start = start
        self.end = end


class Word(NamedTuple):
    """A word: `field` is one of `FIELDS`, or `args.` and a name; it stands from `start` to `end`."""

    field: str
    value: str
    start: int = 0
    end: int = 0

    def __str__(self) -> str:
        return word(self.field, self.value)


def parse(text: str, now: float | None = None) -> JobFilter:
    """The filter that `text` describes; spans such as `2h` end at `now`, and times without a zone are UTC.

    Raises `InvalidWord`.

    >>> parse("name:report status:failed args.month:2026-11").args
    {'month': '2026-11'}
    """
    now = time.time() if now is None else now
    given: dict[str, Any] = {}
    args: dict[str, str] = {}
    for each in words(text):
        name = each.field.removeprefix(ARGUMENT) if each.field.startswith(ARGUMENT) else None
        known = given if name is None else args
        if (each.field if name is None else name) in known:
            raise InvalidWord(f"{each.field} is given twice: keep one", each.start, each.end)
        if name is not None:
            args[name] = each.value
        else:
            try:
                given[each.field] = _READ.get(each.field, _text)(each.value, now)
            except ValueError as error:
                raise InvalidWord(f"{each.field}:{each.value:.60}: {error}", each.start, each.end) from None
    return JobFilter(**given, args=args)


def words(text: str) -> list[Word]:
    """The words of `text` with their places. A bare one is the beginning of an id, or else a function's name.

    Raises `InvalidWord`.

    >>> words("report queue:low")
    [Word(field='name', value='report', start=0, end=6), Word(field='queue', value='low', start=7, end=16)]
    """
    if len(text) > LONGEST:
        raise InvalidWord(f"a filter has at most {LONGEST:,} characters", LONGEST, len(text))
    found = [_word(each[0], *each.span()) for each in _WORD.finditer(text)]
    if len(found) > MOST_WORDS:
        raise InvalidWord(f"a filter has at most {MOST_WORDS} words", found[MOST_WORDS].start, len(text))
    return found


def word(field: str, value: str) -> str:
    """One word, quoted if it has to be: `word("name", "a b") == 'name:"a b"'`."""
    name = field if re.fullmatch(r'[^\s":]+', field) else f'"{_escaped(field)}"'
    shown = value if re.fullmatch(r'[^\s"]+', value) else f'"{_escaped(value)}"'
    return f"{name}:{shown}"


def joined(found: Sequence[Word]) -> str:
    """The text of words."""
    return " ".join(map(str, found))


def without(found: Sequence[Word], *fields: str) -> list[Word]:
    """These words without those of some fields."""
    return [each for each in found if each.field not in fields]


def _word(text: str, start: int, end: int) -> Word:
    if not _WHOLE.fullmatch(text):
        raise InvalidWord(f"{text:.60} has no closing quotation mark", start, end)
    head, colon, rest = _split(text)
    if not colon:
        value = _unquoted(text)
        return Word("id" if _ID.fullmatch(value) else "name", value, start, end)
    field, value = _unquoted(head), _unquoted(rest)
    if field not in FIELDS and not (field.startswith(ARGUMENT) and field != ARGUMENT):
        near = get_close_matches(field, FIELDS, 1)
        way_out = (
            f"did you mean {near[0]}:?"
            if near
            else f"use {', '.join(FIELDS)}, or args. and an argument's name"
        )
        raise InvalidWord(f"{field:.60} is not a filter: {way_out}", start, end)
    if not value and not field.startswith(ARGUMENT):
        raise InvalidWord(f"{field}: has no value: write {field}:{_EXAMPLES[field]}", start, end)
    return Word(field, value, start, end)


def _split(text: str) -> tuple[str, str, str]:
    """A word at its first colon outside of quotation marks."""
    found = _HEAD.match(text)
    return (found[1], ":", text[found.end() :]) if found else (text, "", "")


def _unquoted(text: str) -> str:
    return _QUOTED.sub(lambda found: _ESCAPED.sub(r"\1", found[1]), text)


def _escaped(text: str) -> str:
    return re.sub(r'(["\\])', r"\\\1", text)


def _text(value: str, now: float) -> str:
    return value


def _status(value: str, now: float) -> str:
    value = {"waiting": "queued", "running": "started"}.get(value, value)  # as pages say it
    if value not in STATUSES:
        raise ValueError(f"no status is called that: use {', '.join(STATUSES)}")
    return value


def _moment(value: str, now: float) -> float:
    try:
        return now - units.duration(value)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(value)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("not a time: write 2h (ago), 2026-12-01 or 2026-12-01T08:00") from None


_READ: dict[str, Callable[[str, float], Any]] = {"status": _status, "since": _moment, "until": _moment}

_EXAMPLES = {
    "name": "report",
    "queue": "default",
    "status": "failed",
    "error": "TimeoutError",
    "since": "2h",
    "until": "2026-12-01T08:00",
    "id": "2a9f",
    "fingerprint": "3f9a61c204be",
}
