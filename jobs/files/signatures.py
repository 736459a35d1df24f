"""What a file is, judged by its content and never by its name."""

from __future__ import annotations

import json
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from packmule.jobs.files.text import decoded_head, delimiter
from packmule.units import MIB

HEAD = 64 * 1024
ZIP_TAIL = 66_000
"""Bytes at a ZIP's end that contain its end record, whose comment may have 65,535 bytes."""
MAX_ZIP_DIRECTORY = 8 * MIB

Reader = Literal["csv", "jsonl", "excel", "parquet"]

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
    (0, b"\x1f\x8b\x08", "application/gzip"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\x00", "application/x-xz"),
    (0, b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (257, b"ustar", "application/x-tar"),
)

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
ODS = "application/vnd.oasis.opendocument.spreadsheet"
XLS = "application/vnd.ms-excel"

READERS: dict[str, Reader] = {
    XLSX: "excel",
    XLS: "excel",
    ODS: "excel",
    "application/vnd.apache.parquet": "parquet",
    "application/jsonl": "jsonl",
    "text/csv": "csv",
    "text/tab-separated-values": "csv",
}


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
        if found == "image/webp" and not head.startswith(b"RIFF"):
            found = None
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


def has_small_directory(content: BinaryIO) -> bool:
    """Whether a ZIP's directory, which would be loaded whole into memory, has at most `MAX_ZIP_DIRECTORY`."""
    size = content.seek(0, 2)
    content.seek(max(0, size - ZIP_TAIL))
    tail = content.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        return False
    return int(struct.unpack_from("<I", tail, end + 12)[0]) <= MAX_ZIP_DIRECTORY


def _zip_kind(content: BinaryIO) -> str:
    """The office format that a ZIP's member names reveal, or ZIP."""
    if not has_small_directory(content):  # no office file has a large one
        return "application/zip"
    try:
        with zipfile.ZipFile(content) as archive:
            names = set(archive.namelist())
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 100:  # noqa: PLR2004  a media type's length
                declared = archive.read("mimetype").strip()
                return ODS if declared == ODS.encode() else "application/zip"
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError):
        return "application/zip"
    if "xl/workbook.xml" in names or "xl/workbook.bin" in names:
        return XLSX
    return DOCX if "word/document.xml" in names else "application/zip"


def _ole_kind(content: BinaryIO, head: bytes) -> str:
    """Excel's old format, which is an OLE2 file with a stream `Workbook` (or `Book`), or OLE2."""
    if len(head) >= 52:  # noqa: PLR2004  the header up to the directory's sector number
        shift, sector = struct.unpack_from("<H", head, 30)[0], struct.unpack_from("<I", head, 48)[0]
        if shift in (9, 12):
            content.seek((sector + 1) << shift)
            directory = content.read(4096)
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
    start = text.lstrip()[:200].lower()
    if start.startswith("<?xml"):
        return Kind("application/xml")
    if start.startswith(("<!doctype html", "<html")):
        return Kind("text/html")
    if start.startswith(("{", "[")) and (kind := _json_kind(text, whole)):
        return kind
    found = delimiter(text)
    if found is None:
        return Kind("text/plain")
    return Kind("text/tab-separated-values" if found == "\t" else "text/csv", "csv")


def _json_kind(text: str, whole: bool) -> Kind | None:
    """JSON Lines if most of the first lines are objects; a single object may be JSON or JSON Lines."""
    lines = [line for line in text.splitlines()[:50] if line.strip()]
    objects = sum(_is_json(line, dict) for line in lines)
    if len(lines) > 1 and objects * 2 >= len(lines):
        return Kind("application/jsonl", "jsonl")
    if whole and _is_json(text, (dict, list)):
        return Kind("application/json", "jsonl" if objects == len(lines) == 1 else None)
    if not whole and re.match(r'\s*(\{\s*("|\})|\[\s*["{\[\d\]tfn-])', text):
        return Kind("application/json", "jsonl" if len(lines) == 1 and text.startswith("{") else None)
    return None


def _is_json(text: str, kinds: type | tuple[type, ...]) -> bool:
    try:
        return isinstance(json.loads(text), kinds)
    except (ValueError, RecursionError):
        return False
