"""A table to be converted: what DuckDB reads it from, its columns and their types."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packmule.errors import Error, UsageError
from packmule.jobs.files.database import Database

MAX_COLUMNS = 2_000
"""As many as DuckDB's 512 MB allow if all columns are text."""
MAX_NAME = 255
INTEGERS = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT"})
TYPES = INTEGERS | {
    "BOOLEAN", "FLOAT", "DOUBLE", "VARCHAR", "DATE", "TIME", "TIMESTAMP", "TIMESTAMPTZ", "INTERVAL", "UUID",
    "JSON",
}  # fmt: skip
DECIMAL = re.compile(r"DECIMAL\(\d{1,2}, ?\d{1,2}\)")

Report = Callable[[float], None]
"""A callback with the percentage done of one stage."""


class MismatchedColumns(UsageError, ValueError):
    """`columns` names a column that the table lacks, or a type that its values can't have."""


class TooWide(UsageError, ValueError):
    """A table has more columns, or longer column names, than a conversion supports."""


class CountMismatch(Error, RuntimeError):
    """The rows read, written and refused don't add up, so the output is not kept."""


@dataclass(frozen=True, slots=True)
class Work:
    """One file to read as a table: `source` is its name in messages, `file` its content.

    `folder` is a private folder for temporary files, `given` are the caller's column types, `sheet` is the
    wanted sheet of a workbook, and `progress` is called with the percentage done and the current step.
    """

    source: str
    file: Path
    folder: Path
    given: Mapping[str, str]
    sheet: str | None
    progress: Callable[[float, str], None]

    def stage(self, start: float, end: float, message: str) -> Report:
        """A callback for one stage, whose 0 to 100 % are `start` to `end` of the whole."""
        return lambda percent: self.progress(start + (end - start) * min(percent, 100) / 100, message)


@dataclass(frozen=True, slots=True)
class Table:
    """A table that DuckDB can read: `relation` is what follows FROM, with `parameters` by name.

    `columns` maps columns to types. `rows` is the number of rows including refused ones, if known. `origin`
    says what it was read from: an encoding or a sheet.
    """

    relation: str
    parameters: Mapping[str, Any]
    columns: Mapping[str, str]
    origin: Mapping[str, str]
    rows: int | None = None


def declared(source: str, columns: Mapping[str, str] | None) -> dict[str, str]:
    """The caller's types in upper case. Raises `MismatchedColumns` for an unsupported type."""
    given = {name: kind.strip().upper() for name, kind in (columns or {}).items()}
    for name, kind in given.items():
        if kind not in TYPES and not DECIMAL.fullmatch(kind):
            raise MismatchedColumns(
                f"{source}: column {name} can't be {kind}: use {', '.join(sorted(TYPES))} or DECIMAL(p,s)"
            )
    return given


def typed(source: str, found: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """`found` with the types of `given`. Raises `MismatchedColumns` or `TooWide`."""
    if missing := [name for name in given if name not in found]:
        names = ", ".join(list(found)[:20]) + (", ..." if len(found) > 20 else "")  # noqa: PLR2004  fits a line
        raise MismatchedColumns(f"{source} has no column {', '.join(missing)}: it has {names}")
    check_width(source, found)
    return {**found, **given}


def check_width(source: str, names: Collection[object]) -> None:
    """Raise `TooWide` if there are too many names, or too long ones."""
    if len(names) > MAX_COLUMNS:
        raise TooWide(f"{source} has {len(names):,} columns, but the limit is {MAX_COLUMNS:,}")
    longest = max(map(str, names), key=len, default="")
    if len(longest) > MAX_NAME:
        raise TooWide(
            f"{source} has a column name with {len(longest):,} characters, {longest[:40]}...; "
            f"the limit is {MAX_NAME}"
        )


def write_parquet(database: Database, work: Work, table: Table, target: Path) -> int:
    """Write `table` to `target` as Parquet (zstd); returns the number of rows in the file's footer.

    Raises `CountMismatch`.
    """
    ((written,),) = database.run(
        f"COPY (SELECT * FROM {table.relation}) TO $target (FORMAT parquet, COMPRESSION zstd)",  # noqa: S608  ours
        {**table.parameters, "target": str(target)},
        work.stage(50, 99, "writing Parquet"),
    )
    ((rows,),) = database.run("SELECT num_rows FROM parquet_file_metadata($target)", {"target": str(target)})
    if rows != written:
        raise CountMismatch(
            f"{work.source}: {written:,} rows were written, but the Parquet footer counts {rows:,}"
        )
    return int(rows)


def described(database: Database, file: Path) -> dict[str, str]:
    """The columns of a Parquet file and their types."""
    rows = database.run(
        "SELECT column_name, column_type FROM (DESCRIBE FROM read_parquet($file))", {"file": str(file)}
    )
    return {str(name): str(kind) for name, kind in rows}
