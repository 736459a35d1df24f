"""Parquet as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from packmule.jobs.files.database import Database
from packmule.jobs.files.refusals import Refusals
from packmule.jobs.files.table import Table, Work, check_width, described


def columns(work: Work, database: Database) -> Mapping[str, str]:
    """The columns and their types. Raises `TooWide`."""
    found = described(database, work.file)
    check_width(work.source, found)
    return found


def tables(work: Work, database: Database, refusals: Refusals) -> Iterator[Table]:
    """The table, none of whose rows can be refused. Raises `TooWide`."""
    del refusals
    source = {"source": str(work.file)}
    found, rows = columns(work, database), count(work, database)
    yield Table("read_parquet($source)", source, found, {}, rows=rows, begins=0)


def count(work: Work, database: Database) -> int:
    """The number of rows in the footer."""
    source = {"source": str(work.file)}
    ((rows,),) = database.run("SELECT num_rows FROM parquet_file_metadata($source)", source)
    return int(rows)
