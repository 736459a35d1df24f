"""JSON Lines: each line is checked against types guessed from the first ones; DuckDB reads the good ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec

from packmule.coordination.redis.replies import UNREADABLE
from packmule.jobs.files.database import Database
from packmule.jobs.files.json_columns import JsonColumns, first_columns
from packmule.jobs.files.refusals import Refusals
from packmule.jobs.files.table import (
    Report,
    Table,
    Work,
)
from packmule.jobs.files.text import utf8_of
from packmule.units import MIB

MAX_LINE = 16 * MIB
"""Bytes; a longer line is refused."""
SAMPLE_LINES = 10_000
SAMPLE_BYTES = 4 * MIB
SURE = 0.99
REPORT_EVERY = 4096
"""Lines between two reports of progress."""


def columns(work: Work, database: Database) -> Mapping[str, str]:
    """The columns and their types, judged by the first lines. Raises `TooWide` or `UnfitKey`."""
    del database
    return first_columns(work, _first(utf8_of(work).file))


def count(work: Work, database: Database) -> int:
    """The number of lines that aren't blank. Raises `UnreadableText`."""
    del database
    with utf8_of(work).file.open("rb") as content:
        return sum(1 for _ in lines(content))


def tables(work: Work, database: Database, refusals: Refusals) -> Iterator[Table]:
    """Check every line; yields the table of the good ones, while the others go to `refusals`.

    If there are bad lines, the good ones are copied. Types are guessed from the first 10,000 lines, and
    widened to JSON or text where more than 1 % of all lines don't fit. A column of whole numbers becomes
    DOUBLE at the first fraction, a later key adds a column, and objects and lists are kept as JSON. Raises
    `MismatchedColumns`, `TooWide`, `UnfitKey`, `TooManyRefused`, `UnreadableText`.
    """
    del database
    text = utf8_of(work)
    known = JsonColumns(work, _first(text.file))
    report = work.stage(5, 50, "checking lines")
    total = bad = -1
    while total < 0 or known.widen(total):
        total, bad = _counted(text.file, known, report)
    for strict in (False, True):
        source = text.file
        if bad or strict:
            source = work.folder / "cleaned"
            _clean(text.file, source, known, refusals, report, strict)
        relation = (
            "read_json($source, format = 'newline_delimited', compression = 'uncompressed', "
            f"maximum_object_size = {2 * MAX_LINE}, columns = $columns)"
        )
        parameters = {"source": str(source), "columns": known.columns}
        origin = {"encoding": text.encoding}
        yield Table(relation, parameters, known.columns, origin, known.warnings, rows=total)


def _counted(file: Path, known: JsonColumns, report: Report) -> tuple[int, int]:
    """The number of lines, and of those that don't fit."""
    size = max(1, file.stat().st_size)
    total = bad = 0
    with file.open("rb") as content:
        for total, (number, start, line) in enumerate(lines(content), start=1):  # noqa: B007  used below
            if _refused(line, known, strict=False) is not None:
                bad += 1
            if number % REPORT_EVERY == 0:
                report(100 * start / size)
    return total, bad


def _clean(
    file: Path, target: Path, known: JsonColumns, refusals: Refusals, report: Report, strict: bool
) -> None:
    """Copy the good lines to `target`; the others go to `refusals`."""
    size = max(1, file.stat().st_size)
    with file.open("rb") as content, target.open("wb") as copy:
        for number, start, line in lines(content):
            refused = _refused(line, known, strict)
            if refused is None:
                copy.write(line if line.endswith(b"\n") else line + b"\n")
            else:
                refusals.add(number, *refused, line[:1000].decode("utf-8", "replace").rstrip("\r\n"))
            if number % REPORT_EVERY == 0:
                report(100 * start / size)


def _refused(line: bytes, known: JsonColumns, strict: bool) -> tuple[str | None, str] | None:
    """None for a good line, otherwise the faulty column, if it is a single one, and the reason."""
    if len(line) > MAX_LINE:
        return None, f"longer than {MAX_LINE:,} bytes"
    refused = known.check(line)
    if refused is None and strict and (key := _doubled(line)) is not None:
        return key, "the key is there twice"
    return refused


def _first(file: Path) -> Iterator[bytes]:
    """The lines that the columns are guessed from."""
    with file.open("rb") as content:
        for number, start, line in lines(content):
            if number > SAMPLE_LINES or start > SAMPLE_BYTES:
                return
            yield line


def is_object(value: bytes) -> bool:
    """Whether it is a JSON object."""
    try:
        return isinstance(msgspec.json.decode(value), dict)
    except UNREADABLE:
        return False


def _doubled(line: bytes) -> str | None:
    """A key that the line's object has twice, which DuckDB can't read."""
    names = [name for name, _ in json.loads(line, object_pairs_hook=tuple)]
    return next((name for name, count in Counter(names).items() if count > 1), None)


def lines(content: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Yield (number from 1, offset, line) of each line that isn't blank; an over-long line is cut."""
    start = 0
    for number, line in enumerate(iter(partial(content.readline, MAX_LINE + 1), b""), start=1):
        size = len(line)
        while size > MAX_LINE and (rest := content.readline(MAX_LINE)):
            size += len(rest)
            if rest.endswith(b"\n"):
                break
        if not line.isspace():
            yield number, start, line
        start += size
