"""Reads a sheet of a workbook into CSV, as a process: `python sheet.py SOURCE TARGET SHEET COLUMNS MEMORY`.

COLUMNS is the most columns of a sheet, MEMORY the most bytes of address space of the process.

Each line it prints is a JSON object: the rows done so far, and at last the columns' types or an error.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any, TextIO

REPORT_EVERY = 2000
EXACT = 2**53
"""Whole numbers below this are exact in a spreadsheet."""


def main(source: str, target: str, sheet: str, max_columns: int, memory: int) -> dict[str, Any]:
    """Write the sheet `sheet` (the first if empty) to `target`; returns its facts.

    Each row begins with its number in the sheet. An empty cell is an empty field; text is quoted.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    from python_calamine import CalamineError, CalamineWorkbook  # noqa: PLC0415  under the limit

    try:
        with CalamineWorkbook.from_path(source) as workbook:
            names = workbook.sheet_names
            if sheet and sheet not in names:
                return {"error": f"has no sheet {sheet}: it has {', '.join(names)}"}
            if not names:
                return {"error": "has no sheets"}
            chosen = sheet or names[0]
            cells = workbook.get_sheet_by_name(chosen)
            if cells.total_width > max_columns:
                return {"error": f"has {cells.total_width:,} columns, but the limit is {max_columns:,}"}
            with open(target, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123  loads no package of ours
                return {
                    "sheet": chosen,
                    "sheets": names[:100],
                    **_written(enumerate(cells.iter_rows(), start=1), cells.total_height, file),
                }
    except CalamineError as error:
        return {"error": f"can't be read: {' '.join(str(error).split())[:200]}"}


def _written(rows: Iterator[tuple[int, list[Any]]], total: int, file: TextIO) -> dict[str, Any]:
    header: list[Any] = next((row for _, row in rows if any(cell != "" for cell in row)), [])
    kinds: list[set[str]] = [set() for _ in header]
    written = 0
    for number, row in rows:
        if number % REPORT_EVERY == 0:
            print(json.dumps({"done": number, "total": total}), flush=True)  # noqa: T201  to the parent process
        if any(cell != "" for cell in row):
            fields = [_field(cell, kind) for cell, kind in zip(row, kinds, strict=True)]
            file.write(f"{number},{','.join(fields)}\n")
            written += 1
    return {"columns": dict(zip(_names(header), map(_type, kinds), strict=True)), "rows": written}


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
            if cell == int(cell) and abs(cell) < EXACT:
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


def _names(header: list[Any]) -> list[str]:
    """The header's cells as names: none empty, none twice (DuckDB ignores case)."""
    names: list[str] = []
    taken: set[str] = set()
    for index, cell in enumerate(header):
        number = int(cell) if isinstance(cell, float) and cell.is_integer() else cell
        plain = name = str(number).strip() or f"column{index}"
        count = 0
        while name.lower() in taken:
            count += 1
            name = f"{plain}_{count}"
        taken.add(name.lower())
        names.append(name)
    return names


if __name__ == "__main__":
    try:
        found = main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    except MemoryError:
        found = {"error": "needs too much memory to open: save it as CSV"}
    print(json.dumps(found), flush=True)  # noqa: T201  to the parent process
