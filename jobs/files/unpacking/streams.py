"""Streams of bytes that were compressed, read in pieces that are never larger than asked for."""

from __future__ import annotations

import bz2
import lzma
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from packmule.errors import UsageError
from packmule.units import MIB

CHUNK = MIB
READ = MIB // 8
MEMORY = 256 * MIB
"""What a decompressor may take for what it looks back at."""
FAULTS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
"""What decompressors raise for broken content; `OSError` is bz2's."""


class BrokenArchive(UsageError):
    """An archive is cut, damaged, or not what it says it is."""


class Decompressor(Protocol):
    """What bz2, lzma and zstd have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Inflater:
    """zlib's decompressor, to be used like the others."""

    def __init__(self, window: int) -> None:
        self._inflate = zlib.decompressobj(window)
        self._rest = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most `max_length` bytes."""
        found = self._inflate.decompress(self._rest + data, max_length)
        self._rest = self._inflate.unconsumed_tail
        # It may have more to give though it has read everything.
        self.needs_input = not self._rest and len(found) < max_length
        return found


class Zstd:
    """The decompressor for zstd, which comes with an extra; its error is a `ValueError`."""

    def __init__(self) -> None:
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415  who enqueues does without it
        else:
            from backports import zstd  # noqa: PLC0415
        options = {int(zstd.DecompressionParameter.window_log_max): MEMORY.bit_length() - 1}
        self._inner: Decompressor = zstd.ZstdDecompressor(options=options)
        self._error: type[Exception] = zstd.ZstdError

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return self._inner.needs_input

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most `max_length` bytes."""
        try:
            return self._inner.decompress(data, max_length)
        except self._error as error:
            raise ValueError(str(error)) from None


NEW: dict[str, Callable[[], Decompressor]] = {
    "deflate": lambda: Inflater(-zlib.MAX_WBITS),
    "gzip": lambda: Inflater(zlib.MAX_WBITS + 16),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY),
    "zstd": Zstd,
}
"""A new decompressor by the name of the method."""


def lzma_filter(properties: bytes) -> dict[str, int]:
    """The filter that five bytes of an LZMA stream's properties describe. Raises `struct.error`."""
    settings, dictionary = struct.unpack("<BI", properties)
    return {
        "id": lzma.FILTER_LZMA1,
        "dict_size": max(dictionary, 4096),
        "lc": settings % 9,
        "lp": settings // 9 % 5,
        "pb": settings // 45,
    }


def decompressed(
    source: str, pieces: Iterable[bytes], new: Callable[[], Decompressor], is_one: bool = False
) -> Iterator[bytes]:
    """Yield what `pieces` were compressed from, at most `CHUNK` bytes at a time.

    Several streams one behind another are one, unless `is_one`; zeros behind the last are padding. Raises
    `BrokenArchive`, which names `source`.
    """
    reader = new()
    has_begun = False
    try:
        for piece in pieces:
            data = piece
            while data or (has_begun and not reader.needs_input and not reader.eof):
                if reader.eof:
                    data = data.lstrip(b"\0") if not is_one else data
                    if not data:
                        break
                    if is_one:
                        raise BrokenArchive(f"{source} has more bytes than its header says")
                    reader = new()
                has_begun = True
                if found := reader.decompress(data, CHUNK):
                    yield found
                data = reader.unused_data if reader.eof else b""
    except FAULTS as error:
        raise BrokenArchive(f"{source} is damaged: {error}") from None
    if has_begun and not reader.eof:
        raise BrokenArchive(f"{source} is truncated: its end is missing")


def pieces_of(read: Callable[[int], bytes], size: int | None = None) -> Iterator[bytes]:
    """Yield `size` bytes, or all that there are, as they come."""
    left = size
    while left is None or left > 0:
        piece = read(READ if left is None else min(READ, left))
        if not piece:
            return
        yield piece
        left = None if left is None else left - len(piece)
