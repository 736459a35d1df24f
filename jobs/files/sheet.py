"""Reads a sheet of a workbook into CSV, as a process: `python sheet.py JSON`, with the arguments of `main`.

Each line it prints is a JSON object: the rows done so far, and at last the columns' types or an error.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from itertools import chain
from typing import Any, TextIO

REPORT_EVERY = 2000
EXACT = 2**53
"""Whole numbers below this are exact in a spreadsheet."""
MOST = 2**31
"""More than any sheet has rows or columns."""
TITLED = 2
"""Columns up to which a single cell is a name, and no title."""


def main(
    source: str,
    target: str,
    sheet: str | None,
    range: str | None,
    header: int | None,
    skip: int,
    max_columns: int,
    memory: int,
) -> dict[str, Any]:
    """Write the sheet `sheet` (the first if None), or its `range`, to `target`; returns its facts.

    Each row begins with its number in the sheet. An empty cell is an empty field; text is quoted.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    from python_calamine import (  # noqa: PLC0415  under the limit
        CalamineError,
        CalamineWorkbook,
        PasswordError,
        SheetVisibleEnum,
    )

    try:
        with CalamineWorkbook.from_path(source) as workbook:
            sheets = workbook.sheet_names
            if sheet and sheet not in sheets:
                return {"error": f"has no sheet {sheet}: it has {', '.join(sheets)[:500]}"}
            if not sheets:
                return {"error": "has no sheets"}
            chosen = sheet or sheets[0]
            cells = workbook.get_sheet_by_name(chosen)
            hidden = {
                each.name for each in workbook.sheets_metadata if each.visible != SheetVisibleEnum.Visible
            }
            rows, columns = _bounds(range)
            if (width := min(columns.stop, cells.total_width) - columns.start) > max_columns:
                return {"error": f"has {width:,} columns, but the limit is {max_columns:,}"}
            found = (
                (number, row[columns])
                for number, row in enumerate(cells.iter_rows(), start=1)
                if rows.start + skip < number <= rows.stop
            )
            with open(target, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123  loads no package of ours
                return {
                    "sheet": chosen,
                    "sheets": sheets,
                    "warnings": _warnings(chosen, sheets, hidden, sheet is not None),
                    **_written(found, header, cells.total_height, file),
                }
    except PasswordError:
        return {"error": "is protected by a password: save it without one"}
    except CalamineError as error:
        return {"error": f"can't be read: {' '.join(str(error).split())[:200]}"}


def _bounds(range: str | None) -> tuple[slice, slice]:
    """The rows and columns of `range`, such as `B3:F90`, or all."""
    if range is None:
        return slice(0, MOST), slice(0, MOST)
    corners = [re.fullmatch(r"([A-Za-z]+)(\d+)", corner) for corner in range.split(":")]
    places = [(_column(found[1]), int(found[2])) for found in corners if found]
    (left, top), (right, bottom) = (map(min, zip(*places)), map(max, zip(*places)))  # noqa: B905  two of each
    return slice(top - 1, bottom), slice(left - 1, right)


def _column(letters: str) -> int:
    number = 0
    for letter in letters.upper():
        number = 26 * number + ord(letter) - ord("A") + 1
    return number


def _warnings(chosen: str, sheets: list[str], hidden: set[str], is_said: bool) -> list[str]:
    warnings = []
    if chosen in hidden:
        warnings.append(f"sheet {chosen} is hidden")
    others = [f"{name} (hidden)" if name in hidden else name for name in sheets if name != chosen]
    if others and not is_said:
        warnings.append(f"only sheet {chosen} is read, and not {', '.join(others)[:500]}")
    return warnings


def _written(
    rows: Iterator[tuple[int, list[Any]]], header: int | None, total: int, file: TextIO
) -> dict[str, Any]:
    at, called, first = _header(rows, header)
    kinds: list[set[str]] = [set() for _ in called]
    written = 0
    for number, row in chain(first, rows):
        if number % REPORT_EVERY == 0:
            print(json.dumps({"done": number, "total": total}), flush=True)  # noqa: T201  to the parent process
        if any(cell != "" for cell in row):
            fields = [_field(cell, kind) for cell, kind in zip(row, kinds, strict=True)]
            file.write(f"{number},{','.join(fields)}\n")
            written += 1
    types = map(_type, kinds)
    return {"columns": dict(zip(names(called), types, strict=True)), "rows": written, "header": at}


def _header(
    rows: Iterator[tuple[int, list[Any]]], header: int | None
) -> tuple[int, list[Any], list[tuple[int, list[Any]]]]:
    """The header's row and cells, and rows that were read in search of it.

    It is the first row with a value, but for titles of one cell above a wider table.
    """
    if header is not None:
        for count, (number, row) in enumerate(rows, start=1):
            if header == 0:
                return 0, [""] * len(row), [(number, row)]
            if count == header:
                return number, row, []
        return 0, [], []
    for number, row in rows:
        filled = sum(cell != "" for cell in row)
        if filled > 1 or (filled and len(row) <= TITLED):
            return number, row, []
    return 0, [], []


def _field(cell: Any, kinds: set[str]) -> str:  # noqa: PLR0911  one for each kind of cell
    """`cell` as CSV, its kind added to `kinds`."""
    match cell:
        case "":
            return ""
        case str():
            kinds.add("VARCHAR")
            return '"' + cell.replace('"', '""') + '"'
        case bool():
            kinds.add("BOOLEAN")
            return "true" if cell else "false"
        case int() | float():
            if abs(cell) < EXACT and cell == int(cell):
                kinds.add("BIGINT")
                return str(int(cell))
            kinds.add("DOUBLE")
            return repr(cell)
        case datetime():
            kinds.add("TIMESTAMP")
            return cell.isoformat(" ")
        case date():
            kinds.add("DATE")
            return cell.isoformat()
        case time():
            kinds.add("TIME")
            return cell.isoformat()
        case timedelta():
            kinds.add("INTERVAL")
            return f"{cell.days} days {cell.seconds}.{cell.microseconds:06d} seconds"
        case _:
            kinds.add("VARCHAR")
            return '"' + str(cell).replace('"', '""') + '"'


def _type(kinds: set[str]) -> str:
    """One type for all values of a column; text if there is none."""
    if len(kinds) == 1:
        return next(iter(kinds))
    if kinds == {"BIGINT", "DOUBLE"}:
        return "DOUBLE"
    return "TIMESTAMP" if kinds == {"DATE", "TIMESTAMP"} else "VARCHAR"


def names(header: list[Any]) -> list[str]:
    """The header's cells as names: none empty, none twice (DuckDB ignores case)."""
    found: list[str] = []
    taken: set[str] = set()
    for index, cell in enumerate(header):
        number = int(cell) if isinstance(cell, float) and cell.is_integer() else cell
        plain = name = str(number).strip() or f"column{index}"
        count = 0
        while name.lower() in taken:
            count += 1
            name = f"{plain}_{count}"
        taken.add(name.lower())
        found.append(name)
    return found


if __name__ == "__main__":
    try:
        found = main(**json.loads(sys.argv[1]))
    except MemoryError:
        found = {"error": "needs too much memory to open: save it as CSV"}
    print(json.dumps(found), flush=True)  # noqa: T201  to the parent process
