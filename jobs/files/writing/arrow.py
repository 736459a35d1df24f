"""Tables written as Arrow files and streams, batch by batch."""

from __future__ import annotations

from pathlib import Path

from packmule.jobs.files.database import Database
from packmule.jobs.files.table import Table, Work
from packmule.jobs.files.writing.output import Output, UnfitOutput
from packmule.jobs.files.writing.selection import selected


def write_arrow(
    database: Database, work: Work, table: Table, target: Path, output: Output
) -> tuple[int, list[str]]:
    """Write `table` to `target`; returns the number of rows, and no warnings.

    Raises `UnfitOutput` if the extra for it isn't installed.
    """
    try:
        import pyarrow.ipc  # noqa: PLC0415  an extra, loaded only for its files
    except ImportError:
        raise UnfitOutput(
            f"{work.source}: what writes Arrow isn't installed: pip install 'packmule[arrow]'"
        ) from None
    sql = f"SELECT {selected(table.columns, output)} FROM {table.relation}"  # noqa: S608  quoted
    schema, batches = database.batches(sql, table.parameters, work.stage(table.begins, 99, "writing"))
    options = pyarrow.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    new = pyarrow.ipc.new_stream if output.format == "arrows" else pyarrow.ipc.new_file
    done = 0
    with target.open("wb") as file, new(file, schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
            done += batch.num_rows
    return done, []
