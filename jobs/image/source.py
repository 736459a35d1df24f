"""Opening an untrusted image: its format, size and orientation, before its pixels are decoded."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from PIL import (  # all here, so that isolated processes have them when they are forked
    AvifImagePlugin,
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from packmule.errors import UsageError
from packmule.jobs.image import memory
from packmule.jobs.image.hostile import ImageTooLarge, has_late_metadata, refuse_bomb, refuse_tiff
from packmule.jobs.image.plan import stored
from packmule.jobs.image.rendition import Format, Size
from packmule.plain_text import one_line

# Each thread of a decoder reserves address space, which is what bounds a job's memory.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

READABLE = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
"""Pillow's decoders that are safe for untrusted files; some others, such as EPS, start programs."""

FORMATS: dict[str, Format] = {
    "JPEG": "jpeg",
    "MPO": "jpeg",
    "PNG": "png",
    "WEBP": "webp",
    "AVIF": "avif",
    "GIF": "gif",
}
"""Formats that renditions can have, too."""

ANIMATIONS = frozenset({"GIF", "WEBP", "PNG", "AVIF"})

DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
)
"""Errors that Pillow's decoders raise for a broken file."""

_SCALES = ((8, 2.5), (4, 2.5), (2, 1.25))
"""By what a JPEG's decoder can divide its sides, and by how much the result must exceed what is made of it.

Its own reduction loses detail next to the limit of the pixels. A quarter takes hardly less time than a half.
"""

_LONGEST_REASON = 200
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


class UnreadableImage(UsageError, ValueError):
    """A file is not an image, is broken, or has an unsupported format."""


@dataclass(frozen=True, slots=True)
class Source:
    """An open image.

    `size` is in pixels, upright; `kept` is its format if renditions can have it too. An animation has several
    `frames`, a TIFF may have several `pages`.
    """

    path: str
    picture: Image.Image
    format: str
    kept: Format | None
    size: Size
    orientation: int
    has_alpha: bool
    frames: int
    pages: bool

    def decode(self, frame: Size | None, beside: int = 0) -> tuple[float, float] | None:
        """Decode the pixels; of a JPEG fewer if they suffice for `frame`, as stored.

        Then it returns how many of them the image has: the last column and row may lie partly outside. What
        is made of them takes so many bytes `beside`. Raises `UnreadableImage`, or `ImageTooLarge` for too
        much memory.
        """
        whole, drafted = self.picture.size, None
        with readable(self.path):
            scale = next((each for each, least in _SCALES if frame and _fits(frame, whole, each * least)), 1)
            if scale > 1:
                drafted = self.picture.draft(None, (whole[0] // scale, whole[1] // scale))
            memory.take(self.path, memory.decoding(self.picture, self.size[0] * self.size[1]), beside)
            self.picture.load()
        return drafted and drafted[1][2:]


def _fits(frame: Size, whole: Size, scale: float) -> bool:
    return frame[0] * scale <= whole[0] and frame[1] * scale <= whole[1]


@contextmanager
def opened(content: BinaryIO, path: str, max_pixels: int) -> Iterator[Source]:
    """The image in an open file, named `path` in errors; if possible, its pixels are not decoded yet.

    Raises `UnreadableImage`, or `ImageTooLarge` for more than `max_pixels` pixels, and for bombs.
    """
    if not os.fstat(content.fileno()).st_size:
        raise UnreadableImage(f"{path} is empty")
    gif_frames = refuse_bomb(content, path)
    # Pillow's own limit is per process; ours is per job, and is checked on the header.
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    try:
        with readable(path), warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(content, formats=(*READABLE, *_heic(content, path)))
    except Image.DecompressionBombError:
        raise ImageTooLarge(f"{path} has more pixels than the limit of {max_pixels:,}") from None
    with picture:
        width, height = picture.size
        if width * height > max_pixels:
            raise ImageTooLarge(f"{path} has {width}x{height} pixels, more than the limit of {max_pixels:,}")
        kind = str(picture.format)
        with readable(path):
            if kind == "TIFF":
                refuse_tiff(picture, content, path)
            if kind == "PNG" and has_late_metadata(content):  # its size upright isn't known before
                memory.take(path, memory.decoding(picture, width * height), memory.USABLE)
                picture.load()
            several = bool(getattr(picture, "is_animated", False)) if kind != "GIF" else gif_frames > 1
            animated = several and kind in ANIMATIONS
            frames = (
                (gif_frames if kind == "GIF" else int(getattr(picture, "n_frames", 1))) if animated else 1
            )
        # Pillow turns a TIFF upright by itself.
        orientation = 1 if kind == "TIFF" else _orientation(picture)
        # Few colours, as those of a GIF, don't suffice for what resizing makes of them.
        kept = None if kind == "GIF" and not animated else FORMATS.get(kind)
        yield Source(
            path,
            picture,
            FORMATS.get(kind, "heic" if kind == "HEIF" else kind.lower()),
            kept,
            stored((width, height), orientation),
            orientation,
            picture.has_transparency_data,
            frames,
            several and not animated and kind != "MPO",
        )


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn a decoder's error in this block into an `UnreadableImage` that names `path`."""
    try:
        yield
    except UsageError:
        raise
    except DECODER_ERRORS as error:
        # Pillow's own text would name the local file.
        reason = "" if isinstance(error, UnidentifiedImageError) else one_line(str(error), _LONGEST_REASON)
        raise UnreadableImage(
            f"{path} is not a readable image (JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP or HEIC)"
            + (reason and f": {reason}")
        ) from error


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) if it is missing or broken."""
    try:
        # A PNG's own method would decode its pixels.
        orientation = Image.Image.getexif(picture).get(ExifTags.Base.Orientation)
    except DECODER_ERRORS:
        return 1
    return orientation if isinstance(orientation, int) and orientation in range(1, 9) else 1


def _heic(content: BinaryIO, path: str) -> tuple[str, ...]:
    """The decoder of a HEIC image, if the file is one. Raises `UnreadableImage` if it isn't installed."""
    content.seek(0)
    head = content.read(12)
    brand = head[8:]
    if head[4:8] != b"ftyp" or brand not in _HEIC_BRANDS:
        return ()
    try:
        import pillow_heif  # noqa: PLC0415  an extra, loaded only for its files
    except ImportError:
        if brand in {b"mif1", b"msf1"}:
            return ()  # An AVIF, perhaps.
        raise UnreadableImage(
            f"{path} is a HEIC image, and its decoder isn't installed: pip install 'packmule[heic]'"
        ) from None
    pillow_heif.register_heif_opener(decode_threads=1)
    return ("HEIF",)
