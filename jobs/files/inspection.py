"""What a stored file is: its type by content, its size and digest, and what it has in it."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from packmule.jobs import current
from packmule.jobs.files import excel
from packmule.jobs.files.compressed import METHODS, content_kind
from packmule.jobs.files.convert import columns_of, counted, working
from packmule.jobs.files.reading import Reading
from packmule.jobs.files.signatures import Kind, has_small_directory, kind_of
from packmule.jobs.files.table import Work
from packmule.jobs.files.texts import pdf
from packmule.jobs.files.texts.documents import BrokenDocument, Document, DocumentLocked
from packmule.jobs.files.unpacking import tars
from packmule.jobs.files.unpacking.bounds import ArchiveTooLarge
from packmule.jobs.files.unpacking.members import NotAnArchive
from packmule.jobs.files.unpacking.sevenzip.header import contents
from packmule.jobs.files.unpacking.streams import BrokenArchive, pieces_of
from packmule.jobs.files.unpacking.zips import ArchiveLocked
from packmule.jobs.files.zip_directory import opened
from packmule.jobs.storage import Storage
from packmule.units import KIB, MIB

CHUNK = 256 * KIB
COUNTED = 64 * MIB
"""Bytes of a table or a tar up to which its rows or members are counted; those of others are known."""
MOST_ENTRIES = 100_000
"""Of a 7z archive, whose header would be loaded whole into memory."""
ARCHIVES = {"application/zip", "application/x-tar", "application/x-7z-compressed"}


def inspected(storage: Storage, source: str, content: Path, reading: Reading) -> dict[str, Any]:
    """The facts about `content`, the stored file `source`."""
    kind, size = kind_of(content), content.stat().st_size
    facts: dict[str, Any] = {"source": source, "type": kind.type, "bytes": size}
    with working(source, content, reading, _nothing) as work:
        if kind.reader is not None:
            facts |= _of_table(work, kind, size)
        elif kind.type in METHODS and (found := content_kind(kind, content, work.folder / "head")):
            facts["content_type"] = found.type
        elif kind.type in ARCHIVES and (members := _members(work, kind.type, size)) is not None:
            facts["members"] = members
        elif kind.type == "application/pdf" and (pages := _pages(work)) is not None:
            facts["pages"] = pages
    digest = _sha256(content, size)
    uploads = storage.names(f"uploads/{digest[:16]}/")
    if others := [name for name in uploads if name != source]:
        facts["duplicates"] = others
    return {**facts, "sha256": digest}


def _of_table(work: Work, kind: Kind, size: int) -> dict[str, Any]:
    if kind.reader == "excel":
        sheet = excel.read_sheet(work, work.stage(0, 100, "reading"))
        return {
            "columns": listed(sheet["columns"]),
            "rows": sheet["rows"],
            "sheet": sheet["sheet"],
            "sheets": sheet["sheets"],
        }
    facts: dict[str, Any] = {"columns": listed(columns_of(work, kind))}
    if kind.reader == "parquet" or size <= COUNTED:
        facts["rows"] = counted(work, kind)
    return facts


def _members(work: Work, type: str, size: int) -> int | None:
    """How many files an archive has; None if it is broken, or has too much to be counted."""
    with work.file.open("rb") as content:
        if type == "application/zip":
            if not has_small_directory(content):
                return None
            with suppress(
                zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError
            ):
                return sum(not each.is_dir() for each in opened(content).infolist())
        elif type == "application/x-7z-compressed":
            with suppress(BrokenArchive, ArchiveLocked, ArchiveTooLarge, NotAnArchive):
                return sum(not each.is_folder for each in contents(work.source, content, _check_few).entries)
        elif size <= COUNTED:
            with suppress(BrokenArchive):
                found = tars.members(work.source, pieces_of(content.read), None)
                return sum(not each.is_folder for each in found)
    return None


def _check_few(count: int) -> None:
    if count > MOST_ENTRIES:
        raise ArchiveTooLarge(f"more than {MOST_ENTRIES:,} entries")


def _pages(work: Work) -> int | None:
    """How many pages a PDF has; None if it is broken, or has a password."""
    with suppress(BrokenDocument, DocumentLocked):
        return pdf.count(Document(work.source, work.file, work.folder))
    return None


def listed(columns: Mapping[str, str]) -> list[dict[str, str]]:
    """Columns as a result has them."""
    return [{"name": name, "type": kind} for name, kind in columns.items()]


def _sha256(content: Path, total: int) -> str:
    """The hexadecimal digest; it reports the bytes hashed as progress."""
    digest, done = hashlib.sha256(), 0
    # One buffer, because to take a new one from the system for each chunk costs a tenth of the time.
    buffer = memoryview(bytearray(CHUNK))
    with content.open("rb", buffering=0) as chunks:
        while count := chunks.readinto(buffer):
            digest.update(buffer[:count])
            done += count
            current.progress(done, total, "hashing")
    return digest.hexdigest()


def _nothing(done: float, message: str) -> None:
    """No progress: inspecting reports the bytes hashed, and detecting columns is quick."""
