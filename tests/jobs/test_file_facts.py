"""What the file job reports of a file: its type by content whatever the name, size, hash and columns."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import sqlite3
import tarfile
import zipfile
from pathlib import Path

import duckdb
import openpyxl
import pytest
from PIL import Image

from packmule.jobs import context
from packmule.jobs.files import WorkbookRefused, file
from packmule.jobs.files.signatures import DOCX, ODS, XLSX
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import Storage
from packmule.tests.jobs.archives import sevenzipped
from packmule.tests.jobs.documents import locked_pdf, pdf

ROOT = Path(__file__).parents[2]


@pytest.fixture
def storage(tmp_path):
    store = Storage(str(tmp_path / "files"))
    context.provide(store, InputLimits(file_bytes=100_000_000, attachment_bytes=1, pixels=1))
    return store


def picture(name):
    content = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(content, name)
    return content.getvalue()


def zipped(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "/").replace("_xml", ".xml"), text)
    return content.getvalue()


def test_an_inspection_counts_rows_sheets_members_and_names_duplicates(storage):
    put = {
        "a.csv": b'a,b\n1,"two\nlines"\n3,4\nshort\n',
        "a.jsonl": b'{"a": 1}\n\n{"a": 2}\nbroken\n{"a": 3}\n',
        "a.json": b'[{"a": 1}, {"a": 2}]',
        "a.xlsx": xlsx(),
        "a.zip": zipped(a="1", b="2"),
        "a.csv.gz": gzip.compress(b"a,b\n1,2\n"),
        "a.tar": tarred(),
        "a.7z": sevenzipped([("a", b"1"), ("b/c", b""), ("d", b"2" * 9_000)]),
        "a.pdf": pdf("one", "two", "three"),
    }
    for name, content in put.items():
        storage.write_bytes(name, content)
    duckdb.sql("SELECT range a FROM range(7)").write_parquet(storage.locate("a.parquet"))
    facts = {name: file(name) for name in [*put, "a.parquet"]}
    counted = {name: each.get("rows") for name, each in facts.items()}
    assert {name: rows for name, rows in counted.items() if rows is not None} == {
        "a.csv": 2, "a.jsonl": 4, "a.json": 2, "a.xlsx": 1, "a.parquet": 7,
    }  # fmt: skip
    assert (facts["a.xlsx"]["sheet"], facts["a.xlsx"]["sheets"]) == ("Sheet", ["Sheet"])
    members = {name: each["members"] for name, each in facts.items() if "members" in each}
    assert members == {"a.zip": 2, "a.tar": 1, "a.7z": 3}
    assert {name for name, each in facts.items() if "pages" in each} == {"a.pdf"}
    assert facts["a.pdf"]["pages"] == 3
    assert facts["a.csv.gz"]["content_type"] == "text/csv"
    digest = facts["a.csv"]["sha256"]
    for name in ("x.csv", "y.csv"):
        storage.write_bytes(f"uploads/{digest[:16]}/{name}", put["a.csv"])
    assert file(f"uploads/{digest[:16]}/x.csv")["duplicates"] == [f"uploads/{digest[:16]}/y.csv"]


def test_what_is_broken_or_locked_is_inspected_without_counts(storage):
    whole = {
        "a.zip": zipped(a="1"),
        "a.tar": tarred(),
        "a.7z": sevenzipped([("a", b"1" * 999)]),
        "a.pdf": pdf("one"),
    }
    put = {name: content[: len(content) // 3] for name, content in whole.items()}
    put |= {"locked.pdf": locked_pdf(), "lying.pdf": pdf("one", count=1_000_000)}
    for name, content in put.items():
        storage.write_bytes(name, content)
        facts = file(name)
        assert not {"members", "pages"} & facts.keys(), name
        assert facts["sha256"] == hashlib.sha256(content).hexdigest()


def test_members_are_counted_as_the_directory_has_them_whatever_the_comment_says(storage):
    book = io.BytesIO(xlsx())
    with zipfile.ZipFile(book, "a") as archive:
        archive.comment = b"made by PK\5\6" + bytes(30)
    storage.write_bytes("a.xlsx", book.getvalue())
    facts = file("a.xlsx")
    assert (facts["type"], facts["rows"]) == (XLSX, 1)
    plain = io.BytesIO(zipped(a="1", b="2"))
    with zipfile.ZipFile(plain, "a") as archive:
        archive.comment = b"PK\5\6" + bytes(40)
    storage.write_bytes("a.zip", plain.getvalue())
    assert file("a.zip")["members"] == 2


def xlsx():
    content = io.BytesIO()
    book = openpyxl.Workbook()
    book.active.append(["n"])
    book.active.append([1])
    book.save(content)
    return content.getvalue()


def tarred():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(__file__, "a.py")
    return content.getvalue()


def saved(make):
    def content(folder):
        path = folder / "made"
        make(path)
        return path.read_bytes()

    return content


def database(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE a (b)")
    connection.close()


def parquet(path):
    duckdb.connect().execute("COPY (SELECT 1 AS a, 'x' AS b) TO $path (FORMAT parquet)", {"path": str(path)})


@pytest.mark.parametrize(
    ("expected", "content"),
    [
        ("image/jpeg", picture("JPEG")),
        ("image/png", picture("PNG")),
        ("image/gif", picture("GIF")),
        ("image/webp", picture("WEBP")),
        ("image/tiff", picture("TIFF")),
        ("application/pdf", b"%PDF-1.7\n"),
        ("application/zip", zipped(a="b")),
        (XLSX, xlsx()),
        (DOCX, zipped(word__document_xml="<w/>")),
        (ODS, zipped(mimetype=ODS)),
        ("application/gzip", gzip.compress(b"a", mtime=0)),
        ("application/zstd", b"\x28\xb5\x2f\xfd\x24\x00"),
        ("application/x-bzip2", bz2.compress(b"a")),
        ("application/x-xz", lzma.compress(b"a")),
        ("application/x-tar", tarred()),
        ("image/bmp", picture("BMP")),
        ("image/avif", picture("AVIF")),
        ("image/heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        ("video/mp4", b"\0\0\0\x20ftypisom\0\0\2\0isomiso2"),
        ("application/x-7z-compressed", b"7z\xbc\xaf\x27\x1c\0\4"),
        ("application/vnd.rar", b"Rar!\x1a\x07\x01\0"),
        ("application/x-lz4", b"\x04\x22\x4d\x18\x64\x40\xa7"),
        ("application/x-iso9660-image", bytes(32769) + b"CD001\1" + bytes(2048)),
        ("application/rtf", rb"{\rtf1\ansi a, b}"),
        (
            "application/x-encrypted-office",
            zipped(mimetype=ODS, **{"META-INF__manifest_xml": "<a:encryption-data/>"}),
        ),
        ("application/vnd.sqlite3", saved(database)),
        ("application/vnd.apache.parquet", saved(parquet)),
        ("text/csv", b"a;b\n1;2\n"),
        ("text/csv", "a,b\ncafé,2\n".encode("utf-16")),
        ("text/tab-separated-values", b"a\tb\n1\t2\n"),
        ("application/json", b'{"a":\n [1]}'),
        ("application/json", b"[1, 2]"),
        ("application/jsonl", b'{"a": 1}\n{"a": 2}\n'),
        ("application/xml", b"<?xml version='1.0'?><a/>"),
        ("text/html", b"\n<!DOCTYPE HTML><p>"),
        ("text/plain", b"Only words here.\nAnd here.\n"),
        ("application/octet-stream", bytes(range(256))),
        ("application/x-empty", b""),
    ],
)
def test_the_type_is_detected_by_content_whatever_the_name(storage, tmp_path, expected, content):
    if callable(content):
        content = content(tmp_path)
    if expected == ODS:
        storage.write_bytes("uploads/misleading.pdf", content)
        with pytest.raises(WorkbookRefused):
            file("uploads/misleading.pdf")
        return
    storage.write_bytes("uploads/misleading.pdf", content)
    facts = file("uploads/misleading.pdf")
    assert facts["type"] == expected
    assert facts["bytes"] == len(content)
    assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    assert storage.names() == ["uploads/misleading.pdf"]


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (b"a,b,c\n1,x,2020-01-01\n", {"a": "BIGINT", "b": "VARCHAR", "c": "DATE"}),
        (b'{"a": 1, "b": [1]}\n{"a": 2}\n', {"a": "BIGINT", "b": "JSON"}),
        (xlsx(), {"n": "BIGINT"}),
        (saved(parquet), {"a": "INTEGER", "b": "VARCHAR"}),
    ],
)
def test_columns_of_a_table_come_with_their_types(storage, tmp_path, content, columns):
    storage.write_bytes("uploads/a", content(tmp_path) if callable(content) else content)
    assert {column["name"]: column["type"] for column in file("uploads/a")["columns"]} == columns


def test_progress_counts_the_bytes_hashed(storage):
    content = bytes(5_000_000)
    storage.write_bytes("uploads/a", content)
    reports = []
    with context.Running("a", 1, lambda *report: reports.append(report)):
        file("uploads/a")
    assert reports[-1][:2] == (5_000_000, 5_000_000)
    assert [report[0] for report in reports] == sorted(report[0] for report in reports)
