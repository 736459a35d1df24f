"""What a document gives: its text page by page, within bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from packmule.errors import UsageError
from packmule.jobs.storage.store import explained
from packmule.units import MIB

MOST_TEXT = 256 * MIB
"""Bytes of the text of one document."""
MOST_PAGES = 10_000
PAGE_END = "\n\f\n"
"""What is between two pages."""


class BrokenDocument(UsageError):
    """A document is cut, damaged, or not what it says it is."""


class DocumentLocked(UsageError):
    """A document is protected by a password."""


class DocumentTooLarge(UsageError):
    """A document has more pages or text than the bounds allow."""


@dataclass(slots=True)
class Document:
    """A document to be read: `source` is its name in messages, `folder` a private one for temporary files."""

    source: str
    file: Path
    folder: Path
    encoding: str | None = None
    max_pages: int = MOST_PAGES
    pages: int | None = None
    """How many it has, if it has pages at all; known once it is read."""
    warnings: list[str] = field(default_factory=list)

    def broken(self, why: str) -> BrokenDocument:
        """The error that says why it can't be read."""
        return BrokenDocument(f"{self.source}: {why}")

    def check_pages(self, count: int) -> None:
        """Keep the number of pages. Raises `DocumentTooLarge` for too many."""
        if count > self.max_pages:
            raise DocumentTooLarge(
                f"{self.source} has {count:,} pages, over the limit of {self.max_pages:,} (max_pages)"
            )
        self.pages = count

    def check_size(self, most: int) -> None:
        """Raise `DocumentTooLarge` for a file that would be read whole and is larger than `most`."""
        if (size := self.file.stat().st_size) > most:
            raise DocumentTooLarge(
                f"{self.source} has {size:,} bytes, over the limit of {most:,} for its kind"
            )


def write(document: Document, pieces: Iterable[str], target: Path) -> int:
    """Write the text in UTF-8; how many characters it has. Raises `DocumentTooLarge`."""
    characters = size = 0
    with explained("write", document.source), target.open("wb") as file:
        for piece in pieces:
            text = piece.replace("\0", "")
            data = text.encode("utf-8", "replace")
            size += len(data)
            if size > MOST_TEXT:
                raise DocumentTooLarge(f"{document.source} has more than {MOST_TEXT:,} bytes of text")
            characters += len(text)
            file.write(data)
    return characters


def separated(pages: Iterable[str]) -> Iterator[str]:
    """Yield pages with what is between two."""
    for number, page in enumerate(pages):
        yield f"{PAGE_END}{page}" if number else page
