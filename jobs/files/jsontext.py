"""JSON that is not one object a line: an array of objects, or objects over several lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from packmule.errors import UsageError
from packmule.jobs.files import jsonlines
from packmule.jobs.files.database import Database, QueryFailed
from packmule.jobs.files.jsonvalues import Unbalanced, values
from packmule.jobs.files.refusals import Refusals
from packmule.jobs.files.table import Report, Table, Work
from packmule.jobs.files.text import utf8_of

EDGE = 4096
"""Bytes at both ends that have more than blanks."""


class BrokenJson(UsageError, ValueError):
    """A file begins as JSON, but is not valid JSON, or has no objects."""


def columns(work: Work, database: Database) -> Mapping[str, str]:
    """The columns and their types, judged by the first objects. Raises `BrokenJson`."""
    return jsonlines.columns(_lines(work, database), database)


def count(work: Work, database: Database) -> int:
    """The number of objects. Raises `BrokenJson`."""
    return jsonlines.count(_lines(work, database), database)


def tables(work: Work, database: Database, refusals: Refusals) -> Iterator[Table]:
    """The table of the objects; the lines of refused ones are their numbers. Raises as `columns`."""
    lines = _lines(work, database)
    yield from jsonlines.tables(lines, database, refusals)


def _lines(work: Work, database: Database) -> Work:
    """The work with a file of one object a line."""
    text = utf8_of(work)
    with text.file.open("rb") as content:
        is_array = content.read(EDGE).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
        content.seek(max(0, text.file.stat().st_size - EDGE))
        is_closed = content.read().rstrip()[-1:] == b"]"
    if is_array and not is_closed:
        # DuckDB would read the values until there.
        raise BrokenJson(f"{work.source} is not valid JSON: it ends before its array does")
    lines = work.folder / "lines"
    lines.unlink(missing_ok=True)  # of another look at the same file
    try:
        # `json` writes each value in one line, and a text as JSON has no control characters.
        database.run(
            "COPY (SELECT json(json) FROM read_json_objects($source, format = $format, "  # noqa: S608  ours
            f"compression = 'uncompressed', maximum_object_size = {jsonlines.MAX_LINE})) TO $target "
            "(FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER '\x01')",
            {
                "source": str(text.file),
                "format": "array" if is_array else "unstructured",
                "target": str(lines),
            },
            work.stage(5, 20, "reading JSON"),
        )
    except QueryFailed as error:
        reason = str(error).replace(f' in file "{text.file}"', "").replace("record/value", "value")
        if not _split(text.file, is_array, lines, work.stage(5, 20, "reading JSON")):
            raise BrokenJson(f"{work.source} is not valid JSON: {reason}") from None
    return replace(work, file=lines, reading=replace(work.reading, encoding=None))


def _split(file: Path, is_array: bool, lines: Path, report: Report) -> bool:
    """Write each value of a text that is not valid as a line; False if none can be read, or told apart."""
    found = False
    with lines.open("wb") as copy:
        try:
            for value in values(file, is_array, jsonlines.MAX_LINE + 1, report):
                found = found or jsonlines.is_object(value)
                copy.write(value + b"\n")
        except Unbalanced:
            return False
    return found
