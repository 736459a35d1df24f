"""Tables written as one file for each value of some columns, in folders such as `year=2020`."""

from __future__ import annotations

import shutil
from pathlib import Path

from packmule.jobs.files.database import Database, quoted
from packmule.jobs.files.forms import literal
from packmule.jobs.files.table import Table, Work
from packmule.jobs.files.writing.copies import OPTIONS, copy
from packmule.jobs.files.writing.output import Output, UnfitOutput
from packmule.jobs.files.writing.selection import selected

MOST = 1_000
"""Partitions: each keeps a file open, and rows in memory."""
LONGEST = 255
"""Bytes of a folder's name, with its signs encoded."""
WHOLE = "whole"
"""The name in a work folder of the table before it is divided."""


def write_partitions(database: Database, work: Work, table: Table, target: Path, output: Output) -> int:
    """Write `table` to files in folders below the folder `target`; returns the number of rows.

    Raises `UnfitOutput` if there are no such columns, no others, or too many partitions.
    """
    _check(work.source, table, output)
    whole = work.folder / WHOLE
    for each in (whole, *target.iterdir()):  # of an attempt that has failed
        shutil.rmtree(each, ignore_errors=True)
    whole.unlink(missing_ok=True)
    rows = copy(database, work, table, whole, Output("parquet"))
    columns = ", ".join(map(quoted, output.partition_by))
    source = {"whole": str(whole)}
    lengths = ", ".join(
        f"max(strlen(url_encode({literal(name)}) || '=' || url_encode(CAST({quoted(name)} AS VARCHAR))))"
        for name in output.partition_by
    )
    ((count, *longest),) = database.run(
        f"SELECT count(*), {lengths} FROM (SELECT DISTINCT {columns} FROM read_parquet($whole))",  # noqa: S608  quoted
        source,
    )
    if count > MOST:
        raise UnfitOutput(f"{work.source} would have {count:,} partitions, but the limit is {MOST:,}")
    for name, length in zip(output.partition_by, longest, strict=True):
        if length is not None and length > LONGEST:
            raise UnfitOutput(
                f"{work.source}: column {name} has a value too long for a folder name of {LONGEST} bytes: "
                "partition by another column"
            )
    shown = selected(table.columns, output)
    database.run(
        f"COPY (SELECT {shown} FROM read_parquet($whole)) TO $folder "  # noqa: S608  quoted
        f"({OPTIONS[output.format]}, PARTITION_BY ({columns}), FILENAME_PATTERN 'part-{{i}}')",
        {**source, "folder": str(target)},
        work.stage(90, 99, "dividing"),
    )
    return rows


def _check(source: str, table: Table, output: Output) -> None:
    has = f"it has {', '.join([*table.columns][:20])}"
    if missing := [name for name in output.partition_by if name not in table.columns]:
        raise UnfitOutput(f"{source} has no column {', '.join(missing)} to partition by: {has}")
    if len(set(output.partition_by)) == len(table.columns):
        raise UnfitOutput(f"{source} has no columns but those to partition by: {has}")
