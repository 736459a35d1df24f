"""Files that are compressed: unpacked into a work folder, up to a limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from packmule.errors import UsageError
from packmule.jobs.files.signatures import HEAD, Kind, kind_of
from packmule.jobs.files.table import Work
from packmule.jobs.files.unpacking.streams import NEW, BrokenArchive, decompressed, pieces_of
from packmule.jobs.storage import FileTooLarge

METHODS = {
    "application/gzip": "gzip",
    "application/x-bzip2": "bzip2",
    "application/x-xz": "xz",
    "application/zstd": "zstd",
}
"""The method by which a file of a type is compressed."""

UNPACKED = "unpacked"
"""The name in a work folder of what was unpacked."""


class BrokenCompression(UsageError, ValueError):
    """A compressed file can't be unpacked."""


def unpacked(work: Work, most: int) -> Work:
    """The work with the content of its file, if that is compressed.

    Raises `BrokenCompression`, or `FileTooLarge` for a content of more than `most` bytes.
    """
    if (kind := kind_of(work.file)).type not in METHODS:
        return work
    target = work.folder / UNPACKED
    size, done = max(1, work.file.stat().st_size), 0
    report = work.stage(0, 5, "unpacking")
    with work.file.open("rb") as packed, target.open("wb") as copy:
        try:
            for chunk in _content(kind, packed):
                done += len(chunk)
                if done > most:
                    raise FileTooLarge(
                        f"{work.source} unpacks to more than {most:,} bytes, which is the limit"
                    )
                copy.write(chunk)
                report(100 * packed.tell() / size)
        except BrokenArchive as error:
            raise BrokenCompression(f"{work.source} can't be unpacked: {error}") from None
    return replace(work, file=target)


def content_kind(kind: Kind, file: Path, scratch: Path) -> Kind | None:
    """What a compressed file seems to contain, by its first bytes; None if it can't be unpacked."""
    head = b""
    try:
        with file.open("rb") as packed:
            for chunk in _content(kind, packed):
                head += chunk
                if len(head) > HEAD:
                    break
    except BrokenArchive:
        return None
    scratch.write_bytes(head[: HEAD + 1])
    return kind_of(scratch)


def _content(kind: Kind, packed: BinaryIO) -> Iterator[bytes]:
    return decompressed("it", pieces_of(packed.read), NEW[METHODS[kind.type]])
