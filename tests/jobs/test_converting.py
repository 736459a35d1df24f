"""Each format becomes each other: nothing is lost, and an output is complete or absent."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import math
import tempfile
from datetime import date, datetime, time
from pathlib import Path

import duckdb
import openpyxl
import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packmule.jobs import context
from packmule.jobs.files import (
    BrokenCompression,
    ConversionFailed,
    EmptyFile,
    MismatchedColumns,
    NotATable,
    TooManyRefused,
    UnfitOption,
    UnfitOutput,
    UnfitSchema,
    file,
)
from packmule.jobs.files.writing import cells, partitions
from packmule.jobs.storage import FileTooLarge, MissingFile, StorageError
from packmule.tests.jobs.stores import full_disk, stored

LIMIT = 50_000_000
TABLE = 'id,name,day,price\n1,Ada,2020-01-31,1.5\n2,"Bob, ""B""",2021-02-28,-0.25\n3,,,\n'
ROWS = [(1, "Ada", date(2020, 1, 31), 1.5), (2, 'Bob, "B"', date(2021, 2, 28), -0.25), (3, None, None, None)]
OUTPUTS = ["o.csv", "o.tsv", "o.jsonl", "o.json", "o.parquet", "o.xlsx", "o.ods", "o.csv.gz",
           "o.csv.zst", "o.json.gz", "o.jsonl.zst", "o.tsv.gz"]  # fmt: skip


@pytest.fixture
def storage(tmp_path):
    return stored(tmp_path / "files", LIMIT)


def rows_of(storage, path):
    """The rows of any table in the storage, by way of Parquet."""
    file(path, out="read/back.parquet", max_refused=0)
    with storage.read("read/back.parquet") as parquet:
        return duckdb.connect().execute("FROM read_parquet($file)", {"file": str(parquet)}).fetchall()


def converted(storage, content, **options):
    storage.write_bytes("a.csv", content.encode() if isinstance(content, str) else content)
    return file("a.csv", **options)


@pytest.mark.parametrize("first", OUTPUTS)
@pytest.mark.parametrize("second", ["p.csv", "p.tsv", "p.jsonl", "p.json", "p.parquet", "p.xlsx", "p.ods"])
def test_each_format_becomes_each_other(storage, first, second):
    result = converted(storage, TABLE, out=first)
    assert (result["path"], result["rows"], result["warnings"]) == (first, 3, [])
    assert file(first, out=second)["rows"] == 3
    assert rows_of(storage, second) == ROWS


def test_opendocument_becomes_each_other_format(storage):
    cells = "".join(
        f'<table:table-row><table:table-cell office:value-type="string"><text:p>{name}</text:p>'
        f'</table:table-cell><table:table-cell {value}/></table:table-row>'
        for name, value in [("a", 'office:value-type="string" office:string-value="b"'),
                            ("x", 'office:value-type="float" office:value="1.5"')]
    )  # fmt: skip
    names = ("office", "table", "text")
    spaces = " ".join(f'xmlns:{each}="urn:oasis:names:tc:opendocument:xmlns:{each}:1.0"' for each in names)
    content = (
        f"<office:document-content {spaces}><office:body><office:spreadsheet><table:table table:name='T'>"
        f"{cells}</table:table></office:spreadsheet></office:body></office:document-content>"
    )
    import zipfile

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as book:
        book.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        book.writestr("content.xml", content)
        book.writestr("META-INF/manifest.xml", "<manifest/>")
    storage.write_bytes("a.ods", archive.getvalue())
    for out in OUTPUTS:
        assert file("a.ods", out=out)["rows"] == 1
    assert storage.read_bytes("o.csv") == b"a,b\nx,1.5\n"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd.compress])
def test_compressed_tables_are_unpacked(storage, pack):
    storage.write_bytes("a.csv.x", pack(TABLE.encode()) * 1)
    assert rows_of(storage, "a.csv.x") == ROWS
    assert file("a.csv.x")["content_type"] == "text/csv"


def test_what_does_not_unpack_is_refused_in_one_line(storage):
    storage.write_bytes("half.csv.gz", gzip.compress(TABLE.encode() * 99)[:90])
    with pytest.raises(BrokenCompression, match=r"^half.csv.gz can't be unpacked: "):
        file("half.csv.gz", to="csv")
    storage.write_bytes("bomb.csv.zst", zstd.compress(bytes(LIMIT + 1)))
    with pytest.raises(FileTooLarge, match=r"^bomb.csv.zst unpacks to more than 50,000,000 bytes"):
        file("bomb.csv.zst", to="csv")
    storage.write_bytes("a.gz", gzip.compress(b"\x89PNG\r\n\x1a\n"))
    with pytest.raises(NotATable, match=r"looks like image/png$"):
        file("a.gz", to="csv")
    assert [name for name in storage.names() if name.startswith("converted")] == []


def test_a_default_output_has_the_formats_suffix_and_not_the_compressions(storage):
    storage.write_bytes("up/data.csv.gz", gzip.compress(TABLE.encode()))
    with context.Running("7f0c", 1, lambda *_: None):
        assert file("up/data.csv.gz", to="jsonl")["path"] == "converted/7f0c/data.jsonl"
        storage.write_bytes("up/" + "é" * 120 + ".csv", TABLE.encode())
        assert file("up/" + "é" * 120 + ".csv", to="csv")["rows"] == 3


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\r\t,;\"' "), max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.text(min_size=1, alphabet="abcdef"),
            st.integers(-(2**63), 2**63 - 1) | st.none(),
            st.floats() | st.none(),
            st.dates(date(1000, 1, 1)) | st.none(),
            st.datetimes(datetime(1000, 1, 1)) | st.none(),
            st.booleans() | st.none(),
            TEXT | st.none(),
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(OUTPUTS),
)
def test_any_table_reads_back_equal_from_each_format(table, out):
    types = {
        "a": "VARCHAR", "i": "BIGINT", "f": "DOUBLE", "d": "DATE", "t": "TIMESTAMP", "b": "BOOLEAN",
        "s": "VARCHAR",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        stored(folder, LIMIT)
        source = str(Path(folder) / "a.parquet")
        connection = duckdb.connect()
        connection.execute(f"CREATE TABLE t ({', '.join(f'{name} {kind}' for name, kind in types.items())})")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?)", table)
        connection.execute(f"COPY t TO '{source}' (FORMAT parquet)")
        assert file("a.parquet", out=out)["rows"] == len(table)
        is_text = "csv" in out or "tsv" in out
        read = {name: "VARCHAR" if is_text or name in "fs" else kind for name, kind in types.items()}
        file(out, out="b.parquet", max_refused=0, **({"columns": read} if is_text or "json" in out else {}))
        back = connection.execute(f"FROM read_parquet('{folder}/b.parquet')").fetchall()
        if is_text:
            table = connection.execute("SELECT COLUMNS(*)::VARCHAR FROM t").fetchall()
    assert [same(row, out) for row in back] == [same(row, out) for row in table]


def same(row, out):
    """The row as the format has it: a workbook has texts for what its cells can't hold, and no empty ones."""

    def value(each):
        if isinstance(each, float):
            return "nan" if math.isnan(each) else repr(float(each))
        if out.endswith((".xlsx", ".ods")):
            if each in ("", None):
                return None
            if isinstance(each, datetime):
                return each.isoformat(" ").removesuffix(" 00:00:00")
            return str(each).lower() if isinstance(each, bool) else str(each)
        return each

    cells = [value(each) for each in row]
    if ".json" in out or out.endswith((".xlsx", ".ods")):
        cells = [number(each) for each in cells]
    return cells


def number(text):
    """A number's text in one form."""
    try:
        return repr(float(text)) if isinstance(text, str) else text
    except ValueError:
        return text


def test_rows_are_refused_on_the_way_to_any_format(storage):
    content = "id,day\n" + "".join(f"{i},2020-01-{i % 28 + 1:02}\n" for i in range(300)) + "x\n"
    for out in OUTPUTS:
        result = converted(storage, content, out=out)
        assert (result["rows"], result["refused"], result["refusals"][0]["line"]) == (300, 1, 302)
        assert storage.exists(f"{out}.refused.jsonl")


def test_nested_values_are_json_wherever_a_format_has_no_such_cells(storage):
    source = storage.locate("a.parquet")
    storage.write_bytes("a.parquet", b"")
    Path(source).unlink()
    duckdb.sql(
        "SELECT [1, 2] l, {'a': 'x'} s, 1.50::DECIMAL(38, 2) d, 18446744073709551615::UBIGINT h"
    ).write_parquet(source)
    expected = {"l": [1, 2], "s": {"a": "x"}, "d": 1.5, "h": 2**64 - 1}
    file("a.parquet", out="o.jsonl")
    assert storage.read_bytes("o.jsonl").decode() == (
        '{"l":[1,2],"s":{"a":"x"},"d":"1.50","h":18446744073709551615}\n'
    )
    for out in ("o.csv", "o.xlsx", "o.ods"):
        file("a.parquet", out=out)
        row = rows_of(storage, out)[0]
        assert [json.loads(str(each)) for each in row[:2]] == [expected["l"], expected["s"]]


def test_partitions_are_folders_with_a_manifest_that_is_written_last(storage):
    table = "year,kind,n\n" + "".join(f"{2000 + i % 3},{'a/b' if i % 2 else ''},{i}\n" for i in range(60))
    result = converted(storage, table, to="parquet", out="parts", partition_by=["year", "kind"])
    assert (result["rows"], result["files"], result["path"]) == (60, 6, "parts")
    manifest = json.loads(storage.read_bytes("parts/manifest.json"))
    listed = [f"parts/{each['path']}" for each in manifest["files"]]
    assert sorted(storage.names("parts/")) == sorted([*listed, "parts/manifest.json"])
    assert "parts/year=2001/kind=a%2Fb/part-0.parquet" in listed
    rows = duckdb.sql(f"SELECT * FROM read_parquet('{storage.locate('parts')}/*/*/*.parquet')").fetchall()
    assert sorted(n for n, *_ in rows) == [*range(60)]
    again = converted(
        storage, "".join(table.splitlines(keepends=True)[:9]), to="csv", out="parts", partition_by=["year"]
    )
    assert again["files"] == len(storage.names("parts/")) - 1
    assert storage.read_bytes("parts/year=2000/part-0.csv").decode().splitlines()[0] == "kind,n"


def test_partitions_of_a_single_column_keep_rows_without_a_value(storage):
    converted(storage, "year,v\n2020,a\n2020,\n2021,\n", to="csv", out="parts", partition_by=["year", "year"])
    assert storage.read_bytes("parts/year=2020/part-0.csv") == b'v\na\n""\n'
    assert storage.read_bytes("parts/year=2021/part-0.csv") == b'v\n""\n'


def test_folders_of_partitions_keep_values_and_names_that_would_be_formulas(storage):
    content = "=kind,v,n\n=1+1,=2+2,1\n"
    converted(storage, content, to="csv", out="parts", partition_by=["=kind"], safe_for_spreadsheets=True)
    assert storage.read_bytes("parts/%3Dkind=%3D1%2B1/part-0.csv") == b"v,n\n'=2+2,1\n"


def test_a_value_too_long_for_a_folder_is_refused_in_one_line(storage):
    said = "^a.csv: column k has a value too long for a folder name of 255 bytes: "
    with pytest.raises(UnfitOutput, match=said):
        converted(storage, f"k,v\na,1\n{'é' * 43},2\n", to="csv", out="parts", partition_by=["k"])
    assert not storage.names("parts/")
    converted(storage, f"k,v\na,1\n{'é' * 42},2\n", to="csv", out="parts", partition_by=["k"])
    assert len(storage.names("parts/")) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partition_by": ["zz"]}, "a.csv has no column zz to partition by: it has id, name, day, price"),
        ({"partition_by": ["id", "name", "day", "price"]}, "a.csv has no columns but those"),
        ({"partition_by": ["id"], "to": "json"}, "a.csv: only csv, parquet, tsv can be in partitions"),
        ({"safe_for_spreadsheets": True}, "a.csv: in parquet no text becomes a formula"),
        ({"out": "o.csv"}, "o.csv is to be parquet, but its suffix is .csv: use .parquet"),
        ({"out": "o.csv", "to": "jsonl"}, "o.csv is to be jsonl, but its suffix is .csv: use .jsonl"),
        ({"out": "o.xlsx.gz", "to": None}, "o.xlsx.gz can't be compressed:"),
        ({"out": "o.dbf", "to": None}, "o.dbf has no suffix that names a format: use .csv, "),
        ({"to": None, "partition_by": ["id"]}, "a.csv: give the format to convert it to"),
        (
            {"to": None, "schema": {"id": "BIGINT"}},
            "a.csv: schema, widen and max_refused are for a conversion",
        ),
        ({"to": None, "max_refused": 0}, "a.csv: schema, widen and max_refused are for a conversion"),
    ],
)
def test_an_output_that_cannot_be_is_refused_in_one_line(storage, options, said):
    with pytest.raises(UnfitOutput) as failed:
        converted(storage, TABLE, **{"to": "parquet"} | options)
    assert str(failed.value).startswith(said)
    assert "\n" not in str(failed.value)
    assert storage.names() == ["a.csv"]


def test_too_many_partitions_are_refused(storage, monkeypatch):
    monkeypatch.setattr(partitions, "MOST", 2)
    with pytest.raises(UnfitOutput, match=r"^a.csv would have 3 partitions, but the limit is 2$"):
        converted(storage, TABLE, to="csv", partition_by=["id"])
    assert storage.names() == ["a.csv"]


def test_only_texts_that_a_spreadsheet_takes_for_formulas_are_told_apart(storage):
    cells = ["=1+1", "@x", "+A1", "-2+3", "\t=1", "＝1", "-5", "+49170", "1.5e3", "a=b", "", "'x", "\r=1"]
    table = [("=name", "n"), *((cell, -number) for number, cell in enumerate(cells))]
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(table)
    converted(storage, text.getvalue(), out="o.csv", safe_for_spreadsheets=True)
    [head, *rows] = csv.reader(io.StringIO(storage.read_bytes("o.csv").decode(), newline=""))
    assert head == ["'=name", "n"]
    assert [cell for cell, _ in rows] == [
        "'=1+1", "'@x", "'+A1", "'-2+3", "'\t=1", "'＝1", "-5", "+49170", "1.5e3", "a=b", "", "'x", "'\r=1",
    ]  # fmt: skip
    assert [int(number) for _, number in rows] == [-number for number in range(len(cells))]


def test_a_workbook_takes_texts_for_texts_and_keeps_what_its_cells_cannot_hold(storage):
    content = [
        {"s": "=1+1", "i": 2**53 + 1, "f": 0.1 + 0.2, "d": "1890-01-01", "t": "2020-01-01T10:00:00.123456"},
        {"s": "x", "i": 7, "f": 1e300, "d": "2020-02-29", "t": "2020-01-01T10:00:00.123"},
    ]
    result = converted(storage, json.dumps(content), out="o.xlsx")
    assert result["warnings"] == [
        f"{name} has 1 texts in place of values that a cell can't hold exactly" for name in "idt"
    ]
    with storage.read("o.xlsx") as book:
        sheet = openpyxl.load_workbook(book).active
    assert [cell.value for cell in sheet[2]] == [
        "=1+1", str(2**53 + 1), 0.1 + 0.2, "1890-01-01", "2020-01-01 10:00:00.123456",
    ]  # fmt: skip
    assert sheet["A2"].data_type == "s"
    assert [cell.value for cell in sheet[3]] == [
        "x", 7, 1e300, datetime(2020, 2, 29), datetime(2020, 1, 1, 10, 0, 0, 123_000),
    ]  # fmt: skip


def test_times_of_a_workbook_are_times(storage):
    converted(storage, "a,b\n10:30:00,x\n23:59:59,y\n", out="o.parquet", columns={"a": "TIME"})
    file("o.parquet", out="o.xlsx")
    with storage.read("o.xlsx") as book:
        assert openpyxl.load_workbook(book).active["A2"].value == time(10, 30)


def test_what_a_workbook_cannot_hold_is_refused_in_one_line(storage, monkeypatch):
    with pytest.raises(UnfitOutput, match=r"^a.csv: column a has a text of 40,000 characters in row 2, but"):
        converted(storage, f"a,b\nx,1\n{'y' * 40_000},2\n", out="o.xlsx")
    monkeypatch.setattr(cells, "MOST_ROWS", 3)
    for out, program in (("o.xlsx", "Excel"), ("o.ods", "OpenDocument")):
        with pytest.raises(
            UnfitOutput, match=rf"^a.csv has more rows, but a sheet of {program} holds 2: convert it to"
        ):
            converted(storage, TABLE, out=out)
    file("a.csv", out="a.parquet")
    with pytest.raises(UnfitOutput, match=r"^a.parquet has 3 rows, but a sheet of Excel holds 2: convert it"):
        file("a.parquet", out="o.xlsx")
    assert storage.names() == ["a.csv", "a.parquet"]


SCHEMA = {"id": "BIGINT", "name": "VARCHAR", "day": "DATE", "price": "DOUBLE"}


@pytest.mark.parametrize("out", ["o.csv", "o.parquet", "o.xlsx"])
def test_a_table_that_fits_its_schema_is_written_with_the_schemas_types_and_order(storage, out):
    wanted = {"price": "DOUBLE", "day": "TIMESTAMP", "id": "VARCHAR", "name": "VARCHAR"}
    result = converted(storage, TABLE, out=out, schema=wanted)
    assert {each["name"]: each["type"] for each in result["columns"]} == wanted
    assert [each["name"] for each in result["columns"]] == [*wanted]
    assert result["warnings"] == []


def test_a_schema_is_a_stored_file_such_as_a_result(storage):
    columns = converted(storage, TABLE, out="o.csv")["columns"]
    for content in ({"columns": columns}, SCHEMA):
        storage.write_bytes("schema.json", json.dumps(content).encode())
        assert file("a.csv", out="p.csv", schema="schema.json")["rows"] == 3


@pytest.mark.parametrize(
    ("schema", "error", "said"),
    [
        ({**SCHEMA, "x": "DATE"}, UnfitSchema, "a.csv doesn't fit its schema: columns are lost: x"),
        ({"id": "BIGINT", "name": "VARCHAR", "y": "DATE"}, UnfitSchema,
         "a.csv doesn't fit its schema: columns are new: day, price; lost: y"),
        ({**SCHEMA, "price": "BIGINT"}, MismatchedColumns, "a.csv: column price has fractions"),
        ({**SCHEMA, "name": "BIGINT"}, TooManyRefused, "a.csv: 2 of 3 rows don't fit, the first at line 2"),
        ({**SCHEMA, "id": "INT); DROP"}, MismatchedColumns, "a.csv: column id can't be INT); DROP"),
        ("broken.json", UnfitSchema, 'broken.json is not a schema: write JSON such as {"id": "BIGINT"'),
        ("none.json", MissingFile, "none.json is not in the storage"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_its_schema_is_refused_before_anything_is_written(
    storage, schema, error, said
):
    storage.write_bytes("broken.json", b'{"columns": [1]}')
    with pytest.raises(error) as failed:
        converted(storage, TABLE, to="csv", schema=schema)
    assert str(failed.value).startswith(said)
    assert storage.names() == ["a.csv", "broken.json"]


def test_names_of_two_lines_are_in_one_line_of_an_error(storage):
    content = '"price\n(EUR)",n\n1,2\n'
    with pytest.raises(MismatchedColumns, match=r"^a.csv has no column m: it has price\\n\(EUR\), n$"):
        converted(storage, content, to="csv", columns={"m": "BIGINT"})
    with pytest.raises(UnfitSchema, match=r"columns are new: price\\n\(EUR\)$"):
        converted(storage, content, to="csv", schema={"n": "BIGINT"})


def test_a_late_change_of_a_type_is_no_fit_either(storage):
    content = "n\n" + "".join(f"{i}\n" for i in range(20_000)) + "1.5\n"
    with pytest.raises(
        UnfitSchema, match=r"^a.csv doesn't fit its schema: .* changed: n from BIGINT to DOUBLE$"
    ):
        converted(storage, content, to="csv", schema={"n": "BIGINT"}, delimiter=",")


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("DATE", ["2020-01-01 10:11:12", "2020-01-02"], "times of day, which DATE would drop: use TIMESTAMP"),
        ("TIMESTAMP", ["2020-01-01 10:11:12+02:00"], "offsets, which TIMESTAMP would drop: use TIMESTAMPTZ"),
        ("TIME", ["2020-01-01 10:11:12", "10:12:13"], "more than times, which TIME would drop: use VARCHAR"),
        ("DECIMAL(5,2)", ["1.5", "1.504"], "longer fractions, which DECIMAL(5,2) would round: use one with"),
        ("BIGINT", ["1", "1.5", "x"], "fractions, which BIGINT would round: use DOUBLE"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "xlsx"])
def test_a_type_that_would_drop_a_part_of_a_value_is_refused(storage, form, kind, values, said):
    storage.write_bytes("a.csv", f"v,n\n{''.join(f'{each},1{chr(10)}' for each in values)}".encode())
    if form != "csv":
        file("a.csv", out=f"a.{form}", columns={"v": "VARCHAR"})
    with pytest.raises(MismatchedColumns, match=f"^a.{form}: column v has ") as failed:
        file(f"a.{form}", out="o.parquet", schema={"v": kind, "n": "BIGINT"}, max_refused=1)
    assert said in str(failed.value)
    assert not storage.exists("o.parquet")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("DATE", "2020-01-02 00:00:00"),
        ("TIMESTAMP", "2020-01-01 10:11:12Z"),
        ("TIME", "10:11"),
        ("DECIMAL(5,2)", "123.4500"),
        ("DECIMAL(38,10)", "1234567890123456789012345678.5"),
    ],
)
def test_a_type_that_keeps_all_of_a_value_may_be_given(storage, kind, value):
    result = converted(storage, f"v,n\n{value},1\n", to="parquet", columns={"v": kind})
    assert (result["rows"], result["columns"][0]["type"]) == (1, kind)


def test_a_schema_may_be_widened(storage):
    schema = {"zip": "VARCHAR", "id": "VARCHAR", "price": "BIGINT", "name": "VARCHAR"}
    result = converted(storage, TABLE, out="o.csv", schema=schema, widen=True)
    assert storage.read_bytes("o.csv").decode().splitlines()[:2] == [
        "zip,id,price,name,day",
        ",1,1.5,Ada,2020-01-31",
    ]
    assert result["warnings"] == [
        "against the schema, columns are new: day",
        "against the schema, columns are lost: zip",
        "against the schema, columns are changed: price from BIGINT to DOUBLE",
    ]


def test_a_parquet_file_has_no_options_of_reading(storage):
    converted(storage, TABLE, out="o.parquet")
    with pytest.raises(
        UnfitOption, match=r"^o.parquet is application/vnd.apache.parquet, which has no columns"
    ):
        file("o.parquet", out="p.csv", columns={"id": "VARCHAR"})
    storage.write_bytes("torn.parquet", b"PAR1" + bytes(90) + b"PAR1")
    with pytest.raises(ConversionFailed, match=r"^torn.parquet can't be converted: [^\n]+$"):
        file("torn.parquet", out="p.csv")
    storage.write_bytes("empty.csv.gz", gzip.compress(b""))
    with pytest.raises(EmptyFile):
        file("empty.csv.gz", out="p.csv")


@pytest.mark.parametrize("out", ["o.csv", "o.parquet", "o.xlsx", "o.ods", "o.json.gz", "parts"])
def test_a_full_disk_fails_in_one_line_and_leaves_nothing(storage, out):
    rows = "".join(f"{i},{i * 7919 % 100_003},{i / 7}\n" for i in range(60_000))
    storage.write_bytes("a.csv", f"a,b,c\n{rows}".encode())
    with full_disk(100_000), pytest.raises((ConversionFailed, StorageError)) as failed:
        file("a.csv", out=out, **({"to": "csv", "partition_by": ["b"]} if out == "parts" else {}))
    assert "\n" not in str(failed.value)
    assert "packmule-" not in str(failed.value)
    assert storage.names() == ["a.csv"]


@pytest.mark.parametrize("name", ["x" * 300, "y" * 250])
def test_a_name_that_is_too_long_fails_in_one_line(storage, name):
    with pytest.raises(StorageError, match=r"File name too long"):
        converted(storage, TABLE, out=f"{name}.csv")
    assert storage.names() == ["a.csv"]
