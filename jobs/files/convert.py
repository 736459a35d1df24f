"""A table to Parquet: any reader's rows to a verified file, and a plain word for what can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from packmule.jobs.files import delimited, excel, jsonlines
from packmule.jobs.files.database import Database, DatabaseError, opened
from packmule.jobs.files.refusals import Refusals
from packmule.jobs.files.signatures import Kind
from packmule.jobs.files.table import CountMismatch, Table, Work, declared, described, write_parquet

TABULAR_NAMES = (".csv", ".tsv", ".tab", ".txt")
WORK_FILES = ("source", "utf-8", "sample", "cleaned", "sheet")
"""Names in a work folder: all that DuckDB may open, beside the output."""


class NotATable(ValueError):
    """A file that is not CSV, JSON Lines or Excel; the text says what it looks like."""


class EmptyFile(ValueError):
    """A file without anything to make rows of."""


class ConversionFailed(RuntimeError):
    """DuckDB could not read the table to its end; nothing was written."""


class Reader(Protocol):
    """What the module of each format offers."""

    def columns(self, work: Work, database: Database) -> Mapping[str, str]: ...
    def table(self, work: Work, database: Database, refusals: Refusals) -> Table: ...
    def collect(self, database: Database, table: Table, refusals: Refusals) -> None: ...


READERS: dict[str, Reader] = {"csv": delimited, "jsonl": jsonlines, "excel": excel}


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written: rows by the file's own footer, columns and their types, and the table's origin."""

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
    """A `Work` for `file` with a private folder, which is gone at the end. Raises `MismatchedColumns`."""
    given = declared(source, columns)
    with TemporaryDirectory(prefix="packmule-") as name:
        folder = Path(name)
        # Under a name of ours, for DuckDB would take `*`, `?` and `[` in the file's own for a pattern.
        link = folder / "source"
        link.symlink_to(file.resolve())
        yield Work(source, link, folder, given, sheet, progress)


def to_parquet(work: Work, kind: Kind, target: Path, refusals: Refusals) -> Converted:
    """Write the table to `target`; rows that don't fit go to `refusals`.

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
                f"{work.source} has {table.rows:,} rows, but {rows:,} written and {refusals.count:,} refused"
            )
        return Converted(rows, described(database, target), table.origin)


def columns_of(work: Work, kind: Kind) -> Mapping[str, str]:
    """The table's columns and their types, by its first rows (a workbook's by all). Raises as above."""
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
    # One column has no delimiter to be told by, so that here the name decides.
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
    except DatabaseError as error:
        raise ConversionFailed(
            f"{work.source} can't be converted: {str(error).replace(str(work.folder), '')}"
        ) from error
