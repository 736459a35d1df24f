"""A ZIP's directory: found by the one end record that ends the file, whatever its comment holds."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

TAIL = 66_000
"""Bytes at the end that hold the end record, whose comment may have 65,535."""
END, END_64, ENTRY = b"PK\5\6", b"PK\6\6", b"PK\1\2"
RECORD, RECORD_64 = 22, 76
"""Bytes of an end record, and of a large archive's end record with what leads to it, which is in front."""


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of `size` bytes, whose end record is at `record`.

    `is_last` says that what follows doesn't look like another one.
    """

    record: int
    size: int
    is_last: bool


def directory(content: BinaryIO) -> Directory | None:
    """The directory, or None if there is none, or if the comment holds one that could be meant as well.

    Most readers, Python's too, believe what looks like a record last, and would show members that others
    don't.
    """
    start = content.seek(max(0, content.seek(0, 2) - TAIL))
    tail = content.read()
    marks = _places(tail)
    places = [at for at in marks if len(tail) >= at + RECORD]
    fitting = [at for at in places if _ends_file(tail, at) and _follows_entries(content, start, tail, at)]
    if not places or len(fitting) > 1:
        return None
    at = fitting[0] if fitting else places[-1]
    return Directory(start + at, _size(tail, at), at == marks[-1])


def opened(content: BinaryIO) -> zipfile.ZipFile:
    """The archive with that directory. Raises `zipfile.BadZipFile`, and whatever `zipfile.ZipFile` raises."""
    found = directory(content)
    if found is None:
        raise zipfile.BadZipFile("its directory is missing, or its comment holds another one")
    return zipfile.ZipFile(uncommented(content, found))


def uncommented(content: BinaryIO, found: Directory) -> BinaryIO:
    """The archive, without its comment if that could be taken for a directory."""
    return content if found.is_last else io.BufferedReader(_Uncommented(content, found.record + RECORD))


def _places(tail: bytes) -> list[int]:
    places, at = [], tail.find(END)
    while at >= 0:
        places.append(at)
        at = tail.find(END, at + 1)
    return places


def _is_large(tail: bytes, at: int) -> bool:
    return at >= RECORD_64 and tail.startswith(END_64, at - RECORD_64)


def _size(tail: bytes, at: int) -> int:
    if _is_large(tail, at):
        return int(struct.unpack_from("<Q", tail, at - RECORD_64 + 40)[0])
    return int(struct.unpack_from("<I", tail, at + 12)[0])


def _ends_file(tail: bytes, at: int) -> bool:
    """Whether the record's comment is all that follows it."""
    return at + RECORD + int(struct.unpack_from("<H", tail, at + 20)[0]) == len(tail)


def _follows_entries(content: BinaryIO, start: int, tail: bytes, at: int) -> bool:
    """Whether a directory of the right size is in front of the record, if it says that there is one."""
    size = _size(tail, at)
    begins = start + at - size - (RECORD_64 if _is_large(tail, at) else 0)
    if begins < 0:
        return False
    content.seek(begins)
    return size == 0 or content.read(len(ENTRY)) == ENTRY


class _Uncommented(io.RawIOBase):
    """The first `size` bytes of an archive, whose last two say that it has no comment."""

    def __init__(self, content: BinaryIO, size: int) -> None:
        self._content, self._size, self._at = content, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        if self._at < 0:
            raise OSError("there is nothing in front of a file")
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As of any file."""
        self._content.seek(self._at)
        found = bytearray(self._content.read(max(0, min(len(buffer), self._size - self._at))))
        for place in range(max(self._at, self._size - 2), self._at + len(found)):
            found[place - self._at] = 0
        self._at += len(found)
        cast(memoryview, buffer)[: len(found)] = found
        return len(found)
