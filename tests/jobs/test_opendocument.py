"""OpenDocument spreadsheets that we write: what is in them, and that they keep to the format's grammar."""

from __future__ import annotations

import io
import tempfile
import zipfile
from datetime import date, datetime, time
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odf import grammar
from odf.attrconverters import AttrConverters
from python_calamine import CalamineWorkbook

from packmule.jobs import context
from packmule.jobs.files import UnfitOutput, file
from packmule.jobs.files.signatures import ODS, kind_of
from packmule.jobs.files.writing import opendocument
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import Storage

TYPES = {
    "i": "BIGINT",
    "f": "DOUBLE",
    "d": "DATE",
    "t": "TIMESTAMP",
    "c": "TIME",
    "s": "VARCHAR",
    "b": "BOOLEAN",
}
EDGES = [
    (2**53, 1e300, date(1583, 1, 1), datetime(1583, 1, 1), time(0, 0), "=1+1", True),
    (-(2**53), 5e-324, date(1899, 12, 30), datetime(1899, 12, 30, 23, 59, 59, 999_000), time(23, 59, 59),
     " a  b\t\n\nc ", False),
    (0, 0.1 + 0.2, date(1900, 2, 28), datetime(1900, 2, 28, 12, 0, 0, 1_000), time(12, 34, 56),
     "a\r\nb\rc", None),
    (7, -1.5, date(9999, 12, 31), datetime(9999, 12, 31, 23, 59, 59), time(0, 0, 1), "<&\"'>é日🎉\xa0", True),
    (None, None, None, None, None, None, None),
    (8, 0.0, date(2024, 2, 29), datetime(2024, 2, 29, 1, 2, 3), None, "12", False),
]  # fmt: skip
"""What LibreOffice 7.4 has shown as it is."""


def written(folder, rows, types=TYPES):
    """The spreadsheet of these rows, as a path."""
    storage = Storage(str(folder))
    context.provide(storage, InputLimits(file_bytes=100_000_000, attachment_bytes=1, pixels=1))
    connection = duckdb.connect()
    connection.execute(f"CREATE TABLE t ({', '.join(f'{name} {kind}' for name, kind in types.items())})")
    if rows:
        connection.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(types))})", rows)
    connection.execute(f"COPY t TO '{folder}/a.parquet' (FORMAT parquet)")
    assert file("a.parquet", out="a.ods")["rows"] == len(rows)
    return Path(folder) / "a.ods"


def shown(path):
    """The cells as another reader has them, nothing for an empty one."""
    with CalamineWorkbook.from_path(path) as book:
        return [
            tuple(None if cell == "" else cell for cell in row)
            for row in book.get_sheet_by_index(0).to_python()
        ]


def test_each_cell_is_read_as_it_was_by_another_reader(tmp_path):
    names, *rows = shown(written(tmp_path, EDGES))
    assert names == tuple(TYPES)
    assert rows == EDGES


TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
    | st.sampled_from("\n\r\t  ")
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**53), 2**53) | st.none(),
            st.floats(allow_nan=False, allow_infinity=False) | st.none(),
            st.dates(date(1583, 1, 1)) | st.none(),
            st.datetimes(datetime(1583, 1, 1)).map(
                lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)
            )
            | st.none(),
            st.times().map(lambda at: at.replace(microsecond=0)) | st.none(),
            TEXT | st.none(),
            st.booleans() | st.none(),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_table_is_read_back_as_it_was(table):
    with tempfile.TemporaryDirectory() as folder:
        path = written(folder, table)
        _, *rows = shown(path)
        filled = [row for row in table if any(each not in (None, "") for each in row)]
        assert [row for row in rows if any(each is not None for each in row)] == [
            tuple(None if each == "" else each for each in row) for row in filled
        ]
        check_grammar(path)


def check_grammar(path):
    """Hold each element of the file against what OpenDocument allows in it."""
    with zipfile.ZipFile(path) as archive:
        first = archive.infolist()[0]
        assert (first.filename, first.compress_type, first.extra) == ("mimetype", zipfile.ZIP_STORED, b"")
        assert archive.read("mimetype").decode() == ODS
        parts = {name: archive.read(name) for name in archive.namelist()[1:]}
    manifest = ElementTree.fromstring(parts.pop("META-INF/manifest.xml"))
    paths = {each.get(f"{{{manifest.tag[1:].partition('}')[0]}}}full-path") for each in manifest}
    assert paths == {"/", *parts}
    for content in parts.values():
        for element in ElementTree.fromstring(content).iter():
            name = split(element.tag)
            allowed = grammar.allowed_children[name]
            assert allowed is None or {split(child.tag) for child in element} <= set(allowed), name
            attributes = {split(key): value for key, value in element.items()}
            assert set(attributes) <= set(grammar.allowed_attributes[name] or attributes), name
            assert set(grammar.required_attributes.get(name, ())) <= set(attributes), name
            for key, value in attributes.items():
                AttrConverters().convert(key, value, SimpleNamespace(qname=name))
            if element.text and element.text.strip():
                assert name in grammar.allows_text, name


def split(name):
    space, _, local = name[1:].partition("}")
    return space, local


def test_a_spreadsheet_keeps_to_the_grammar_of_opendocument(tmp_path):
    path = written(tmp_path, EDGES)
    check_grammar(path)
    assert kind_of(path).type == ODS


def test_a_table_without_rows_has_its_names(tmp_path):
    path = written(tmp_path, [])
    assert shown(path) == [tuple(TYPES)]
    check_grammar(path)


def test_what_a_cell_cannot_hold_exactly_is_a_text_and_said(tmp_path):
    rows = [
        (
            2**53 + 1,
            float("nan"),
            date(1582, 12, 31),
            datetime(2020, 1, 1, 10, 0, 0, 1),
            time(1, 0, 0, 5),
            "x",
            True,
        )
    ]
    path = written(tmp_path, rows)
    assert shown(path)[1] == (
        str(2**53 + 1), "nan", "1582-12-31", "2020-01-01 10:00:00.000001", "01:00:00.000005", "x", True,
    )  # fmt: skip
    assert file("a.parquet", out="b.ods")["warnings"] == [
        f"{name} has 1 texts in place of values that a cell can't hold exactly" for name in "ifdtc"
    ]


def test_a_character_that_no_spreadsheet_holds_is_named(tmp_path):
    for text, sign in (("a\x0bb", "000B"), ("\x00", "0000"), ("\uffff", "FFFF"), ("\x1b[2J", "001B")):
        with pytest.raises(UnfitOutput) as failed:
            written(
                tmp_path,
                [(None, None, None, None, None, "fine", None), (None, None, None, None, None, text, None)],
            )
        assert str(failed.value) == (
            f"a.parquet: column s, row 2: OpenDocument can't hold the character U+{sign}: "
            "convert it to csv or parquet"
        )
    with pytest.raises(
        UnfitOutput, match=r"^a.parquet: OpenDocument can't hold the character U\+0001: .*name$"
    ):
        written(tmp_path, [], {'"a\x01"': "BIGINT", "b": "BIGINT"})
    assert not (tmp_path / "a.ods").exists()


def test_a_content_that_is_too_large_for_other_programs_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(opendocument, "MOST_BYTES", 1_000_000)
    with pytest.raises(
        UnfitOutput, match=r"^a.parquet has more than 2 GiB as OpenDocument: convert it to csv"
    ):
        written(tmp_path, [(number, *EDGES[0][1:]) for number in range(3_000)])


def test_percent_and_money_of_other_programs_are_read(tmp_path):
    storage = Storage(str(tmp_path))
    context.provide(storage, InputLimits(file_bytes=100_000_000, attachment_bytes=1, pixels=1))
    names = ("office", "table", "text")
    spaces = " ".join(f'xmlns:{each}="urn:oasis:names:tc:opendocument:xmlns:{each}:1.0"' for each in names)
    cells = (
        ("share", 'percentage" office:value="0.125'),
        ("price", 'currency" office:currency="EUR" office:value="9.99'),
    )
    rows = "".join(
        "<table:table-row>" + "".join(f"<table:table-cell {each}" for each in row) + "</table:table-row>"
        for row in (
            [f'office:value-type="string"><text:p>{name}</text:p></table:table-cell>' for name, _ in cells],
            [f'office:value-type="{value}"><text:p>shown</text:p></table:table-cell>' for _, value in cells],
        )
    )
    content = (
        f"<office:document-content {spaces}><office:body><office:spreadsheet>"
        f"<table:table table:name='T'>{rows}</table:table>"
        "</office:spreadsheet></office:body></office:document-content>"
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as book:
        book.writestr("mimetype", ODS)
        book.writestr("content.xml", content)
        book.writestr("META-INF/manifest.xml", "<manifest/>")
    storage.write_bytes("a.ods", archive.getvalue())
    columns = file("a.ods", out="b.parquet")["columns"]
    assert [each["type"] for each in columns] == ["DOUBLE", "DOUBLE"]
    found = duckdb.execute("FROM read_parquet($file)", {"file": str(tmp_path / "b.parquet")}).fetchall()
    assert found == [(0.125, 9.99)]
