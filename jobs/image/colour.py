"""Colour: eight bits per channel before resizing, and sRGB after it, when few pixels are left."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from itertools import product
from typing import cast

from PIL import Image, ImageCms

from packmule.jobs.image.rendition import Size
from packmule.jobs.image.resize import difference

RESIZABLE = frozenset({"L", "RGB", "RGBA", "CMYK"})
_SRGB = ImageCms.createProfile("sRGB")
_ROWS = 64
_SAME = 2
"""Steps of 255 by which a profile may differ from sRGB and still count as sRGB."""


def eight_bit(picture: Image.Image) -> Image.Image:
    """`picture` in one of the modes `L`, `RGB`, `RGBA` and `CMYK`.

    Raises `ValueError` for 32-bit samples, because the file doesn't say their range.
    """
    if picture.mode.startswith("I;16"):
        grey = Image.new("L", picture.size)
        for box in strips(picture.size):
            # A plain conversion would clip everything above 255 to white.
            strip = picture.crop(box).convert("I").point(lambda value: value * (1 / 257) + 0.5)
            grey.paste(strip.convert("L"), box)
        return grey
    if picture.mode in {"I", "F"}:
        raise ValueError("its samples have 32 bits: save it with 8 or 16")
    if picture.has_transparency_data:
        return picture if picture.mode == "RGBA" else picture.convert("RGBA")
    if picture.mode in RESIZABLE:
        return picture
    return picture.convert("L" if picture.mode == "1" else "RGB")


def strips(size: Size) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of a few rows each, for work on a large image that would copy it."""
    for top in range(0, size[1], _ROWS):
        yield 0, top, size[0], min(top + _ROWS, size[1])


class ToSRGB:
    """Converts images of one mode from the colour space that `profile` (ICC bytes, or None) describes."""

    def __init__(self, profile: bytes | None, mode: str) -> None:
        self.mode = mode if mode in {"L", "RGBA"} else "RGB"
        self._transform = _transform(profile, mode) if profile else None

    def __call__(self, image: Image.Image) -> Image.Image:
        """`image` in sRGB, as `L`, `RGB` or `RGBA`."""
        if self._transform is not None:
            image = _applied(self._transform, image)
        return image if image.mode == self.mode else image.convert(self.mode)


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """A transform from `profile` to sRGB; None if it is broken, for other channels, or changes nothing."""
    target = "RGBA" if mode == "RGBA" else "RGB"
    try:
        transform = ImageCms.buildTransform(ImageCms.ImageCmsProfile(BytesIO(profile)), _SRGB, mode, target)
    except (ImageCms.PyCMSError, OSError):
        return None
    if mode == "CMYK":
        return transform
    # Most photographs have a profile equivalent to sRGB: a few colours show it, to save converting all.
    sample = _sample().convert(mode)
    changed = difference(sample.convert("RGB"), _applied(transform, sample).convert("RGB"))
    return transform if changed > _SAME else None


def _applied(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    # It returns None only when it works in place.
    return cast(Image.Image, ImageCms.applyTransform(image, transform))


def _sample() -> Image.Image:
    steps = (0, 36, 73, 109, 146, 182, 219, 255)
    sample = Image.new("RGB", (64, 8))
    sample.putdata(list(product(steps, repeat=3)))
    return sample
