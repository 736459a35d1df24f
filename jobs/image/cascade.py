"""Many renditions from one decode: each is made from the smallest available image that is large enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from PIL import Image

from packmule.jobs.image.colour import ToSRGB, eight_bit
from packmule.jobs.image.rendition import Plan, Size
from packmule.jobs.image.resize import resize
from packmule.jobs.image.source import SIDEWAYS, Source, readable

T = TypeVar("T")

ENOUGH = 1.9
"""How many times longer than a rendition's sides those of its origin must be."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that turns an image with this EXIF orientation upright."""


class Cascade:
    """The decoded pixels of `source` as stored; only small images are turned upright and converted to sRGB.

    A JPEG is decoded at the smallest eighth of its size that suffices for the largest of `frames`, the
    upright sizes that the whole source will have. Raises `UnreadableImage`.
    """

    def __init__(self, source: Source, frames: Sequence[Size]) -> None:
        self._orientation = source.orientation
        largest = self._stored((max(width for width, _ in frames), max(height for _, height in frames)))
        with readable(source.path):
            source.picture.draft(None, largest)
            source.picture.load()
            decoded = eight_bit(source.picture)
        self._images = [decoded]
        self._to_srgb = ToSRGB(source.picture.info.get("icc_profile"), decoded.mode)

    def rendition(self, plan: Plan) -> Image.Image:
        """The image for `plan`, upright and in sRGB (`L`, `RGB` or `RGBA`). Call it for the largest first."""
        frame, size = self._stored(plan.frame), self._stored(plan.size)
        origin = next((image for image in reversed(self._images) if _serves(image, frame)), self._images[0])
        small = resize(origin, size, _box(origin.size, self._stored(plan.crop)))
        if plan.shows_all:
            self._images.append(small)
        small = self._to_srgb(small)
        operation = UPRIGHT.get(self._orientation)
        return small if operation is None else small.transpose(operation)

    def _stored(self, pair: tuple[T, T]) -> tuple[T, T]:
        """An upright width and height, as they are in the stored image."""
        return (pair[1], pair[0]) if self._orientation in SIDEWAYS else pair


def _serves(image: Image.Image, frame: Size) -> bool:
    ample = image.width >= ENOUGH * frame[0] and image.height >= ENOUGH * frame[1]
    return ample or image.size == frame


def _box(size: Size, crop: tuple[float, float]) -> tuple[float, float, float, float]:
    """The centred part `crop` of an image of that size, as left, top, right and bottom."""
    left, top = size[0] * (1 - crop[0]) / 2, size[1] * (1 - crop[1]) / 2
    return left, top, size[0] - left, size[1] - top
