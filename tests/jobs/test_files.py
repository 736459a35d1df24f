"""The file job's conversions: every row is written or refused with a reason, and no partial file is left."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path

import duckdb
import openpyxl
import pytest

from packmule.jobs import context
from packmule.jobs.files import (
    EmptyFile,
    MismatchedColumns,
    NotATable,
    TooManyRefused,
    TooWide,
    UnfitKey,
    UnreadableText,
    WorkbookRefused,
    database,
    file,
)
from packmule.jobs.files.database import QueryFailed, opened
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job_type import InvalidCall
from packmule.jobs.storage import FileTooLarge, MissingFile, OutsideStorage, Storage
from packmule.tests.alarm import alarm
from packmule.tests.pace import pace
from packmule.tests.worker.pools import children_of

ROOT = Path(__file__).parents[2]
WEATHER = ROOT / "jobs/samples/weather.csv"
LIMITS = InputLimits(file_bytes=100_000_000, attachment_bytes=1, pixels=1)


@pytest.fixture
def storage(tmp_path):
    store = Storage(str(tmp_path / "files"))
    context.provide(store, LIMITS)
    return store


def rows(storage, result):
    """The rows of a conversion's output, read back from its Parquet in order."""
    with storage.read(result["path"]) as parquet:
        return duckdb.connect().execute("FROM read_parquet($file)", {"file": str(parquet)}).fetchall()


def types(result):
    return {column["name"]: column["type"] for column in result["columns"]}


def converted(storage, content, name="uploads/a.csv", **options):
    storage.write_bytes(name, content.encode() if isinstance(content, str) else content)
    return file(name, to="parquet", out="out/a.parquet", **options)


def places(result):
    return [(refused["line"], refused["column"]) for refused in result["refusals"]]


def numbers(count, *strays, at=0):
    """A CSV of `count` good rows with `strays` inserted after row `at`."""
    lines = [f'{i},"name {i}",2020-01-{i % 28 + 1:02d},{i / 2}' for i in range(count)]
    return "\n".join(["id,name,day,price", *lines[:at], *strays, *lines[at:]]) + "\n"


def test_the_sample_becomes_parquet_with_each_row_and_its_types(storage):
    result = converted(storage, WEATHER.read_bytes())
    with WEATHER.open(newline="") as content:
        expected = list(csv.DictReader(content))
    assert result["rows"] == len(expected) == 1461
    assert result["refused"] == 0
    assert types(result) == {
        "date": "DATE",
        "precipitation": "DOUBLE",
        "temp_max": "DOUBLE",
        "temp_min": "DOUBLE",
        "wind": "DOUBLE",
        "weather": "VARCHAR",
    }
    got = rows(storage, result)
    assert [row[0] for row in got] == [datetime.strptime(row["date"], "%Y/%m/%d").date() for row in expected]
    assert [row[5] for row in got] == [row["weather"] for row in expected]
    assert sum(row[1] for row in got) == pytest.approx(sum(float(row["precipitation"]) for row in expected))
    assert result["bytes"] == storage.size("out/a.parquet")
    assert storage.names() == ["out/a.parquet", "uploads/a.csv"]


def test_bad_rows_are_refused_with_line_column_and_reason_and_the_counts_add_up(storage):
    good = 400
    strays = [
        'x,"bad id",2020-01-01,1.5',
        '7,"two\nlines",2020-01-01,1.5',
        '8,"short"',
        '9,"long",2020-01-02,1,2',
    ]
    result = converted(storage, numbers(good, *strays, at=100))
    assert (result["rows"], result["refused"]) == (good + 1, 3)
    # After the header and 100 rows; the row that spans two lines counts as two.
    assert places(result) == [(102, "id"), (105, "day"), (106, None)]
    assert "x" in result["refusals"][0]["reason"]
    assert result["refusals"][0]["text"] == strays[0]
    assert len(rows(storage, result)) == good + 1
    assert types(result) == {"id": "BIGINT", "name": "VARCHAR", "day": "DATE", "price": "DOUBLE"}
    report = storage.read_bytes("out/a.parquet.refused.jsonl").decode().splitlines()
    assert [json.loads(line) for line in report] == result["refusals"]


def test_a_hundred_refused_rows_are_in_the_result_and_all_in_the_report(storage):
    result = converted(storage, numbers(30_000, *[f"{i},only two" for i in range(250)], at=29_000))
    assert (result["rows"], result["refused"], len(result["refusals"])) == (30_000, 250, 100)
    assert result["refusals"][0]["line"] == 29_002
    report = storage.read_bytes(result["refused_path"]).splitlines()
    assert [json.loads(line)["line"] for line in report] == list(range(29_002, 29_252))


def test_an_older_runs_report_does_not_outlive_a_clean_run(storage):
    converted(storage, numbers(200, "1,2"))
    result = converted(storage, numbers(200))
    assert "refused_path" not in result
    assert storage.size("out/a.parquet.refused.jsonl") == 0


def test_more_refused_rows_than_allowed_fail_the_job_and_leave_nothing(storage):
    bad = ["1,2"] * 5
    assert converted(storage, numbers(500, *bad), max_refused=5)["refused"] == 5
    with pytest.raises(
        TooManyRefused, match=r"^uploads/a.csv: more than 4 rows were refused, the last at line 6"
    ):
        storage.write_bytes("uploads/a.csv", numbers(500, *bad).encode())
        file("uploads/a.csv", to="parquet", out="strict/a.parquet", max_refused=4)
    assert storage.names("strict/") == []


def test_a_fraction_after_the_sample_is_not_rounded(storage):
    result = converted(storage, "id\n" + "\n".join(map(str, range(30_000))) + "\n1.5\n", "uploads/n.csv")
    assert types(result) == {"id": "DOUBLE"}
    assert rows(storage, result)[-1] == (1.5,)


def test_a_code_with_leading_zeros_stays_text(storage):
    result = converted(storage, "zip,n\n00123,1\n99501,2\n")
    assert types(result) == {"zip": "VARCHAR", "n": "BIGINT"}
    assert rows(storage, result) == [("00123", 1), ("99501", 2)]


def test_a_number_too_long_for_64_bits_keeps_all_its_digits(storage):
    result = converted(storage, "id,n\n12345678901234567890,1\n2,2\n")
    assert rows(storage, result)[0] == ("12345678901234567890", 1)


def test_a_fraction_with_more_digits_before_its_point_than_a_double_holds_stays_text(storage):
    result = converted(storage, "sum,n\n12345678901234567.89,1\n1.5,2\n")
    assert rows(storage, result) == [("12345678901234567.89", 1), ("1.5", 2)]


@pytest.mark.parametrize(
    ("numbers", "first"),
    [(["438,314", "1,250"], "438,314"), (["438,314", "1,5"], 438.314), (["0,125", "1,250"], 0.125)],
)
def test_numbers_between_tabs_that_may_be_thousands_stay_text(storage, numbers, first):
    result = converted(storage, "sum\tn\n" + "".join(f"{each}\t1\n" for each in numbers))
    assert rows(storage, result)[0] == (first, 1)


def test_a_quoted_empty_field_is_no_number_beside_dates_in_any_order(storage):
    result = converted(storage, '"a","day"\n"1.5","21/08/2003"\n"","22/08/2003"\n')
    assert types(result) == {"a": "DOUBLE", "day": "DATE"}
    assert [row[0] for row in rows(storage, result)] == [1.5, None]


def test_declared_types_win_and_values_that_do_not_fit_are_refused(storage):
    result = converted(
        storage, "zip,n\n1,2\n3,four\n", columns={"zip": "varchar", "n": "BIGINT"}, max_refused=1
    )
    assert types(result) == {"zip": "VARCHAR", "n": "BIGINT"}
    assert rows(storage, result) == [("1", 2)]
    assert places(result) == [(3, "n")]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"nope": "BIGINT"}, "has no column nope: it has zip, n"),
        ({"n": "INT); DROP TABLE x"}, "column n can't be INT"),
        ({"n": "INTEGER"}, "column n has fractions, which INTEGER would round"),
    ],
)
def test_columns_that_do_not_match_fail_in_one_line(storage, columns, said):
    with pytest.raises(MismatchedColumns, match=r"^uploads/a.csv") as failed:
        converted(storage, "zip,n\n1,2.5\n", columns=columns)
    assert said in str(failed.value)
    assert "\n" not in str(failed.value)
    assert storage.names("out/") == []


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("name;n\ncafé;1,5\nnaïve;2\n".encode(), "utf-8"),
        ("\ufeffname\tn\ncafé\t1.5\nnaïve\t2\n".encode(), "utf-8"),
        ("name,n\ncafé,1.5\nnaïve,2\n".encode("latin-1"), "cp1252"),
        ("name|n\r\ncafé|1.5\r\nnaïve|2\r\n".encode("utf-16"), "utf-16"),
        ("name,n\ncafé,1.5\nnaïve,2\n".encode("utf-16-be"), "utf-16-be"),
    ],
)
def test_delimiters_decimal_commas_and_encodings_are_recognised(storage, content, encoding):
    result = converted(storage, content)
    assert rows(storage, result) == [("café", 1.5), ("naïve", 2.0)]
    assert result["encoding"] == encoding
    assert types(result) == {"name": "VARCHAR", "n": "DOUBLE"}


def test_latin_1_that_begins_late_is_recognised_too(storage):
    plain = "".join(f"row {i},{i}\n" for i in range(200_000))
    result = converted(storage, b"name,n\n" + plain.encode() + "café,1\n".encode("latin-1"))
    assert rows(storage, result)[-1] == ("café", 1)


def test_one_broken_byte_in_utf_8_refuses_only_its_row(storage):
    content = numbers(300, '1,"café",2020-01-01,1', '2,"naïve",2020-01-01,1').encode()
    result = converted(storage, content + b'3,"\xff",2020-01-01,1\n')
    assert (result["rows"], result["refused"]) == (302, 1)
    assert places(result) == [(304, "name")]


def test_truncated_utf_16_is_reported_in_one_line(storage):
    with pytest.raises(UnreadableText, match=r"^uploads/a.csv begins as utf-16, but"):
        converted(storage, "a,b\n1,2\n".encode("utf-16") + b"\x00")
    assert storage.names("out/") == []


def test_an_unclosed_quote_does_not_swallow_the_quotes_of_other_rows(storage):
    result = converted(storage, numbers(300, '5,"never closed,2020-01-05,1', at=299))
    assert rows(storage, result)[0][1] == "name 0"
    assert (result["rows"], result["refused"]) == (299, 1)
    assert result["refusals"][0]["reason"].endswith("The row spans 2 lines.")


@pytest.mark.parametrize("ends", ["\r\n", "\r", "mixed"])
def test_any_line_ends_are_read(storage, ends):
    content = "a,b\r\n1,2\n3,4\r\n" if ends == "mixed" else "a,b\n1,2\n3,4\n".replace("\n", ends)
    assert rows(storage, converted(storage, content)) == [(1, 2), (3, 4)]


def test_a_header_without_rows_gives_an_empty_table(storage):
    result = converted(storage, "a,b,c\n")
    assert (result["rows"], list(types(result))) == (0, ["a", "b", "c"])
    assert rows(storage, result) == []


def test_one_column_is_a_table_by_its_name(storage):
    assert rows(storage, converted(storage, "n\n1\n2\n")) == [(1,), (2,)]


@pytest.mark.parametrize("content", ["", "\n\n", "  \n"])
def test_an_empty_file_is_reported_in_one_line(storage, content):
    with pytest.raises(EmptyFile, match=r"^uploads/a.csv is empty"):
        converted(storage, content)


@pytest.mark.parametrize(
    ("content", "looks"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "image/png"),
        (b"a,b\n1,\x00\x01\x02\n", "application/octet-stream"),
        (b"Dear Sir,\n\nthis is, as you see, a letter.\nYours\n", "text/plain"),
        (b"<!DOCTYPE html><p>", "text/html"),
    ],
)
def test_a_file_that_is_not_a_table_is_reported_with_its_type(storage, content, looks):
    with pytest.raises(NotATable) as failed:
        converted(storage, content)
    assert (
        str(failed.value)
        == f"uploads/a.csv is not CSV, JSON, Parquet, Arrow or a workbook: it looks like {looks}"
    )
    assert storage.names("out/") == []


def test_names_with_quotes_and_patterns_are_only_names(storage):
    name = "uploads/a'b\"c; DROP [1]*?.csv"
    storage.write_bytes(name, b'id,"x\'); DROP","say ""hi"""\n1,2,3\n')
    storage.write_bytes("uploads/a'b\"c; DROP 1zz.csv", b"other\n1\n")
    result = file(name, to="parquet", out="o'u\"t/*.parquet")
    assert list(types(result)) == ["id", "x'); DROP", 'say "hi"']
    assert rows(storage, result) == [(1, 2, 3)]


@pytest.mark.parametrize("name", ["../secret.csv", "/etc/passwd", "uploads/../../x"])
def test_no_path_leads_out_of_the_storage(storage, name):
    storage.write_bytes("uploads/a.csv", b"a,b\n1,2\n")
    with pytest.raises(OutsideStorage):
        file(name, to="parquet")
    with pytest.raises(OutsideStorage):
        file("uploads/a.csv", to="parquet", out=name)


def test_a_missing_or_too_large_file_is_reported_before_any_work(storage):
    with pytest.raises(MissingFile):
        file("uploads/none.csv", to="parquet")
    context.provide(InputLimits(file_bytes=10, attachment_bytes=1, pixels=1))
    with pytest.raises(FileTooLarge):
        converted(storage, numbers(5))


def test_an_unknown_target_format_is_refused_at_enqueue():
    with pytest.raises(InvalidCall, match="to"):
        file.job.validate(("uploads/a.csv",), {"to": "avro"})


def test_a_very_wide_table_is_refused_and_one_within_the_limit_converts(storage):
    def wide(count):
        return ",".join(f"c{i}" for i in range(count)) + "\n" + ",".join("x" * 5 for _ in range(count)) + "\n"

    with pytest.raises(TooWide, match=r"^uploads/a.csv has 4,000 columns, but the limit is 2,000"):
        converted(storage, wide(4_000))
    assert len(converted(storage, wide(2_000))["columns"]) == 2_000


def test_only_a_very_long_line_is_refused(storage):
    result = converted(storage, numbers(300, f'5,"{"y" * 20_000_000}",2020-01-01,1', at=200))
    assert (result["rows"], result["refused"]) == (300, 1)
    assert result["refusals"][0]["line"] == 202
    assert len(result["refusals"][0]["text"]) == 200


def test_the_default_output_is_named_after_the_job_or_the_content(storage):
    storage.write_bytes("uploads/my data.csv", b"a,b\n1,2\n")
    with context.Running("7f0c", 1, lambda *_: None):
        assert file("uploads/my data.csv", to="parquet")["path"] == "converted/7f0c/my data.parquet"
    path = file("uploads/my data.csv", to="parquet")["path"]
    assert len(path.split("/")[1]) == 16
    assert file("uploads/my data.csv", to="parquet")["path"] == path


def big_csv(path, size):
    with path.open("w") as content:
        content.write("id,name,at,price,note\n")
        number = 0
        while content.tell() < size:
            content.writelines(
                f'{i},"name {i % 1000}",2020-01-01 00:{i % 60:02d}:00,{i / 7:.3f},{"lorem ips " * (i % 5)}\n'
                for i in range(number, number + 5000)
            )
            number += 5000
    return number


def test_progress_of_a_large_file_rises_to_a_hundred(storage, tmp_path):
    count = big_csv(tmp_path / "big.csv", 60_000_000)  # enough for several reports on a fast machine
    source = storage.put(tmp_path / "big.csv")
    reports = []
    with context.Running("big", 1, lambda *report: reports.append(report)):
        result = file(source, to="parquet")
    done = [report[0] for report in reports]
    assert result["rows"] == count
    assert done == sorted(done)
    assert len(set(done)) >= 4
    assert (done[-1], reports[-1][1]) == (100, 100)
    assert {report[1] for report in reports} == {100}


class TimedOut(Exception):
    """The exception that a soft timeout raises in the main thread."""


def test_a_query_that_an_interruption_left_behind_ends_when_its_database_is_closed(tmp_path):
    def count() -> None:
        with suppress(QueryFailed):
            database.run("SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b")

    with opened(tmp_path, []) as database:
        left_behind = threading.Thread(target=count)
        left_behind.start()
        while database._connection.query_progress() < 0:
            time.sleep(0.01)
    left_behind.join(30)
    assert not left_behind.is_alive()


@pytest.mark.parametrize("after", [0.05, 0.15, 0.3])
def test_a_timeout_stops_a_conversion_within_a_second_and_leaves_nothing(
    storage, tmp_path, monkeypatch, after
):
    big_csv(tmp_path / "big.csv", 60_000_000)
    source = storage.put(tmp_path / "big.csv")
    private = tmp_path / "private"
    private.mkdir()
    raised_at = []

    def raise_timeout():
        raised_at.append(time.monotonic())
        raise TimedOut

    monkeypatch.setattr("tempfile.tempdir", str(private))
    with pace() as second, pytest.raises(TimedOut), alarm(after, raise_timeout):
        file(source, to="parquet", out="out/a.parquet")
    assert time.monotonic() - raised_at[0] < 1 * second()
    assert storage.names() == [source]
    assert list(private.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("duckdb")]


def test_a_query_that_spills_too_much_fails_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "MEMORY", "64MB")
    monkeypatch.setattr(database, "SPILL", "20MB")
    rows = "SELECT md5(range::VARCHAR) || md5((range + 1)::VARCHAR) AS text FROM range(3000000)"
    with database.opened(tmp_path, []) as found, pytest.raises(database.QueryFailed) as failed:
        found.run(f"CREATE TEMPORARY TABLE rows AS {rows}")
    assert re.search(r"failed to offload data block .* used", str(failed.value))
    assert "\n" not in str(failed.value)


def test_a_conversion_stays_within_its_memory(tmp_path):
    big_csv(tmp_path / "big.csv", 100_000_000)
    script = """
import sys
from packmule.jobs import context
from packmule.jobs.files import file
from packmule.jobs.files.database import QueryFailed, opened
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import Storage
context.provide(Storage(sys.argv[1]), InputLimits(10**9, 1, 1))
assert "duckdb" not in sys.modules and "python_calamine" not in sys.modules
file("big.csv", to="parquet", out="o.parquet")
# Not getrusage, because a child inherits its parent's peak.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) / 1024 < 700


def lines(*objects):
    return "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in objects)


def test_json_lines_keep_their_types(storage):
    content = lines(
        {
            "id": 1,
            "name": "café",
            "day": "2020-01-01",
            "at": "2020-01-01T10:00:00",
            "ok": True,
            "tags": ["a"],
            "x": 1,
        },
        {"id": 2, "name": None, "ok": False, "x": 2.5, "late": "key"},
    )
    result = converted(storage, content, "uploads/a.jsonl")
    assert types(result) == {
        "id": "BIGINT",
        "name": "VARCHAR",
        "day": "DATE",
        "at": "TIMESTAMP",
        "ok": "BOOLEAN",
        "tags": "JSON",
        "x": "DOUBLE",
        "late": "VARCHAR",
    }
    first, second = rows(storage, result)
    assert first == (1, "café", date(2020, 1, 1), datetime(2020, 1, 1, 10), True, '["a"]', 1.0, None)
    assert second == (2, None, None, None, False, None, 2.5, "key")


def test_broken_json_lines_are_refused_with_line_and_reason_and_the_counts_add_up(storage):
    good = [{"id": i, "name": f"n{i}"} for i in range(300)]
    bad = ['{"id": 1, "name": "brok\n', "[1, 2]\n", '{"id": "seven"}\n', "\n", '{"id": 1} trailing\n']
    result = converted(storage, lines(*good[:200], *bad, *good[200:]), "uploads/a.jsonl", max_refused=4)
    assert (result["rows"], result["refused"]) == (300, 4)
    assert places(result) == [(201, None), (202, None), (203, "id"), (205, None)]
    assert result["refusals"][0]["text"] == bad[0].rstrip()
    assert rows(storage, result) == [(row["id"], row["name"]) for row in good]


def test_the_schema_of_json_lines_widens_after_the_sample(storage):
    content = lines(*({"n": i} for i in range(12_000)), {"n": 0.5}, {"n": 1, "new": [1]})
    result = converted(storage, content, "uploads/a.jsonl")
    assert types(result) == {"n": "DOUBLE", "new": "JSON"}
    assert rows(storage, result)[-2:] == [(0.5, None), (1.0, "[1]")]


def test_hostile_keys_and_depth_in_json_lines_are_only_data(storage):
    deep = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}\n"
    key = "x'); DROP TABLE y"
    content = lines({key: 1, "a": 2}, deep, {key: 2, "a": 3})
    result = converted(storage, content, "uploads/a.jsonl", max_refused=1)
    assert rows(storage, result) == [(1, 2), (2, 3)]
    assert places(result) == [(2, "a")]


@pytest.mark.parametrize("row", [{"": 1}, {'say "hi"': 1}, {"id": 1, "ID": 2}])
def test_json_keys_that_cannot_be_column_names_are_reported(storage, row):
    with pytest.raises(UnfitKey, match=r"^uploads/a.jsonl has the key"):
        converted(storage, lines(row, row), "uploads/a.jsonl")


def workbook(path, *table, title="Data"):
    book = openpyxl.Workbook()
    book.active.title = title
    for row in table:
        book.active.append(row)
    book.save(path)
    return path


def test_a_workbook_keeps_dates_numbers_texts_and_empty_cells(storage, tmp_path):
    table = [
        ["id", "price", "day", "at", "name", "ok", "mixed", "id"],
        [1, 1.5, date(2020, 1, 31), datetime(2020, 1, 1, 10, 30), 'say "hi",\nthen go', True, 1, None],
        [2, None, None, None, "00123", False, "two", None],
        [None] * 8,
        [3, 2, date(1999, 12, 31), datetime(2020, 1, 1), None, None, None, None],
    ]
    result = converted(storage, workbook(tmp_path / "a.xlsx", *table).read_bytes(), "uploads/a.xlsx")
    assert types(result) == {
        "id": "BIGINT",
        "price": "DOUBLE",
        "day": "DATE",
        "at": "TIMESTAMP",
        "name": "VARCHAR",
        "ok": "BOOLEAN",
        "mixed": "VARCHAR",
        "id_1": "VARCHAR",
    }
    assert (result["rows"], result["refused"], result["sheet"]) == (3, 0, "Data")
    assert rows(storage, result) == [
        (1, 1.5, date(2020, 1, 31), datetime(2020, 1, 1, 10, 30), 'say "hi",\nthen go', True, "1", None),
        (2, None, None, None, "00123", False, "two", None),
        (3, 2.0, date(1999, 12, 31), datetime(2020, 1, 1), None, None, None, None),
    ]


def test_a_workbooks_refused_rows_carry_the_sheets_row_numbers(storage, tmp_path):
    table = [[], ["n", "note"], [1, "a\nb"], ["two", "c"], [3, "d"]]
    content = workbook(tmp_path / "a.xlsx", *table).read_bytes()
    result = converted(storage, content, "uploads/a.xlsx", columns={"n": "BIGINT"}, max_refused=1)
    assert (result["rows"], places(result)) == (2, [(4, "n")])


def test_a_sheet_is_chosen_by_name(storage, tmp_path):
    book = openpyxl.load_workbook(workbook(tmp_path / "a.xlsx", ["a"], [1]))
    book.create_sheet("Other").append(["b"])
    book["Other"].append([2])
    book.save(tmp_path / "a.xlsx")
    content = (tmp_path / "a.xlsx").read_bytes()
    assert rows(storage, converted(storage, content, "uploads/a.xlsx", sheet="Other")) == [(2,)]
    with pytest.raises(WorkbookRefused, match=r"^uploads/a.xlsx has no sheet Nope: it has Data, Other$"):
        converted(storage, content, "uploads/a.xlsx", sheet="Nope")


def rezipped(source, target, member, content):
    """A copy of a workbook with one member replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, content if name == member else old.read(name))
    return target.read_bytes()


def test_a_workbook_that_unpacks_to_a_bomb_is_refused(storage, tmp_path):
    good = workbook(tmp_path / "a.xlsx", ["a"], [1])
    bomb = rezipped(good, tmp_path / "b.xlsx", "xl/worksheets/sheet1.xml", b" " * 50_000_000)
    assert len(bomb) < 100_000
    with pytest.raises(WorkbookRefused, match=r"^uploads/a.xlsx unpacks from [\d,]+ to 50,"):
        converted(storage, bomb, "uploads/a.xlsx")


def test_a_workbook_with_one_cell_in_the_last_corner_needs_little_memory(storage, tmp_path):
    good = workbook(tmp_path / "a.xlsx", ["a"], [1])
    with zipfile.ZipFile(good) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml")
    far = sheet.replace(b"</sheetData>", b'<row r="1048576"><c r="CV1048576"><v>1</v></c></row></sheetData>')
    assert far != sheet
    content = rezipped(good, tmp_path / "b.xlsx", "xl/worksheets/sheet1.xml", far)
    with pytest.raises(WorkbookRefused, match=r"save it as CSV$"):
        converted(storage, content, "uploads/a.xlsx")
    assert storage.names("out/") == []


def test_a_truncated_workbook_is_reported_in_one_line(storage, tmp_path):
    good = workbook(tmp_path / "a.xlsx", ["a"], [1])
    content = rezipped(good, tmp_path / "b.xlsx", "xl/worksheets/sheet1.xml", b"<worksheet><sheetData><row")
    with pytest.raises(WorkbookRefused, match=r"^uploads/a.xlsx can't be read: "):
        converted(storage, content, "uploads/a.xlsx")


def test_a_timeout_ends_the_process_that_reads_a_workbook(storage, tmp_path):
    good = workbook(tmp_path / "good.xlsx", ["a"])
    with zipfile.ZipFile(good) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml").decode()
    cell = '<c r="%s%d" t="inlineStr"><is><t>name %d</t></is></c>'
    rows = (
        f'<row r="{i}">{"".join(cell % (name, i, i) for name in "ABCDEF")}</row>' for i in range(2, 60_000)
    )
    long = sheet.replace("</sheetData>", "".join(rows) + "</sheetData>").encode()
    rezipped(good, tmp_path / "a.xlsx", "xl/worksheets/sheet1.xml", long)
    source = storage.put(tmp_path / "a.xlsx")
    children = children_of(os.getpid())
    raised_at = []

    def raise_timeout():
        raised_at.append(time.monotonic())
        raise TimedOut

    with pace() as second, pytest.raises(TimedOut), alarm(0.2, raise_timeout):
        file(source, to="parquet", out="out/a.parquet")
    assert time.monotonic() - raised_at[0] < 1 * second()
    assert storage.names() == [source]
    assert set(children_of(os.getpid())) <= set(children)
