"""Excel and OpenDocument sheets: checked for bombs, then read into CSV by a bounded process."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from packmule.errors import UsageError
from packmule.jobs.files import scripts
from packmule.jobs.files.database import Database, quoted
from packmule.jobs.files.doubts import doubtful
from packmule.jobs.files.refusals import Refusals
from packmule.jobs.files.rejects import REJECTS, rejected
from packmule.jobs.files.survey import aggregate, check_given
from packmule.jobs.files.table import MAX_COLUMNS, Report, Table, Work, typed
from packmule.jobs.files.zip_directory import directory, uncommented
from packmule.units import GIB, MIB

MAX_UNPACKED = GIB
MAX_MEMBERS = 10_000
MAX_RATIO = 200
SMALL = 16 * MIB
"""Bytes that any file may unpack to, whatever the ratio."""
MEMORY = 2 * GIB
"""Address space of the reading process in bytes; a separate process, so no workbook can kill the worker."""


class WorkbookRefused(UsageError, ValueError):
    """A workbook can't be read, or needs more than a job may use."""


def columns(work: Work, database: Database) -> Mapping[str, str]:
    """The columns of the sheet and their types, judged by all rows. Raises `WorkbookRefused`."""
    del database
    return cast(Mapping[str, str], read_sheet(work, work.stage(0, 100, "reading"))["columns"])


def count(work: Work, database: Database) -> int:
    """The number of rows with a value. Raises `WorkbookRefused`."""
    del database
    return int(read_sheet(work, work.stage(0, 100, "reading"))["rows"])


def tables(work: Work, database: Database, refusals: Refusals) -> Iterator[Table]:
    """The rows below the header, which is the first row that isn't a title.

    Raises `WorkbookRefused`, `MismatchedColumns`, `TooWide`.
    """
    del refusals
    sheet = read_sheet(work, work.stage(0, 50, "reading"))
    found, given = sheet["columns"], work.reading.columns
    types = typed(work.source, found, given)
    number = "row"
    while number in {name.lower() for name in types}:
        number += "_"

    def relation(kinds: Mapping[str, str], rest: str = "") -> tuple[str, dict[str, Any]]:
        # A text is quoted, even if it is empty; a cell without a value is not.
        sql = (
            f"(SELECT * EXCLUDE ({quoted(number)}) FROM "  # noqa: S608  quoted, and the rest is ours
            "read_csv($source, auto_detect = false, compression = 'none', delim = ',', quote = '\"', "
            f"escape = '\"', allow_quoted_nulls = false, header = false, columns = $columns{rest}))"
        )
        return sql, {"source": str(work.folder / "sheet"), "columns": {number: "BIGINT", **kinds}}

    texts = relation(dict.fromkeys(types, "VARCHAR"))
    check_given(work.source, given, lambda aggregates: aggregate(database, *texts, aggregates))
    origin = {"sheet": sheet["sheet"], "header": sheet["header"]}
    warnings = [*sheet["warnings"], *doubtful(work.file, sheet["sheet"])]
    yield Table(
        *relation(types, f", {REJECTS}"), types, origin, warnings, rows=sheet["rows"], collect=_collect
    )


def _collect(database: Database, refusals: Refusals) -> None:
    """Move the refused rows into `refusals`, with the sheet's row numbers."""
    for _, column, reason, text in rejected(database):
        row, _, cells = text.partition(",")
        refusals.add(int(row), column, reason, cells)


def read_sheet(work: Work, report: Report) -> dict[str, Any]:
    """Write the wanted sheet to the file `sheet` in the work folder, as CSV; returns what `sheet.py` reports.

    Each row begins with its number in the workbook, and the header is left out. Raises `WorkbookRefused`.
    """
    file = _checked(work)
    reading = work.reading
    wanted = {
        "source": str(file),
        "target": str(work.folder / "sheet"),
        "sheet": reading.sheet,
        "range": reading.range,
        "header": reading.header,
        "skip": reading.skip or 0,
        "max_columns": MAX_COLUMNS,
        "memory": MEMORY,
    }
    found: dict[str, Any] = {}
    with scripts.started("sheet.py", wanted) as process:
        try:
            for line in process.stdout or ():
                found = json.loads(line)
                if "done" in found:
                    report(100 * found["done"] / max(1, found["total"]))
        except BaseException:
            process.kill()
            raise
    if "error" in found:
        raise WorkbookRefused(f"{work.source} {found['error']}")
    if "rows" not in found:
        raise WorkbookRefused(
            f"{work.source} can't be opened within {MEMORY // 1024**2:,} MB of memory "
            f"(exit code {process.returncode}): save it as CSV"
        )
    return found


def _checked(work: Work) -> Path:
    """The file as every program reads it. Raises `WorkbookRefused` if it unpacks to more than a workbook."""
    with work.file.open("rb") as content:
        if (found := directory(content)) is None:
            return work.file  # Excel's old format
        whole = uncommented(content, found)
        try:
            members = zipfile.ZipFile(whole).infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error):
            return work.file  # which is refused when it is read
        _check_size(work.source, members)
        if found.is_last:
            return work.file
        copy = work.folder / "cleaned"
        whole.seek(0)
        with copy.open("wb") as target:
            shutil.copyfileobj(whole, target, MIB)
    return copy


def _check_size(source: str, members: list[zipfile.ZipInfo]) -> None:
    unpacked = sum(member.file_size for member in members)
    packed = max(1, sum(member.compress_size for member in members))
    if len(members) > MAX_MEMBERS:
        raise WorkbookRefused(f"{source} has {len(members):,} parts, but the limit is {MAX_MEMBERS:,}")
    if unpacked > MAX_UNPACKED or (unpacked > SMALL and unpacked > MAX_RATIO * packed):
        raise WorkbookRefused(
            f"{source} unpacks from {packed:,} to {unpacked:,} bytes: "
            f"the limit is {MAX_UNPACKED:,} bytes or {MAX_RATIO} times its size"
        )
