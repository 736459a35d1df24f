"""The text job: extracts the text of a document, and draws its first pages on wish."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from time import monotonic
from typing import Annotated, Any, Literal

import msgspec

from packmule.errors import UsageError
from packmule.jobs import current
from packmule.jobs.files.reading import UnfitOption, is_encoding
from packmule.jobs.files.signatures import DOCX, ENCRYPTED, PPTX, kind_of
from packmule.jobs.files.text import UnreadableText
from packmule.jobs.files.texts import office, pdf, plain
from packmule.jobs.files.texts.documents import (
    MOST_PAGES,
    BrokenDocument,
    Document,
    DocumentLocked,
    DocumentTooLarge,
    separated,
    write,
)
from packmule.jobs.files.unpacking.bounds import ArchiveTooLarge
from packmule.jobs.files.unpacking.members import NotAnArchive
from packmule.jobs.files.unpacking.streams import BrokenArchive
from packmule.jobs.files.unpacking.zips import ArchiveLocked
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job import job
from packmule.jobs.retention.made import check_place, new_place
from packmule.jobs.storage import FileTooLarge, MissingFile, OutsideStorage, Storage, safe_name, temporary
from packmule.units import GIB

PDF = "application/pdf"
READERS: dict[str, Callable[[Document], Iterator[str]]] = {
    PDF: lambda document: separated(pdf.pages(document)),
    DOCX: office.docx_pages,
    PPTX: lambda document: separated(office.pptx_pages(document)),
    "text/html": plain.html_pages,
    "application/rtf": plain.rtf_pages,
    **dict.fromkeys(
        ["text/plain", "text/csv", "text/tab-separated-values", "application/json", "application/jsonl",
         "application/xml", "application/x-empty"],
        plain.text_pages,
    ),
}  # fmt: skip
Thumbnails = Annotated[int, msgspec.Meta(ge=0, le=100)]
Pixels = Annotated[int, msgspec.Meta(ge=16, le=2_000)]
Pages = Annotated[int, msgspec.Meta(ge=1, le=MOST_PAGES)]


class NoText(UsageError):
    """A file is of a kind that has no text, or none that can be read."""


@job(
    queue="low",
    timeout=1800,
    retries=1,
    give_up_on=(
        ArchiveLocked, ArchiveTooLarge, BrokenArchive, BrokenDocument, DocumentLocked, DocumentTooLarge,
        NoText, NotAnArchive, UnfitOption, UnreadableText, MissingFile, OutsideStorage, FileTooLarge,
    ),
    isolate=True,
    network=False,
    max_memory=2 * GIB,
    max_cpu=900,
    check=check_place,
)  # fmt: skip
def text(
    source: str,
    out: str | None = None,
    *,
    encoding: str | None = None,
    max_pages: Pages = MOST_PAGES,
    thumbnails: Thumbnails = 0,
    thumbnail_size: Pixels = 400,
    thumbnail_format: Literal["png", "webp"] = "webp",
) -> dict[str, Any]:
    """Extract the text of the stored document `source`: PDF, DOCX, PPTX, HTML, RTF or plain text.

    It is written in UTF-8 to the folder `out` (default: `texts/<job id>`) as `<source's stem>.txt`, with a
    form feed between two pages. `encoding` says that of HTML and plain text if it isn't found. `thumbnails`
    is how many pages of a PDF are drawn beside it as `<stem>-<page>.webp`, the longer side of
    `thumbnail_size` pixels. All of that appears together or not at all.

    Returns where the text is, and how much there is of it; `pages` is None for what has none, such as HTML,
    or where only the program that wrote it knows, such as DOCX::

        {"source": "uploads/a.pdf", "path": "texts/7f0c/a.txt", "type": "application/pdf", "pages": 12,
         "characters": 48219, "bytes": 48307, "thumbnails": ["texts/7f0c/a-1.webp"], "warnings": [],
         "seconds": 0.1}

    Raises `NoText`, `BrokenDocument`, `DocumentLocked`, `DocumentTooLarge`, `UnreadableText`, `UnfitOption`,
    `MissingFile` or `FileTooLarge`; then nothing is written.

    >>> text.enqueue("uploads/a.pdf", thumbnails=1)  # doctest: +SKIP
    """
    started = monotonic()
    storage, limits = current.resource(Storage), current.resource(InputLimits)
    if encoding is not None and not is_encoding(encoding):
        raise UnfitOption(f"{source}: encoding can't be {encoding[:40]!r}: use one such as utf-8 or cp1252")
    stem = PurePosixPath(safe_name(PurePosixPath(source).name)).stem
    with storage.read(source, limits.file_bytes) as file, temporary.folder() as work:
        kind = kind_of(file).type
        if kind == ENCRYPTED:
            raise DocumentLocked(f"{source} is protected by a password: save it without one")
        if kind not in READERS:
            raise NoText(
                f"{source} is {kind}, whose text can't be read: give PDF, DOCX, PPTX, HTML, RTF or text"
            )
        if thumbnails and kind != PDF:
            raise UnfitOption(f"{source} is {kind}: only PDFs have thumbnails")
        document = Document(source, file, work, encoding, max_pages)
        folder = (out or new_place("texts", file)).rstrip("/")
        name = f"{stem}.txt"
        if f"{folder}/{name}" == source:
            raise UnfitOption(f"{source} would be replaced by its own text: give another out than {folder}")
        ours = re.compile(rf"{re.escape(stem)}(\.txt|-\d+\.(png|webp))").fullmatch
        with storage.write_folder(folder, name, lambda other: ours(other) is not None) as target:
            characters = write(document, READERS[kind](document), target / name)
            drawn = (
                [*pdf.draw(document, target, stem, thumbnails, thumbnail_size, thumbnail_format)]
                if thumbnails
                else []
            )
            size = (target / name).stat().st_size
    return {
        "source": source,
        "path": f"{folder}/{name}",
        "type": kind,
        "pages": document.pages,
        "characters": characters,
        "bytes": size,
        "thumbnails": [f"{folder}/{each}" for each in drawn],
        "warnings": document.warnings,
        "seconds": round(monotonic() - started, 3),
    }
