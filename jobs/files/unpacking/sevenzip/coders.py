"""How a stream in a 7z archive was packed, and its bytes, one coder behind the other."""

from __future__ import annotations

import lzma
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from packmule.jobs.files.unpacking.members import NotAnArchive
from packmule.jobs.files.unpacking.streams import (
    CHUNK,
    FAULTS,
    MEMORY,
    NEW,
    BrokenArchive,
    Decompressor,
    lzma_filter,
    pieces_of,
)
from packmule.jobs.files.unpacking.zips import ArchiveLocked
from packmule.units import KIB

COPY, LZMA, LZMA2, DELTA = b"\0", b"\3\1\1", b"\x21", b"\3"
AES = b"\6\xf1\7\1"
PLAIN: dict[bytes, str] = {b"\4\1\x08": "deflate", b"\4\2\2": "bzip2", b"\4\xf7\x11\1": "zstd"}
JUMPS = {
    b"\4": lzma.FILTER_X86, b"\3\3\1\3": lzma.FILTER_X86,
    b"\5": lzma.FILTER_POWERPC, b"\3\3\2\5": lzma.FILTER_POWERPC,
    b"\6": lzma.FILTER_IA64, b"\3\3\4\1": lzma.FILTER_IA64,
    b"\7": lzma.FILTER_ARM, b"\3\3\5\1": lzma.FILTER_ARM,
    b"\x08": lzma.FILTER_ARMTHUMB, b"\3\3\7\1": lzma.FILTER_ARMTHUMB,
    b"\x09": lzma.FILTER_SPARC, b"\3\3\x08\5": lzma.FILTER_SPARC,
}  # fmt: skip
"""Filters for programs, which make addresses of jumps alike."""
OTHERS = {
    b"\3\3\1\x1b": "BCJ2", b"\3\4\1": "PPMd", b"\4\1\x09": "Deflate64", b"\4\xf7\x11\2": "Brotli",
    b"\x0a": "ARM64", b"\x0b": "RISCV",
}  # fmt: skip
BLOCK = 64 * KIB
"""Bytes of a block that LZMA2 has as they are."""


@dataclass(frozen=True, slots=True)
class Coder:
    """A step of packing: the number of its method, and its properties."""

    method: bytes
    properties: bytes = b""


@dataclass(slots=True)
class Packed:
    """A stream of `length` packed bytes at `position`, made of as many `inputs`.

    Its coders are in the order in which they unpack it, each with the bytes that it yields as one of the
    `sizes`; `is_chain` is false if one of them has several inputs. `files` are the sizes and checksums of
    what one behind the other makes the whole, whose own checksum is `crc`.
    """

    coders: list[Coder]
    is_chain: bool
    inputs: int = 1
    sizes: list[int] = field(default_factory=list)
    position: int = 0
    length: int = 0
    crc: int | None = None
    files: list[tuple[int, int | None]] = field(default_factory=list)

    def unpacked(self, source: str, content: BinaryIO) -> Iterator[bytes]:
        """Yield what is packed, at most `CHUNK` bytes at a time.

        Raises `BrokenArchive`, `ArchiveLocked` and `NotAnArchive`, which name `source`.
        """
        for coder in self.coders:
            if coder.method == AES:
                raise ArchiveLocked(f"{source} is protected by a password: unpack it by hand")
            if not self.is_chain or coder.method in OTHERS:
                name = OTHERS.get(coder.method, "several streams")
                raise NotAnArchive(f"{source} is packed with {name}, which can't be read: pack it with LZMA2")
        content.seek(self.position)
        pieces: Iterator[bytes] = pieces_of(content.read, self.length)
        for coder, size in zip(self.coders, self.sizes, strict=True):
            pieces = _decoded(source, coder, pieces, size)
        return pieces


def _decoded(source: str, coder: Coder, pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """What one coder makes of its input."""
    method, properties = coder.method, coder.properties
    if method == COPY:
        return _of_size(source, pieces, size)
    if method in PLAIN:
        return _decompressed(source, pieces, NEW[PLAIN[method]], size)
    try:
        if method == LZMA:
            filters = [lzma_filter(properties)]
        elif method == LZMA2:
            filters = [{"id": lzma.FILTER_LZMA2, "dict_size": _dictionary(properties[0])}]
        else:
            filters = [_filter(source, method, properties), {"id": lzma.FILTER_LZMA2, "dict_size": BLOCK}]
            pieces = _as_lzma2(pieces)
    except (IndexError, struct.error):
        raise BrokenArchive(f"{source} is damaged: a method has wrong properties") from None
    if filters[-1]["dict_size"] > MEMORY:
        raise NotAnArchive(
            f"{source} needs {filters[-1]['dict_size']:,} bytes of memory, over the limit of {MEMORY:,}: "
            "pack it with a smaller dictionary"
        )
    return _decompressed(
        source, pieces, partial(lzma.LZMADecompressor, lzma.FORMAT_RAW, filters=filters), size
    )


def _dictionary(code: int) -> int:
    """The size that one byte says: 4 KiB, 6, 8, 12 and so on."""
    return 2**32 - 1 if code >= 40 else (2 | code & 1) << (code // 2 + 11)  # noqa: PLR2004


def _filter(source: str, method: bytes, properties: bytes) -> dict[str, int]:
    if method == DELTA:
        return {"id": lzma.FILTER_DELTA, "dist": properties[0] + 1}
    if method not in JUMPS:
        raise NotAnArchive(
            f"{source} is packed with the method {method.hex()}, which can't be read: pack it with LZMA2"
        )
    return {"id": JUMPS[method], "start_offset": int.from_bytes(properties, "little")}


def _as_lzma2(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes as LZMA2 that compresses nothing: no filter is to be had alone."""
    is_first = True
    for piece in pieces:
        for at in range(0, len(piece), BLOCK):
            block = piece[at : at + BLOCK]
            yield struct.pack(">BH", 1 if is_first else 2, len(block) - 1) + block
            is_first = False
    yield b"\0"


def _of_size(source: str, pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    for piece in pieces:
        size -= len(piece)
        yield piece
    if size:
        raise BrokenArchive(f"{source} is damaged: a stream's size differs from what its header says")


def _decompressed(
    source: str, pieces: Iterator[bytes], new: Callable[[], Decompressor], size: int
) -> Iterator[bytes]:
    """The first `size` bytes: not every method marks its end."""
    try:
        reader = new()
        data = b""
        while size > 0:
            if reader.eof:
                data = reader.unused_data or next(pieces, b"")
                reader = new()
            elif reader.needs_input:
                data = next(pieces, b"")
            if not data and reader.needs_input:
                raise BrokenArchive(f"{source} is truncated: its end is missing")
            found = reader.decompress(data, min(size, CHUNK))
            data = b""
            size -= len(found)
            if found:
                yield found
    except FAULTS as error:
        raise BrokenArchive(f"{source} is damaged: {error}") from None
