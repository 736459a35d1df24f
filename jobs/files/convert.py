"""Converting a table to Parquet: the rows of any reader become a verified file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from packmule.errors import Error, UsageError
from packmule.jobs.files import delimited, excel, jsonlines
from packmule.jobs.files.database import Database, QueryFailed, opened
from packmule.jobs.files.refusals import Refusals
from packmule.jobs.files.signatures import Kind
from packmule.jobs.files.table import CountMismatch, Table, Work, declared, described, write_parquet

TABULAR_NAMES = (".csv", ".tsv", ".tab", ".txt")
WORK_FILES = ("source", "utf-8", "sample", "cleaned", "sheet")
"""The files in a work folder; DuckDB may open these and the output only."""


class NotATable(UsageError, ValueError):
    """A file is not CSV, JSON Lines or Excel; the text says what it looks like."""


class EmptyFile(UsageError, ValueError):
    """A file contains nothing to convert."""


class ConversionFailed(Error, RuntimeError):
    """DuckDB could not read the whole table; nothing was written."""


class Reader(Protocol):
    """The functions of each format's module."""

    def columns(self, work: Work, database: Database) -> Mapping[str, str]: ...
    def table(self, work: Work, database: Database, refusals: Refusals) -> Table: ...
    def collect(self, database: Database, table: Table, refusals: Refusals) -> None: ...


READERS: dict[str, Reader] = {"csv": delimited, "jsonl": jsonlines, "excel": excel}


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written: the rows counted in the file's footer, the columns' types, and the table's origin."""

    rows: int
    columns: Mapping[str, str]
    origin: Mapping[str, str]


@contextmanager
def working(
    source: str,
    file: Path,
    columns: Mapping[str, str] | None,
    sheet: str | None,
    progress: Callable[[float, str], None],
) -> Iterator[Work]:
    """A `Work` for `file` with a private folder, removed at the end. Raises `MismatchedColumns`."""
    given = declared(source, columns)
    with TemporaryDirectory(prefix="packmule-") as name:
        folder = Path(name)
        # Under a name of ours, because DuckDB treats `*`, `?` and `[` in the file's own name as a pattern.
        link = folder / "source"
        link.symlink_to(file.resolve())
        yield Work(source, link, folder, given, sheet, progress)


def to_parquet(work: Work, kind: Kind, target: Path, refusals: Refusals) -> Converted:
    """Write the table to `target`, and the rows that don't fit to `refusals`.

    Raises `NotATable`, `EmptyFile`, `MismatchedColumns`, `TooWide`, `TooManyRefused`, `WorkbookRefused`,
    `UnreadableText`, `ConversionFailed`, `CountMismatch`.
    """
    reader = _reader(work, kind)
    with _explained(work), opened(work.folder, [target, *_files(work)]) as database:
        table = reader.table(work, database, refusals)
        if not table.columns:
            raise EmptyFile(f"{work.source} has no columns: there is nothing to convert")
        rows = write_parquet(database, work, table, target)
        reader.collect(database, table, refusals)
        if table.rows is not None and rows + refusals.count != table.rows:
            raise CountMismatch(
                f"{work.source} has {table.rows:,} rows, but {rows:,} were written "
                f"and {refusals.count:,} refused"
            )
        return Converted(rows, described(database, target), table.origin)


def columns_of(work: Work, kind: Kind) -> Mapping[str, str]:
    """The columns and their types, judged by the first rows (in a workbook by all). Raises as above."""
    with _explained(work), opened(work.folder, _files(work)) as database:
        if kind.reader == "parquet":
            return described(database, work.file)
        return READERS[kind.reader or ""].columns(work, database)


def _files(work: Work) -> list[Path]:
    return [work.folder / name for name in WORK_FILES]


def _reader(work: Work, kind: Kind) -> Reader:
    if kind.reader in READERS:
        return READERS[kind.reader]
    if kind.type == "application/x-empty" or (kind == Kind("text/plain") and _is_blank(work.file)):
        raise EmptyFile(f"{work.source} is empty: there is nothing to convert")
    # One column has no delimiter to be recognised by, so here the name decides.
    if (
        kind.type == "text/plain"
        and work.source.lower().endswith(TABULAR_NAMES)
        and delimited.has_one_column(work.file)
    ):
        return delimited
    raise NotATable(f"{work.source} is not CSV, JSON Lines or Excel: it looks like {kind.type}")


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
