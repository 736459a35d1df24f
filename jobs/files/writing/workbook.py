"""Tables written as Excel workbooks, a row at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packmule.jobs.files.database import Database
from packmule.jobs.files.table import Table, Work
from packmule.jobs.files.writing.cells import Cells
from packmule.jobs.files.writing.output import Output
from packmule.jobs.storage import StorageError

if TYPE_CHECKING:
    from xlsxwriter.format import Format

FIRST_DAY = date(1900, 3, 1)
"""The day from which all spreadsheets agree: in Excel 1900 was a leap year."""


def write_workbook(
    database: Database, work: Work, table: Table, target: Path, output: Output
) -> tuple[int, list[str]]:
    """Write `table` to `target`; returns the number of rows, and warnings about cells that became texts.

    Raises `UnfitOutput` if the table has more rows than a sheet, or a longer text than a cell.
    """
    from xlsxwriter.exceptions import XlsxWriterException  # noqa: PLC0415  keeps other workers small

    cells = Cells(work, table, "Excel", FIRST_DAY)
    try:
        return _written(cells, database, work, table, target, output), cells.warnings
    except XlsxWriterException as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None  # what the system said
        raise StorageError(f"can't write a workbook of {work.source}: {error}") from error


def _written(cells: Cells, database: Database, work: Work, table: Table, target: Path, output: Output) -> int:
    import xlsxwriter  # noqa: PLC0415  keeps other workers small

    done = 0
    options = {"constant_memory": True, "tmpdir": str(work.folder), "nan_inf_to_errors": False}
    with xlsxwriter.Workbook(str(target), options) as book:
        sheet = book.add_worksheet()
        sheet.freeze_panes(1, 0)
        bold = book.add_format({"bold": True})
        for place, name in enumerate(table.columns):
            sheet.write_string(0, place, name, bold)
        formats = _formats(book.add_format)
        for done, row in enumerate(cells.rows(database, output), start=1):
            _write(sheet, done, row, formats)
    return done


def _formats(add: Callable[[Mapping[str, str]], Format]) -> dict[type, Format]:
    return {
        date: add({"num_format": "yyyy-mm-dd"}),
        datetime: add({"num_format": "yyyy-mm-dd hh:mm:ss.000"}),
        time: add({"num_format": "hh:mm:ss"}),
    }


class _Exact(float):
    """A number that is written with all its digits: the library formats it with 16."""

    def __format__(self, spec: str) -> str:
        return repr(float(self))


def _write(sheet: Any, row: int, cells: list[Any], formats: Mapping[type, Format]) -> None:
    for place, value in enumerate(cells):
        kind = type(value)
        if value is None:
            continue
        if kind is str:
            sheet.write_string(row, place, value)
        elif kind is bool:
            sheet.write_boolean(row, place, value)
        elif kind in formats:
            sheet.write_datetime(row, place, value, formats[kind])
        else:
            sheet.write_number(row, place, _Exact(value) if kind is float else value)
