"""The forms in which texts give numbers, dates and truth values: recognised in Python and in DuckDB alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

SURE = 0.99
"""The share of a column's values that must have a form; the others are then refused as errors."""
FEW = 50

WHOLE = r"-?(0|[1-9][0-9]*)|\+[0-9]{1,5}"
"""Neither with leading zeros nor a telephone's number: those are texts."""
EXACT = r"-?(0|[1-9][0-9]{0,14})|\+[0-9]{1,5}"
"""Whole numbers that a DOUBLE holds exactly."""
FRACTION = r"[+-]?(0|[1-9][0-9]{{0,15}})?{point}[0-9]*([eE][+-]?[0-9]+)?|-?[1-9][0-9]{{0,15}}[eE][+-]?[0-9]+"
DAY = r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
CLOCK = r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"


@dataclass(frozen=True, slots=True)
class Form:
    """A form of values of a `type`: a pattern of Python's and RE2's, and how DuckDB reads such a text.

    `format` is for its `strptime`, if it must be told. `quick` is a condition that is cheap to check, and
    true of no text of another form that could be read; with `usual` it is so of texts in these formats alone.
    """

    type: str
    pattern: str
    format: str = ""
    quick: str = "false"
    usual: Sequence[str] = ()
    comma: bool = False

    def cast(self, column: str, how: Literal["", "TRY_"] = "TRY_") -> str:
        """The SQL of a column's value, NULL (or with no `how` an error) for a text that can't be read."""
        if self.format:
            return f"CAST({how}strptime({column}, {literal(self.format)}) AS {self.type})"
        number = f"replace({column}, ',', '.')" if self.comma else column
        return f"{how}CAST({number} AS {self.type})"

    def fits(self, column: str) -> str:
        """The SQL of whether a text has this form."""
        pattern = literal(rf"\s*({self.pattern})\s*")
        read = self.cast(column)
        fits = f"regexp_full_match({column}, {pattern}) AND {read} IS NOT NULL"
        if self.type == "DOUBLE":  # DuckDB reads 1e400 as infinite
            fits += f" AND (isfinite({read}) OR NOT regexp_matches({column}, '[0-9]'))"
        return f"({fits})"

    def loose(self, column: str) -> str:
        """The SQL of whether DuckDB would read a text that has another form, and lose what that says."""
        if self.format:
            return "false"
        read = f"TRY_CAST({column} AS {self.type})"
        if self.type in {"BIGINT", "DOUBLE"}:
            read = (
                f"coalesce(TRY_CAST({column} AS DOUBLE), TRY_CAST({column} AS BIGINT), {self.cast(column)})"
            )
        return f"({read} IS NOT NULL AND NOT {self.fits(column)})"

    def checked(self, column: str, nothing: Sequence[str]) -> str:
        """The SQL of a value that stops the query at a text of another form."""
        cast = self.cast(column, "")
        nulls = f"{column} IS NULL OR {column} IN ({', '.join(map(literal, nothing))})"
        slow = (
            f"WHEN {nulls} THEN NULL WHEN {self.fits(column)} THEN {cast} "
            f"ELSE CAST(error('{MISFIT}') AS {self.type}) END"
        )
        quick = cast
        if self.usual:
            formats = ", ".join(map(literal, self.usual))
            quick = f"coalesce(try_strptime({column}, [{formats}]), CASE {slow})"
        return f"CASE WHEN {self.quick.format(c=column)} THEN {quick} {slow}"

    def count(self, values: Sequence[str]) -> int:
        """How many of the values have this form."""
        match = self._reads if self.pattern == ANY else _compiled(self.pattern)
        if len(values) > 2 * FEW and 2 * sum(map(bool, map(match, values[:FEW]))) < FEW:
            return 0
        return sum(map(bool, map(match, values)))

    def _reads(self, value: str) -> bool:
        try:
            datetime.strptime(value.strip(), self.format)
        except ValueError:
            return False
        return True


def _compiled(pattern: str) -> Callable[[str], object]:
    return re.compile(rf"\s*({pattern})\s*", re.ASCII).fullmatch


ANY = ".+"
"""The pattern of a format that only `strptime` knows."""
MISFIT = "a value has another form"
_NUMBER = (
    "({c} BETWEEN '1' AND ':' OR {c} BETWEEN '0' AND '0/' OR {c} BETWEEN '-1' AND '-:' "
    "OR {c} BETWEEN '-0' AND '-0/') AND strlen({c}) < 16 AND NOT contains({c}, '_') "
    "AND (NOT contains({c}, 'e') AND NOT contains({c}, 'E') OR isfinite(TRY_CAST({c} AS DOUBLE)))"
)
"""No zero before another digit, no plus, not too many digits, none that are grouped, and not too large."""

BOOLEAN = Form("BOOLEAN", "(?i:true|false)", quick="strlen({c}) >= 4")
BIGINT = Form("BIGINT", WHOLE, quick="CAST(TRY_CAST({c} AS BIGINT) AS VARCHAR) = {c}")
DOUBLE = Form("DOUBLE", rf"{EXACT}|{FRACTION.format(point='[.]')}|[+-]?(?i:nan|inf|infinity)", quick=_NUMBER)
COMMA = Form(
    "DOUBLE",
    rf"{EXACT}|{FRACTION.format(point=',')}",
    quick=f"{_NUMBER} AND NOT contains({{c}}, '.')",
    comma=True,
)
DATE = Form("DATE", DAY, quick="strlen({c}) = 10")
TIMESTAMP = Form(
    "TIMESTAMP",
    rf"{DAY}([ T]{CLOCK})?",
    quick="strlen({c}) = 19",
    # A cast would take 10:00+02:00 for 10:00, and 10:00: 5 too.
    usual=("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"),
)
INSTANT = Form("TIMESTAMPTZ", rf"{DAY}[ T]{CLOCK} ?(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)")
TIME = Form("TIME", CLOCK)


def _dated(format: str) -> Form:
    """The form of dates in `format`."""
    pattern = re.escape(format)
    for sign, digits in {"d": "[0-9]{1,2}", "m": "[0-9]{1,2}", "Y": "[0-9]{4}", "y": "[0-9]{2}"}.items():
        pattern = pattern.replace(f"%{sign}", digits)
    kind = "DATE"
    for sign, digits in {"H": "[0-9]{1,2}", "M": "[0-9]{2}", "S": "[0-9]{2}"}.items():
        if f"%{sign}" in pattern:
            kind, pattern = "TIMESTAMP", pattern.replace(f"%{sign}", digits)
    pattern = pattern.replace("%b", "[A-Za-z]{3}")
    # `%Y` would read a year of two digits too.
    quick = "strlen({c}) = 10" if format.endswith("%Y") else "regexp_matches({c}, '[0-9]{{4}}')"
    return Form(kind, pattern, format, quick if "%Y" in format else "true")


_DAYS = [
    "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y", "%d/%m/%y",
    "%m/%d/%y", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y",
]  # fmt: skip
DATES = [DATE, *map(_dated, _DAYS)]
STAMPS = [TIMESTAMP, INSTANT, *(_dated(f"{day} {clock}") for day in _DAYS for clock in ("%H:%M:%S", "%H:%M"))]


def given_dates(format: str) -> Form:
    """The form of dates in a format that the caller gives."""
    has_time = re.search("%[HIMSTXfcp]", format.replace("%%", ""))
    return Form("TIMESTAMP" if has_time else "DATE", ANY, format, quick="true")


def forms_of(values: Sequence[str], dates: str | None, comma: bool) -> list[Form]:
    """The forms that nearly all values have, likely ones first; several only for dates, and none for text."""
    if not values:
        return []
    days = [given_dates(dates), DATE, TIMESTAMP, INSTANT] if dates else [*DATES, *STAMPS]
    enough = SURE * len(values)
    for form in (BOOLEAN, BIGINT, COMMA if comma else DOUBLE):
        if form.count(values) >= enough:
            return [form]
    found = [form for form in days if form.count(values) >= enough]
    if found and (dates or found[0] is DATE):
        return found[:1]
    return found or ([TIME] if TIME.count(values) >= enough else [])


def literal(text: str) -> str:
    """`text` as SQL."""
    return "'" + text.replace("'", "''") + "'"
