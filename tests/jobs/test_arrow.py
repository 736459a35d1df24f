"""Arrow files and streams: what is in them is read and written as it is, or refused in one line."""

from __future__ import annotations

import decimal
import os
import random
import signal
import subprocess
import sys
import tempfile
import uuid
from datetime import date, datetime

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather, ipc

from packmule.jobs.files import (
    ArrowRefused,
    ConversionFailed,
    NotATable,
    UnfitOption,
    UnfitOutput,
    arrow,
    file,
)
from packmule.jobs.files.signatures import ARROW_FILE, ARROW_STREAM, kind_of
from packmule.jobs.storage import StorageError
from packmule.tests.jobs.stores import stored

LIMIT = 500_000_000
TABLE = pa.table(
    {
        "id": [1, 2, 3],
        "name": ["Ada", 'Bob, "B"', None],
        "day": [date(2020, 1, 31), date(2021, 2, 28), None],
        "price": [1.5, -0.25, None],
    }
)
NEW = {"arrow": ipc.new_file, "arrows": ipc.new_stream}
TYPES = {ARROW_FILE: "arrow", ARROW_STREAM: "arrows"}


@pytest.fixture
def storage(tmp_path):
    return stored(tmp_path / "files", LIMIT)


def packed(table, kind="arrow", compression=None, rows=None):
    """The table as a file or a stream, with batches of so many rows."""
    sink = pa.BufferOutputStream()
    with NEW[kind](sink, table.schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue().to_pybytes()


def read(storage, path):
    with storage.read(path) as local:
        return (ipc.open_stream if kind_of(local).type == ARROW_STREAM else ipc.open_file)(local).read_all()


def rows_of(storage, path, **options):
    """The rows of any table in the storage, by way of Parquet."""
    file(path, out="read/back.parquet", max_refused=0, **options)
    with storage.read("read/back.parquet") as parquet:
        return duckdb.execute("FROM read_parquet($file)", {"file": str(parquet)}).fetchall()


def refused(storage, content, error=ArrowRefused, name="a.arrow", out="o.csv"):
    """The one line with which a conversion fails, having left nothing."""
    storage.write_bytes(name, content)
    with pytest.raises(error) as failed:
        file(name, out=out)
    assert storage.names() == [name]
    assert str(failed.value).startswith(name)
    assert "\n" not in str(failed.value)
    return str(failed.value)


@pytest.mark.parametrize("kind", NEW)
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_a_file_or_stream_of_any_compression_is_read(storage, kind, compression):
    storage.write_bytes("a.bin", packed(TABLE, kind, compression, rows=2))
    facts = file("a.bin")
    assert (TYPES[facts["type"]], facts["rows"]) == (kind, 3)
    assert [each["type"] for each in facts["columns"]] == ["BIGINT", "VARCHAR", "DATE", "DOUBLE"]
    assert rows_of(storage, "a.bin") == [tuple(row.values()) for row in TABLE.to_pylist()]


def test_what_feather_writes_is_read_and_a_suffix_of_it_is_written(storage, tmp_path):
    feather.write_feather(TABLE, tmp_path / "a.feather")
    storage.write_bytes("a.feather", (tmp_path / "a.feather").read_bytes())
    assert file("a.feather", out="b.feather")["format"] == "arrow"
    with storage.read("b.feather") as local:
        assert feather.read_table(local).equals(TABLE)


@pytest.mark.parametrize("kind", NEW)
def test_a_table_becomes_batches_that_are_compressed(storage, kind):
    storage.write_bytes("a.csv", b"n,s\n" + b"".join(b"%d,text %d\n" % (n, n % 7) for n in range(200_000)))
    result = file("a.csv", to=kind, out=f"o.{kind}")
    assert (result["rows"], result["format"], result["warnings"]) == (200_000, kind, [])
    found = read(storage, f"o.{kind}")
    assert found.num_rows == 200_000
    assert found["n"].num_chunks > 1
    assert found["s"][199_999].as_py() == f"text {199_999 % 7}"
    assert result["bytes"] < found.nbytes


@pytest.mark.parametrize(
    "other", ["csv", "tsv", "jsonl", "json", "parquet", "xlsx", "ods", "arrow", "arrows"]
)
@pytest.mark.parametrize("kind", NEW)
def test_arrow_becomes_each_other_format_and_each_becomes_arrow(storage, kind, other):
    storage.write_bytes("a.arrow", packed(TABLE, kind))
    assert file("a.arrow", out=f"b.{other}")["rows"] == 3
    assert file(f"b.{other}", out=f"c.{kind}")["rows"] == 3
    assert rows_of(storage, f"c.{kind}") == [tuple(row.values()) for row in TABLE.to_pylist()]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1) | st.none(),
            st.integers(0, 2**64 - 1) | st.none(),
            st.floats() | st.none(),
            st.dates() | st.none(),
            st.datetimes() | st.none(),
            st.booleans() | st.none(),
            st.text(st.characters(exclude_categories=["Cs"])) | st.none(),
            st.lists(st.integers(-9, 9) | st.none(), max_size=3) | st.none(),
            st.times() | st.none(),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([*NEW]),
    st.sampled_from([None, "lz4", "zstd"]),
    st.integers(1, 8),
)
def test_any_table_is_read_and_written_as_it_was(table, kind, compression, rows):
    types = [
        pa.int64(), pa.uint64(), pa.float64(), pa.date32(), pa.timestamp("us"), pa.bool_(), pa.string(),
        pa.list_(pa.int64()), pa.time64("us"),
    ]  # fmt: skip
    columns = [pa.array(values, kind) for values, kind in zip(zip(*table, strict=True), types, strict=True)]
    whole = pa.table(columns, names=[f"c{number}" for number in range(len(types))])
    with tempfile.TemporaryDirectory() as folder:
        storage = stored(folder, LIMIT)
        storage.write_bytes("a.arrow", packed(whole, kind, compression, rows))
        assert file("a.arrow", out=f"b.{kind}")["rows"] == len(table)
        assert repr(read(storage, f"b.{kind}").to_pylist()) == repr(whole.to_pylist())


A = pa.array
D = decimal.Decimal("1.50")
CELLS = {
    "null": (A([None, None]), "VARCHAR", [None, None]),
    "half": (A([1.5, None], pa.float16()), "FLOAT", [1.5, None]),
    "short decimal": (A([D], pa.decimal32(5, 2)), "DECIMAL(5,2)", [D]),
    "decimal": (A([D], pa.decimal128(30, 2)), "DECIMAL(30,2)", [D]),
    "wide decimal": (A([D], pa.decimal256(38, 2)), "DECIMAL(38,2)", [D]),
    "long decimal": (A([decimal.Decimal(f"{10**50}.5")], pa.decimal256(60, 1)), "VARCHAR", [f"{10**50}.5"]),
    "text view": (A(["a", None, "b" * 99], pa.string_view()), "VARCHAR", ["a", None, "b" * 99]),
    "large text": (A(["a"], pa.large_string()), "VARCHAR", ["a"]),
    "bytes": (A([b"\0\xff"], pa.binary_view()), "BLOB", [b"\0\xff"]),
    "dictionary": (A(["a", None, "a"]).dictionary_encode(), "VARCHAR", ["a", None, "a"]),
    "dictionary of halves": (A([1.5, None], pa.float16()).dictionary_encode(), "FLOAT", [1.5, None]),
    "runs": (pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]), "VARCHAR", ["a", "a", "b"]),
    "list": (A([[1, None]], pa.large_list(pa.int64())), "BIGINT[]", [[1, None]]),
    "list view": (A([[1], [2, 3]], pa.list_view(pa.int64())), "BIGINT[]", [[1], [2, 3]]),
    "list of halves": (A([[1.5]], pa.list_(pa.float16())), "FLOAT[]", [[1.5]]),
    "struct": (A([{"a": 1, "b": "x"}]), "STRUCT(a BIGINT, b VARCHAR)", [{"a": 1, "b": "x"}]),
    "map": (A([[("a", 1.5)]], pa.map_(pa.string(), pa.float16())), "MAP(VARCHAR, FLOAT)", [{"a": 1.5}]),
    "nanoseconds": (A([1_000], pa.timestamp("ns")), "TIMESTAMP_NS", [datetime(1970, 1, 1, 0, 0, 0, 1)]),
    "milliseconds": (A([1], pa.timestamp("ms")), "TIMESTAMP_MS", [datetime(1970, 1, 1, 0, 0, 0, 1_000)]),
    "uuid": (A([uuid.UUID(int=7).bytes], pa.uuid()), "UUID", [uuid.UUID(int=7)]),
    "json": (A(['{"a":1}'], pa.json_()), "JSON", ['{"a":1}']),
}  # fmt: skip


@pytest.mark.parametrize("name", CELLS)
def test_each_type_is_read_as_what_holds_its_values(storage, name):
    column, kind, values = CELLS[name]
    storage.write_bytes("a.arrow", packed(pa.table({"v": column, "n": A([0] * len(column))})))
    if kind is not None:
        assert file("a.arrow")["columns"][0] == {"name": "v", "type": kind}
    assert [row[0] for row in rows_of(storage, "a.arrow")] == values


@pytest.mark.parametrize("out", ["o.csv", "o.jsonl", "o.xlsx", "o.ods", "o.arrow"])
def test_each_type_becomes_a_column_of_each_format(storage, out):
    first = {name: column.slice(0, 1) for name, (column, _, _) in CELLS.items()}
    storage.write_bytes("a.arrow", packed(pa.table(first)))
    result = file("a.arrow", out=out)
    assert (result["rows"], [each["name"] for each in result["columns"]]) == (1, [*CELLS])


def test_a_dense_union_is_refused_and_a_sparse_one_is_not(storage):
    ids, parts = A([0, 1], pa.int8()), [A([1, 2]), A(["x", "y"])]
    dense = pa.UnionArray.from_dense(ids, A([0, 1], pa.int32()), parts)
    assert "has a dense union, which can't be read" in refused(storage, packed(pa.table({"v": dense})))
    storage.write_bytes("a.arrow", packed(pa.table({"v": pa.UnionArray.from_sparse(ids, parts)})))
    file("a.arrow", out="o.jsonl")
    assert storage.read_bytes("o.jsonl") == b'{"v":{"0":1}}\n{"v":{"1":"y"}}\n'


def test_columns_of_one_name_or_none_get_names_of_their_own(storage):
    table = pa.table([A([1]), A([2]), A([3])], names=["a", "A", ""])
    storage.write_bytes("a.arrow", packed(table))
    names = [each["name"] for each in file("a.arrow", out="o.csv")["columns"]]
    assert len({name.lower() for name in names}) == 3
    assert all(names)


def test_metadata_of_types_that_nobody_knows_says_nothing(storage):
    field = pa.field("v", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
    storage.write_bytes("a.arrow", packed(pa.table([A([b"x"])], schema=pa.schema([field]))))
    assert rows_of(storage, "a.arrow") == [(b"x",)]


def test_dictionaries_that_change_within_a_stream_are_followed(storage):
    sink = pa.BufferOutputStream()
    first = pa.record_batch({"v": A(["a", "b"]).dictionary_encode()})
    with ipc.new_stream(sink, first.schema) as writer:
        writer.write_batch(first)
        writer.write_batch(pa.record_batch({"v": A(["c", "a", "c"]).dictionary_encode()}))
    storage.write_bytes("a.arrows", sink.getvalue().to_pybytes())
    assert [value for (value,) in rows_of(storage, "a.arrows")] == ["a", "b", "c", "a", "c"]


def test_an_arrow_file_keeps_to_a_schema_and_takes_no_options(storage):
    storage.write_bytes("a.arrow", packed(TABLE))
    wanted = {"price": "DOUBLE", "id": "BIGINT", "name": "VARCHAR", "day": "DATE"}
    assert [each["name"] for each in file("a.arrow", out="o.csv", schema=wanted)["columns"]] == [*wanted]
    with pytest.raises(UnfitOption, match=rf"^a.arrow is {ARROW_FILE}, which has no columns: omit columns$"):
        file("a.arrow", out="o.csv", columns={"id": "VARCHAR"})


def test_a_table_without_rows_or_columns_is_what_it_is(storage):
    storage.write_bytes("a.arrow", packed(TABLE.slice(0, 0)))
    assert file("a.arrow", out="o.arrow")["rows"] == 0
    assert read(storage, "o.arrow").schema.names == TABLE.schema.names


def test_rows_that_do_not_fit_an_inner_guess_are_written_once(storage):
    content = "n,s\n" + "".join(f"{n},x\n" for n in range(30_000)) + "".join(f"w{n},x\n" for n in range(900))
    storage.write_bytes("a.csv", content.encode())
    assert file("a.csv", out="o.arrow")["rows"] == 30_900
    assert read(storage, "o.arrow")["n"][30_899].as_py() == "w899"


def test_partitions_can_be_made_of_arrow(storage):
    storage.write_bytes("a.arrow", packed(TABLE))
    assert file("a.arrow", to="csv", out="parts", partition_by=["id"])["files"] == 3


def lying(content, what):
    """The content with the number of bytes that a compressed buffer says it has changed."""
    true = (800_000).to_bytes(8, "little")
    assert true in content
    return content.replace(true, what.to_bytes(8, "little", signed=True))


@pytest.mark.parametrize("kind", NEW)
@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_buffer_that_lies_about_its_size_is_refused_within_the_memory(storage, kind, compression):
    content = packed(pa.table({"n": A(range(100_000))}), kind, compression)
    for size in (2**62, 3 * 2**30, -5, 799_992):
        said = refused(storage, lying(content, size))
        assert "can't be read as Arrow: " in said or "needs more than 2,048 MB" in said


def test_a_batch_that_needs_too_much_memory_is_refused_and_smaller_ones_are_not(storage, monkeypatch):
    monkeypatch.setattr(arrow, "MEMORY", 300_000_000)
    table = pa.table({"n": pa.array([0]).take(pa.array([0] * 50_000_000, pa.int32()))})
    said = refused(storage, packed(table, "arrow", "zstd"))
    assert said == "a.arrow has a batch that needs more than 286 MB: write smaller ones"
    storage.write_bytes("b.arrow", packed(table, "arrow", "zstd", rows=1_000_000))
    assert file("b.arrow", out="o.parquet")["rows"] == 50_000_000


def test_a_large_batch_that_is_not_compressed_needs_no_memory(storage, monkeypatch):
    monkeypatch.setattr(arrow, "MEMORY", 200_000_000)
    table = pa.table({"n": A(range(40_000_000))})
    storage.write_bytes("a.arrow", packed(table))
    assert storage.size("a.arrow") > 300_000_000
    assert file("a.arrow", out="o.parquet")["rows"] == 40_000_000


def test_batches_of_nothing_that_would_never_end_are_refused(storage):
    rows = pa.RecordBatch.from_arrays([pa.nulls(2**30)], names=["v"])
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, rows.schema) as writer:
        for _ in range(20):
            writer.write_batch(rows)
    said = refused(storage, sink.getvalue().to_pybytes())
    assert said == "a.arrow holds more than 1 GiB, and more than 200 times its own size"


def test_offsets_and_texts_that_lead_elsewhere_are_refused(storage):
    content = packed(pa.table({"v": A(["one", "two", "three"])}), "arrows")
    right = b"".join(each.to_bytes(4, "little") for each in (0, 3, 6, 11))
    assert right in content
    for wrong in ((0, 3, 6, 2**30), (0, 6, 3, 11), (2**31, 3, 6, 11), (0, 3, 6, 12)):
        offsets = b"".join(each.to_bytes(4, "little") for each in wrong)
        assert "can't be read as Arrow: " in refused(storage, content.replace(right, offsets))
    assert "can't be read as Arrow: " in refused(
        storage, content.replace(b"onetwothree", b"one\xff\xfethree"[:11])
    )
    pointing = pa.DictionaryArray.from_arrays(A([0, 9], pa.int8()), A(["a"]), safe=False)
    assert "can't be read as Arrow: " in refused(storage, packed(pa.table({"v": pointing})))


@pytest.mark.parametrize("kind", NEW)
def test_a_file_that_is_cut_is_no_part_of_one(storage, kind):
    whole = packed(pa.table({"n": A(range(5_000)), "s": A(["x" * 30] * 5_000)}), kind, rows=1_000)
    for share in (0.02, 0.3, 0.6, 0.9):
        refused(storage, whole[: int(len(whole) * share)], (ArrowRefused, NotATable))


@pytest.mark.parametrize("kind", NEW)
def test_damage_anywhere_is_one_line_or_harmless(storage, kind):
    rng = random.Random(kind)
    whole = packed(pa.table({"n": A(range(50)), "s": A(["text"] * 50).dictionary_encode()}), kind, "lz4")
    for _ in range(25):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            damaged[rng.randrange(8, len(damaged))] = rng.randrange(256)
        storage.write_bytes("a.arrow", bytes(damaged))
        try:
            file("a.arrow", out="o.csv")
        except (ArrowRefused, NotATable, ConversionFailed) as error:
            assert str(error).startswith("a.arrow")
            assert "\n" not in str(error)


def test_a_reader_that_dies_fails_the_job_in_one_line(storage, monkeypatch):
    started = subprocess.Popen

    def dying(command, **options):
        if "arrow_batches.py" not in str(command):
            return started(command, **options)
        process = started(
            [sys.executable, "-c", "import os, time; os.write(1, b'x' * 9); time.sleep(60)"], **options
        )
        os.kill(process.pid, signal.SIGSEGV)
        return process

    monkeypatch.setattr(subprocess, "Popen", dying)
    said = refused(storage, packed(TABLE))
    assert said == "a.arrow can't be read as Arrow: its process has ended (exit code -11)"


def test_a_value_that_the_output_cannot_hold_is_said_to_be_why_not_its_reader(storage):
    seconds = A([2**62, *range(2_000_000)], pa.timestamp("s"))
    said = refused(storage, packed(pa.table({"t": seconds}), rows=50_000), ConversionFailed, out="o.parquet")
    assert "Could not convert Timestamp" in said


def test_what_lacks_the_extra_says_so_in_a_line(storage, monkeypatch):
    storage.write_bytes("a.csv", b"a,b\n1,2\n")
    content = packed(TABLE)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    with pytest.raises(UnfitOutput, match=r"^a.csv: .* isn't installed: pip install 'packmule\[arrow\]'$"):
        file("a.csv", out="o.arrow")
    storage.delete("a.csv")
    assert refused(storage, content).endswith("isn't installed: pip install 'packmule[arrow]'")


def test_a_full_disk_fails_in_one_line_and_leaves_nothing(storage):
    import resource

    storage.write_bytes(
        "a.csv", b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * 7919 % 100_003) for n in range(60_000))
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            StorageError, match=r"^a.csv can't be converted: files may not grow so large here: "
        ):
            file("a.csv", out="o.arrow")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert storage.names() == ["a.csv"]
