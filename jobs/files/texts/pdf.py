"""PDF by PDFium: the text of each page, and pictures of the first ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from packmule.jobs import current
from packmule.jobs.files.texts.documents import Document, DocumentLocked
from packmule.units import KIB

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument

TAIL = 16 * KIB
"""Bytes at the end in which a PDF that isn't cut has the mark of its end; junk may follow that."""
WRONG_PASSWORD, UNKNOWN_LOCK = 4, 5
"""PDFium's numbers for these."""


def pages(document: Document) -> Iterator[str]:
    """Yield the text of each page. Raises `BrokenDocument`, `DocumentLocked` and `DocumentTooLarge`."""
    with _opened(document) as opened:
        document.check_pages(len(opened))
        is_empty = True
        for number in range(len(opened)):
            with _explained(document, number):
                page = opened[number]
                text = page.get_textpage().get_text_range(errors="replace")
                page.close()
            is_empty = is_empty and not text.strip()
            yield text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufffe", "-")
            current.progress(number + 1, len(opened), "reading pages")
        if is_empty:
            document.warnings.append("no page has text: they may be pictures of text")


def count(document: Document) -> int:
    """How many pages it has. Raises `BrokenDocument` and `DocumentLocked`."""
    with _opened(document) as opened:
        if pages := len(opened):
            with _explained(document, pages - 1):  # which is not there if the number lies
                opened[pages - 1].close()
        return pages


def draw(
    document: Document, folder: Path, stem: str, count: int, size: int, format: Literal["png", "webp"]
) -> Iterator[str]:
    """Draw the first `count` pages, the longer side of `size` pixels; yield the names of the files."""
    with _opened(document) as opened:
        for number in range(min(count, len(opened))):
            target = folder / f"{stem}-{number + 1}.{format}"
            with _explained(document, number):
                page = opened[number]
                longest = max(page.get_size())
                if not 0 < longest < float("inf"):
                    raise document.broken(f"page {number + 1} has no size")
                page.render(scale=size / longest).to_pil().convert("RGB").save(target)
                page.close()
            yield target.name


@contextmanager
def _opened(document: Document) -> Iterator[PdfDocument]:
    import pypdfium2  # noqa: PLC0415  4 MB, for PDF alone

    with document.file.open("rb") as content:
        content.seek(max(0, content.seek(0, 2) - TAIL))
        tail = content.read()
    if b"%%EOF" not in tail and b"startxref" not in tail:
        raise document.broken("is truncated: its end is missing")
    try:
        opened = pypdfium2.PdfDocument(document.file)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == WRONG_PASSWORD:
            raise DocumentLocked(
                f"{document.source} is protected by a password: save it without one"
            ) from None
        if getattr(error, "err_code", None) == UNKNOWN_LOCK:
            raise DocumentLocked(
                f"{document.source} is encrypted in an unknown way: save it without encryption"
            ) from None
        raise document.broken(f"is damaged: {_reason(error)}") from None
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def _explained(document: Document, number: int) -> Iterator[None]:
    """Turn a fault of PDFium into `BrokenDocument`."""
    import pypdfium2  # noqa: PLC0415

    try:
        yield
    except (pypdfium2.PdfiumError, ValueError, MemoryError) as error:
        raise document.broken(f"page {number + 1} can't be read: {_reason(error)}") from None


def _reason(error: Any) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
