"""A table to be converted: what DuckDB reads it from, its columns and their types."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packmule.errors import UsageError
from packmule.jobs.files.database import Database
from packmule.jobs.files.reading import Reading
from packmule.jobs.files.refusals import Refusals
from packmule.plain_text import plain

MAX_COLUMNS = 2_000
"""As many as the memory of DuckDB allows if all columns are text."""
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


@dataclass(frozen=True, slots=True)
class Work:
    """One file to read as a table: `source` is its name in messages, `file` its content.

    `folder` is a private folder for temporary files, `reading` is what the caller says of the file, and
    `progress` is called with the percentage done and the current step.
    """

    source: str
    file: Path
    folder: Path
    reading: Reading
    progress: Callable[[float, str], None]

    def stage(self, start: float, end: float, message: str) -> Report:
        """A callback for one stage, whose 0 to 100 % are `start` to `end` of the whole."""
        return lambda percent: self.progress(start + (end - start) * min(percent, 100) / 100, message)


@dataclass(frozen=True, slots=True)
class Table:
    """A table that DuckDB can read: `relation` is what follows FROM, with `parameters` by name.

    `columns` maps columns to types. `rows` is the number of rows including refused ones, if known, and
    `least` a lower bound. `origin` says how it was read, by the names of the options, and `warnings` what may
    be amiss. `begins` is the percentage of the work that is done before it is read. `collect` adds the rows
    that the reading has refused; it raises `Misfit` if the table must be read in another way.
    """

    relation: str
    parameters: Mapping[str, Any]
    columns: Mapping[str, str]
    origin: Mapping[str, Any]
    warnings: Sequence[str] = ()
    rows: int | None = None
    least: int = 0
    begins: float = 50
    collect: Callable[[Database, Refusals], None] = lambda database, refusals: None


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
        raise MismatchedColumns(plain(f"{source} has no column {', '.join(missing)}: it has {names}"))
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


def described(database: Database, file: Path) -> dict[str, str]:
    """The columns of a Parquet file and their types."""
    return columns_in(database, "read_parquet($file)", {"file": str(file)})


def columns_in(
    database: Database, relation: str, parameters: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """The columns of what follows FROM, and their types."""
    rows = database.run(
        f"SELECT column_name, column_type FROM (DESCRIBE FROM {relation})",  # noqa: S608  ours
        parameters,
    )
    return {str(name): str(kind).replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ") for name, kind in rows}
