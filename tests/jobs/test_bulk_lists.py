"""Lists of recipients: formats, encodings, which column has the addresses, and what is wrong with rows."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile

import duckdb
import msgspec
import openpyxl
import pytest

from packmule.jobs.email.bulk import recipients, table
from packmule.jobs.email.bulk.columns import NoColumn
from packmule.jobs.email.bulk.recipients import Seen, TooManyBad
from packmule.jobs.email.bulk.table import UnreadableList
from packmule.jobs.files.excel import WorkbookRefused
from packmule.jobs.files.text import UnreadableText
from packmule.jobs.job_type import InvalidCall

PEOPLE = [
    {"email": "ada@example.org", "name": "Ada Lovelace"},
    {"email": "zoë@example.org", "name": "Zoë"},
    {"email": "grace@bücher.example", "name": "Hopper, Grace"},
]


@pytest.fixture
def check(tmp_path):
    """Check a file of bytes, or mappings; returns the recipients as a list, and the facts."""

    def checked(content, column=None, name="list.csv", encoding=None, sheet=None, max_bad=0.05):
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            file = tmp_path / name
            file.write_bytes(content)
            opened = table.reading(name, file, encoding=encoding, sheet=sheet)
        else:
            opened = table.given(content)
        with opened as listed:
            found = recipients.check(listed, folder, column, max_bad)
            return list(found), found.checked

    return checked


def workbook(sheets):
    """The bytes of a workbook with these rows by sheet."""
    book, content = openpyxl.Workbook(), io.BytesIO()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(content)
    return content.getvalue()


def csv_of(people, sign=","):
    rows = [sign.join(people[0])]
    rows += [sign.join(f'"{value}"' for value in each.values()) for each in people]
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_text_of_any_sign_and_encoding_is_read(check, sign, encoding):
    found, checked = check(csv_of(PEOPLE, sign).encode(encoding))
    assert found == PEOPLE
    assert (checked.rows, checked.recipients, checked.bad, checked.column) == (3, 3, 0, "email")


def test_an_encoding_can_be_given_that_nothing_tells(check):
    people = [{"email": "ann@example.org", "name": "Żółć"}, {"email": "bob@example.org", "name": "Łódź"}]
    found, checked = check(csv_of(people).encode("iso8859-2"), encoding="iso8859-2")
    assert found == people
    assert checked.encoding == "iso8859-2"


def test_a_cyrillic_list_is_not_taken_for_a_western_one(check):
    names = ["Ада Лавлейс", "Борис Пастернак", "Фёдор Достоевский", "Анна Ахматова"]
    written = csv_of([{"email": f"p{n}@example.org", "name": name} for n, name in enumerate(names)])
    try:
        found, _ = check(written.encode("cp1251"))
    except UnreadableText as error:
        assert "give --encoding (encoding=)" in str(error)
    else:
        assert [each["name"] for each in found] == names
    found, checked = check(written.encode("cp1251"), encoding="cp1251")
    assert [each["name"] for each in found] == names
    assert checked.encoding == "cp1251"


def test_a_wrong_or_unknown_encoding_is_refused_in_one_line(check):
    with pytest.raises(UnreadableText, match=r"^list.csv is not utf-8: invalid .*; give its encoding"):
        check(csv_of(PEOPLE).encode("cp1252"), encoding="utf-8")
    with pytest.raises(UnreadableText, match=r"^list.csv is not utf-16: .*give its encoding"):
        check(csv_of(PEOPLE).encode(), encoding="utf-16")
    for name in ("klingon", "rot13", "base64", "undefined", "a\0b", "x" * 300):
        with pytest.raises(UnreadableText, match="encoding"):
            check(csv_of(PEOPLE).encode(), encoding=name)


def test_rows_that_are_not_text_in_the_lists_encoding_are_bad(check):
    good = "".join(f"user{n}@example.org,Zoë {n}\n" for n in range(100))
    content = f"email,name\n{good}".encode() + b"last@example.org,Zo\xeb\n"
    found, checked = check(content)
    assert len(found) == 100
    assert [(each.line, each.column) for each in checked.bad_rows] == [(102, None)]
    assert "not text" in checked.bad_rows[0].reason


def test_json_lines_keep_the_types_of_their_values(check):
    people = [{"email": "ada@example.org", "items": [{"n": 1}], "sum": 1.5, "vip": True, "none": None}]
    people += [{"email": "bob@example.org"}, {"email": "eve@example.org"}]
    content = b"\n".join(map(msgspec.json.encode, people)) + b"\n\n[1]\nnonsense\n"
    found, checked = check(content, name="list.jsonl", max_bad=1)
    assert found == people
    assert [(each.line, each.reason[:11]) for each in checked.bad_rows] == [
        (5, "it is not a"),
        (6, "it is not J"),
    ]


def test_mappings_of_a_program_are_a_list(check):
    assert check(iter(PEOPLE))[0] == PEOPLE
    with pytest.raises(UnreadableList, match=r"recipient 2 is 'ada@example.org': give mappings"):
        check([PEOPLE[0], "ada@example.org"])
    with pytest.raises(UnreadableList, match="recipient 1 has a value that JSON can't hold"):
        check([{"email": "ada@example.org", "x": object()}])
    with pytest.raises(UnreadableList, match="no rows"):
        check([])


def test_parquet_is_read(check, tmp_path):
    file = tmp_path / "made.parquet"
    duckdb.sql(
        "SELECT 'user' || n || '@example.org' AS email, n AS number, [n, n + 1] AS pair, "
        "DATE '2026-12-01' AS day FROM range(3000) t(n)"
    ).write_parquet(str(file))
    found, checked = check(file.read_bytes(), name="list.parquet")
    assert checked.recipients == 3000
    assert found[7] == {"email": "user7@example.org", "number": 7, "pair": [7, 8], "day": "2026-12-01"}


def test_workbooks_are_read_with_their_row_numbers(check):
    rows = [["E-mail", "Points"], ["ada@example.org", 5], ["nobody", 6], ["bob@example.org", 7.5]]
    found, checked = check(workbook({"People": rows}), name="list.xlsx", max_bad=0.5)
    assert found == [
        {"E_mail": "ada@example.org", "Points": "5"},
        {"E_mail": "bob@example.org", "Points": "7.5"},
    ]
    assert [(each.line, each.column) for each in checked.bad_rows] == [(3, "E-mail")]
    with pytest.raises(WorkbookRefused, match="no sheet Others: it has People"):
        check(workbook({"People": rows}), name="list.xlsx", sheet="Others")
    with pytest.raises(UnreadableList, match=r"list.xlsx has no header: its first row has 'ada@example.org'"):
        check(workbook({"People": [["ada@example.org", "Ada"], ["b@example.org", "B"]]}), name="list.xlsx")


def test_a_single_column_needs_no_header(check):
    assert check(b"ada@example.org\nbob@example.org\n")[0] == [
        {"email": "ada@example.org"},
        {"email": "bob@example.org"},
    ]
    assert check(b"Mail\nada@example.org\n")[0] == [{"Mail": "ada@example.org"}]


def test_the_column_of_addresses_is_found_by_name_or_by_values_or_given(check):
    by_value = b"contact,note\nada@example.org,call @ noon\nbob@example.org,\n"
    assert check(by_value)[1].column == "contact"
    several = b"a,b\nada@example.org,bob@example.org\n"
    with pytest.raises(NoColumn, match=r"several columns .* a, b: name one with --column"):
        check(several)
    assert check(several, "b")[0] == [{"a": "ada@example.org", "b": "bob@example.org"}]
    with pytest.raises(NoColumn, match=r"has no column 'mail': it has a, b$"):
        check(several, "mail")
    with pytest.raises(NoColumn, match=r"no column of addresses .*it has first, last$"):
        check(b"first,last\nAda,Lovelace\n")


def test_columns_become_names_that_templates_can_use(check):
    found, checked = check(b"E-Mail,First name,2nd,\nada@example.org,Ada,x,y\n")
    assert found == [{"E_Mail": "ada@example.org", "First_name": "Ada", "_2nd": "x", "column4": "y"}]
    assert checked.variable == "E_Mail"
    with pytest.raises(UnreadableList, match=r"'a b' and 'a-b' would both be the variable a_b: rename one"):
        check(b"email,a b,a-b\nada@example.org,1,2\n")


def test_bad_rows_have_their_line_column_and_reason(check):
    content = (
        b'email,name\nada@example.org,"Ada\nLovelace"\nnobody,N\n\nbob@example.org,B,too many\n,E\n'
        b'"evil@example.org\r\nBcc: x@example.org",V\nfew@example.org\n'
    )
    found, checked = check(content, max_bad=1)
    assert [each["email"] for each in found] == ["ada@example.org"]
    assert [(each.line, each.column, each.reason.partition(";")[0]) for each in checked.bad_rows] == [
        (4, "email", "'nobody' is not an email address: it has no @"),
        (6, None, "it has 3 fields, and the header 2"),
        (7, "email", "it is empty"),
        (8, "email", checked.bad_rows[3].reason),
        (10, None, "it has 1 fields, and the header 2"),
    ]
    assert "\\r" in checked.bad_rows[3].reason


def test_too_large_a_share_of_bad_rows_refuses_the_whole(check):
    content = b"email,name\n" + b"".join(
        b"bad-%d,B\n" % n if n % 10 == 0 else b"user%d@example.org,U\n" % n for n in range(100_000)
    )
    with pytest.raises(TooManyBad) as refused:
        check(content)
    said = str(refused.value)
    assert said.startswith(
        "list.csv: 10,000 of 100,000 rows are bad (10 %, and 5 % are allowed): line 2, column"
    )
    assert "\n" not in said
    assert len(said) < 600
    found, checked = check(content, max_bad=0.1)
    assert (len(found), checked.bad, len(checked.bad_rows)) == (90_000, 10_000, 100)
    with pytest.raises(InvalidCall, match="max_bad=5"):
        check(content, max_bad=5)


def test_an_address_counts_once_whatever_the_case_of_its_domain(check):
    content = (
        "email,name\nada@example.org,1\nAda Again <ada@EXAMPLE.org>,2\nADA@example.org,3\n"
        "z@bücher.example,4\nz@xn--bcher-kva.example,5\n"
    )
    found, checked = check(content.encode())
    assert [each["name"] for each in found] == ["1", "3", "4"]
    assert (checked.duplicates, checked.recipients, checked.rows) == (2, 3, 5)


def test_the_digest_tells_lists_apart(check):
    same = check(csv_of(PEOPLE).encode())[1].digest
    assert check(csv_of(PEOPLE, ";").encode("utf-16"))[1].digest == same
    assert check(csv_of(PEOPLE[:2]).encode())[1].digest != same


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "list.csv is empty: there is nobody to send to"),
        (b"\n \n", "list.csv has no rows below its header"),
        (b"email,name\n", "list.csv has no rows below its header"),
        (b"email,name\nx,y\n,z\n", "2 of 2 rows are bad"),
        (b"email,name,email\na@example.org,b,c\n", "two columns called 'email'"),
        (b"ada@example.org,Ada\nbob@example.org,Bob\n", "has no header: its first row has 'ada@example.org'"),
        (b"%PDF-1.7 not a list", "is not CSV, JSON Lines, Parquet or Excel: it looks like application/pdf"),
        (b"<html><p>email,name</p></html>", "it looks like a page in HTML"),
        (b'[{"email": "ada@example.org"}]', "write one object a line"),
        (
            b"\x00\x01\x02\x03" * 50,
            "it looks like application/octet-stream; if it is text, give its encoding",
        ),
        (b"email,name\n" + b"x" * 1_100_000, "has more than 1,048,576 characters in line 2"),
        (b"PAR1 and no more PAR1", "can't be read as Parquet"),
    ],
)
def test_what_is_no_list_is_refused_in_one_line(check, content, said):
    with pytest.raises((UnreadableList, TooManyBad)) as refused:
        check(content, name="list.csv")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_vanished_is_one_line(tmp_path):
    for path, said in ((tmp_path / "gone.csv", "No such file"), (tmp_path, "Is a directory")):
        with (
            pytest.raises(UnreadableList, match=f"can't read list.csv: {said}"),
            table.reading("list.csv", path),
        ):
            pass


def test_a_quote_that_is_never_closed_harms_its_own_rows_only(check):
    content = b'email,name\na@example.org,A\nb@example.org,"B\n' + b"".join(
        b"user%d@example.org,U\n" % n for n in range(20)
    )
    found, checked = check(content, max_bad=1)
    assert [each["email"] for each in found] == ["a@example.org", "b@example.org"] or checked.bad == 1
    long = content + b"".join(b"more%d@example.org,%s\n" % (n, b"M" * 5000) for n in range(100))
    found, checked = check(long, max_bad=1)
    assert checked.bad_rows[0].line == 3
    assert "is a quote never closed?" in checked.bad_rows[0].reason


def test_variables_may_not_take_too_much(check):
    found, checked = check(
        [{"email": "a@example.org", "x": "y" * 40_000}, {"email": "b@example.org"}], max_bad=0.5
    )
    assert [each["email"] for each in found] == ["b@example.org"]
    assert "its values take 40,0" in checked.bad_rows[0].reason


def test_hostile_archives_and_depths_end_in_words(check):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b"")
        archive.writestr("xl/worksheets/sheet1.xml", b"\0" * 300_000_000)
    with pytest.raises(WorkbookRefused, match="unpacks from"):
        check(bomb.getvalue(), name="list.xlsx")
    deep = b'{"email": "a@example.org", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}\n"
    found, checked = check(b'{"email": "b@example.org"}\n' + deep, max_bad=0.5)
    assert [each["email"] for each in found] == ["b@example.org"]
    assert checked.bad == 1


def test_seen_is_exact_while_it_grows():
    seen, known = Seen(), set()
    for n in range(30_000):
        text = f"user{n * 7919 % 20_000}@example.org"
        assert seen.add(text) is (text not in known)
        known.add(text)


def test_memory_does_not_grow_with_the_list(tmp_path):
    program = (
        "import sys, tempfile; from pathlib import Path\n"
        "from packmule.jobs.email.bulk import recipients, table\n"
        "with table.reading('a', Path(sys.argv[1])) as listed, tempfile.TemporaryDirectory() as folder:\n"
        "    found = recipients.check(listed, Path(folder))\n"
        "    print(sum(1 for _ in found))\n"
        # Not getrusage, because a child inherits its parent's peak.
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    peaks = []
    for count in (1000, 100_000):
        file = tmp_path / f"{count}.csv"
        with file.open("w") as content:
            content.write("email,name\n")
            content.writelines(f"user{n}@example.org,{'n' * 100}\n" for n in range(count))
        done = subprocess.run(
            [sys.executable, "-c", program, str(file)],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        found, peak = map(int, done.stdout.split())
        assert found == count
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 8_000  # KiB; the list itself has 12 MB
