"""Many renditions from one decode: each is made from the smallest available image that is large enough."""

from __future__ import annotations

from PIL import Image

from packmule.jobs.image.colour import ToSRGB
from packmule.jobs.image.plan import Box, Plan, stored, stored_box
from packmule.jobs.image.rendition import Size
from packmule.jobs.image.resize import crisper, resize

ENOUGH = 1.9
"""How many times longer than a rendition's sides those of its origin must be."""

SOFT = 2.5
CRISPNESS = 0.5
"""Two reductions, the decoder's and ours, soften what is less than SOFT times smaller than their middle.

This share of what a blur would lose makes up for it, over how many times smaller it is:
`benchmarks/image.py` compares with one reduction.
"""

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
    """The pixels `decoded`, as stored; only small images are turned upright and converted to sRGB.

    If the decoder has left pixels out, `extent` says how many of them the source covers.
    """

    def __init__(
        self, decoded: Image.Image, to_srgb: ToSRGB, extent: tuple[float, float] | None = None
    ) -> None:
        self._images = [decoded]
        self._to_srgb = to_srgb
        self._extent = extent

    def rendition(self, plan: Plan) -> Image.Image:
        """The image for `plan`, upright and in sRGB (`L`, `RGB` or `RGBA`). Call it for the largest first."""
        origin = next(
            (image for image in reversed(self._images) if _serves(image, plan.frame)), self._images[0]
        )
        size = stored(plan.size, plan.orientation)
        reduced = self._extent if origin is self._images[0] else None
        box = _pixels(reduced or origin.size, stored_box(plan.part, plan.orientation))
        small = resize(origin, size, box)
        ratio = min((box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1])
        if reduced and 1 < ratio < SOFT:
            small = crisper(small, CRISPNESS / ratio)
        # What is made from an enlargement would show its blur.
        if plan.shows_all and small.width <= origin.width and small.height <= origin.height:
            self._images.append(small)
        small = self._to_srgb(small)
        operation = UPRIGHT.get(plan.orientation)
        return small if operation is None else small.transpose(operation)


def _serves(image: Image.Image, frame: Size) -> bool:
    ample = image.width >= ENOUGH * frame[0] and image.height >= ENOUGH * frame[1]
    return ample or image.size == frame


def _pixels(size: tuple[float, float], part: Box) -> Box:
    left, top, right, bottom = part
    return left * size[0], top * size[1], right * size[0], bottom * size[1]
