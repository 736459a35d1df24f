"""A CSV's dialect and its columns' types: guessed from the first rows, then checked against all rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packmule.jobs.files.database import Database, QueryFailed, quoted
from packmule.jobs.files.table import INTEGERS, MismatchedColumns, Report, Work, check_width, typed
from packmule.jobs.files.text import delimiter
from packmule.units import MIB

MAX_LINE = 2_000_000
"""Bytes; a longer row is refused."""
SAMPLE_BYTES = 4 * MIB
SAMPLE_LINES = 20_000
QUOTE_SAMPLE = 512 * 1024
SURE = 0.99
"""The share of a column's sampled values that must fit a type; the others are then refused as errors."""
BATCH = 200
"""Aggregates per query: the time and memory to plan it grow with their square."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written: options of DuckDB's CSV reader, and the types guessed from the first rows."""

    options: Mapping[str, Any]
    columns: Mapping[str, str]

    def relation(self, file: Path, types: Mapping[str, str], rest: str) -> tuple[str, dict[str, Any]]:
        """The SQL and parameters of a read of `file` with columns of those types and the options `rest`."""
        options = "".join(f"{name} = ${name}, " for name in self.options)
        sql = (
            "read_csv($source, auto_detect = false, compression = 'none', "
            f"max_line_size = {MAX_LINE}, columns = $columns, {options}{rest})"
        )
        return sql, {**self.options, "source": str(file), "columns": dict(types)}


def dialect_of(work: Work, database: Database, file: Path) -> Dialect:
    """The dialect of the UTF-8 `file`, guessed from its first rows. Raises `TooWide`."""
    lines = _first_lines(file)
    text = "\n".join(lines)
    delim = delimiter(text) or ","
    check_width(work.source, range(lines[0].count(delim) + 1 if lines else 1))
    quote = _quote(text[:QUOTE_SAMPLE], delim)
    # A quote that is never closed would keep the sniffer from seeing that the others are.
    whole = [line for line in lines if not quote or line.count(quote) % 2 == 0]
    if whole[:1] == lines[:1] and len(whole) * 2 > len(lines):
        text = "\n".join(whole)
    sample = work.folder / "sample"
    sample.write_text(f"{text}\n", encoding="utf-8")
    escape = "\\" if quote and f"\\{quote}" in text and quote * 2 not in text else quote
    dialect = _nearly_sure(database, sample, _sniffed(database, sample, delim, quote, escape))
    check_width(work.source, dialect.columns)
    return dialect


def surveyed(work: Work, database: Database, file: Path, dialect: Dialect) -> tuple[Dialect, dict[str, str]]:
    """The dialect and the type of each column, checked against every row.

    DuckDB silently rounds 1.5 when it reads it as a whole number, and drops the zeros of 00123. So a column
    of whole numbers with a fraction anywhere becomes DOUBLE, and one with leading zeros or more than 18
    digits becomes text. DuckDB's strict parser, which recovers after a quote that is never closed, doesn't
    accept two kinds of line ends in one file. Raises `MismatchedColumns` if the caller's type would round.
    """
    given = work.given
    types = typed(work.source, dialect.columns, given)
    numbers = [name for name, kind in types.items() if kind in INTEGERS]
    point = dialect.options.get("decimal_separator", ".")
    aggregates = [f"count({quoted(next(iter(types)))})"]
    for column in map(quoted, numbers):
        number = f"TRY_CAST(replace({column}, '{point}', '.') AS DOUBLE) IS NOT NULL"
        aggregates.append(f"bool_or(regexp_matches({column}, '[{point}eE]') AND {number})")
        aggregates.append(f"bool_or(regexp_matches({column}, '^\\s*[+-]?(0[0-9]|[0-9]{{19}})'))")
    report = work.stage(5, 50, "checking the columns")
    try:
        _, *seen = _aggregated(database, file, dialect, aggregates, report)
    except QueryFailed as error:
        if "invalid state" not in str(error):
            raise
        dialect = replace(dialect, options={**dialect.options, "strict_mode": False})
        _, *seen = _aggregated(database, file, dialect, aggregates, report)
    for name, fraction, code in zip(numbers, seen[::2], seen[1::2], strict=True):
        if fraction and name in given:
            raise MismatchedColumns(
                f"{work.source}: column {name} has fractions, which {given[name]} would round: use DOUBLE"
            )
        if name not in given and (fraction or code):
            types[name] = "VARCHAR" if code else "DOUBLE"
    return dialect, types


def _first_lines(file: Path) -> list[str]:
    """The first lines of `file` without line ends; over-long lines are skipped."""
    lines: list[str] = []
    size = 0
    with file.open(encoding="utf-8", errors="replace") as content:
        while len(lines) < SAMPLE_LINES and size < SAMPLE_BYTES and (line := content.readline(MAX_LINE)):
            size += len(line)
            if len(line) < MAX_LINE:
                lines.append(line.rstrip("\n"))
    return lines


def _quote(text: str, delim: str) -> str:
    """The quote character around fields.

    It is `"` if the sample has none, because one may come later, and none if most quotes are just text.
    """
    edge = re.escape(delim)
    double, single = (
        len(re.findall(rf"(?:^|{edge}){quote}[^{quote}\n]*{quote}(?={edge}|$)", text, re.MULTILINE))
        for quote in ('"', "'")
    )
    if single > double:
        return "'"
    alone = len(re.findall(rf'(?:^|{edge})"[^"\n]*$', text, re.MULTILINE))
    return "" if alone > 2 * double + 2 else '"'


def _sniffed(database: Database, sample: Path, delim: str, quote: str, escape: str) -> Dialect:
    """DuckDB's guess: header, lines to skip, comments, types, formats of dates, decimal commas."""
    options: dict[str, Any] = {"delim": delim, "quote": quote, "escape": escape}
    found = _sniff(database, sample, options)
    if delim == ";":
        # If semicolons separate the fields, numbers mostly have a decimal comma.
        comma = _sniff(database, sample, {**options, "decimal_separator": ","})
        if _doubles(comma) > _doubles(found):
            options["decimal_separator"], found = ",", comma
    header, skip, comment, dates, times, columns = found
    options |= {"header": bool(header), "skip": int(skip)}
    said = {"comment": comment, "dateformat": dates, "timestampformat": times}
    options |= {name: value for name, value in said.items() if value not in (None, "", "(empty)")}
    return Dialect(options, {column["name"]: column["type"] for column in columns})


def _sniff(database: Database, sample: Path, options: Mapping[str, Any]) -> tuple[Any, ...]:
    given = "".join(f", {name} = ${name}" for name in options)
    return database.run(
        "SELECT HasHeader, SkipRows, Comment, DateFormat, TimestampFormat, Columns "  # noqa: S608  names of options
        f"FROM sniff_csv($sample, ignore_errors = true, sample_size = -1{given})",
        {**options, "sample": str(sample)},
    )[0]


def _doubles(found: tuple[Any, ...]) -> int:
    return sum(column["type"] == "DOUBLE" for column in found[-1])


def _nearly_sure(database: Database, sample: Path, dialect: Dialect) -> Dialect:
    """`dialect`, with a text column typed as number or date if 99 % of its sampled values are one.

    Otherwise one stray value would turn a column of numbers into text; this way it is refused with a reason.
    """
    types, options = dict(dialect.columns), dict(dialect.options)
    texts = [name for name, kind in types.items() if kind == "VARCHAR"]
    aggregates = []
    for column in map(quoted, texts):
        aggregates += [
            f"count({column})",
            f"count(TRY_CAST({column} AS BIGINT))",
            f"count(TRY_CAST({column} AS DOUBLE))",
        ]
        # Not a cast, which would read a timestamp as its date.
        aggregates.append(f"count(*) FILTER (regexp_full_match({column}, '\\d{{4}}-\\d\\d-\\d\\d'))")
        aggregates.append(f"count(TRY_CAST({column} AS TIMESTAMP))")
    seen = iter(_aggregated(database, sample, dialect, aggregates))
    for name in texts:
        values = next(seen)
        for kind in ("BIGINT", "DOUBLE", "DATE", "TIMESTAMP"):
            if next(seen) >= SURE * values > 0 and types[name] == "VARCHAR":
                types[name] = kind
    for name, kind in types.items():
        if kind == "HUGEINT":
            # Parquet has no whole numbers of more than 64 bits, and a DOUBLE loses digits.
            types[name] = "VARCHAR"
    if "DATE" in types.values():
        options.setdefault("dateformat", "%Y-%m-%d")
    return Dialect(options, types)


def _aggregated(
    database: Database, file: Path, dialect: Dialect, aggregates: Sequence[str], report: Report | None = None
) -> list[Any]:
    """The values of the aggregates `aggregates` over all rows of `file`, read as text."""
    relation, parameters = dialect.relation(
        file, dict.fromkeys(dialect.columns, "VARCHAR"), "ignore_errors = true"
    )
    values: list[Any] = []
    for start in range(0, len(aggregates), BATCH):
        batch = aggregates[start : start + BATCH]
        values += database.run(f"SELECT {', '.join(batch)} FROM {relation}", parameters, report)[0]  # noqa: S608  names are quoted
    return values
