"""What the first rows of a CSV say of its columns: their names, and the forms of their values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from packmule.jobs.files.forms import COMMA, DOUBLE, Form, forms_of
from packmule.jobs.files.layout import Layout
from packmule.jobs.files.reading import Reading
from packmule.jobs.files.sheet import names

JUDGED = 5_000
"""Rows."""

THOUSANDS = re.compile(r"\s*[+-]?[1-9][0-9]{0,2},[0-9]{3}\s*")


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and the forms that nearly all of its values have: none for text, several if that is open.

    `is_clean` says that all of its values have the only form.
    """

    name: str
    forms: Sequence[Form]
    is_clean: bool


@dataclass(frozen=True, slots=True)
class FirstRows:
    """The columns, whether a header names them, the lines above it, and how many rows were read.

    `comma` says that numbers have decimal commas.
    """

    columns: Sequence[Column]
    has_header: bool
    above: int
    comma: bool
    rows: int = 0


def first_rows(layout: Layout, reading: Reading) -> FirstRows:
    """Judge the first rows of a table."""
    if not layout.records:
        return FirstRows((), has_header=False, above=layout.skip, comma=False)
    first, *others = layout.records
    rows = [each.fields for each in others if each.fields and len(each.fields) == layout.width][:JUDGED]
    top = first.fields or []
    nothing = {"", *reading.null}
    values = [[each for each in column if each.strip() not in nothing] for column in zip(*rows, strict=True)]
    comma = reading.decimal == "," or (
        reading.decimal is None
        and layout.delimiter in ";\t"
        and _has_commas(values)
        and not (layout.delimiter == "\t" and _may_be_thousands(values))
    )
    forms = [forms_of(column, reading.dates, comma) for column in values]
    has_header = _is_header(top, forms, reading.dates) if reading.header is None else reading.header > 0
    if not has_header and len(top) == layout.width:
        values = [
            [*column, each] if each.strip() not in nothing else column
            for each, column in zip(top, values or [[] for _ in top], strict=True)
        ]
        forms = [forms_of(column, reading.dates, comma) for column in values]
    width = len(top) if has_header else layout.width
    called = names(top if has_header else [""] * width)
    forms += [[] for _ in called[len(forms) :]]
    values += [[] for _ in called[len(values) :]]
    columns = [
        Column(name, each, not each or (len(each) == 1 and each[0].count(column) == len(column)))
        for name, each, column in zip(called, forms, values, strict=False)
    ]
    count = len(rows) + (not has_header and len(top) == layout.width)
    return FirstRows(columns, has_header, first.line, comma, count)


def _has_commas(columns: Sequence[Sequence[str]]) -> bool:
    """Whether more columns have decimal commas than points."""

    def count(form: Form, sign: str) -> int:
        return sum(
            any(sign in each for each in column) and form.count(column) == len(column) for column in columns
        )

    return count(COMMA, ",") > count(DOUBLE, ".")


def _may_be_thousands(columns: Sequence[Sequence[str]]) -> bool:
    """Whether all numbers with a comma may be thousands, as 438,314 is in one country or another."""
    numbers = [each for column in columns if COMMA.count(column) == len(column) for each in column]
    return all(THOUSANDS.fullmatch(each) for each in numbers if "," in each)


def _is_header(top: Sequence[str], forms: Sequence[Sequence[Form]], dates: str | None) -> bool:
    """Whether a table's first row has names: texts where the others have numbers or dates."""
    filled = [each for each in top if each.strip()]
    known = [(each, form) for each, form in zip(top, forms, strict=False) if form and each.strip()]
    if known:
        return not all(any(form.count([each]) for form in some) for each, some in known)
    if not any(forms) and any(forms_of([each], dates, comma=False) for each in filled):
        return False
    return len(set(filled)) == len(filled) >= max(1, len(top) - 1)
