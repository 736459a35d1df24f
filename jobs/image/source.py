"""Opening an untrusted image: its format, size and orientation, and the refusal of hostile files."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from packmule.errors import UsageError
from packmule.jobs.image.rendition import Format, Size

READABLE = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
"""Pillow's decoders that are safe for untrusted files; some others, such as EPS, start programs."""

KEPT: dict[str, Format] = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "WEBP": "webp"}
MAX_SCANS = 100
"""The most scans of one JPEG: a progressive photograph has about ten, and each is a pass over all pixels."""

SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations of images stored with width and height swapped."""

DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
)
"""Errors that Pillow's decoders raise for a broken file."""

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SCAN, _END = 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, 0xD8}
_SEQUENTIAL_FRAMES = {0xC0, 0xC1, 0xC9}


class UnreadableImage(UsageError, ValueError):
    """A file is not an image, is broken, or has an unsupported format."""


class ImageTooLarge(UsageError, ValueError):
    """An image or a rendition exceeds the limit of pixels or work."""


@dataclass(frozen=True, slots=True)
class Source:
    """An open image. `size` is in pixels, upright; `kept` is its format if renditions can have it too."""

    path: str
    picture: Image.Image
    format: str
    kept: Format | None
    size: Size
    orientation: int
    has_alpha: bool


@contextmanager
def opened(file: Path, path: str, max_pixels: int) -> Iterator[Source]:
    """The image in `file`, named `path` in errors; if possible, its pixels are not decoded yet.

    Raises `UnreadableImage`, or `ImageTooLarge` for more than `max_pixels` pixels or `MAX_SCANS` scans.
    """
    # Pillow's own limit is per process; ours is per job, and is checked on the header.
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    try:
        with readable(path):
            picture = Image.open(file, formats=READABLE)
    except Image.DecompressionBombError:
        raise ImageTooLarge(f"{path} has more pixels than the limit of {max_pixels:,}") from None
    with picture:
        width, height = picture.size
        if width * height > max_pixels:
            raise ImageTooLarge(f"{path} has {width}x{height} pixels, more than the limit of {max_pixels:,}")
        kind = str(picture.format)
        kept = KEPT.get(kind)
        if kept == "jpeg":
            _refuse_many_scans(file, path)
        if kept == "png":
            with readable(path):
                picture.load()  # A PNG may have its EXIF data after its pixels.
        # Pillow turns a TIFF upright by itself.
        orientation = 1 if kind == "TIFF" else _orientation(picture)
        size = (height, width) if orientation in SIDEWAYS else (width, height)
        yield Source(
            path, picture, kept or kind.lower(), kept, size, orientation, picture.has_transparency_data
        )


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn a decoder's error in this block into an `UnreadableImage` that names `path`."""
    try:
        yield
    except DECODER_ERRORS as error:
        reason = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        raise UnreadableImage(
            f"{path} is not a readable image (JPEG, PNG, WebP, GIF, TIFF or BMP){reason}"
        ) from error


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) if it is missing or broken."""
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except DECODER_ERRORS:
        return 1
    return orientation if isinstance(orientation, int) and orientation in range(1, 9) else 1


def _refuse_many_scans(file: Path, path: str) -> None:
    with file.open("rb") as content, mmap(content.fileno(), 0, access=ACCESS_READ) as data:
        # The marker's bytes also occur by chance: only many of them justify the exact count.
        if _in_one_scan(data) or not _has_many(data, bytes([0xFF, _SCAN])):
            return
        scans = 0
        for code, _ in _markers(data):
            scans += code == _SCAN
            if scans > MAX_SCANS:
                raise ImageTooLarge(f"{path} is a JPEG with over {MAX_SCANS} scans, a decompression bomb")


def _in_one_scan(data: mmap) -> bool:
    """Whether the first scan is sequential and has all components, so that a decoder needs no other."""
    components = 0
    for code, position in _markers(data):
        if code in _SEQUENTIAL_FRAMES:
            components = data[position + 7]
        elif code == _SCAN:
            return data[position + 2] == components
    return False


def _markers(data: mmap) -> Iterator[tuple[int, int]]:
    """Yield the code of each marker before the end of the image, and where its segment begins."""
    position = 2
    while (marker := _MARKER.search(data, position)) and data[marker.end() - 1] != _END:
        code, position = data[marker.end() - 1], marker.end()
        yield code, position
        if code not in _WITHOUT_LENGTH:
            position += int.from_bytes(data[position : position + 2])


def _has_many(data: mmap, pattern: bytes) -> bool:
    position = -1
    for _ in range(MAX_SCANS + 1):
        position = data.find(pattern, position + 1)
        if position < 0:
            return False
    return True
