"""The text job: the text of each kind of document as it is there, or one line that says why there is none."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from packmule.jobs import context
from packmule.jobs.files import text
from packmule.jobs.files.reading import UnfitOption
from packmule.jobs.files.texts import NoText
from packmule.jobs.files.texts.documents import BrokenDocument, DocumentLocked, DocumentTooLarge
from packmule.jobs.files.unpacking.bounds import ArchiveTooLarge
from packmule.jobs.files.unpacking.members import NotAnArchive
from packmule.jobs.files.unpacking.streams import BrokenArchive
from packmule.jobs.files.unpacking.zips import ArchiveLocked
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job_type import InvalidCall
from packmule.jobs.storage import FileTooLarge, Storage, StorageError
from packmule.tests.jobs.archives import raw_zip, zipped
from packmule.tests.jobs.documents import W, docx, locked_pdf, paragraph, pdf, pptx

ROOT = Path(__file__).parents[2]


@pytest.fixture
def storage(tmp_path):
    store = Storage(str(tmp_path / "files"))
    context.provide(store, InputLimits(file_bytes=100_000_000, attachment_bytes=1, pixels=1))
    return store


def read(storage, content, name="up/A paper.bin", **options):
    """The text, and what the job says of it."""
    storage.write_bytes(name, content.encode() if isinstance(content, str) else content)
    result = text(name, "out", **options)
    found = storage.read_bytes(result["path"]).decode()
    assert result["bytes"] == len(found.encode())
    assert result["characters"] == len(found)
    return found, result


def refused(storage, error, content, **options):
    """The one line with which it fails, having left nothing."""
    with pytest.raises(error) as failed:
        read(storage, content, "a.bin", **options)
    assert storage.names() == ["a.bin"]
    assert str(failed.value).isprintable()
    assert "a.bin" in str(failed.value)
    return str(failed.value)


def test_a_pdf_gives_its_pages(storage):
    found, result = read(storage, pdf("Hello one", "Hello two", "Hello three"))
    assert found == "Hello one\n\f\nHello two\n\f\nHello three"
    assert (result["pages"], result["type"]) == (3, "application/pdf")
    assert (result["path"], result["thumbnails"], result["warnings"]) == ("out/A-paper.txt", [], [])


def test_a_pdf_without_text_says_that_it_may_be_pictures(storage):
    found, result = read(storage, pdf("", ""))
    assert found.split() == []
    assert result["warnings"] == ["no page has text: they may be pictures of text"]


@pytest.mark.parametrize(("format", "kind"), [("webp", "WEBP"), ("png", "PNG")])
def test_pages_are_drawn_on_wish(storage, format, kind):
    _, result = read(
        storage, pdf("Hello", "two", "three"), thumbnails=2, thumbnail_size=300, thumbnail_format=format
    )
    assert result["thumbnails"] == [f"out/A-paper-1.{format}", f"out/A-paper-2.{format}"]
    drawn = [Image.open(io.BytesIO(storage.read_bytes(path))) for path in result["thumbnails"]]
    assert [(each.format, each.size) for each in drawn] == [(kind, (212, 300))] * 2
    darkest, brightest = drawn[0].convert("L").getextrema()
    assert (darkest < 100, brightest) == (True, 255)
    _, result = read(storage, pdf("Hello"), thumbnails=5)
    assert len(result["thumbnails"]) == 1


@pytest.mark.parametrize(
    "size", [(14_400, 1), (1, 14_400), (200_000, 200_000), (0.01, 0.01), (0, 0), (-5, 5)]
)
def test_pages_of_odd_sizes_are_drawn_within_bounds_or_refused(storage, size):
    try:
        _, result = read(storage, pdf("x", size=size), thumbnails=1, thumbnail_size=64)
    except BrokenDocument as error:
        assert "page 1" in str(error)
    else:
        drawn = Image.open(io.BytesIO(storage.read_bytes(result["thumbnails"][0])))
        assert max(drawn.size) <= 65


def test_a_pdf_with_a_password_is_said_to_have_one(storage):
    assert "protected by a password" in refused(storage, DocumentLocked, locked_pdf())


def test_a_pdf_that_is_encrypted_in_a_way_of_its_own_is_not_called_damaged(storage):
    lock = b"trailer<</Encrypt<</Filter/Adobe.APS/V 4>>/ID[<00><00>]"
    assert "is encrypted in an unknown way" in refused(
        storage, DocumentLocked, pdf("secret").replace(b"trailer<<", lock)
    )


@pytest.mark.parametrize("before", [b"\n", b"\xef\xbb\xbf", b"\r\n \t\0\r\n"])
def test_a_document_is_known_behind_white_space(storage, before):
    found, result = read(storage, before + pdf("Hello"))
    assert (found, result["type"]) == ("Hello", "application/pdf")
    found, result = read(storage, before + rb"{\rtf1 Hello}")
    assert (found, result["type"]) == ("Hello", "application/rtf")
    assert read(storage, before.replace(b"\0", b"") + b"see %PDF-1.4")[1]["type"] == "text/plain"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.95])
def test_a_pdf_that_is_cut_is_refused(storage, share):
    whole = pdf(*(f"page {number}" for number in range(50)))
    assert "is truncated" in refused(storage, BrokenDocument, whole[: int(len(whole) * share)])


def test_pages_have_a_bound_whatever_the_file_says(storage):
    assert "over the limit of 10,000" in refused(storage, DocumentTooLarge, pdf("x", count=1_000_000))
    assert "has 3 pages, over the limit of 2" in refused(
        storage, DocumentTooLarge, pdf("1", "2", "3"), max_pages=2
    )
    refused(storage, DocumentTooLarge, pptx({1: "a", 2: "b"}, [1, 2]), max_pages=1)


def test_a_tree_of_pages_that_is_deep_harms_nobody(storage):
    for depth in (5, 5_000):
        try:
            found, _ = read(storage, pdf("deep", depth=depth))
        except (BrokenDocument, DocumentTooLarge):
            assert depth > 5
        else:
            assert found.strip() in ("deep", "")


def test_damage_in_a_pdf_is_one_line_or_harmless(storage):
    rng = random.Random(4)
    whole = pdf("Hello one", "Hello two")
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 20)):
            damaged[rng.randrange(9, len(damaged))] = rng.randrange(256)
        try:
            read(storage, bytes(damaged), thumbnails=1, thumbnail_size=50)
        except (BrokenDocument, DocumentLocked, DocumentTooLarge) as error:
            assert str(error).isprintable()


def test_a_docx_gives_its_paragraphs_tables_and_notes(storage):
    body = (
        paragraph("Hel", "lo ", "&amp; goodbye")
        + "<w:p><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r></w:p>"
    )
    body += f"<w:tbl><w:tr><w:tc>{paragraph('cell')}</w:tc></w:tr></w:tbl>"
    body += "<w:p><w:r><w:delText>gone</w:delText></w:r></w:p>"
    notes = f'<w:footnotes xmlns:w="{W}">{paragraph("a note")}</w:footnotes>'
    found, result = read(storage, docx(body, footnotes=notes))
    assert found == "Hello & goodbye\na\tb\nc\ncell\na note\n"
    assert (result["pages"], result["type"].rpartition(".")[2]) == (None, "document")


def test_a_text_box_is_there_once_and_hyphens_are_not_lost(storage):
    compatible = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    box = f"<w:txbxContent>{paragraph('boxed')}<w:p><w:r><w:tab/></w:r></w:p></w:txbxContent>"
    body = f'<w:p><w:r><mc:AlternateContent {compatible}><mc:Choice Requires="wps">{box}</mc:Choice>'
    body += f"<mc:Fallback>{box}</mc:Fallback></mc:AlternateContent><w:t>after</w:t></w:r></w:p>"
    body += "<w:p><w:r><w:t>e</w:t><w:noBreakHyphen/><w:t>mail</w:t></w:r></w:p>"
    assert read(storage, docx(body))[0] == "boxed\n\t\nafter\ne\u2011mail\n"


@pytest.mark.parametrize("encoding", ["utf-7", "no-such", "big5", "rot13", "idna", "punycode", "utf-32"])
def test_xml_of_an_odd_encoding_is_refused_in_one_line(storage, encoding):
    part = f'<?xml version="1.0" encoding="{encoding}"?><d><t>hello</t></d>'
    content = zipped([("word/document.xml", part.encode())])
    assert "word/document.xml is damaged" in refused(storage, BrokenDocument, content)


def test_a_namespace_that_would_be_repeated_a_million_times_is_refused(storage):
    body = f'<a:b xmlns:a="http://{"x" * 100_000}">' + '<w:p a:c=""/><a:b/>' * 10_000 + "</a:b>"
    assert "a namespace of more than 1,000" in refused(storage, BrokenDocument, docx(body))


def test_a_pptx_gives_its_slides_in_the_order_in_which_they_are_shown(storage):
    found, result = read(storage, pptx({1: "first", 2: "second", 10: "tenth"}, [10, 1, 2]))
    assert found.split("\n\f\n") == ["tenth\n", "first\n", "second\n"]
    assert result["pages"] == 3


BOMBS = {
    "laughs": '<!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><d>&b;</d>',
    "file": '<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/passwd">]><d>&a;</d>',
    "outside": '<!DOCTYPE d SYSTEM "http://127.0.0.1/d.dtd"><d/>',
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_xml_that_declares_entities_is_refused(storage, bomb):
    content = zipped([("word/document.xml", BOMBS[bomb].encode())])
    assert "declares a document type" in refused(storage, BrokenDocument, content)


def test_xml_that_is_deep_large_or_broken_is_refused(storage, monkeypatch):
    deep = docx("<w:p>" * 100_000)
    assert "more than 1,000 elements deep" in refused(storage, BrokenDocument, deep)
    for broken in (
        docx("<w:p>"),
        docx("</w:body>"),
        docx("<w:t>\0</w:t>"),
        zipped([("word/document.xml", b"")]),
    ):
        assert "word/document.xml is damaged" in refused(storage, BrokenDocument, broken)
    large = docx(f"<w:t>{'x' * 20_000_000}</w:t>")
    assert "more than 500 times" in refused(storage, ArchiveTooLarge, large)
    monkeypatch.setattr("packmule.jobs.files.texts.office.MOST_TEXT", 1_000)
    assert "more than 1,000 bytes" in refused(storage, BrokenDocument, docx(paragraph("x" * 2_000)))
    lying = raw_zip([(b"word/document.xml", b"<d>hello</d>", {"size": 3})])
    assert "differs in size" in refused(storage, BrokenArchive, lying)
    odd = raw_zip([(b"word/document.xml", b"<d/>", {})], method=97)
    assert "packed with method 97" in refused(storage, NotAnArchive, odd)
    assert not text.job.traits.may_retry(NotAnArchive("x"))
    locked = raw_zip([(b"word/document.xml", b"<d/>", {})], flags=1)
    refused(storage, ArchiveLocked, locked)


def test_html_gives_what_is_shown(storage):
    shown = '<h1>Hi</h1><p>See <a href="http://x.org">it</a>'
    found, _ = read(storage, f"<!doctype html><title>t</title>{shown}<script>no()</script>")
    assert found == "Hi\n\nSee it (http://x.org)\n"
    found, _ = read(storage, "<!doctype html><p>Größe".encode("utf-16"))
    assert found == "Größe\n"
    found, _ = read(storage, "<!doctype html>" + "<div>" * 200_000 + "deep")
    assert found.strip() == "deep"


@pytest.mark.parametrize(
    "before",
    [
        '<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "x">',
        "<!-- saved from url=(0014)about:internet -->\n<!----> <html>", "<head><title>t</title></head>",
        " <!DOCTYPE  HTML>", "<BODY class=x>",
    ],
)  # fmt: skip
def test_html_is_known_however_it_begins(storage, before):
    found, result = read(storage, f"{before}<p>Hi &amp; bye</p>")
    assert (found, result["type"]) == ("Hi & bye\n", "text/html")


def test_what_only_resembles_html_is_none(storage):
    for page in (
        "<!--" * 20_000,
        "<!---->" * 9_000,
        "<?x?>" * 12_000,
        "<header>x",
        "<?xml version='1.0'?><a/>",
    ):
        assert read(storage, page)[1]["type"] != "text/html"


@pytest.mark.parametrize(
    ("name", "encoding", "words"),
    [
        ("shift_jis", "cp932", "日本①"), ("gb2312", "gb18030", "中文"), ("iso-8859-1", "cp1252", "Größe “x”"),
        ("ISO-8859-2", "iso8859-2", "Łódź"), ("windows-1255", "cp1255", "שלום"), ("utf-8", "utf-8", "Größe"),
        ("iso-8859-1", "utf-8", "Größe"),
    ],
)  # fmt: skip
def test_html_has_the_encoding_that_it_names_unless_it_is_utf_8(storage, name, encoding, words):
    for head in (
        f'<meta charset="{name}">',
        f"<META http-equiv=Content-Type content='text/html; charset={name}'>",
    ):
        page = f"<!doctype html><html><head>{head}</head><p>{words}</p>"
        assert read(storage, page.encode(encoding))[0] == f"{words}\n"


def test_a_page_that_names_a_wrong_or_odd_encoding_is_read_as_without_it(storage):
    page = "<!doctype html><meta charset=%s><p>Größe und Übermaß, außerdem Äpfel für Jürgen</p>"
    for name in ("utf-16", "punycode", "no-such", "cp932", "unicode_escape", "hex"):
        assert read(storage, (page % name).encode("cp1252"))[0].startswith("Größe und")
    assert read(storage, (page % "cp1251").encode("cp1252"), encoding="cp1252")[0].startswith("Größe und")


def test_rtf_gives_its_text(storage):
    source = r"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}\f0 "
    source += r"Gr\'f6\'dfe \u26085?\u-10179?\u-8704? \b bold\b0\par next}"
    found, result = read(storage, source)
    assert found == "Größe 日😀 bold\nnext"
    assert result["type"] == "application/rtf"


def test_rtf_reads_fonts_tables_and_pictures_as_word_does(storage):
    source = r"{\rtf1\ansi{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Arial;}{\f2\fcharset128 M;}}"
    source += r"{\info{\title no}}{\f1 \'cf\'f0\'e8}\f2 \'93\'fa\'96\'7b{\*\unknown no}{\pict\bin5 {{{{{}"
    source += (
        r"{\field{\*\fldinst{HYPERLINK \"http://x.org\"}}{\fldrslt link}}\cell\row{\uc2\u8364ab!}\~\{\}}junk"
    )
    assert read(storage, source)[0] == "При日本link\t\n€!\xa0{}"
    assert read(storage, b"{\\rtf1 a{\\pict\\bin6 \r\n\r\n\r\n}b\\par\r\nc}")[0] == "ab\nc"
    found, result = read(storage, source[:-30])
    assert found.startswith("При日本link")
    assert result["warnings"] == ["it may be cut: not all of its groups are closed"]


@pytest.mark.parametrize(
    "source",
    [
        "{\\rtf1 " + "{" * 500_000, "{\\rtf1 \\u99999999? x}", "{\\rtf1 \\u-999999? x}", "{\\rtf1 \\'zz }",
        "{\\rtf1\\ansicpg99999 \\'f6}", "{\\rtf1 {\\pict\\bin9999999999 x}}", "{\\rtf1\\ansicpg \\'f6}",
        "{\\rtf1\\f0\\fcharset999999999 a;}", "{\\rtf1\\uc999999999\\u1? x}", "{\\rtf1 {\\pict\\bin x}}",
        "{\\rtf1 " + "}" * 500_000, "{\\rtf1 " + "\\" * 500_001, "{\\rtf1 " + "\\'" * 300_000,
        "{\\rtf1 " + '{\\field{\\*\\fldinst{HYPERLINK "x"' * 20_000,
        "{\\rtf1 {\\fonttbl " + "\\f1\\fcharset1 " * 50_000, "{\\rtf1 " + "\\u9" * 300_000,
    ],
    ids=lambda source: source[:25],
)  # fmt: skip
def test_odd_rtf_harms_nobody(storage, source):
    read(storage, source)  # a reader that looks at each part twice would take hours


def test_plain_text_of_any_encoding_becomes_utf_8(storage):
    words = "Größe und Übermaß, außerdem Äpfel für Jürgen\n" * 20
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
        assert read(storage, words.encode(encoding))[0] == words
    assert read(storage, "日本語".encode("shift_jis"), encoding="shift_jis")[0] == "日本語"
    assert read(storage, "a,b\n1,2\n")[0] == "a,b\n1,2\n"
    assert read(storage, "")[0] == ""
    with pytest.raises(UnfitOption, match="encoding can't be 'utf-99'"):
        text("up/A paper.bin", encoding="utf-99")


def test_what_has_no_text_is_named(storage):
    assert "image/png" in refused(storage, NoText, b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert "application/zip" in refused(storage, NoText, zipped([("a", b"b")]))
    assert "application/octet-stream" in refused(storage, NoText, bytes(range(256)))
    assert "only PDFs have thumbnails" in refused(storage, UnfitOption, "hello", thumbnails=1)
    context.provide(InputLimits(file_bytes=3, attachment_bytes=1, pixels=1))
    refused(storage, FileTooLarge, "hello")
    for wrong in (
        {"thumbnails": 101},
        {"thumbnail_size": 5_000},
        {"max_pages": 0},
        {"thumbnail_format": "gif"},
    ):
        with pytest.raises(InvalidCall):
            text.job.validate((), {"source": "a", **wrong})


def test_a_folder_in_which_others_have_files_is_not_replaced_by_a_text(storage):
    read(storage, pdf("one", "two"), "up/a.pdf", thumbnails=2)
    read(storage, pdf("three"), "up/a.pdf")
    assert storage.names("out/") == ["out/a.txt"]
    storage.write_bytes("out/orders.csv", b"x")
    with pytest.raises(StorageError, match=r"can't write the folder out: orders\.csv is there, too"):
        text("up/a.pdf", "out")
    storage.write_bytes("docs/a.txt", b"x")
    storage.write_bytes("docs/b.csv", b"x")
    with pytest.raises(UnfitOption, match=r"docs/a\.txt would be replaced by its own text"):
        text("docs/a.txt", "docs")
    with pytest.raises(StorageError, match=r"can't write the folder docs: .* is there"):
        text("up/a.pdf", "docs")
    assert storage.names("docs/") == ["docs/a.txt", "docs/b.csv"]


def test_a_full_disk_leaves_nothing(tmp_path):
    store = Storage(str(tmp_path / "files"))
    store.write_bytes("a.txt", b"hello " * 500_000)
    program = (
        "import resource, signal, sys\n"
        "from packmule.jobs import context\n"
        "from packmule.jobs.files import text\n"
        "from packmule.jobs.input_limits import InputLimits\n"
        "from packmule.jobs.storage import Storage, StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "context.provide(Storage(sys.argv[1]), InputLimits(10**9, 1, 1))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try: text('a.txt', 'out')\n"
        "except StorageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "files")],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout == "can't write a.txt: File too large\n"
    assert store.names() == ["a.txt"]
    assert list((tmp_path / "files/.tmp").iterdir()) == []
