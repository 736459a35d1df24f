"""CSV and its relatives: dialect and types by looking, refused rows by their place in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.files.database import Database, DatabaseError, quoted
from jobs.files.refusals import Refusals
from jobs.files.table import INTEGERS, MismatchedColumns, Report, Table, Work, check_width, typed
from jobs.files.text import DELIMITERS, Text, as_utf8, delimiter

MAX_LINE = 2_000_000
"""Bytes; a longer row is refused."""
SAMPLE_BYTES = 4 * 1024 * 1024
SAMPLE_LINES = 20_000
SURE = 0.99
"""The share of a column's sampled values that must have a type for the rest to be refused as errors."""
BATCH = 10_000
REJECTS = "store_rejects = true, rejects_limit = 0, rejects_line_size_limit = 1000"
"""Reader options that set bad rows aside in the table `reject_errors`, without a limit, lines cut at 1,000 bytes."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written: the reader's options, and the column types that its first rows show."""

    options: Mapping[str, Any]
    columns: Mapping[str, str]

    def relation(self, columns: Mapping[str, str], extra: str) -> tuple[str, dict[str, Any]]:
        """A read of `$source` with those column types, and its parameters but for `source`."""
        options = "".join(f", {name} = ${name}" for name in self.options)
        sql = f"read_csv($source, auto_detect = false, compression = 'none', max_line_size = {MAX_LINE}{options}, columns = $columns, {extra})"
        return sql, {**self.options, "columns": dict(columns)}


def columns(work: Work, database: Database) -> Mapping[str, str]:
    """The columns and their types, by the first rows. Raises `TooWide`."""
    return _dialect(work, database, _utf8(work)).columns


def table(work: Work, database: Database, refusals: Refusals) -> Table:
    """The rows, typed; those that don't fit are for `collect` once the table was read.

    Raises `MismatchedColumns`, `TooWide`, `UnreadableText`.
    """
    del refusals
    text = _utf8(work)
    read = _dialect(work, database, text)
    read, types = _surveyed(work, database, text.file, read)
    sql, parameters = read.relation(types, REJECTS)
    return Table(sql, {**parameters, "source": str(text.file)}, types, {"encoding": text.encoding})


def collect(database: Database, table: Table, refusals: Refusals) -> None:
    """Move what the read refused into `refusals`, with lines as an editor counts them."""
    with Path(table.parameters["source"]).open("rb") as content:
        line, offset = 1, 0
        for at, column, reason, text in rejected(database):
            # DuckDB counts records, and one in quotes may span several lines of the file.
            while offset < at and (chunk := content.read(min(at - offset, 1 << 20))):
                line += chunk.count(b"\n")
                offset += len(chunk)
            refusals.add(line, column, reason, text)


def has_one_column(file: Path) -> bool:
    """Whether most of the first lines have no delimiter at all, as a table of one column has."""
    with file.open("rb") as content:
        lines = [line for line in content.readlines(64 * 1024) if line.strip()]
    return sum(not set(DELIMITERS) & set(line.decode("utf-8", "replace")) for line in lines) * 2 > len(lines)


def rejected(database: Database) -> Iterator[tuple[int, str | None, str, str]]:
    """Yield (byte offset, column, reason, text) of each row refused by a read with `REJECTS`, in the file's order."""
    last = -1
    while True:
        rows = database.run(
            "SELECT DISTINCT ON (line) line, line_byte_position, column_name, error_type, error_message, csv_line "
            "FROM reject_errors WHERE line > $last ORDER BY line, column_idx LIMIT $batch",
            {"last": last, "batch": BATCH},
        )
        for _, at, column, kind, message, text in rows:
            yield at, None if kind == "TOO MANY COLUMNS" else column, _reason(message, text or ""), text or ""
        if len(rows) < BATCH:
            return
        last = rows[-1][0]


def _reason(message: str, text: str) -> str:
    line = message.partition("\n")[0]
    reason = re.sub(r'^Error when converting column ".*?"\. ', "", line)
    # A quote that is never closed takes lines along that look like rows of their own.
    return f"{reason} The row spans {text.count(chr(10)) + 1} lines." if "unterminated" in reason else reason


def _utf8(work: Work) -> Text:
    return as_utf8(work.source, work.file, work.folder / "utf-8", work.stage(0, 5, "reading"))


def _sample(file: Path) -> list[str]:
    """The first lines of `file`, without their ends and without over-long ones."""
    lines: list[str] = []
    size = 0
    with file.open(encoding="utf-8", errors="replace") as content:
        while len(lines) < SAMPLE_LINES and size < SAMPLE_BYTES and (line := content.readline(MAX_LINE)):
            size += len(line)
            if len(line) < MAX_LINE:
                lines.append(line.rstrip("\n"))
    return lines


def _dialect(work: Work, database: Database, file: Text) -> Dialect:
    """How the file is written, by its first rows. Raises `TooWide`."""
    lines = _sample(file.file)
    text = "\n".join(lines)
    delim = delimiter(text) or ","
    check_width(work.source, range(lines[0].count(delim) + 1 if lines else 1))
    quote = _quote(text, delim)
    rows = work.folder / "sample"
    # A quote that is never closed would hide from the sniffer that the other ones are.
    whole = [line for line in lines if not quote or line.count(quote) % 2 == 0]
    if whole[:1] == lines[:1] and len(whole) * 2 > len(lines):
        text = "\n".join(whole)
    rows.write_text(f"{text}\n", encoding="utf-8")
    escape = "\\" if quote and f"\\{quote}" in text and quote * 2 not in text else quote
    options: dict[str, Any] = {"delim": delim, "quote": quote, "escape": escape}
    found = _sniffed(database, rows, options)
    if delim == ";":
        # Where semicolons part the fields, numbers mostly have a decimal comma.
        comma = _sniffed(database, rows, {**options, "decimal_separator": ","})
        if _doubles(comma) > _doubles(found):
            options["decimal_separator"], found = ",", comma
    options |= {"header": bool(found["HasHeader"]), "skip": int(found["SkipRows"])}
    for name, key in (
        ("comment", "Comment"),
        ("dateformat", "DateFormat"),
        ("timestampformat", "TimestampFormat"),
    ):
        if found[key] not in (None, "", "(empty)"):
            options[name] = found[key]
    types = {column["name"]: column["type"] for column in found["Columns"]}
    check_width(work.source, types)
    return _nearly_sure(database, rows, Dialect(options, types))


def _surveyed(work: Work, database: Database, file: Path, read: Dialect) -> tuple[Dialect, dict[str, str]]:
    """The dialect and the type of each column, after a look at every row.

    DuckDB rounds 1.5 when it reads it as a whole number, and drops the zeros of 00123, without a word. So a
    column of whole numbers that has a fraction anywhere is DOUBLE, and one with leading zeros or more than
    18 digits is text. Nor does its strict parser, the one that finds its way back after a quote that is
    never closed, take line ends of two kinds. Raises `MismatchedColumns` where the caller's type would round.
    """
    given = work.given
    types = typed(work.source, read.columns, given)
    numbers = [
        name for name, kind in types.items() if kind in INTEGERS or (kind == "DOUBLE" and name not in given)
    ]
    point = read.options.get("decimal_separator", ".")
    looks = [
        f"bool_or(regexp_matches({c}, '[{point}eE]') AND TRY_CAST(replace({c}, '{point}', '.') AS DOUBLE) IS NOT NULL), "
        f"bool_or(regexp_matches({c}, '^\\s*[+-]?(0[0-9]|[0-9]{{19}})'))"
        for c in map(quoted, numbers)
    ] or [f"count({quoted(next(iter(types)))})"]
    report = work.stage(5, 50, "looking at the columns")
    try:
        seen = _aggregated(database, file, read, looks, report)
    except DatabaseError as error:
        if "invalid state" not in str(error):
            raise
        read = Dialect({**read.options, "strict_mode": False}, read.columns)
        seen = _aggregated(database, file, read, looks, report)
    if not numbers:
        return read, types
    for name, fraction, code in zip(numbers, seen[::2], seen[1::2], strict=True):
        if fraction and name in given:
            raise MismatchedColumns(
                f"{work.source}: column {name} has fractions, which {given[name]} would round: give DOUBLE"
            )
        if name not in given and (fraction or code):
            types[name] = "VARCHAR" if code else "DOUBLE"
    return read, types


def _aggregated(
    database: Database, file: Path, read: Dialect, looks: list[str], report: Report | None = None
) -> tuple[Any, ...]:
    """The aggregates `looks` over all rows of `file` as text."""
    sql, parameters = read.relation(dict.fromkeys(read.columns, "VARCHAR"), "ignore_errors = true")
    return database.run(f"SELECT {', '.join(looks)} FROM {sql}", {**parameters, "source": str(file)}, report)[
        0
    ]  # noqa: S608  names quoted


def _sniffed(database: Database, rows: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("HasHeader", "SkipRows", "Comment", "DateFormat", "TimestampFormat", "Columns")
    given = "".join(f", {name} = ${name}" for name in options)
    (found,) = database.run(
        f"SELECT {', '.join(keys)} FROM sniff_csv($rows, ignore_errors = true, sample_size = -1{given})",
        {**options, "rows": str(rows)},
    )
    return dict(zip(keys, found, strict=True))


def _doubles(found: Mapping[str, Any]) -> int:
    return sum(column["type"] == "DOUBLE" for column in found["Columns"])


def _quote(text: str, delimiter: str) -> str:
    """The quote that fields are wrapped in; `"` where none is, for one may come later; none where it is but text."""
    edge = re.escape(delimiter)
    wrapped = {
        quote: len(re.findall(rf"(?:^|{edge}){quote}[^{quote}\n]*{quote}(?={edge}|\r?$)", text, re.MULTILINE))
        for quote in ('"', "'")
    }
    if wrapped["'"] > wrapped['"']:
        return "'"
    alone = len(re.findall(rf'(?:^|{edge})"[^"\n]*$', text, re.MULTILINE))
    return "" if alone > 2 * wrapped['"'] + 2 else '"'


def _nearly_sure(database: Database, rows: Path, read: Dialect) -> Dialect:
    """`read`, with a column of text made a number or a date where at least 99 in 100 sampled values are one.

    One stray value would otherwise turn a column of numbers into text; so it is refused with its reason.
    """
    texts = [name for name, kind in read.columns.items() if kind == "VARCHAR"]
    if not texts:
        return read
    looks = [
        f"count({c}), count(TRY_CAST({c} AS BIGINT)), count(TRY_CAST({c} AS DOUBLE)), "
        # Not a cast, which would read a time as its date.
        f"count(*) FILTER (regexp_full_match({c}, '\\d{{4}}-\\d\\d-\\d\\d')), count(TRY_CAST({c} AS TIMESTAMP))"
        for c in map(quoted, texts)
    ]
    seen = _aggregated(database, rows, read, looks)
    columns, options = dict(read.columns), dict(read.options)
    for index, name in enumerate(texts):
        values, *fitting = seen[index * 5 : index * 5 + 5]
        for kind, fit in zip(("BIGINT", "DOUBLE", "DATE", "TIMESTAMP"), fitting, strict=True):
            if values and fit >= SURE * values and columns[name] == "VARCHAR":
                columns[name] = kind
    if "DATE" in columns.values():
        options.setdefault("dateformat", "%Y-%m-%d")
    return Dialect(options, columns)
