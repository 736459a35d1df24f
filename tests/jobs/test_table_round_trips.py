"""Whatever table Python's csv, json or openpyxl writes reads back equal from its Parquet."""

from __future__ import annotations

import csv
import io
import json
import math
import string
import tempfile
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packmule.jobs import context
from packmule.jobs.files import NotATable, TooManyRefused, file
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import Storage

EXAMPLES = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))

TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\r\t,;|\"'\\ "), max_size=12
)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
DAYS = st.dates(date(1, 1, 1))
INSTANTS = st.datetimes(datetime(1, 1, 1))


def tables(*columns: st.SearchStrategy[Any]) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    return st.lists(st.tuples(*columns), min_size=1, max_size=8)


def converted(content: bytes, name: str, **options: Any) -> list[tuple[Any, ...]]:
    """The rows of the table in `content`, none of them refused."""
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(folder)
        context.provide(storage, InputLimits(file_bytes=100_000_000, attachment_bytes=1, pixels=1))
        storage.write_bytes(name, content)
        result = file(name, to="parquet", out="out.parquet", max_refused=0, **options)
        parquet = str(Path(folder) / result["path"])
        return duckdb.connect().execute("FROM read_parquet($file)", {"file": parquet}).fetchall()


def written(table: list[tuple[Any, ...]], **dialect: Any) -> str:
    text = io.StringIO()
    names = [f"c{number}" for number, _ in enumerate(table[0])]
    csv.writer(text, **dialect).writerows([names, *table])
    return text.getvalue()


@EXAMPLES
@given(
    tables(TEXT, TEXT, TEXT),
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_texts_of_a_csv(table, delimiter, quoting, end, encoding):
    if end == "\n":
        # Python's writer quotes a line end of its own only.
        table = [tuple(field.replace("\r", "\n") for field in row) for row in table]
    text = written(table, delimiter=delimiter, quoting=quoting, lineterminator=end)
    types = {"c0": "VARCHAR", "c1": "VARCHAR", "c2": "VARCHAR"}
    rows = converted(text.encode(encoding), "a.csv", columns=types, delimiter=delimiter)
    # Only a quoted text can be empty: nothing at all is NULL.
    empty = "" if quoting == csv.QUOTE_ALL else None
    assert rows == [tuple(field or empty for field in row) for row in table]


@EXAMPLES
@given(
    tables(st.text(string.ascii_letters, min_size=1), INTEGERS, st.floats(), DAYS, INSTANTS, st.booleans())
)
def test_numbers_dates_and_truth_values_of_a_csv(table):
    shown = [(name, a, b, day, at, str(ok).lower()) for name, a, b, day, at, ok in table]
    rows = converted(written(shown).encode(), "a.csv", columns={"c0": "VARCHAR"})
    assert [row[:2] + row[3:] for row in rows] == [row[:2] + row[3:] for row in table]
    for (*_, found, _, _, _), (*_, expected, _, _, _) in zip(rows, table, strict=True):
        assert found == expected or (math.isnan(found) and math.isnan(expected))


@EXAMPLES
@given(
    tables(INTEGERS | st.none(), FINITE, TEXT, st.booleans() | st.none(), st.lists(INTEGERS | TEXT)),
    st.sampled_from(["lines", "array", "indented"]),
    st.booleans(),
)  # fmt: skip
def test_values_of_json(table, form, ascii):
    objects = [{f"c{number}": value for number, value in enumerate(row)} for row in table]
    if form == "lines":
        text = "".join(json.dumps(each, ensure_ascii=ascii) + "\n" for each in objects)
    else:
        text = json.dumps(objects, ensure_ascii=ascii, indent=2 if form == "indented" else None)
    types = {"c0": "BIGINT", "c1": "DOUBLE", "c2": "VARCHAR", "c3": "BOOLEAN", "c4": "JSON"}
    rows = converted(text.encode(), "a.json", columns=types)
    assert [(*row[:4], json.loads(row[4])) for row in rows] == table


XML_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cn"]) | st.sampled_from('\n,"'), min_size=1, max_size=12
).filter(lambda text: text[0] != "=" and "_x" not in text)


@EXAMPLES
@given(
    tables(
        XML_TEXT,
        st.integers(-(2**53) + 1, 2**53 - 1),
        st.floats(-1e300, 1e300),
        st.dates(date(1900, 3, 1), date(9999, 12, 31)),
        st.booleans(),
    ),
    st.sampled_from([openpyxl.utils.datetime.WINDOWS_EPOCH, openpyxl.utils.datetime.CALENDAR_MAC_1904]),
)
def test_cells_of_a_workbook(table, epoch):
    if epoch == openpyxl.utils.datetime.CALENDAR_MAC_1904:
        table = [(*row[:3], max(row[3], date(1904, 1, 2)), row[4]) for row in table]
    book = openpyxl.Workbook()
    book.epoch = epoch
    for row in [("c0", "c1", "c2", "c3", "c4"), *table]:
        book.active.append(row)
    content = io.BytesIO()
    book.save(content)
    rows = converted(content.getvalue(), "a.xlsx")
    # openpyxl writes 15 digits of a number.
    assert [row[2] for row in rows] == pytest.approx([row[2] for row in table], rel=1e-14)
    assert [row[:2] + row[3:] for row in rows] == [row[:2] + row[3:] for row in table]


@EXAMPLES
@given(st.binary(max_size=400), st.sampled_from(["a.csv", "a.json", "a.xlsx"]))
def test_any_bytes_are_read_or_refused_in_one_line(content, name):
    try:
        converted(content, name)
    except Exception as error:
        assert type(error).__module__.startswith("packmule."), error
        assert "\n" not in str(error)
        assert "packmule-" not in str(error)


@pytest.mark.parametrize("content", [b"a,b\n1,\0\n", b"a,b\n\0,\0\n"])
def test_zero_bytes_are_no_text(content):
    with pytest.raises(NotATable, match=r"^a.csv is not CSV"):
        converted(content, "a.csv")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
def test_a_field_of_10_mb_is_kept_and_one_of_20_mb_is_refused(kind):
    def content(size):
        table = [("x", "y"), ("z" * size, "w"), ("u", "v")]
        if kind == "csv":
            return written(table).encode(), table
        objects = [json.dumps({"c0": first, "c1": second}) for first, second in table]
        return ("\n".join(objects) if kind == "jsonl" else f"[{','.join(objects)}]").encode(), table

    text, table = content(10_000_000)
    assert converted(text, f"a.{kind}") == table
    place = "3" if kind == "csv" else "2"
    with pytest.raises(TooManyRefused, match=rf"^a.{kind}: more than 0 rows .* the last at line {place}: "):
        converted(content(20_000_000)[0], f"a.{kind}")
