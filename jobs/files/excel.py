"""Excel and OpenDocument sheets: checked for bombs, then read into CSV by a bounded process."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from packmule.errors import UsageError
from packmule.jobs.files.database import Database, quoted
from packmule.jobs.files.delimited import REJECTS, rejected
from packmule.jobs.files.refusals import Refusals
from packmule.jobs.files.table import INTEGERS, MAX_COLUMNS, MismatchedColumns, Report, Table, Work, typed
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


def table(work: Work, database: Database, refusals: Refusals) -> Table:
    """The rows below the header, which is the first row with a value; `collect` gets those that don't fit.

    Raises `WorkbookRefused`, `MismatchedColumns`, `TooWide`.
    """
    del database, refusals
    sheet = read_sheet(work, work.stage(0, 50, "reading"))
    found = sheet["columns"]
    types = typed(work.source, found, work.given)
    for name, kind in work.given.items():
        if kind in INTEGERS and found[name] == "DOUBLE":
            raise MismatchedColumns(
                f"{work.source}: column {name} has fractions, which {kind} would round: use DOUBLE"
            )
    number = "row"
    while number in {name.lower() for name in types}:
        number += "_"
    relation = (
        f"(SELECT * EXCLUDE ({quoted(number)}) FROM "  # noqa: S608  quoted, and the rest is ours
        "read_csv($source, auto_detect = false, compression = 'none', "
        f"delim = ',', quote = '\"', escape = '\"', header = false, columns = $columns, {REJECTS}))"
    )
    parameters = {"source": str(work.folder / "sheet"), "columns": {number: "BIGINT", **types}}
    return Table(relation, parameters, types, {"sheet": sheet["sheet"]}, rows=sheet["rows"])


def collect(database: Database, table: Table, refusals: Refusals) -> None:
    """Move the refused rows into `refusals`, with the sheet's row numbers."""
    for _, column, reason, text in rejected(database):
        row, _, cells = text.partition(",")
        refusals.add(int(row), column, reason, cells)


def read_sheet(work: Work, report: Report) -> dict[str, Any]:
    """Write the wanted sheet to the file `sheet` in the work folder, as CSV; returns what `sheet.py` reports.

    Each row begins with its number in the workbook, and the header is left out. Raises `WorkbookRefused`.
    """
    _check_archive(work.source, work.file)
    script = Path(__file__).with_name("sheet.py")
    arguments = [str(work.file), str(work.folder / "sheet"), work.sheet or "", str(MAX_COLUMNS), str(MEMORY)]
    found: dict[str, Any] = {}
    with subprocess.Popen(  # noqa: S603  our own script
        # -P keeps this folder off the script's path, because its modules' names could shadow others.
        [sys.executable, "-P", str(script), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
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


def _check_archive(source: str, file: Path) -> None:
    """Raise `WorkbookRefused` for a ZIP that unpacks to more than a workbook would."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    packed = max(1, sum(member.compress_size for member in members))
    if len(members) > MAX_MEMBERS:
        raise WorkbookRefused(f"{source} has {len(members):,} parts, but the limit is {MAX_MEMBERS:,}")
    if unpacked > MAX_UNPACKED or (unpacked > SMALL and unpacked > MAX_RATIO * packed):
        raise WorkbookRefused(
            f"{source} unpacks from {packed:,} to {unpacked:,} bytes: "
            f"the limit is {MAX_UNPACKED:,} bytes or {MAX_RATIO} times its size"
        )
