"""The members of a 7z archive, in the order of the streams that they are packed in."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from stat import S_ISLNK, S_ISREG
from typing import BinaryIO

from packmule.jobs.files.unpacking.bounds import Bounds
from packmule.jobs.files.unpacking.members import Member
from packmule.jobs.files.unpacking.sevenzip.coders import Packed
from packmule.jobs.files.unpacking.sevenzip.header import Entry, contents
from packmule.jobs.files.unpacking.streams import BrokenArchive
from packmule.plain_text import plain

IS_LINK, HAS_MODE = 0x400, 0x8000
"""Windows' mark of a link, and 7-Zip's of a Unix mode in the attributes' upper half."""


def members(source: str, content: BinaryIO, bounds: Bounds) -> Iterator[Member]:
    """Yield the members in their order.

    Raises `BrokenArchive`, `ArchiveLocked`, `NotAnArchive` and `ArchiveTooLarge`.
    """
    found = contents(source, content, lambda count: bounds.check_members(source, count))
    sizes = sum(size for stream in found.streams for size, _ in stream.files)
    bounds.check_bytes(source, sizes, content.seek(0, 2))
    stored = _files(source, content, found.streams)
    for entry in found.entries:
        pieces = next(stored)(plain(entry.name)[:200]) if entry.has_stream else iter(())
        yield Member(entry.name, pieces, _fault(entry), entry.is_folder and not entry.is_anti)
        for _ in pieces:  # those that nobody wanted
            pass


def _fault(entry: Entry) -> str | None:
    mode = entry.attributes >> 16 if entry.attributes & HAS_MODE else 0
    if entry.is_anti:
        return "it says what to delete"
    if entry.attributes & IS_LINK or S_ISLNK(mode):
        return "it is a link"
    if not entry.is_folder and mode & 0o170000 and not S_ISREG(mode):
        return "it is a device or a pipe"
    return None


def _files(
    source: str, content: BinaryIO, streams: list[Packed]
) -> Iterator[Callable[[str], Iterator[bytes]]]:
    """Yield for each file, in their order, what yields its content, given its name for errors."""
    for stream in streams:
        solid = _Solid(stream.unpacked(source, content) if stream.files else iter(()))
        for size, crc in stream.files:
            yield partial(solid.content, source, size, crc)


class _Solid:
    """Bytes that are several files, one behind the other."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._held = pieces, memoryview(b"")

    def content(self, source: str, size: int, crc: int | None, name: str) -> Iterator[bytes]:
        """Yield the next `size` bytes. Raises `BrokenArchive` unless they have the checksum."""
        checksum = 0
        while size:
            piece = self._held or memoryview(next(self._pieces, b""))
            if not piece:
                raise BrokenArchive(f"{source}: {name} is truncated: its end is missing")
            found, self._held = bytes(piece[:size]), piece[size:]
            size -= len(found)
            checksum = zlib.crc32(found, checksum)
            yield found
        if crc is not None and checksum != crc:
            raise BrokenArchive(f"{source}: {name} is damaged: its checksum is wrong")
