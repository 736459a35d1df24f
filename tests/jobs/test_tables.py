"""A table is read rightly or refused: records, types by all rows, encodings, and what the caller says."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import openpyxl
import pytest

from packmule.jobs import context
from packmule.jobs.files import (
    BrokenJson,
    NotATable,
    TooManyRefused,
    UnfitOption,
    UnreadableText,
    WorkbookRefused,
    file,
)
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import MissingFile, OutsideStorage, Storage

ROOT = Path(__file__).parents[2]


@pytest.fixture
def convert(tmp_path):
    """A function that converts content and returns its result, its columns' types and its rows."""
    storage = Storage(str(tmp_path / "files"))
    context.provide(storage, InputLimits(file_bytes=200_000_000, attachment_bytes=1, pixels=1))

    def converted(content, name="a.csv", **options):
        storage.write_bytes(name, content.encode() if isinstance(content, str) else content)
        result = file(name, to="parquet", out="out.parquet", **options)
        with storage.read(result["path"]) as parquet:
            rows = duckdb.connect().execute("FROM read_parquet($file)", {"file": str(parquet)}).fetchall()
        return result, {each["name"]: each["type"] for each in result["columns"]}, rows

    converted.storage = storage
    return converted


SPECTRUM = {
    "comma in quotes": ('first,zip\nJohn,"a, b"\n', [("John", "a, b")]),
    "empty": ('a,b,c\n1,"",""\n2,3,4\n', [(1, None, None), (2, 3, 4)]),
    "empty, CRLF": ('a,b,c\r\n1,"",""\r\n2,3,4\r\n', [(1, None, None), (2, 3, 4)]),
    "empty text and none": ('a,b\nx,""\ny,\nz,w\n', [("x", ""), ("y", None), ("z", "w")]),
    "escaped quotes": ('a,b\n1,"ha ""ha"" ha"\n3,4\n', [(1, 'ha "ha" ha'), (3, "4")]),
    "JSON": (
        'key,val\n1,"{""type"": ""Point"", ""at"": [102.0, 0.5]}"\n',
        [(1, '{"type": "Point", "at": [102.0, 0.5]}')],
    ),
    "line ends in quotes": (
        'a,b,c\n1,2,3\n"Once upon \na time",5,6\n7,8,9\n',
        [("1", 2, 3), ("Once upon \na time", 5, 6), ("7", 8, 9)],
    ),
    "line ends in quotes, CRLF": ('a,b\r\n1,"x\r\ny"\r\n2,z\r\n', [(1, "x\r\ny"), (2, "z")]),
    "quotes and line ends": ('a,b\n1,"ha \n""ha"" \nha"\n3,4\n', [(1, 'ha \n"ha" \nha'), (3, "4")]),
    "simple": ("a,b,c\n1,2,3\n", [(1, 2, 3)]),
    "no line end at the end": ("a,b\n1,2", [(1, 2)]),
    "UTF-8": ("a,b\n1,ʤ\n2,✓\n", [(1, "ʤ"), (2, "✓")]),
    "UTF-8 with a mark": ("\ufeffa,b\n1,ʤ\n", [(1, "ʤ")]),
    "backslashes": ('a,b\n1,"say \\"hi\\", then"\n2,x\n', [(1, 'say "hi", then'), (2, "x")]),
    "quotes in a text": ('a,b\n1,5" pipe\n2,6" pipe\n', [(1, '5" pipe'), (2, '6" pipe')]),
    "quotes that begin texts": ('a,b\n1,"tis\n2,"twas\n3,x\n', [(1, '"tis'), (2, '"twas'), (3, "x")]),
    "single quotes": ("'a';'b'\n1;'x;y'\n2;'z'\n", [(1, "x;y"), (2, "z")]),
    "apostrophes": ("a,b\n1,'tis\n2,o'clock\n", [(1, "'tis"), (2, "o'clock")]),
    "spaces before quotes": ('a, b\n1, "x, y"\n2, "z"\n', [(1, "x, y"), (2, "z")]),
    "tabs": ('a\tb\n1\t"x\ty"\n', [(1, "x\ty")]),
    "bars": ("a|b\n1|x,y\n2|z,w\n", [(1, "x,y"), (2, "z,w")]),
}


@pytest.mark.parametrize("case", SPECTRUM)
def test_a_csv_is_read_as_its_records_are_written(convert, case):
    content, expected = SPECTRUM[case]
    result, _, rows = convert(content)
    assert (rows, result["refused"]) == (expected, 0)


def test_a_csv_in_which_only_texts_of_several_lines_are_quoted_is_not_torn(convert):
    table = [
        (i, f"title {i}", f'line 1 of {i}\nline, "2"\nline 3' if i % 3 else f"one {i}") for i in range(900)
    ]
    text = io.StringIO()
    csv.writer(text).writerows([("id", "title", "body"), *table])
    result, _, rows = convert(text.getvalue())
    assert (rows, result["refused"], result["quote"]) == (table, 0, '"')


def test_texts_of_several_lines_stay_whole_across_the_sample_and_the_readers_buffers(convert):
    table = [(i, ("word " * 40 + "\n") * (i % 9)) for i in range(60_000)]
    text = io.StringIO()
    csv.writer(text).writerows([("id", "body"), *table])
    assert len(text.getvalue()) > 40_000_000
    result, _, rows = convert(text.getvalue())
    assert result["refused"] == 0
    assert [(id, body or "") for id, body in rows] == table


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([*range(30_000), *(f"word {i}" for i in range(30_000))], "VARCHAR"),
        ([*range(30_000), *(i + 0.5 for i in range(500))], "DOUBLE"),
        ([*range(30_000), "00123"], "VARCHAR"),
        ([*range(30_000), "+4917012345678"], "VARCHAR"),
        ([*range(30_000), 2**63 - 1], "BIGINT"),
        ([*range(30_000), 2**63], "VARCHAR"),
        ([*(i / 8 + 0.1 for i in range(30_000)), 2**60 + 1], "VARCHAR"),
        ([*(f"2020-01-{i % 28 + 1:02}" for i in range(30_000)), "2020-01-01 10:00:00"], "TIMESTAMP"),
        ([*(f"2020-01-{i % 28 + 1:02} 10:00" for i in range(30_000)), "2020-01-01 10:00+02:00"], "VARCHAR"),
        ([*(f"2020-01-01 10:00:00.{i:06}" for i in range(30_000)), "2020-01-01 10:00:00"], "TIMESTAMP"),
        (["2020-01-01 10:00:00", "2020-01-01T11:00:00", "2020-1-1 1:00:00.5"] * 9_000, "TIMESTAMP"),
        (["2020-01-01 10:00:00"] * 30_000 + ["2020-1-1 1:00+02:00"], "VARCHAR"),
        (["2020-01-01 10:00:00"] * 30_000 + ["2020-01-01 10:00: 5"], "VARCHAR"),
        ([*(i / 8 for i in range(30_000)), "0", "-0.5", ".5", "1e3"], "DOUBLE"),
        ([*(i / 8 for i in range(30_000)), "12_34"], "VARCHAR"),
        ([*(i / 8 for i in range(30_000)), "00.5"], "VARCHAR"),
        (["true", "false"] * 15_000 + ["1"], "VARCHAR"),
        (["1.5"] * 30_000 + ["1e400x"] * 900, "VARCHAR"),
        ([*range(30_000), "0x1F"], "VARCHAR"),
        (["1.5", "nan", "-inf"] * 10_000, "DOUBLE"),
        ([*(i / 8 for i in range(30_000)), "1e400"], "VARCHAR"),
        ([*(i / 8 for i in range(30_000)), "-1E400"], "VARCHAR"),
    ],
)  # fmt: skip
def test_a_column_has_a_type_that_loses_nothing_of_any_row(convert, values, expected):
    _, types, rows = convert("n,v\n" + "".join(f"{n},{value}\n" for n, value in enumerate(values)))
    assert types == {"n": "BIGINT", "v": expected}
    assert len(rows) == len(values)
    if expected == "VARCHAR":
        assert [text for _, text in rows] == [str(value) for value in values]
    elif expected == "BIGINT":
        assert [number for _, number in rows] == values


KINDS = {
    "BIGINT": [*range(8_000)],
    "DOUBLE": [i / 8 + 0.1 for i in range(8_000)],
    "DATE": [f"2020-01-{i % 28 + 1:02}" for i in range(8_000)],
    "TIMESTAMP": [f"2020-01-{i % 28 + 1:02} 10:00:00" for i in range(8_000)],
}
LAST = {
    "BIGINT": {" 1": 1, "+49170": 49_170, "-0": 0, "9007199254740993": 9_007_199_254_740_993},
    "DOUBLE": {
        "0.10": 0.1, "+1.5": 1.5, "1e5": 100_000, "1E-5": 0.00001, "0.12345678901234567": 0.12345678901234567,
        "-0": 0, "inf": float("inf"),
    },
    "DATE": {"0001-01-01": date(1, 1, 1), "9999-12-31": date(9999, 12, 31), " 2020-1-1": date(2020, 1, 1)},
    "TIMESTAMP": {
        "0001-01-01 00:00:00": datetime(1, 1, 1),
        "9999-12-31T23:59:59": datetime(9999, 12, 31, 23, 59, 59),
        "2020-01-01 10:00:00.123456": datetime(2020, 1, 1, 10, 0, 0, 123456),
        "2020-1-1 1:00:00.5": datetime(2020, 1, 1, 1, 0, 0, 500_000),
    },
}  # fmt: skip
LAST_AND_TEXT = {
    "BIGINT": ["007", "-007", "+491701", "1_000", "0x10"],
    "DOUBLE": ["007", "007.5", "1_000", "1_000.5", "123456789012345678", "9007199254740993", "0x1F"],
    "DATE": ["10000-01-01", "20-01-01", "infinity"],
    "TIMESTAMP": [
        "2020-01-01 10:00:00.1234567", "2020-01-01 10:00+02", "2020-01-01 1:00:00Z", "20-01-01 10:00:00.5",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "text", "value"), [(kind, *each) for kind, texts in LAST.items() for each in texts.items()]
)
def test_a_last_value_that_a_type_can_hold_is_read_as_that_value(convert, kind, text, value):
    values = [*KINDS[kind], text]
    result, types, rows = convert("n,v\n" + "".join(f"{n},{each}\n" for n, each in enumerate(values)))
    assert (types["v"], result["refused"], rows[-1]) == (kind, 0, (8_000, value))


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in LAST_AND_TEXT.items() for text in texts]
)
def test_a_last_value_of_which_a_type_would_lose_something_makes_its_column_text(convert, kind, text):
    values = [*KINDS[kind], text]
    result, types, rows = convert("n,v\n" + "".join(f"{n},{each}\n" for n, each in enumerate(values)))
    assert (types["v"], result["refused"]) == ("VARCHAR", 0)
    assert [each for _, each in rows] == [str(each) for each in values]


@pytest.mark.parametrize(
    ("text", "kind"),
    [("0,10", "DOUBLE"), ("+1,5", "DOUBLE"), ("007,5", "VARCHAR"), ("1_000,5", "VARCHAR"),
     ("1,5e400", "VARCHAR"), ("12345678901234567890,5", "VARCHAR")],
)  # fmt: skip
def test_decimal_commas_lose_no_more_than_points_do(convert, text, kind):
    values = [*(f"{i / 8 + 0.1}".replace(".", ",") for i in range(8_000)), text]
    result, types, rows = convert("n;v\n" + "".join(f"{n};{each}\n" for n, each in enumerate(values)))
    assert (types["v"], result["refused"], result["decimal"]) == (kind, 0, ",")
    assert rows[-1] == (8_000, text if kind == "VARCHAR" else float(text.replace(",", ".")))


def test_a_few_values_of_another_form_are_refused_and_more_than_one_percent_fail_the_job(convert):
    good, bad = [*range(20_000)], ["-"]
    content = "v,w\n" + "".join(f"{value},x\n" for value in good + bad * 150)
    result, types, rows = convert(content)
    assert (types["v"], len(rows), result["refused"]) == ("BIGINT", 20_000, 150)
    short = content + "1\n" * 300
    with pytest.raises(
        TooManyRefused, match=r"^a.csv: 4\d\d of 20,\d+ rows don't fit, the first at line 20,002"
    ):
        convert(short)
    assert convert(short, max_refused=450)[0]["refused"] == 450


RUSSIAN = "имя,город\nИван,Москва\nМария,Казань\nПётр,Тверь\n"
ENCODED = {
    "cp932": "名前,都市\n田中,東京\n鈴木,大阪\nスズキ,ナゴヤ\n",
    "gb18030": "姓名,城市\n王伟,北京\n李娜,上海\n张敏,广州\n",
    "big5": "姓名,城市\n王偉,臺北\n李娜,高雄\n張敏,臺中\n",
    "cp949": "이름,도시\n김철수,서울\n이영희,부산\n",
    "cp1251": RUSSIAN,
    "koi8_r": RUSSIAN,
    "cp866": RUSSIAN,
    "cp1253": "όνομα,πόλη\nΓιώργος,Αθήνα\nΜαρία,Πάτρα\n",
    "cp1252": "Straße,Größe\nMüller,“Äpfel” – 5 €\nFrançois,forêt\n",
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_an_encoding_is_found(convert, encoding):
    text = ENCODED[encoding]
    result, _, rows = convert(text.encode(encoding))
    assert result["encoding"] == encoding
    assert [",".join(row) for row in rows] == text.splitlines()[1:]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("id,active\n1,да\n2,нет\n", "cp1251"),
        ("name,city\nTanaka,東京\n", "cp932"),
        ("name,city\nLi,上海\n", "gbk"),
        ("isim,şehir\nAyşe,İstanbul\nGüneş,Iğdır\n", "cp1254"),
        ("imię,miasto\nŁukasz,Łódź\nŻaneta,Gdańsk\n", "cp1250"),
    ],
)
def test_an_encoding_that_is_not_sure_is_asked_for_and_never_taken_for_windows_1252(convert, text, encoding):
    with pytest.raises(
        UnreadableText,
        match=r"^a.csv is not UTF-8, and its encoding can't be detected.*: give --encoding \(encoding=\)$",
    ):
        convert(text.encode(encoding))
    _, _, rows = convert(text.encode(encoding), encoding=encoding)
    assert [",".join(map(str, row)) for row in rows] == text.splitlines()[1:]


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("Report of 2020\n\na,b\n1,2\n3,4\n", {}, [(1, 2), (3, 4)]),
        ('"Sales, by ""region"""\nPrinted 2020-01-01,,\na,b,c\n1,2,3\n4,5,6\n', {}, [(1, 2, 3), (4, 5, 6)]),
        ("# made by x\n# on Monday\na,b\n1,2\n", {}, [(1, 2)]),
        ("sep=;\na;b,c\n1;2,5\n", {}, [(1, 2.5)]),
        ("x,y\na,b\n1,2\n", {"header": 2}, [(1, 2)]),
        ("x,y\na,b\n1,2\n", {"skip": 1}, [(1, 2)]),
        ("1,2\n3,4\n", {}, [(1, 2), (3, 4)]),
        ("a,b\nc,d\n", {"header": 0}, [("a", "b"), ("c", "d")]),
        ("2019,2020\n1,2\n", {"header": 1}, [(1, 2)]),
        ("a^b\n1^x\n", {"delimiter": "^"}, [(1, "x")]),
        ("a b\n1 'x y'\n", {"delimiter": " ", "quote": "'"}, [(1, "x y")]),
        ('a,b\n1,"x"\n', {"quote": ""}, [(1, '"x"')]),
        ("a,b\nx,NA\ny,5\n", {"null": ["NA"]}, [("x", None), ("y", 5)]),
        ('a,b\n"x","-"\n"y","5"\n', {"null": ["-", "NA"]}, [("x", None), ("y", 5)]),
        ("day,n\n01/02/2020,1\n", {"dates": "%d/%m/%Y"}, [(date(2020, 2, 1), 1)]),
        ("day,n\n01/02/2020,1\n25/02/2020,1\n", {}, [(date(2020, 2, 1), 1), (date(2020, 2, 25), 1)]),
        ("at,n\n1.2.2020 10:30,1\n", {}, [(datetime(2020, 2, 1, 10, 30), 1)]),
        ("n,m\n1.234,1\n", {}, [(1.234, 1)]),
        ("n\tm\n1,5\t1\n", {}, [(1.5, 1)]),
        ('n,m\n"1,5",x\n"2",y\n', {"decimal": ","}, [(1.5, "x"), (2.0, "y")]),
        ("phone,n\n+4917012345678,1\n", {}, [("+4917012345678", 1)]),
        (",a,b\n0,x,y\n1,z,w\n", {}, [(0, "x", "y"), (1, "z", "w")]),
        ('"a\nb",c\r\n1,2\r\n3,4\r\n', {}, [(1, 2), (3, 4)]),
        ('"a\n\nb",c\n1,2\n3,4\n', {}, [(1, 2), (3, 4)]),
        ('Pipes of 6" and "more\na,b\n1,2\n3,4\n', {}, [(1, 2), (3, 4)]),
        ('a,"x\ny"\r\nb,"\n"\r\n', {"header": 0}, [("a", "x\ny"), ("b", "\n")]),
        ('a,"x\r\ny"\nb,"\r"\n', {"header": 0}, [("a", "x\r\ny"), ("b", "\r")]),
    ],
)  # fmt: skip
def test_a_caller_says_what_is_not_found(convert, content, options, expected):
    result, _, rows = convert(content, **options)
    assert (rows, result["refused"]) == (expected, 0)


def test_dates_that_may_be_of_two_formats_stay_text_with_a_warning(convert):
    result, types, rows = convert("day,n\n01/02/2020,1\n02/03/2020,1\n")
    assert types["day"] == "VARCHAR"
    assert rows[0] == ("01/02/2020", 1)
    assert result["warnings"] == ["day is text: its dates may be %d/%m/%Y or %m/%d/%Y"]


def test_two_columns_have_dates_of_their_own_formats(convert):
    content = "a,b,n\n" + "".join(f"{i % 28 + 1:02}.01.2020,01/{i % 28 + 1}/2020,{i}\n" for i in range(400))
    _, types, rows = convert(content + "05.01.2020,01/05/2020,x\n")
    assert types == {"a": "DATE", "b": "DATE", "n": "BIGINT"}
    assert rows[20][:2] == (date(2020, 1, 21), date(2020, 1, 21))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"delimiter": ",,"}, "delimiter can't be ',,': use one character, or tab"),
        ({"encoding": "utf-99"}, "encoding can't be 'utf-99': use one such as utf-8, cp1252 or gbk"),
        ({"range": "A1"}, "range can't be 'A1': use cells such as B3:F90"),
        ({"dates": "dmy"}, "dates can't be 'dmy': use a format such as %d/%m/%Y"),
        ({"sheet": "x"}, "is text/csv, which has no sheet: omit sheet"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_one_line(convert, options, said):
    with pytest.raises(UnfitOption, match=r"^a.csv") as failed:
        convert("a,b\n1,2\n", **options)
    assert str(failed.value).endswith(said)


def test_a_result_says_how_a_table_was_read(convert):
    result, *_ = convert("Title\nname;n\ncafé;1,5\n".encode("latin-1"))
    said = ("encoding", "delimiter", "quote", "skip", "header", "decimal")
    assert {name: result[name] for name in said} == {
        "encoding": "cp1252", "delimiter": ";", "quote": '"', "skip": 1, "header": 1, "decimal": ",",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"a": 1, "b": "x"},\n {"a": 2}]', [(1, "x"), (2, None)]),
        ('{"a": {"b": [1, 2]},\n "c": 3}', [('{"b":[1,2]}', 3)]),
        ('{"a": 1,\n "c": 3}\n{"a": 2,\n "c": 4}\n', [(1, 3), (2, 4)]),
        ('\ufeff[{"a": "two\\nlines"}]', [("two\nlines",)]),
        (json.dumps([{"a": i} for i in range(50_000)], indent=9), [(i,) for i in range(50_000)]),
    ],
)  # fmt: skip
def test_json_is_read_whether_it_is_lines_or_not(convert, content, expected):
    assert convert(content, "a.json")[2] == expected


@pytest.mark.parametrize(
    "content", ['[{"a": 1}, {"a": 2', '{"a": 1,\n "b": [1, 2\n', '[{"a": 1, "b": 2},\n{"a": 1, "b": 3},\n']
)
def test_broken_json_is_never_csv(convert, content):
    with pytest.raises(BrokenJson, match=r"^a.csv is not valid JSON: ") as failed:
        convert(content)
    assert "/" not in str(failed.value).removeprefix("a.csv")


def test_one_bad_line_of_json_never_fails_the_file(convert):
    good = [json.dumps({"a": i, "b": f"n{i}"}) for i in range(600)]
    bad = ['{"a": 1, "a": 2}', '{"": 1}', '{"a": 1, "A": 2}', '{"a": "\\ud800"}', '{"a": 5, "b": {}, "c": 1}']
    result, _, rows = convert("\n".join([*good, *bad]) + "\n", "a.jsonl")
    assert (len(rows), result["refused"]) == (600, 5)
    assert [refused["line"] for refused in result["refusals"]] == [601, 602, 603, 604, 605]
    assert result["refusals"][0] == {
        "line": 601, "column": "a", "reason": "the key is there twice", "text": bad[0],
    }  # fmt: skip


@pytest.mark.parametrize("late", [0, 12_000])
@pytest.mark.parametrize("values", [(9007199254740993, 1.5), (1.5, 9007199254740993)])
def test_whole_numbers_that_fractions_beside_them_would_round_stay_json(convert, late, values):
    content = "".join(f'{{"v": {value}}}\n' for value in (*range(late), *values))
    result, types, rows = convert(content, "a.jsonl")
    assert (types, len(rows)) == ({"v": "JSON"}, late + 2)
    assert rows[-2:] == [(str(value),) for value in values]
    assert result["warnings"] == ["v is JSON: it has fractions, and whole numbers that a DOUBLE would round"]


def test_long_whole_numbers_of_json_stay_numbers_and_a_caller_may_have_them_rounded(convert):
    content = "".join(f'{{"v": {value}}}\n' for value in (*range(12_000), 9007199254740993))
    result, types, rows = convert(content, "a.jsonl")
    assert (types, rows[-1], result["warnings"]) == ({"v": "BIGINT"}, (9007199254740993,), [])
    assert convert(content + '{"v": 0.5}', "a.jsonl", columns={"v": "DOUBLE"})[2][-2:] == [(2.0**53,), (0.5,)]


MALFORMED = {
    "literal": ('{"v": tru}', 1, 301),
    "no comma": ('{"v": 1 "w": 2}', 1, 301),
    "brackets": ('{"v": [1}}', 1, 301),
    "deep": ("[" * 5000 + "]" * 5000, 1, 301),
    "control": ('{"v": "a\tb"}', 1, 301),
    "no object": ('"x, y", 7', 2, 302),
    "escapes": (r'{"w": "\\", "x": "\"]}["}, {"v": tru}', 1, 302),
}


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("form", ["[{}]", " [\n {} ]\n"])
def test_a_malformed_value_of_an_array_costs_its_row_only(convert, monkeypatch, case, form):
    monkeypatch.setattr("packmule.jobs.files.jsonvalues.CHUNK", 7)  # each mark may begin or end a chunk
    bad, count, last = MALFORMED[case]
    good = [f'{{"v": {number}}}' for number in range(600)]
    content = form.format(",\n".join([*good[:300], bad, *good[300:]]))
    result, _, rows = convert(content, "a.json")
    assert [value for value, *_ in rows if value is not None] == [*range(600)]
    assert (result["refused"], result["refusals"][-1]["line"]) == (count, last)


@pytest.mark.parametrize(
    "content",
    ['[{"v": 1}, {"v": "x}]', '[{"v": 1}]{"v": tru}', '[{"v": 1, tru}', '{"v": 1}\n]\n{', '[{"v": tru}]'],
)
def test_an_array_whose_values_cannot_be_told_apart_is_refused(convert, content):
    with pytest.raises(BrokenJson, match=r"^a.json is not valid JSON: "):
        convert(content, "a.json", max_refused=9)


def test_json_lines_widen_past_a_share_of_misfits(convert):
    content = "".join(f'{{"v": {i}}}\n' for i in range(12_000)) + '{"v": "word"}\n' * 12_000
    result, types, rows = convert(content, "a.jsonl")
    assert (types, result["refused"], len(rows)) == ({"v": "JSON"}, 0, 24_000)
    assert (rows[0], rows[-1]) == (("0",), ('"word"',))


def test_the_machines_time_zone_does_not_matter(tmp_path):
    (tmp_path / "a.csv").write_text("moment\n2020-07-01 12:00:00+02:00\n2020-07-01 10:00:00\n")
    script = """
import sys
import duckdb
from packmule.jobs import context
from packmule.jobs.files import file
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import Storage
context.provide(Storage(sys.argv[1]), InputLimits(10**9, 1, 1))
file("a.csv", to="parquet", out="o.parquet", columns={"moment": "TIMESTAMPTZ"})
query = f"SELECT epoch(moment)::INTEGER FROM '{sys.argv[1]}/o.parquet'"
print(*(moment for moment, in duckdb.sql(query).fetchall()))
"""
    for zone in ("UTC", "America/New_York"):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            cwd=ROOT, capture_output=True, text=True, check=True, env={"TZ": zone},
        )  # fmt: skip
        assert done.stdout == "1593597600 1593597600\n"


def saved(book, path):
    book.save(path)
    return path.read_bytes()


def test_a_workbook_warns_of_what_it_cannot_give(convert, tmp_path):
    book = openpyxl.Workbook()
    book.active.title = "Data"
    for row in (["n", "sum", "error"], [1, "=A2+1", "#DIV/0!"], [2, "=A3+1", None]):
        book.active.append(row)
    book.active["C2"].data_type = "e"
    book.create_sheet("Notes").append(["x"])
    book.create_sheet("Old").sheet_state = "hidden"
    content = saved(book, tmp_path / "a.xlsx")
    result, *_ = convert(content, "a.xlsx")
    assert result["warnings"] == [
        "only sheet Data is read, and not Notes, Old (hidden)",
        "1 cells with an error such as #DIV/0! in sheet Data, read as no value",
        "2 formulas without a stored value in sheet Data, read as no value",
    ]
    book["Old"].append(["a"])
    assert convert(saved(book, tmp_path / "a.xlsx"), "a.xlsx", sheet="Old")[0]["warnings"] == [
        "sheet Old is hidden"
    ]


def test_a_range_a_header_and_a_title_of_a_workbook_are_read(convert, tmp_path):
    book = openpyxl.Workbook()
    for row in (["Report"], [], ["a", "b", "c"], [1, 2, 3], [4, 5, 6], ["sum", 7, 9]):
        book.active.append(row)
    content = saved(book, tmp_path / "a.xlsx")
    assert convert(content, "a.xlsx")[2] == [("1", 2, 3), ("4", 5, 6), ("sum", 7, 9)]
    result, _, rows = convert(content, "a.xlsx", range="B3:C5")
    assert (rows, result["header"]) == ([(2, 3), (5, 6)], 3)
    assert convert(content, "a.xlsx", header=0, skip=3, range="A1:B5")[2] == [(1, 2), (4, 5)]
    assert convert(content, "a.xlsx", header=4)[1] == {"1": "VARCHAR", "2": "BIGINT", "3": "BIGINT"}


def test_dates_of_1900_and_1904_are_the_same_days(convert, tmp_path):
    for epoch in (openpyxl.utils.datetime.WINDOWS_EPOCH, openpyxl.utils.datetime.CALENDAR_MAC_1904):
        book = openpyxl.Workbook()
        book.epoch = epoch
        days = [date(1904, 1, 2) + timedelta(days=5000 * i) for i in range(20)]
        for row in (["day", "n"], *([day, 1] for day in days)):
            book.active.append(row)
        assert [day for day, _ in convert(saved(book, tmp_path / "a.xlsx"), "a.xlsx")[2]] == days


def encrypted_workbook(streams):
    """An OLE2 file with the names of an encrypted workbook's streams."""
    directory = b"".join(
        name.encode("utf-16-le").ljust(64, b"\0") + (2 * len(name) + 2).to_bytes(2, "little") + bytes(62)
        for name in streams
    )
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(22) + (9).to_bytes(2, "little") + bytes(16)
    return (head + (0).to_bytes(4, "little")).ljust(512, b"\0") + directory.ljust(512, b"\0")


def test_a_workbook_with_a_password_is_refused_before_any_work(convert):
    with pytest.raises(WorkbookRefused, match=r"^a.xlsx is protected by a password: save it without one$"):
        convert(encrypted_workbook(["Root Entry", "EncryptionInfo", "EncryptedPackage"]), "a.xlsx")


def test_an_output_outside_and_another_hosts_storage_are_known_before_any_work(convert):
    with pytest.raises(OutsideStorage, match=r"is not a path in the storage"):
        file("missing.csv", to="parquet", out="../x.parquet")
    with pytest.raises(MissingFile, match=r"not in the storage.*/missing.csv.*: give all hosts the same"):
        file("missing.csv", to="parquet")
    assert convert.storage.names() == []


def test_other_signs_of_line_ends_are_text(convert):
    rows = [("x\x85y\u2028z", number) for number in range(30)]
    text = io.StringIO()
    csv.writer(text).writerows([("a", "b"), *rows])
    assert convert(text.getvalue())[2] == rows
    content = "".join(json.dumps({"a": a, "b": b}, ensure_ascii=False) + "\n" for a, b in rows)
    assert convert(content, "a.jsonl")[2] == rows


def test_an_empty_look_alike_is_not_a_table(convert):
    with pytest.raises(NotATable):
        convert("Dear Sir,\n\nthis is, as you see, a letter.\nYours\n", "a.csv")
