"""Memory: what decoding an image and making renditions of it takes, known from its header."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from PIL import Image

from packmule.jobs import context
from packmule.jobs.host_shares import HostMemory
from packmule.jobs.image.hostile import ImageTooLarge
from packmule.jobs.image.plan import Plan
from packmule.units import GIB, MIB

MAX_MEMORY = 2 * GIB
"""What an image job may allocate; its process can't get more."""

USABLE = MAX_MEMORY * 3 // 4
"""What an estimate may come to; the rest is for the interpreter, gaps between blocks, and encoded files."""

_DECODED = {"1": 2, "L": 1, "P": 5, "RGB": 4, "RGBA": 4, "CMYK": 4}
_SIXTEEN_BITS = 3
_CONVERTED = 8
"""Bytes per pixel of an image as it is decoded and, in other modes than those resized, converted."""

_DECODER = {"GIF": 12, "TIFF": 8, "WEBP": 16, "AVIF": 16, "HEIF": 16}
_COEFFICIENTS = 2
"""Bytes per pixel that a decoder takes beside the image, and a progressive JPEG's for each channel."""

_ENCODER = {"jpeg": 2, "png": 4, "webp": 12, "avif": 40, "gif": 8}


def decoding(picture: Image.Image, pixels: int) -> int:
    """The bytes that decoding takes at the size that `picture` has now, of `pixels` pixels in the file."""
    per_pixel = _SIXTEEN_BITS if picture.mode.startswith("I;16") else _DECODED.get(picture.mode, _CONVERTED)
    if picture.has_transparency_data:
        per_pixel = max(per_pixel, _CONVERTED - 4 * (picture.mode == "RGBA"))
    width, height = picture.size
    needed = width * height * (per_pixel + _DECODER.get(str(picture.format), 0))
    if picture.info.get("progressive"):
        needed += pixels * _COEFFICIENTS * len(picture.getbands())
    return needed


def take(path: str, needed: int, beside: int = 0) -> None:
    """Take `needed` bytes to decode the image `path`, and more `beside`, of what this machine's jobs share.

    It waits until they are free. Raises `ImageTooLarge` if the image takes too much for any job.
    """
    if needed > USABLE:
        raise ImageTooLarge(
            f"{path} takes {needed // MIB:,} MiB to decode, but an image job has {USABLE // MIB:,} MiB"
        )
    if shared := _shared():
        shared.take(needed + beside)


@contextmanager
def given_back() -> Iterator[None]:
    """Give back at the end of this block what is taken in it."""
    try:
        yield
    finally:
        if shared := _shared():
            shared.give_back()


def _shared() -> HostMemory | None:
    found = context.resources.get(HostMemory)
    return found if isinstance(found, HostMemory) else None


def of_renditions(path: str, plans: Sequence[Plan], frames: int) -> int:
    """The bytes that renditions of `path` take beside it. Raises `ImageTooLarge` if they are too many."""
    kept, encoding = 0, 0
    for plan in plans:
        pixels = plan.canvas[0] * plan.canvas[1]
        kept += pixels * 4 * (frames if plan.animated else 1)
        encoding = max(encoding, pixels * _ENCODER[plan.format])
    if kept + encoding > USABLE:
        raise ImageTooLarge(
            f"the renditions of {path} take {(kept + encoding) // MIB:,} MiB together, but an image "
            f"job has {USABLE // MIB:,} MiB: ask for smaller or fewer"
        )
    return kept + encoding
