"""A list of recipients as rows with their lines, never held whole: CSV, JSON Lines, Parquet or a workbook."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from packmule.coordination.redis.replies import UNREADABLE
from packmule.errors import UsageError
from packmule.jobs.files import excel, jsonlines
from packmule.jobs.files.database import QueryFailed, opened
from packmule.jobs.files.reading import Reading
from packmule.jobs.files.refusals import Refusals
from packmule.jobs.files.signatures import Kind, kind_of
from packmule.jobs.files.table import MAX_COLUMNS, Work, check_width
from packmule.jobs.files.text import as_utf8, delimiter
from packmule.jobs.storage import temporary
from packmule.units import MIB

MAX_LINE = MIB
"""Characters; no list has such a line, and a file without line ends would be held whole."""

SAMPLE = 64 * 1024

OTHER_TEXTS = {
    "text/html": "it looks like a page in HTML",
    "application/xml": "it looks like XML",
    "application/json": "it looks like one JSON value; write one object a line",
}
"""Texts that are no lists, and what to say of them."""

LOST = "\ufffd"
"""What stands for bytes that aren't text."""


class UnreadableList(UsageError, ValueError):
    """A file is not a list of recipients, or one that can't be read; nothing was enqueued."""


class Row(NamedTuple):
    """A row of a list: its line in the file, from 1, and its values by column."""

    line: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Listed:
    """A list that can be read: each call of `rows` begins at its first, and adds unfit ones to `Refusals`."""

    source: str
    rows: Callable[[Refusals], Iterator[Row]]
    encoding: str = ""


@contextmanager
def reading(
    source: str, file: Path, *, encoding: str | None = None, sheet: str | None = None
) -> Iterator[Listed]:
    """The list in `file`, which messages call `source`; what is converted goes to a private folder.

    Raises `UnreadableList`, `UnreadableText`, `WorkbookRefused` and `TooWide`.
    """
    try:
        with file.open("rb"):  # one line for a file that vanished, a folder, or one that nobody may read
            pass
        kind = kind_of(file)
    except OSError as error:
        raise UnreadableList(f"can't read {source}: {error.strerror or error}") from None
    with temporary.folder() as folder:
        link = folder / "source"
        link.symlink_to(file.resolve())
        work = Work(source, link, folder, Reading(sheet=sheet), lambda done, message: None)
        yield _listed(work, kind, encoding)


@contextmanager
def given(rows: Iterable[Mapping[str, Any]]) -> Iterator[Listed]:
    """The list that a program gives, spooled to disk. Raises `UnreadableList`."""
    with temporary.folder() as folder:
        file = folder / "given"
        with file.open("wb") as spool:
            for number, row in enumerate(rows, start=1):
                spool.write(_line(number, row))
        yield Listed("the list", lambda refusals: _objects(file, refusals))


def _line(number: int, row: Any) -> bytes:
    if not isinstance(row, Mapping):
        raise UnreadableList(
            f"recipient {number:,} is {row!r:.60}: give mappings, such as {{'email': 'ada@example.org'}}"
        )
    try:
        return msgspec.json.encode(row) + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise UnreadableList(f"recipient {number:,} has a value that JSON can't hold: {error}") from None


def _listed(work: Work, kind: Kind, encoding: str | None) -> Listed:
    source = work.source
    if kind.type == "application/x-empty":
        raise UnreadableList(f"{source} is empty: there is nobody to send to")
    if kind.reader == "excel":
        names = _checked(source, list(excel.read_sheet(work, lambda done: None)["columns"]))
        return Listed(source, lambda refusals: _cells(work.folder / "sheet", names))
    if kind.reader == "parquet":
        lines = _unpacked(work)
        return Listed(source, lambda refusals: _objects(lines, refusals))
    if encoding is None:
        _refuse_others(source, kind)
    if kind.reader in {None, "arrow"} and not kind.type.startswith("text/") and encoding is None:
        raise UnreadableList(
            f"{source} is not CSV, JSON Lines, Parquet or Excel: it looks like {kind.type}; "
            "if it is text, give its encoding"
        )
    text = as_utf8(source, work.file, work.folder / "utf-8", lambda done: None, encoding)
    if encoding is not None:
        kind = kind_of(text.file)
        _refuse_others(source, kind)
    if kind.reader == "jsonl":
        return Listed(source, lambda refusals: _objects(text.file, refusals), text.encoding)
    with text.file.open(encoding="utf-8", errors="replace", newline="") as content:
        sign = delimiter(content.read(SAMPLE)) or ","
    return Listed(source, lambda refusals: _fields(source, text.file, sign, refusals), text.encoding)


def _refuse_others(source: str, kind: Kind) -> None:
    """Raise `UnreadableList` for a text that is no list."""
    if kind.reader in {None, "json"} and kind.type in OTHER_TEXTS:
        raise UnreadableList(f"{source} is not CSV, JSON Lines, Parquet or Excel: {OTHER_TEXTS[kind.type]}")


def _fields(source: str, file: Path, sign: str, refusals: Refusals) -> Iterator[Row]:
    """The rows of a CSV whose first line has the columns' names; a single column may have none."""
    with file.open(encoding="utf-8", errors="replace", newline="") as content:
        reader = csv.reader(_lines(source, content), delimiter=sign)
        names: list[str] = []
        line = 1
        while True:
            began = line
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                line = reader.line_num + 1
                refusals.add(began, None, f"{error}: is a quote never closed?", "")
                continue
            line = reader.line_num + 1
            if not any(field.strip() for field in fields):
                continue
            if not names:
                names = _names(source, fields)
                if len(names) == 1 and "@" in names[0]:
                    names = ["email"]
                else:
                    continue
            if reason := _unfit(fields, names, line - began):
                refusals.add(began, None, reason, sign.join(fields))
            else:
                yield Row(began, dict(zip(names, fields, strict=True)))


def _unfit(fields: list[str], names: list[str], lines: int) -> str | None:
    if len(fields) != len(names):
        spans = f", over {lines} lines: is a quote never closed?" if lines > 1 else ""
        return f"it has {len(fields)} fields, and the header {len(names)}{spans}"
    if any(LOST in field for field in fields):
        return "some of it is not text in the list's encoding: give that (utf-8, cp1252, ...)"
    return None


def _names(source: str, fields: list[str]) -> list[str]:
    """The names in a header. Raises `UnreadableList` for one that has addresses, or a name twice."""
    names = [field.strip() or f"column{place}" for place, field in enumerate(fields, start=1)]
    if len(names) > 1:
        _checked(source, names)
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise UnreadableList(f"{source} has two columns called {twice!r:.80}: rename one")
    return names


def _checked(source: str, names: list[str]) -> list[str]:
    """`names`, if they can be those of columns."""
    check_width(source, names)
    if found := next((name for name in names if "@" in name), None):
        raise UnreadableList(
            f"{source} has no header: its first row has {found!r:.80}; "
            "put the columns' names there, such as email and name"
        )
    return names


def _lines(source: str, content: Any) -> Iterator[str]:
    number = 0
    while line := content.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE and not line.endswith("\n"):
            raise UnreadableList(f"{source} has more than {MAX_LINE:,} characters in line {number:,}")
        yield line


def _cells(file: Path, names: list[str]) -> Iterator[Row]:
    """The rows of a sheet, which `sheet.py` has written: each has its number in front."""
    with file.open(encoding="utf-8", newline="") as content:
        for number, *fields in csv.reader(content):
            yield Row(int(number), dict(zip(names, fields, strict=True)))


def _objects(file: Path, refusals: Refusals) -> Iterator[Row]:
    """The rows of JSON Lines: objects whose values keep their types."""
    with file.open("rb") as content:
        for number, _, line in jsonlines.lines(content):
            try:
                row = msgspec.json.decode(line)
            except UNREADABLE as error:
                reason = (
                    f"longer than {jsonlines.MAX_LINE:,} bytes" if len(line) > jsonlines.MAX_LINE else error
                )
                refusals.add(number, None, f"it is not JSON: {reason}", line[:200].decode(errors="replace"))
                continue
            if isinstance(row, dict) and len(row) <= MAX_COLUMNS:
                yield Row(number, row)
            else:
                refusals.add(
                    number,
                    None,
                    "it is not a JSON object with the recipient's values",
                    line[:200].decode(errors="replace"),
                )


def _unpacked(work: Work) -> Path:
    """The rows of a Parquet file as JSON Lines."""
    target = work.folder / "cleaned"
    try:
        with opened(work.folder, [work.file, target]) as database:
            database.run(
                "COPY (SELECT * FROM read_parquet($source)) TO $target (FORMAT json)",
                {"source": str(work.file), "target": str(target)},
            )
    except QueryFailed as error:
        raise UnreadableList(f"{work.source} can't be read as Parquet: {error}") from None
    return target
