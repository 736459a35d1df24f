"""What a file is, judged by its content and never by its name."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

from packmule.jobs.files.text import decoded_head, delimiter
from packmule.jobs.files.zip_directory import directory, opened
from packmule.units import MIB

HEAD = 64 * 1024
MAX_ZIP_DIRECTORY = 8 * MIB

Reader = Literal["csv", "jsonl", "json", "excel", "parquet", "arrow"]

ARROW_FILE = "application/vnd.apache.arrow.file"
ARROW_STREAM = "application/vnd.apache.arrow.stream"

SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"PK\x05\x06", "application/zip"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (0, b"PAR1", "application/vnd.apache.parquet"),
    (0, b"ARROW1\0\0", ARROW_FILE),
    (0, b"\x1f\x8b\x08", "application/gzip"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\x00", "application/x-xz"),
    (0, b"\x04\x22\x4d\x18", "application/x-lz4"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"Rar!\x1a\x07", "application/vnd.rar"),
    (0, b"{\\rtf", "application/rtf"),
    (32769, b"CD001", "application/x-iso9660-image"),
    (0, b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (257, b"ustar", "application/x-tar"),
)

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
ODS = "application/vnd.oasis.opendocument.spreadsheet"
XLS = "application/vnd.ms-excel"
DOCUMENTS = {"word/document.xml": DOCX, "ppt/presentation.xml": PPTX}
"""Office files by a part that they have."""
ENCRYPTED = "application/x-encrypted-office"
"""A workbook or document that is protected by a password."""

AFTER_WHITE = {b"%PDF-": "application/pdf", b"{\\rtf": "application/rtf"}
"""Documents that their readers know with white space or a byte order mark in front."""
FOREWORD = 1024
WHITE = b"\xef\xbb\xbf\t\n\f\r \0"
HTML = re.compile(
    r"(?:\s++|<\?(?:(?!\?>).)*+\?>|<!--(?:(?!-->).)*+-->)*+<(?:!doctype\s+html|(?:html|head|body)[\s>])",
    re.IGNORECASE | re.DOTALL,
)
"""How HTML begins, maybe behind comments and the declaration that XHTML has."""

BRANDS = {
    b"avif": "image/avif", b"avis": "image/avif",
    b"heic": "image/heic", b"heix": "image/heic", b"hevc": "image/heic", b"hevx": "image/heic",
    b"mif1": "image/heif", b"msf1": "image/heif",
    b"qt  ": "video/quicktime",
}  # fmt: skip
"""The types of files in boxes, which are MP4 otherwise."""

READERS: dict[str, Reader] = {
    XLSX: "excel",
    XLS: "excel",
    ODS: "excel",
    "application/vnd.apache.parquet": "parquet",
    ARROW_FILE: "arrow",
    ARROW_STREAM: "arrow",
    "application/jsonl": "jsonl",
    "application/json": "json",
    "text/csv": "csv",
    "text/tab-separated-values": "csv",
}


JSON_START = re.compile(r'\s*(\{\s*("|\})|\[\s*(["{\[\]]|-?\d+\s*[,\]]|(true|false|null)\s*[,\]]))')
"""How JSON begins, and hardly a CSV."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A media type, and the reader that reads such a file as a table, if any."""

    type: str
    reader: Reader | None = None


def kind_of(file: Path) -> Kind:
    """The kind of `file`; `application/octet-stream` if unknown, `application/x-empty` if it has no bytes.

    >>> from pathlib import Path
    >>> kind_of(Path("jobs/samples/weather.csv"))
    Kind(type='text/csv', reader='csv')
    """
    with file.open("rb") as content:
        head = content.read(HEAD)
        if not head:
            return Kind("application/x-empty")
        found = next((kind for at, mark, kind in SIGNATURES if head.startswith(mark, at)), None)
        if found is None:
            begins = head[:FOREWORD].lstrip(WHITE)
            found = next((kind for mark, kind in AFTER_WHITE.items() if begins.startswith(mark)), None)
        if found == "image/webp" and not head.startswith(b"RIFF"):
            found = None
        if found is None:
            found = _boxed_kind(head) or _bitmap_kind(head) or _stream_kind(head)
        if found == "application/zip":
            found = _zip_kind(content)
        elif found == "application/x-ole-storage":
            found = _ole_kind(content, head)
        elif found == "application/vnd.apache.parquet":
            content.seek(-4, 2)
            found = found if content.read() == b"PAR1" else "application/octet-stream"
    if found is not None:
        return Kind(found, READERS.get(found))
    return _text_kind(head)


def _boxed_kind(head: bytes) -> str | None:
    """MP4 or one of its relatives, which begins with a box `ftyp` of brands."""
    if head[4:8] != b"ftyp" or len(head) < 12:  # noqa: PLR2004  up to the brand
        return None
    return BRANDS.get(head[8:12], "video/mp4")


def _bitmap_kind(head: bytes) -> str | None:
    """BMP, whose mark of two letters is too short to be one: its header's size follows."""
    sizes = (12, 40, 52, 56, 64, 108, 124)
    is_bitmap = head[:2] == b"BM" and len(head) > 18 and head[6:10] == bytes(4)  # noqa: PLR2004  up to that size
    return "image/bmp" if is_bitmap and struct.unpack_from("<I", head, 14)[0] in sizes else None


def _stream_kind(head: bytes) -> str | None:
    """A stream of Arrow's messages, the first of which has a schema."""
    if not head.startswith(b"\xff\xff\xff\xff") or len(head) < 32:  # noqa: PLR2004  up to the message's kind
        return None
    size, root = struct.unpack_from("<iI", head, 4)
    try:
        table = 8 + root
        fields = table - struct.unpack_from("<i", head, table)[0]
        kind = struct.unpack_from("<H", head, fields + 6)[0]
        is_schema = size > 0 and size % 8 == 0 and head[table + kind] == 1
    except (struct.error, IndexError):
        return None
    return ARROW_STREAM if is_schema else None


def has_small_directory(content: BinaryIO) -> bool:
    """Whether a ZIP's directory, which would be loaded whole into memory, has at most `MAX_ZIP_DIRECTORY`."""
    found = directory(content)
    return found is not None and found.size <= MAX_ZIP_DIRECTORY


def _zip_kind(content: BinaryIO) -> str:
    """The office format that a ZIP's member names reveal, or ZIP."""
    if not has_small_directory(content):  # no office file has a large one
        return "application/zip"
    try:
        with opened(content) as archive:
            names = set(archive.namelist())
            if "META-INF/manifest.xml" in names and _is_encrypted(archive):
                return ENCRYPTED
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 100:  # noqa: PLR2004  a media type's length
                declared = archive.read("mimetype").strip()
                return ODS if declared == ODS.encode() else "application/zip"
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError):
        return "application/zip"
    if "xl/workbook.xml" in names or "xl/workbook.bin" in names:
        return XLSX
    return next((kind for part, kind in DOCUMENTS.items() if part in names), "application/zip")


def _is_encrypted(archive: zipfile.ZipFile) -> bool:
    """Whether an OpenDocument file's manifest says how its members are encrypted."""
    with archive.open("META-INF/manifest.xml") as content:
        return b"encryption-data" in content.read(MIB)


def _ole_kind(content: BinaryIO, head: bytes) -> str:
    """Excel's old format, an OLE2 file with a stream `Workbook` (or `Book`), an encrypted one, or OLE2."""
    if len(head) >= 52:  # noqa: PLR2004  the header up to the directory's sector number
        shift, sector = struct.unpack_from("<H", head, 30)[0], struct.unpack_from("<I", head, 48)[0]
        if shift in (9, 12):
            content.seek((sector + 1) << shift)
            directory = content.read(4096)
            if "EncryptedPackage\0".encode("utf-16-le") in directory:
                return ENCRYPTED
            if any(name.encode("utf-16-le") in directory for name in ("Workbook\0", "Book\0")):
                return XLS
    return "application/x-ole-storage"


def _text_kind(head: bytes) -> Kind:
    text = decoded_head(head)
    if text is None:
        return Kind("application/octet-stream")
    whole = len(head) < HEAD
    if not whole:
        text = text[: text.rfind("\n") + 1] or text
    start = text.lstrip()[:200]
    if HTML.match(text):
        return Kind("text/html")
    if start.startswith("<?xml"):
        return Kind("application/xml")
    if start.startswith(("{", "[")) and (kind := _json_kind(text, whole)):
        return kind
    found = delimiter(text)
    if found is None:
        return Kind("text/plain")
    return Kind("text/tab-separated-values" if found == "\t" else "text/csv", "csv")


def _json_kind(text: str, whole: bool) -> Kind | None:
    """JSON Lines if most of the first lines are objects, otherwise JSON, however broken."""
    lines = [line for line in islice(io.StringIO(text), 50) if line.strip()]
    objects = sum(_is_json(line, dict) for line in lines)
    if len(lines) > 1 and objects * 2 >= len(lines):
        return Kind("application/jsonl", "jsonl")
    if JSON_START.match(text) or (whole and _is_json(text, (dict, list))):
        # One object in one line may be the first of many.
        return Kind("application/json", "jsonl" if len(lines) == 1 and text.lstrip()[:1] == "{" else "json")
    return None


def _is_json(text: str, kinds: type | tuple[type, ...]) -> bool:
    try:
        return isinstance(json.loads(text), kinds)
    except (ValueError, RecursionError):
        return False
