"""Trimming: the part of an image inside a border of one colour."""

from __future__ import annotations

from PIL import Image, ImageChops

from packmule.jobs.image.colour import strips
from packmule.jobs.image.plan import WHOLE, Box


def inside_border(image: Image.Image, tolerance: int) -> Box:
    """The part of `image`, in shares, without the border that has the colour of its top left pixel.

    A border's colour may vary by `tolerance` steps of 255. An image of one colour is all inside.
    """
    corner = image.getpixel((0, 0))
    if image.mode == "RGBA" and isinstance(corner, tuple) and corner[3] <= tolerance:
        image, corner = image.getchannel("A"), 0
    found: tuple[int, int, int, int] | None = None
    for box in strips(image.size):
        strip = image.crop(box)
        differs = ImageChops.difference(strip, Image.new(image.mode, strip.size, corner))
        bands = [band.point(lambda value: 255 * (value > tolerance)) for band in differs.split()]
        for inner in (band.getbbox() for band in bands):
            if inner:
                placed = inner[0], inner[1] + box[1], inner[2], inner[3] + box[1]
                found = _around(found, placed) if found else placed
    if found is None:
        return WHOLE
    width, height = image.size
    return found[0] / width, found[1] / height, found[2] / width, found[3] / height


def _around(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])
