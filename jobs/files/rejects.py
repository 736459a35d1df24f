"""The rows that DuckDB refuses while it reads a CSV, with their places in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from packmule.errors import Error
from packmule.jobs.files.database import Database
from packmule.jobs.files.refusals import Refusals
from packmule.units import MIB

REJECTS = "store_rejects = true, rejects_limit = 0, rejects_line_size_limit = 1000"
"""Options that collect all bad rows of a read in `reject_errors`, with lines cut at 1,000 bytes."""
REJECTED = 10_000
"""Refused rows that are fetched at once."""


class Misfit(Error):
    """The values aren't what the first ones are, so the table must be read in another way."""


def collect(database: Database, file: Path, above: int, refusals: Refusals, is_utf8: bool) -> None:
    """Move the refused rows into `refusals`, with line numbers as in an editor; `above` are cut off."""
    with file.open("rb") as content:
        line, offset = 1 + above, 0
        for at, column, reason, text in rejected(database):
            if not is_utf8 and reason.startswith("Invalid unicode"):
                raise Misfit("the text is not UTF-8")
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
            {"last": last, "batch": REJECTED},
        )
        for _, at, column, kind, message, text in rows:
            yield at, None if kind == "TOO MANY COLUMNS" else column, _reason(message, text), text
        if len(rows) < REJECTED:
            return
        last = rows[-1][0]


def _reason(message: str, text: str) -> str:
    reason = re.sub(r'^Error when converting column ".*?"\. ', "", message.partition("\n")[0])
    # A quote that is never closed swallows lines that look like rows of their own.
    return f"{reason} The row spans {text.count(chr(10)) + 1} lines." if "unterminated" in reason else reason
