"""A profile counts what a table contains, and its page shows it without a script."""

from __future__ import annotations

import csv
import io
import json
import random
import re

import pytest

from packmule.jobs import context
from packmule.jobs.files import EmptyFile, NotATable, profile
from packmule.jobs.files.profiling import measures
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import OutsideStorage, Storage, StorageError


@pytest.fixture
def profiled(tmp_path):
    """A function that profiles a table, and returns the result and its columns by name."""
    storage = Storage(str(tmp_path / "files"))
    context.provide(storage, InputLimits(file_bytes=50_000_000, attachment_bytes=1, pixels=1))

    def done(table, **options):
        text = io.StringIO()
        csv.writer(text).writerows(table)
        storage.write_bytes("a.csv", text.getvalue().encode())
        result = profile("a.csv", **options)
        return result, {column["name"]: column for column in result["columns"]}

    done.storage = storage
    return done


def test_the_columns_are_counted(profiled):
    dice = random.Random(1)
    rows = [
        (
            i,
            i % 4 or "",
            f"2020-01-{i % 28 + 1:02}",
            dice.gauss(0, 1),
            "x" * (i % 10 + 1),
            "inf" if i % 2 else 1.5,
        )
        for i in range(2_000)
    ]
    result, columns = profiled([("id", "few", "day", "bell", "text", "inf"), *rows])
    assert (result["rows"], result["refused"]) == (2_000, 0)
    assert {name: each["type"] for name, each in columns.items()} == {
        "id": "BIGINT", "few": "BIGINT", "day": "DATE", "bell": "DOUBLE", "text": "VARCHAR", "inf": "DOUBLE",
    }  # fmt: skip
    assert [columns[name]["distinct"] for name in ("id", "few", "day")] == [2_000, 3, 28]
    assert (columns["few"]["nulls"], columns["few"]["min"], columns["few"]["max"]) == (500, "1", "3")
    assert columns["few"]["top"] == [{"value": str(i), "count": 500} for i in (1, 2, 3)]
    assert columns["id"]["top"] == []
    assert columns["id"]["quantiles"]["0.5"] == pytest.approx(1_000, rel=0.02)
    assert columns["id"]["histogram"] == [100] * 20
    assert columns["day"]["quantiles"]["0.5"][:8] == "2020-01-"
    assert sum(columns["bell"]["histogram"]) == 2_000
    assert max(columns["bell"]["histogram"][8:13]) == max(columns["bell"]["histogram"])
    assert columns["text"]["lengths"]["mean"] == pytest.approx(5.5)
    assert "histogram" not in columns["inf"]
    assert columns["inf"]["max"] == "inf"


def test_many_different_values_are_counted_approximately(profiled, monkeypatch):
    monkeypatch.setattr(measures, "EXACT", 100)
    monkeypatch.setattr(measures, "RANKED", 100)
    rows = [(f"v{i}" if i % 2 else "often",) for i in range(3_000)]
    _, columns = profiled([("v",), *rows])
    assert not columns["v"]["is_exact"]
    assert columns["v"]["distinct"] == pytest.approx(1_501, rel=0.1)
    assert columns["v"]["top"] == [{"value": "often", "count": 1_500}]


@pytest.mark.parametrize("value", [1e308, -1.7976931348623157e308, 5e-324, 2**63 - 1, -(2**63), 0.1])
def test_extreme_numbers_are_profiled(profiled, value):
    _, columns = profiled([("v", "w"), (value, 1), (-value if value != -(2**63) else 0, 2), (0, 3)])
    assert sum(columns["v"].get("histogram", [3])) == 3


def test_an_empty_table_is_profiled(profiled):
    result, columns = profiled([("a", "b")])
    assert (result["rows"], columns["a"]["min"], columns["a"]["top"]) == (0, None, [])
    assert b"0 rows, 2 columns" in profiled.storage.read_bytes(result["path"])


def test_the_page_holds_what_others_wrote_as_text_only_and_needs_nothing_else(profiled):
    evil = "<script>alert(1)</script>"
    result, _ = profiled([(evil, '" onload="x'), *[(f"{evil}\x85{i % 2}", "&lt;") for i in range(40)]])
    page = profiled.storage.read_bytes(result["path"]).decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search(r"<script|<link|\bsrc=|https?:|url\(| onload=\"", page)
    assert "prefers-color-scheme: dark" in page


def test_the_json_has_all_columns_and_the_result_a_hundred(profiled):
    names = [f"c{i}" for i in range(130)]
    result, columns = profiled([names, *[[str(i)] * 130 for i in range(3)]], out="p/q")
    assert (len(columns), result["path"], result["json"]) == (100, "p/q/a.html", "p/q/a.json")
    assert len(json.loads(profiled.storage.read_bytes("p/q/a.json"))["columns"]) == 130
    assert profiled.storage.names() == ["a.csv", "p/q/a.html", "p/q/a.json"]


def test_a_second_profile_replaces_the_first_and_no_others_files(profiled):
    profiled([("a",), (1,)], out="p/")
    result, _ = profiled([("a",), (1,), (2,)], out="p")
    assert json.loads(profiled.storage.read_bytes(result["json"]))["rows"] == 2
    profiled.storage.write_bytes("mine/a.txt", b"mine")
    with pytest.raises(StorageError, match="can't write the folder mine: something else is there"):
        profiled([("a",), (1,)], out="mine")
    assert profiled.storage.names("mine/") == ["mine/a.txt"]


def test_the_page_writes_out_what_would_turn_its_text_around(profiled):
    turned = "\u202egnp.exe\u2066"
    result, _ = profiled([(turned, "\u05d0\u05d1"), *[(f"{turned}{i % 2}", "\u05d0") for i in range(40)]])
    page = profiled.storage.read_bytes(result["path"]).decode()
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", page)
    assert "\\u202egnp.exe" in page
    assert "<bdi>\u05d0</bdi>" in page


def test_long_values_are_cut_and_a_result_stays_small(profiled):
    result, _ = profiled([("a", "b"), *[("x" * 5_000 + str(i % 3), i) for i in range(50)]])
    assert len(json.dumps(result)) < 4_000


@pytest.mark.parametrize(
    ("content", "error"), [(b"", EmptyFile), (b"\x89PNG\r\n\x1a\n" + bytes(9), NotATable)]
)
def test_what_is_no_table_is_refused_in_one_line(profiled, content, error):
    profiled.storage.write_bytes("b.csv", content)
    with pytest.raises(error, match=r"^b.csv is "):
        profile("b.csv")
    with pytest.raises(OutsideStorage):
        profile("b.csv", out="../x")
    assert profiled.storage.names() == ["b.csv"]
