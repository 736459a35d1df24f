"""The columns of a CSV as all of its rows have them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from packmule.jobs.files.database import Database, quoted
from packmule.jobs.files.first_rows import Column
from packmule.jobs.files.forms import BIGINT, COMMA, DATE, DOUBLE, SURE, TIME, TIMESTAMP, Form, literal
from packmule.jobs.files.table import INTEGERS, MismatchedColumns, Report

BATCH = 200
"""Aggregates per query: the time and memory to plan it grow with their square."""

OFFSET = r":[0-9.:]+ ?[+-][0-9:]*[1-9][0-9:]*\s*$"
"""An offset from UTC behind a time of day."""

Aggregated = Callable[[Sequence[str]], list[int]]
"""The values of SQL aggregates over all rows, whose columns are texts."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A column with the only form of its values, if they have one, and whether all of them have it."""

    name: str
    form: Form | None
    is_clean: bool
    warning: str = ""


def surveyed(
    source: str,
    columns: Sequence[Column],
    given: Mapping[str, str],
    comma: bool,
    nothing: Sequence[str],
    aggregated: Aggregated,
) -> list[Surveyed]:
    """Each column's form by all rows: 99 % of the values have it, and DuckDB loses nothing of the others.

    It would round 1.5 if it read it as a whole number, and drop the zeros of 00123. Raises
    `MismatchedColumns` if a type of the caller's would drop something.
    """
    check_given(source, given, aggregated)
    open_columns = [each for each in columns if each.forms and each.name not in given]
    alternatives = [_alternatives(each.forms, comma) for each in open_columns]
    aggregates = []
    for column, forms in zip(open_columns, alternatives, strict=True):
        value = f"nullif(trim({quoted(column.name)}), '')"
        if len(nothing) > 1:
            value = f"CASE WHEN {value} NOT IN ({', '.join(map(literal, nothing))}) THEN {value} END"
        aggregates.append(f"count({value})")
        for form in forms:
            aggregates.append(f"count(*) FILTER ({form.fits(value)})")
            aggregates.append(f"count(*) FILTER ({form.loose(value)})")
    seen = iter(aggregated(aggregates))
    found = {}
    for column, forms in zip(open_columns, alternatives, strict=True):
        values = next(seen)
        fitting = [(next(seen), next(seen), form) for form in forms]
        found[column.name] = _decided(column, values, fitting)
    return [found.get(each.name) or Surveyed(each.name, None, is_clean=True) for each in columns]


def _alternatives(forms: Sequence[Form], comma: bool) -> list[Form]:
    if forms[0] is BIGINT:
        return [BIGINT, COMMA if comma else DOUBLE]
    return [DATE, TIMESTAMP] if [*forms] == [DATE] else [*forms]


def _decided(column: Column, values: int, fitting: Sequence[tuple[int, int, Form]]) -> Surveyed:
    good = [(fits, form) for fits, loose, form in fitting if values and fits >= SURE * values and not loose]
    most = max((fits for fits, _ in good), default=0)
    best = [form for fits, form in good if fits == most]
    if len(best) > 1 and best[0].format:
        formats = " or ".join(form.format for form in best)
        return Surveyed(
            column.name, None, is_clean=True, warning=f"{column.name} is text: its dates may be {formats}"
        )
    if best:
        return Surveyed(column.name, best[0], is_clean=most == values)
    warning = f"{column.name} is text: its first values are {column.forms[0].type}, but not all"
    return Surveyed(column.name, None, is_clean=True, warning=warning)


def aggregate(
    database: Database,
    relation: str,
    parameters: Mapping[str, Any],
    aggregates: Sequence[str],
    report: Report | None = None,
) -> list[int]:
    """The values of `aggregates` over the relation's rows, a few in each query."""
    values: list[int] = []
    for start in range(0, len(aggregates), BATCH):
        batch = ", ".join(aggregates[start : start + BATCH])
        values += database.run(f"SELECT {batch} FROM {relation}", parameters, report)[0]  # noqa: S608  quoted
    return values


def check_given(source: str, given: Mapping[str, str], aggregated: Aggregated) -> None:
    """Raise `MismatchedColumns` if one of the caller's types would drop a part of its column's values."""
    losses = [(name, *loss) for name, kind in given.items() for loss in _losses(quoted(name), kind)]
    counts = aggregated([f"count(*) FILTER ({condition})" for _, condition, _, _ in losses])
    for (name, _, what, advice), count in zip(losses, counts, strict=True):
        if count:
            raise MismatchedColumns(f"{source}: column {name} has {what}, which {given[name]} would {advice}")


def _losses(column: str, kind: str) -> list[tuple[str, str, str]]:
    """What DuckDB would drop if it read texts as a type: the SQL of whether it would, and words for it."""
    if kind in INTEGERS:
        loses = f"TRY_CAST(replace({column}, ',', '.') AS DOUBLE) % 1 <> 0"
        return [(loses, "fractions", "round: use DOUBLE")]
    if found := re.fullmatch(r"DECIMAL\((\d+), ?(\d+)\)", kind):
        number, most = f"replace({column}, ',', '.')", 38 - (int(found[1]) - int(found[2]))
        loses = f"TRY_CAST({number} AS {kind}) <> TRY_CAST({number} AS DECIMAL(38, {most}))"
        return [(loses, "longer fractions", "round: use one with more digits, or DOUBLE")]
    reads = f"TRY_CAST({column} AS {kind}) IS NOT NULL"
    match kind:
        case "DATE":
            loses = f"TRY_CAST({column} AS TIMESTAMP) <> TRY_CAST({column} AS DATE)"
            return [(f"{reads} AND {loses}", "times of day", "drop: use TIMESTAMP")]
        case "TIMESTAMP":
            loses = f"regexp_matches({column}, {literal(OFFSET)})"
            return [(f"{reads} AND {loses}", "offsets", "drop: use TIMESTAMPTZ")]
        case "TIME":
            return [(f"{reads} AND NOT {TIME.fits(column)}", "more than times", "drop: use VARCHAR")]
    return []


def one_format(columns: Sequence[Surveyed]) -> tuple[list[Surveyed], dict[str, str]]:
    """The columns with at most one format of dates and one of instants where some values are refused.

    DuckDB says the line of a refused value only while it reads it as its type, with one format a file.
    """
    formats: dict[str, str] = {}
    kept = []
    for column in columns:
        form = column.form
        if form is not None and not column.is_clean and form.type in {"DATE", "TIMESTAMP"}:
            format = form.format or ("%Y-%m-%d" if form.type == "DATE" else "")
            if formats.setdefault(form.type, format) != format:
                warning = f"{column.name} is text: some of its dates have another format"
                column = replace(column, form=None, is_clean=True, warning=warning)  # noqa: PLW2901
        kept.append(column)
    return kept, {kind: format for kind, format in formats.items() if format}
