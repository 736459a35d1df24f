"""Converting a table: the rows of any reader become a file of any format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from packmule.errors import Error, UsageError
from packmule.jobs.files import arrow, delimited, excel, jsonlines, jsontext, parquet
from packmule.jobs.files.compressed import UNPACKED
from packmule.jobs.files.database import Database, QueryFailed, opened
from packmule.jobs.files.excel import WorkbookRefused
from packmule.jobs.files.reading import TAKEN, Reading
from packmule.jobs.files.refusals import Refusals
from packmule.jobs.files.rejects import Misfit
from packmule.jobs.files.signatures import ENCRYPTED, Kind
from packmule.jobs.files.table import (
    Table,
    Work,
    declared,
    described,
)
from packmule.jobs.files.writing.arrow import write_arrow
from packmule.jobs.files.writing.contract import Contract
from packmule.jobs.files.writing.copies import CountMismatch, copy
from packmule.jobs.files.writing.opendocument import write_opendocument
from packmule.jobs.files.writing.output import Output
from packmule.jobs.files.writing.partitions import WHOLE, write_partitions
from packmule.jobs.files.writing.workbook import write_workbook
from packmule.jobs.storage import temporary

T = TypeVar("T")

TABULAR_NAMES = (".csv", ".tsv", ".tab", ".txt")
WORK_FILES = ("source", UNPACKED, WHOLE, "utf-8", "lines", "cleaned", "cut", "sheet")
"""The files in a work folder; DuckDB may open these and the output only."""


class NotATable(UsageError, ValueError):
    """A file is not CSV, JSON, Parquet or a workbook; the text says what it looks like."""


class EmptyFile(UsageError, ValueError):
    """A file contains nothing to convert."""


class ConversionFailed(Error, RuntimeError):
    """DuckDB could not read the whole table; nothing was written."""


class Reader(Protocol):
    """The functions of each format's module: `tables` yields ways to read a table, until one fits it."""

    def columns(self, work: Work, database: Database) -> Mapping[str, str]: ...
    def count(self, work: Work, database: Database) -> int: ...
    def tables(self, work: Work, database: Database, refusals: Refusals) -> Iterator[Table]: ...


READERS: dict[str, Reader] = {
    "csv": delimited,
    "jsonl": jsonlines,
    "json": jsontext,
    "excel": excel,
    "parquet": parquet,
    "arrow": arrow,
}


Writer = Callable[[Database, Work, Table, Path, Output], tuple[int, list[str]]]
WRITERS: dict[str, Writer] = {
    "xlsx": write_workbook,
    "ods": write_opendocument,
    "arrow": write_arrow,
    "arrows": write_arrow,
}
"""What writes the formats that DuckDB doesn't; each returns the number of rows, and warnings."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written: how many rows, the columns' types, and how it was read."""

    rows: int
    columns: Mapping[str, str]
    origin: Mapping[str, Any]
    warnings: Sequence[str]


@contextmanager
def working(
    source: str, file: Path, reading: Reading, progress: Callable[[float, str], None]
) -> Iterator[Work]:
    """A `Work` for `file` with a private folder, removed at the end.

    Raises `MismatchedColumns` and `UnfitOption`.
    """
    reading = replace(reading.check(source), columns=declared(source, reading.columns))
    with temporary.folder() as folder:
        # Under a name of ours, because DuckDB treats `*`, `?` and `[` in the file's own name as a pattern.
        link = folder / "source"
        link.symlink_to(file.resolve())
        yield Work(source, link, folder, reading, progress)


def convert(
    work: Work,
    kind: Kind,
    target: Path,
    refusals: Refusals,
    output: Output,
    contract: Contract | None = None,
) -> Converted:
    """Write the table to `target`, and the rows that don't fit to `refusals`.

    For partitions `target` is a folder, otherwise there is no such file yet. Raises `NotATable`, `EmptyFile`,
    `MismatchedColumns`, `TooWide`, `TooManyRefused`, `WorkbookRefused`, `UnreadableText`, `UnfitOption`,
    `UnfitOutput`, `UnfitSchema`, `ConversionFailed`, `CountMismatch`.
    """
    if contract is not None and "columns" in TAKEN.get(kind.reader or "csv", ()):
        types = contract.types(columns_of(work, kind))
        work = replace(work, reading=replace(work.reading, columns={**types, **work.reading.columns}))
    reader = _reader(work, kind)
    with (
        _explained(work),
        opened(work.folder, [target, *_files(work)], target if output.partition_by else None) as database,
    ):
        return first_fitting(
            READERS[reader].tables(work, database, refusals),
            database,
            refusals,
            lambda table: _written(
                work, database, contract.kept(table) if contract else table, target, refusals, output
            ),
        )


def first_fitting(
    tables: Iterable[Table], database: Database, refusals: Refusals, use: Callable[[Table], T]
) -> T:
    """What `use` returns for the first of the tables that can be read as it says. Raises its last error."""
    failed: Exception = EmptyFile("there is no table")
    for table in tables:
        try:
            return use(table)
        except (QueryFailed, Misfit) as error:
            failed = error
            refusals.clear()
            database.forget_rejects()
    raise failed


def _written(
    work: Work, database: Database, table: Table, target: Path, refusals: Refusals, output: Output
) -> Converted:
    if not table.columns:
        raise EmptyFile(f"{work.source} has no columns: there is nothing to convert")
    warnings = [*table.warnings]
    if output.partition_by:
        rows = write_partitions(database, work, table, target, output)
    else:
        target.unlink(missing_ok=True)  # of an attempt that has failed
        if (write := WRITERS.get(output.format)) is not None:
            rows, more = write(database, work, table, target, output)
            warnings += more
        else:
            rows = copy(database, work, table, target, output)
    table.collect(database, refusals)
    if table.rows is not None and rows + refusals.count != table.rows:
        raise CountMismatch(
            f"{work.source} has {table.rows:,} rows, but {rows:,} were written and {refusals.count:,} refused"
        )
    if rows + refusals.count < table.least:
        raise CountMismatch(
            f"{work.source} begins with {table.least:,} rows, but {rows:,} were written and "
            f"{refusals.count:,} refused: is a quote never closed?"
        )
    refusals.check_share(rows)
    is_parquet = output.format == "parquet" and not output.partition_by
    return Converted(
        rows, described(database, target) if is_parquet else table.columns, table.origin, warnings
    )


def columns_of(work: Work, kind: Kind) -> Mapping[str, str]:
    """The columns and their types, judged by the first rows (in a workbook by all). Raises as above."""
    with _explained(work), opened(work.folder, _files(work)) as database:
        return READERS[_reader(work, kind)].columns(work, database)


def counted(work: Work, kind: Kind) -> int:
    """How many rows there are; of CSV, those with a field for each column. Raises as above."""
    with _explained(work), opened(work.folder, _files(work)) as database:
        return READERS[_reader(work, kind)].count(work, database)


def _files(work: Work) -> list[Path]:
    return [work.folder / name for name in WORK_FILES]


def _reader(work: Work, kind: Kind) -> str:
    """The name of the reader for a file of that kind."""
    reader: str | None = kind.reader
    if kind.type == "application/x-empty" or (kind == Kind("text/plain") and _is_blank(work.file)):
        raise EmptyFile(f"{work.source} is empty: there is nothing to convert")
    if kind.type == ENCRYPTED:
        raise WorkbookRefused(f"{work.source} is protected by a password: save it without one")
    # One column has no delimiter to be recognised by, so here the name decides, or the caller.
    if kind.type == "text/plain" and (
        work.reading.delimiter is not None
        or (work.source.lower().endswith(TABULAR_NAMES) and delimited.has_one_column(work.file))
    ):
        reader = reader or "csv"
    if reader not in READERS:
        raise NotATable(
            f"{work.source} is not CSV, JSON, Parquet, Arrow or a workbook: it looks like {kind.type}"
        )
    work.reading.check_reader(work.source, reader, kind.type)
    return reader


def _is_blank(file: Path) -> bool:
    with file.open("rb") as content:
        return not content.read(64 * 1024).strip()


@contextmanager
def _explained(work: Work) -> Iterator[None]:
    try:
        yield
    except QueryFailed as error:
        raise ConversionFailed(
            f"{work.source} can't be converted: {str(error).replace(str(work.folder), '')}"
        ) from error
