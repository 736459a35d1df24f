"""ZIP: its directory is believed only where the members agree with it."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import BinaryIO

from packmule.errors import UsageError
from packmule.jobs.files.unpacking.bounds import Bounds
from packmule.jobs.files.unpacking.members import Member, NotAnArchive
from packmule.jobs.files.unpacking.names import DOS, encoding_of
from packmule.jobs.files.unpacking.streams import (
    MEMORY,
    NEW,
    BrokenArchive,
    Decompressor,
    decompressed,
    lzma_filter,
    pieces_of,
)
from packmule.jobs.files.zip_directory import directory, opened
from packmule.plain_text import plain
from packmule.units import MIB

MAX_DIRECTORY = 32 * MIB
"""A directory is read whole; one of 10,000 members takes one or two."""
LOCAL, HEADER = b"PK\3\4", 30
"""How a member's own header begins, and its bytes."""
IS_LOCKED, IS_UTF8 = 0x1, 0x800
UNIX = 3
"""The system whose modes a member's attributes have."""
UNICODE_PATH = 0x7075
STORED, LZMA = 0, 14
MOST_POSITION_BITS = 4
"""Of LZMA's properties."""
METHODS = {8: "deflate", 12: "bzip2", 93: "zstd", 95: "xz"}


class ArchiveLocked(UsageError):
    """A member of an archive is protected by a password."""


def members(source: str, content: BinaryIO, bounds: Bounds, encoding: str | None) -> Iterator[Member]:
    """Yield the members in the order of their content.

    Raises `BrokenArchive`, `ArchiveLocked`, `NotAnArchive` and `ArchiveTooLarge`.
    """
    _check_directory(source, content)
    try:
        with opened(content) as archive:
            entries = archive.infolist()
            start = archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError, EOFError) as error:
        raise BrokenArchive(f"{source} is damaged: {error}") from None
    bounds.check_members(source, len(entries))
    entries.sort(key=lambda entry: entry.header_offset)
    ends = [*(entry.header_offset for entry in entries[1:]), start]
    for entry, end in zip(entries, ends, strict=False):
        if entry.header_offset < 0 or entry.header_offset + HEADER + entry.compress_size > end:
            raise BrokenArchive(
                f"{source} is damaged: {plain(entry.filename)[:200]} overlaps what comes after it"
            )
    bounds.check_bytes(source, sum(entry.file_size for entry in entries), content.seek(0, 2))
    names = _names(entries, encoding)
    for entry, name in zip(entries, names, strict=True):
        mode = entry.external_attr >> 16 if entry.create_system == UNIX else 0
        if name.endswith("/") or S_ISDIR(mode):
            fault = "it is a folder with content" if entry.file_size else None
            yield Member(name, fault=fault, is_folder=fault is None)
        elif S_ISLNK(mode):
            yield Member(name, fault="it is a link")
        elif mode and (mode & 0o170000) and not S_ISREG(mode):
            yield Member(name, fault="it is a device or a pipe")
        else:
            yield Member(name, _content(f"{source}: {plain(name)[:200]}", content, entry))


def _check_directory(source: str, content: BinaryIO) -> None:
    """Raise `BrokenArchive` unless the directory is small enough to be read."""
    found = directory(content)
    if found is None:
        raise BrokenArchive(
            f"{source} is truncated: its directory is missing, or its comment holds another one"
        )
    if found.size > MAX_DIRECTORY:
        raise BrokenArchive(
            f"{source} has a directory of {found.size:,} bytes, over the limit of {MAX_DIRECTORY:,}"
        )


def _names(entries: list[zipfile.ZipInfo], encoding: str | None) -> list[str]:
    """The name of each entry, in Unicode whatever program wrote it."""
    raw = [b"" if entry.flag_bits & IS_UTF8 else entry.orig_filename.encode(DOS) for entry in entries]
    found = encoding or encoding_of(raw)
    names = []
    for entry, name in zip(entries, raw, strict=True):
        given = _unicode_path(entry.extra, name)
        if given is not None:
            names.append(given)
        elif not name or name.isascii():
            names.append(entry.orig_filename)  # `filename` ends at a zero byte
        else:
            names.append(name.decode(found, "replace"))
    return names


def _unicode_path(extra: bytes, name: bytes) -> str | None:
    """The name in an extra field, if that belongs to `name`."""
    while len(extra) >= 4:  # noqa: PLR2004  its kind and length
        kind, length = struct.unpack_from("<HH", extra)
        if kind == UNICODE_PATH and len(extra) >= 9 and extra[4] == 1:  # noqa: PLR2004
            path = extra[9 : 4 + length]
            if struct.unpack_from("<I", extra, 5)[0] == zlib.crc32(name):
                return path.decode("utf-8", "replace")
        extra = extra[4 + length :]
    return None


def _content(name: str, content: BinaryIO, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """The bytes of one member, which must be as many as the directory says and have its checksum."""
    content.seek(entry.header_offset)
    header = content.read(HEADER)
    if len(header) < HEADER or not header.startswith(LOCAL):
        raise BrokenArchive(f"{name} is not where the directory says")
    flags, _ = struct.unpack_from("<HH", header, 6)
    if (flags | entry.flag_bits) & IS_LOCKED:
        raise ArchiveLocked(f"{name} is protected by a password: unpack it by hand")
    content.seek(sum(struct.unpack_from("<HH", header, 26)), 1)
    pieces = pieces_of(content.read, entry.compress_size)
    checksum = size = 0
    for piece in _unpacked(name, pieces, entry.compress_type, content):
        checksum = zlib.crc32(piece, checksum)
        size += len(piece)
        if size > entry.file_size:
            break
        yield piece
    if size != entry.file_size:
        raise BrokenArchive(f"{name} differs in size from the {entry.file_size:,} bytes that its header says")
    if checksum != entry.CRC:
        raise BrokenArchive(f"{name} is damaged: its checksum is wrong")


def _unpacked(name: str, pieces: Iterable[bytes], method: int, content: BinaryIO) -> Iterable[bytes]:
    if method == STORED:
        return pieces
    if method == LZMA:
        return _after_lzma(name, pieces)
    if method not in METHODS:
        raise NotAnArchive(
            f"{name} is packed with method {method}, which can't be read: pack it with deflate"
        )
    return decompressed(name, pieces, NEW[METHODS[method]], is_one=True)


def _after_lzma(name: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """LZMA in a ZIP begins with a header of its own."""
    head = b""
    rest = iter(pieces)
    for piece in rest:
        head += piece
        if len(head) >= 9:  # noqa: PLR2004  the version, and five bytes of properties
            break
    if head[2:4] != b"\5\0" or len(head) < 9:  # noqa: PLR2004
        raise BrokenArchive(f"{name} is damaged: its LZMA header is wrong")
    yield from decompressed(name, chain([head[9:]], rest), partial(_lzma, name, head[4:9]), is_one=True)


def _lzma(name: str, properties: bytes) -> Decompressor:
    found = lzma_filter(properties)
    if found["pb"] > MOST_POSITION_BITS or found["dict_size"] > MEMORY:
        raise BrokenArchive(f"{name} is damaged: its LZMA header is wrong")
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[found])
