"""CSV and its relatives as a table, with the position of each refused row in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from packmule.jobs.files.database import Database
from packmule.jobs.files.dialect import dialect_of, surveyed
from packmule.jobs.files.refusals import Refusals
from packmule.jobs.files.table import Table, Work
from packmule.jobs.files.text import DELIMITERS, Text, as_utf8
from packmule.units import MIB

REJECTS = "store_rejects = true, rejects_limit = 0, rejects_line_size_limit = 1000"
"""Options that collect all bad rows of a read in `reject_errors`, with lines cut at 1,000 bytes."""
BATCH = 10_000


def columns(work: Work, database: Database) -> Mapping[str, str]:
    """The columns and their types, judged by the first rows. Raises `TooWide`."""
    return dialect_of(work, database, _utf8(work).file).columns


def table(work: Work, database: Database, refusals: Refusals) -> Table:
    """The typed rows; `collect` gets those that don't fit once the table has been read.

    Raises `MismatchedColumns`, `TooWide`, `UnreadableText`.
    """
    del refusals
    text = _utf8(work)
    dialect, types = surveyed(work, database, text.file, dialect_of(work, database, text.file))
    relation, parameters = dialect.relation(text.file, types, REJECTS)
    return Table(relation, parameters, types, {"encoding": text.encoding})


def collect(database: Database, table: Table, refusals: Refusals) -> None:
    """Move the refused rows into `refusals`, with line numbers as in an editor."""
    with Path(table.parameters["source"]).open("rb") as content:
        line, offset = 1, 0
        for at, column, reason, text in rejected(database):
            # DuckDB counts records, and a quoted field may span several lines of the file.
            while offset < at and (chunk := content.read(min(at - offset, MIB))):
                line += chunk.count(b"\n")
                offset += len(chunk)
            refusals.add(line, column, reason, text)


def rejected(database: Database) -> Iterator[tuple[int, str | None, str, str]]:
    """Yield (byte offset, column, reason, text) of each row refused by a read with `REJECTS`, in order."""
    last = -1
    while True:
        rows = database.run(
            "SELECT DISTINCT ON (line) line, line_byte_position, column_name, error_type, error_message, "
            "coalesce(csv_line, '') FROM reject_errors WHERE line > $last "
            "ORDER BY line, column_idx LIMIT $batch",
            {"last": last, "batch": BATCH},
        )
        for _, at, column, kind, message, text in rows:
            yield at, None if kind == "TOO MANY COLUMNS" else column, _reason(message, text), text
        if len(rows) < BATCH:
            return
        last = rows[-1][0]


def has_one_column(file: Path) -> bool:
    """Whether most of the first lines have no delimiter at all, as in a table of one column."""
    with file.open("rb") as content:
        lines = [line for line in content.readlines(64 * 1024) if line.strip()]
    return sum(not set(DELIMITERS) & set(line.decode("utf-8", "replace")) for line in lines) * 2 > len(lines)


def _reason(message: str, text: str) -> str:
    reason = re.sub(r'^Error when converting column ".*?"\. ', "", message.partition("\n")[0])
    # A quote that is never closed swallows lines that look like rows of their own.
    return f"{reason} The row spans {text.count(chr(10)) + 1} lines." if "unterminated" in reason else reason


def _utf8(work: Work) -> Text:
    return as_utf8(work.source, work.file, work.folder / "utf-8", work.stage(0, 5, "reading"))
