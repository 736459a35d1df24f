"""The columns of a table as the SQL that a format needs, so that nothing in them is lost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from packmule.jobs.files.database import quoted
from packmule.jobs.files.writing.output import DELIMITED, SHEETS, Output

FORMULA = r"(?s)[=+\-@\t\r\n＝＋－＠].*"
NUMBER = r"[+-]?[0-9]+([.,][0-9]+)*([eE][+-]?[0-9]+)?"
"""Nothing that a spreadsheet could take for a formula."""

DIGITS = 15
"""Digits that any number of a DOUBLE keeps."""
CELLS = frozenset({
        "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER",
        "UBIGINT", "UHUGEINT", "FLOAT", "DOUBLE", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS",
        "VARCHAR",
})  # fmt: skip
"""Types of which a workbook has cells, if they fit; others become texts."""


def selected(columns: Mapping[str, str], output: Output) -> str:
    """What follows SELECT to write `columns`, names with their types."""
    outside = output.partition_by  # these become names of folders, which no spreadsheet reads
    is_alone = len(columns) - len(outside) == 1
    plain = replace(output, safe=False)
    return ", ".join(
        f"{_value(name, kind, plain, False)} AS {quoted(name)}"
        if name in outside
        else f"{_value(name, kind, output, is_alone)} AS {quoted(_name(name, output))}"
        for name, kind in columns.items()
    )


def _value(name: str, kind: str, output: Output, is_alone: bool) -> str:
    value = quoted(name)
    if output.format in SHEETS and kind not in CELLS:
        return f"CAST({f'to_json({value})' if _is_nested(kind) else value} AS VARCHAR)"
    if output.format in SHEETS and kind in {"TIMESTAMP_S", "TIMESTAMP_MS"}:
        return f"CAST({value} AS TIMESTAMP)"
    if output.format in SHEETS and kind == "FLOAT":
        return f"CAST(CAST({value} AS VARCHAR) AS DOUBLE)"  # 0.1, and not 0.10000000149
    if output.format in {"json", "jsonl"}:
        if kind in {"DOUBLE", "FLOAT"}:  # JSON has no such numbers
            text = f"to_json(CAST({value} AS VARCHAR))"
            return f"CASE WHEN isfinite({value}) THEN to_json({value}) ELSE {text} END"
        return f"CAST({value} AS VARCHAR)" if _is_long(kind) else value
    if output.format in DELIMITED:
        if _is_nested(kind):
            value = f"to_json({value})"
        if output.safe and kind in {"VARCHAR", "JSON"}:
            value = (
                f"CASE WHEN regexp_full_match({value}, '{FORMULA}') "
                f"AND NOT regexp_full_match({value}, '{NUMBER}') THEN '''' || {value} ELSE {value} END"
            )
        if is_alone:  # an empty line would be no row
            value = f"coalesce(CAST({value} AS VARCHAR), '')"
    return value


def _name(name: str, output: Output) -> str:
    is_formula = output.safe and (name[0] in "=+-@＝＋－＠" or name[0].isspace())
    return f"'{name}" if is_formula else name


def _is_long(kind: str) -> bool:
    """Whether the numbers may have more digits than readers of JSON keep."""
    decimal = re.fullmatch(r"DECIMAL\((\d+),.*", kind)
    return kind in {"HUGEINT", "UHUGEINT"} or (decimal is not None and int(decimal[1]) > DIGITS)


def _is_nested(kind: str) -> bool:
    return kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION"))
