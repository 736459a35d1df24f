"""The file jobs: `file` says what a file is, or converts a table; each other has a package of its own."""

from __future__ import annotations

from typing import Any

from packmule.jobs import current
from packmule.jobs.files.arrow import ArrowRefused
from packmule.jobs.files.compressed import BrokenCompression
from packmule.jobs.files.convert import ConversionFailed, EmptyFile, NotATable
from packmule.jobs.files.excel import WorkbookRefused
from packmule.jobs.files.fetching import fetch
from packmule.jobs.files.inspection import inspected
from packmule.jobs.files.json_columns import UnfitKey
from packmule.jobs.files.jsontext import BrokenJson
from packmule.jobs.files.profiling import profile
from packmule.jobs.files.reading import Reading, UnfitOption
from packmule.jobs.files.refusals import TooManyRefused
from packmule.jobs.files.scanning import scan
from packmule.jobs.files.storing import OF_TABLES, Conversion, contract_of, default_path, reading
from packmule.jobs.files.table import MismatchedColumns, TooWide
from packmule.jobs.files.text import UnreadableText
from packmule.jobs.files.texts import text
from packmule.jobs.files.unpacking import unpack
from packmule.jobs.files.unpacking.each import each_member
from packmule.jobs.files.writing.contract import UnfitSchema
from packmule.jobs.files.writing.copies import CountMismatch
from packmule.jobs.files.writing.output import Format, UnfitOutput, output_of
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job import job
from packmule.jobs.storage import Storage

__all__ = [
    "ArrowRefused",
    "BrokenCompression",
    "BrokenJson",
    "ConversionFailed",
    "CountMismatch",
    "EmptyFile",
    "MismatchedColumns",
    "NotATable",
    "TooManyRefused",
    "TooWide",
    "UnfitKey",
    "UnfitOption",
    "UnfitOutput",
    "UnfitSchema",
    "UnreadableText",
    "WorkbookRefused",
    "each_member",
    "fetch",
    "file",
    "profile",
    "scan",
    "text",
    "unpack",
]


@job(**OF_TABLES)
def file(
    source: str,
    to: Format | None = None,
    out: str | None = None,
    *,
    columns: dict[str, str] | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    quote: str | None = None,
    header: int | None = None,
    skip: int | None = None,
    null: list[str] | None = None,
    dates: str | None = None,
    decimal: str | None = None,
    sheet: str | None = None,
    range: str | None = None,
    max_refused: int | None = None,
    partition_by: list[str] | None = None,
    safe_for_spreadsheets: bool = False,
    schema: str | dict[str, str] | None = None,
    widen: bool = False,
) -> dict[str, Any]:
    """Inspect the stored file `source`, or convert its table to another format.

    Without `to` and `out`, it returns the type by content (regardless of the name), the size in bytes, the
    SHA-256, and of a table the columns with their types and, if they can be counted quickly, the rows. It
    also says the `sheets` of a workbook, how many `members` an archive and how many `pages` a PDF has, the
    `content_type` of a compressed file, and which other uploads have the same content as `duplicates`::

        {"source": "uploads/a.csv", "type": "text/csv", "bytes": 48219, "rows": 1461,
         "columns": [{"name": "date", "type": "DATE"}, ...], "sha256": "0f5a..."}

    With `to`, or a suffix of `out` that says it, it converts CSV, JSON (lines, an array or single objects),
    Parquet, Arrow, or the first sheet of an Excel or OpenDocument workbook; it unpacks .gz, .bz2, .xz and
    .zst. It writes `out`, by default `converted/<job id>/<source's stem>.<format>`: CSV, TSV, JSON Lines,
    JSON, Parquet (zstd), Arrow (LZ4), Excel or OpenDocument. Texts are compressed if `out` ends with .gz or
    .zst.

    How the file is written is found, and said in the result; an argument says it where that is wrong:
    `encoding`, `delimiter`, `quote`, `skip` (lines), `header` (the line of the names after those, 0 for
    none), `null` (texts that are no values), `dates` (such as `%d/%m/%Y`), `decimal` (`","`), `sheet` and
    `range` (`"B3:F90"`). `columns` gives types by column name, such as `{"zip": "VARCHAR"}`.

    `partition_by` columns make `out` a folder of Parquet or CSV files such as `year=2020/part-0.parquet`,
    and of a `manifest.json`, which is written last. With `safe_for_spreadsheets` a text of CSV that a
    spreadsheet would take for a formula begins with an apostrophe. `schema` is a mapping of columns to types,
    or the path of a stored JSON file with one: if columns are new, lost or changed, nothing is written. With
    `widen` they are warnings.

    A row that doesn't fit is refused, not lost: all refused rows are in `<out>.refused.jsonl`, the first 100
    in the result. More than 1 % of them fail the job, or more than `max_refused` rows, if that is given::

        {"source": "uploads/a.csv", "path": "converted/7f0c/a.parquet", "format": "parquet", "rows": 1460,
         "refused": 1, "refusals": [{"line": 17, "column": "wind", "reason": "Could not convert string \"-\"
         to 'DOUBLE'", "text": "2012/01/16,..."}],
         "refused_path": "converted/7f0c/a.parquet.refused.jsonl", "encoding": "utf-8", "delimiter": ",",
         "quote": "\"", "skip": 0, "header": 1, "warnings": [],
         "columns": [{"name": "date", "type": "DATE"}, ...], "bytes": 16310, "seconds": 0.2}

    Raises `NotATable`, `EmptyFile`, `ArrowRefused`, `BrokenCompression`, `BrokenJson`, `MismatchedColumns`,
    `TooManyRefused`, `TooWide`, `UnfitKey`, `UnfitOption`, `UnfitOutput`, `UnfitSchema`, `UnreadableText`,
    `WorkbookRefused`, `ConversionFailed`, `CountMismatch`, `MissingFile`, `FileTooLarge`; then nothing is
    written.

    >>> file.enqueue("uploads/a.csv", to="parquet", columns={"zip": "VARCHAR"})  # doctest: +SKIP
    """
    storage, limits = current.resource(Storage), current.resource(InputLimits)
    nulls = tuple(null or ())
    said = Reading(
        columns or {}, encoding, delimiter, quote, header, skip, nulls, dates, decimal, sheet, range
    ).check(source)
    if out is not None:
        storage.locate(out)  # raises before any work if it is outside
    output = output_of(source, to, out, partition_by or (), safe_for_spreadsheets)
    if output is None and (schema is not None or widen or max_refused is not None):
        raise UnfitOutput(
            f"{source}: schema, widen and max_refused are for a conversion: give the format to convert to, "
            "such as csv"
        )
    with reading(storage, source, limits.file_bytes) as content:
        if output is None:
            return inspected(storage, source, content, said)
        contract = contract_of(storage, source, schema, widen)
        path = out or default_path("converted", source, content) + output.suffix
        return Conversion(
            storage, source, content, said, output, contract, limits.file_bytes, max_refused
        ).stored(path)
