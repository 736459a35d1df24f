"""Bombs: files whose headers promise more work than an image job may do, found before a decoder sees them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import dropwhile
from mmap import ACCESS_READ, mmap
from typing import BinaryIO

from PIL import Image, TiffImagePlugin

from packmule.errors import UsageError
from packmule.jobs.image.libtiff import silence

MAX_WORK = 1_000_000_000
"""Pixels that decoding may pass over, counted for each scan or frame."""

MAX_SCANS = 100
"""The most scans of one JPEG: a progressive photograph has about ten."""

MAX_SEGMENTS = 10_000
"""The most segments of one JPEG: profiles and metadata take a few hundred."""

MAX_CHUNKS = 100_000
"""The most chunks of one PNG: encoders make one for each 8 kB or more."""

MAX_FRAMES = 1000
"""The most frames of an animation."""

MAX_BLOCKS = 2_000_000
"""The most blocks of one GIF, each of up to 255 bytes."""

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SCAN, _END = 0xDA, 0xD9
_SCANS = re.compile(rb"\xff\xda")
_WITHOUT_LENGTH = {0x01, 0xD8}
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL_FRAMES = {0xC0, 0xC1, 0xC9}
_PNG_HEAD = 12
_LATE_METADATA = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_JPEG_IN_TIFF, _OLD_JPEG_IN_TIFF = 7, 6
_STRIP_OFFSETS, _STRIP_BYTES, _ROWS = 273, 279, 278
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325


class ImageTooLarge(UsageError, ValueError):
    """An image or a rendition exceeds a limit of pixels, memory or work."""


def refuse_bomb(content: BinaryIO, path: str) -> int:
    """The frames of a GIF, named `path` in errors; 1 for other formats. Raises `ImageTooLarge`.

    An animation may have one frame more than `MAX_FRAMES`: the rest isn't counted.
    """
    with _mapped(content) as data:
        if data[:2] == b"\xff\xd8":
            _refuse_jpeg(data, path)
        elif data[:8] == b"\x89PNG\r\n\x1a\n":
            _refuse_png(data, path)
        elif data[:4] == b"GIF8":
            return _gif_frames(data, path)
    return 1


def refuse_tiff(picture: Image.Image, content: BinaryIO, path: str) -> None:
    """Refuse a TIFF whose strips or tiles are JPEGs with too many scans. Raises `ImageTooLarge`."""
    silence()
    tags = getattr(picture, "tag_v2", {})
    compression = tags.get(TiffImagePlugin.COMPRESSION, 1)
    if compression == _OLD_JPEG_IN_TIFF:
        raise ImageTooLarge(f"{path} is a TIFF with old-style JPEG compression, whose work has no bound")
    if compression != _JPEG_IN_TIFF:
        return
    width = tags.get(_TILE_WIDTH, picture.width)
    height = tags.get(_TILE_HEIGHT, tags.get(_ROWS, picture.height))
    starts = _numbers(tags.get(_STRIP_OFFSETS, tags.get(_TILE_OFFSETS)))
    lengths = _numbers(tags.get(_STRIP_BYTES, tags.get(_TILE_BYTES)))
    # Parts that overlap would be decoded again and again.
    if len(starts) != len(lengths) or sum(lengths) > os.fstat(content.fileno()).st_size:
        raise ImageTooLarge(f"{path} is a TIFF whose parts overlap or have no length, a decompression bomb")
    with _mapped(content) as data:
        parts = zip(starts, lengths, strict=True)
        scans = sum(1 for start, length in parts for _ in _SCANS.finditer(data, start, start + length))
    if scans * width * min(height, picture.height) > MAX_WORK or scans > MAX_SCANS * max(1, len(starts)):
        raise ImageTooLarge(f"{path} is a TIFF of JPEGs with {scans:,} scans, a decompression bomb")


def has_late_metadata(content: BinaryIO) -> bool:
    """Whether a PNG says behind its pixels which way is up."""
    with _mapped(content) as data:
        behind = dropwhile(lambda chunk: chunk[0] != b"IDAT", _chunks(data))
        return any(kind == b"eXIf" or data[at : at + 22].startswith(_LATE_METADATA) for kind, at in behind)


def refuse_frames(frames: int, pixels: int, path: str) -> None:
    """Refuse an animation of that many frames with that many pixels each. Raises `ImageTooLarge`."""
    if frames > MAX_FRAMES:
        raise ImageTooLarge(
            f"{path} is an animation of over {MAX_FRAMES:,} frames, the most: make still renditions of it"
        )
    if frames * pixels > MAX_WORK:
        raise ImageTooLarge(
            f"{path} is an animation of {frames:,} frames with {pixels:,} pixels each, over {MAX_WORK:,} "
            "together: make still renditions of it"
        )


def _mapped(content: BinaryIO) -> mmap:
    """An open file, which isn't empty, as memory."""
    return mmap(content.fileno(), 0, access=ACCESS_READ)


def _numbers(value: object) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,) if isinstance(value, int) else ()


def _refuse_jpeg(data: mmap, path: str) -> None:
    scans = pixels = components = 0
    for segments, (code, position) in enumerate(_markers(data)):
        if segments >= MAX_SEGMENTS:
            raise ImageTooLarge(f"{path} is a JPEG with over {MAX_SEGMENTS:,} segments, a decompression bomb")
        if code in _FRAMES:
            head = data[position + 3 : position + 8]
            pixels = max(pixels, int.from_bytes(head[:2]) * int.from_bytes(head[2:4]))
            components = head[4] if code in _SEQUENTIAL_FRAMES and len(head) > 4 else 0  # noqa: PLR2004
        elif code == _SCAN:
            scans += 1
            # A decoder needs no other scan than a sequential one of all components.
            if scans == 1 and data[position + 2 : position + 3] == bytes([components]):
                return
            if scans > MAX_SCANS or scans * pixels > MAX_WORK:
                raise ImageTooLarge(
                    f"{path} is a JPEG with {scans:,} or more scans of {pixels:,} pixels, a decompression "
                    f"bomb: there may be {MAX_SCANS} scans, and {MAX_WORK:,} pixels in all of them"
                )


def _markers(data: mmap) -> Iterator[tuple[int, int]]:
    """Yield the code of each marker before the end of the image, and where its segment begins."""
    position = 2
    while (marker := _MARKER.search(data, position)) and data[marker.end() - 1] != _END:
        code, position = data[marker.end() - 1], marker.end()
        yield code, position
        if code not in _WITHOUT_LENGTH:
            position += int.from_bytes(data[position : position + 2])


def _refuse_png(data: mmap, path: str) -> None:
    if any(number >= MAX_CHUNKS for number, _ in enumerate(_chunks(data), start=1)):
        raise ImageTooLarge(f"{path} is a PNG with over {MAX_CHUNKS:,} chunks, a decompression bomb")


def _chunks(data: mmap) -> Iterator[tuple[bytes, int]]:
    """Yield the kind of each chunk of a PNG before its end, and where its content begins."""
    position = 8
    while position + _PNG_HEAD <= len(data) and (kind := data[position + 4 : position + 8]) != b"IEND":
        yield kind, position + 8
        position += _PNG_HEAD + int.from_bytes(data[position : position + 4])


def _gif_frames(data: mmap, path: str) -> int:
    """How many frames a GIF has, and that none exceeds its canvas, which decoders would enlarge for it."""
    canvas = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    position = 13 + _table(data, 10)
    frames = blocks = 0
    while data[position : position + 1] in {b"!", b","} and frames <= MAX_FRAMES:
        if data[position] == ord(","):
            left, top, width, height = (
                int.from_bytes(data[at : at + 2], "little") for at in range(position + 1, position + 9, 2)
            )
            frames += 1
            if frames > 1 and (left + width > canvas[0] or top + height > canvas[1]):
                raise ImageTooLarge(f"{path} is a GIF with a frame beyond its canvas, a decompression bomb")
            canvas = max(canvas[0], left + width), max(canvas[1], top + height)
            position += 11 + _table(data, position + 9)
        else:
            position += 2
        while length := int.from_bytes(data[position : position + 1]):
            position += 1 + length
            blocks += 1
            if blocks > MAX_BLOCKS:
                raise ImageTooLarge(f"{path} is a GIF with over {MAX_BLOCKS:,} blocks, a decompression bomb")
        position += 1
    return max(1, frames)


def _table(data: mmap, position: int) -> int:
    """The bytes of the colour table that the flags at `position` announce."""
    flags = int.from_bytes(data[position : position + 1])
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
