"""Encoding: an sRGB image as JPEG, PNG or WebP, without metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from PIL import Image

from packmule.jobs.image.rendition import Format


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a format is written: its file suffix, the longest side in pixels, and Pillow's options."""

    suffix: str
    max_side: int
    options: dict[str, Any] = field(default_factory=dict)


ENCODINGS: dict[Format, Encoding] = {
    "jpeg": Encoding(".jpg", 65_500),
    "png": Encoding(".png", 2**31 - 1),
    # Method 2 rather than 4 takes 40 % less time for 4 % more bytes.
    "webp": Encoding(".webp", 16_383, {"method": 2}),
}


def encoded(image: Image.Image, format: Format, quality: int) -> bytes:
    """`image` (mode `L`, `RGB` or `RGBA`) as a file of that format; `quality` (1 to 100) is not for PNG.

    JPEG has no transparency, so there the image gets a white background.
    """
    if format == "jpeg" and image.mode == "RGBA":
        image = _on_white(image)
    # Pillow's encoders would write some of the decoder's metadata: profile, comment, resolution.
    image.info = {}
    file = BytesIO()
    image.save(file, format.upper(), quality=quality, **ENCODINGS[format].options)
    return file.getvalue()


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white
