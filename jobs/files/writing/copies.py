"""Tables written by DuckDB: Parquet, CSV and JSON."""

from __future__ import annotations

from pathlib import Path

from packmule.errors import Error
from packmule.jobs.files.database import Database
from packmule.jobs.files.table import Table, Work
from packmule.jobs.files.writing.output import Output
from packmule.jobs.files.writing.selection import selected

OPTIONS = {
    "parquet": "FORMAT parquet, COMPRESSION zstd",
    "csv": "FORMAT csv",
    "tsv": "FORMAT csv, DELIMITER '\t'",
    "jsonl": "FORMAT json",
    "json": "FORMAT json, ARRAY true",
}


class CountMismatch(Error, RuntimeError):
    """The rows read, written and refused don't add up, so the output is not kept."""


def copy(database: Database, work: Work, table: Table, target: Path, output: Output) -> int:
    """Write `table` to `target`; returns the number of rows. Raises `CountMismatch`."""
    options = OPTIONS[output.format]
    if output.compression:
        options += f", COMPRESSION {output.compression}"
    ((written,),) = database.run(
        f"COPY (SELECT {selected(table.columns, output)} FROM {table.relation}) TO $target ({options})",  # noqa: S608  quoted
        {**table.parameters, "target": str(target)},
        work.stage(table.begins, 99, "writing"),
    )
    if output.format == "parquet":
        ((rows,),) = database.run(
            "SELECT num_rows FROM parquet_file_metadata($target)", {"target": str(target)}
        )
        if rows != written:
            raise CountMismatch(
                f"{work.source}: {written:,} rows were written, but the Parquet footer counts {rows:,}"
            )
    return int(written)
