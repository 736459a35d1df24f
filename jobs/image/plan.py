"""Plans: the size, part, turn and format of a rendition of one source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from packmule.jobs.image.rendition import AVIF_QUALITY, QUALITY, Format, Rendition, Size

Box = tuple[float, float, float, float]
"""Left, top, right and bottom."""

T = TypeVar("T")

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations of images stored with width and height swapped."""

ANIMATED: frozenset[Format] = frozenset({"gif", "webp", "png", "avif"})
"""Formats that hold animations."""

_CLOCKWISE = {1: 6, 6: 3, 3: 8, 8: 1, 2: 7, 7: 4, 4: 5, 5: 2}
"""The orientation of an image that is then turned clockwise by 90 degrees."""

_FLIPPED = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}
"""Whether the stored image has left and right swapped, and top and bottom, after any swap of its axes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to make `wish` of one source.

    `part` of the image, turned upright by EXIF `orientation`, becomes `size` pixels, in the middle of a
    `canvas`. `part` is in shares of the whole. `animated` says whether it has all frames.
    """

    wish: Rendition
    orientation: int
    part: Box
    size: Size
    canvas: Size
    format: Format
    animated: bool

    @property
    def frame(self) -> Size:
        """The size of the whole source at the rendition's scale, as stored."""
        left, top, right, bottom = self.part
        width, height = round(self.size[0] / (right - left)), round(self.size[1] / (bottom - top))
        return stored((max(1, width), max(1, height)), self.orientation)

    @property
    def shows_all(self) -> bool:
        """Whether nothing is cropped, so that smaller renditions can be made from it."""
        return self.part == WHOLE

    @property
    def quality(self) -> int:
        """The quality asked for, or the format's."""
        return self.wish.quality or (AVIF_QUALITY if self.format == "avif" else QUALITY)


def geometry(wish: Rendition, source: Size, inner: Box = WHOLE) -> tuple[Box, Size, Size]:
    """The part, size and canvas for the part `inner` of an upright image of that size."""
    left, top, right, bottom = inner
    width, height = source[0] * (right - left), source[1] * (bottom - top)
    size = wish.width or 0, wish.height or 0
    if wish.fit in {"contain", "pad"}:
        inside = _inside(wish, width, height)
        return inner, inside, inside if wish.fit == "contain" else size
    if wish.fit == "stretch":
        return inner, size, size
    # The largest part of these proportions, as shares of the image.
    across = min(1.0, height * size[0] / (width * size[1]))
    down = min(1.0, width * size[1] / (height * size[0]))
    x, y = _start(across, wish.focus[0]), _start(down, wish.focus[1])
    part = (
        left + x * (right - left),
        top + y * (bottom - top),
        left + (x + across) * (right - left),
        top + (y + down) * (bottom - top),
    )
    if wish.fit == "fill" and not wish.enlarge:
        scale = min(1.0, width * across / size[0])
        size = _at_least_one(size[0] * scale, size[1] * scale)
    return part, size, size


def turned(orientation: int, degrees: int) -> int:
    """The EXIF orientation of an image whose upright form is turned clockwise by those degrees."""
    for _ in range(degrees // 90):
        orientation = _CLOCKWISE[orientation]
    return orientation


def stored(pair: tuple[T, T], orientation: int) -> tuple[T, T]:
    """An upright width and height as they are in the stored image, or the other way round."""
    return (pair[1], pair[0]) if orientation in SIDEWAYS else pair


def stored_box(box: Box, orientation: int) -> Box:
    """A part of the upright image, in shares, as it is in the stored one."""
    left, top, right, bottom = box
    if orientation in SIDEWAYS:
        left, top, right, bottom = top, left, bottom, right
    across, down = _FLIPPED[orientation]
    if across:
        left, right = 1 - right, 1 - left
    if down:
        top, bottom = 1 - bottom, 1 - top
    return left, top, right, bottom


def upright_box(box: Box, orientation: int) -> Box:
    """A part of the stored image, in shares, as it is in the upright one."""
    # Turns by a quarter undo each other; every other orientation undoes itself.
    return stored_box(box, {6: 8, 8: 6}.get(orientation, orientation))


def _inside(wish: Rendition, width: float, height: float) -> Size:
    scale = min((wish.width or width * 65_535) / width, (wish.height or height * 65_535) / height)
    if not wish.enlarge:
        scale = min(scale, 1.0)
    return _at_least_one(width * scale, height * scale)


def _at_least_one(width: float, height: float) -> Size:
    return max(1, round(width)), max(1, round(height))


def _start(share: float, focus: float) -> float:
    """Where a part that takes `share` of a side begins, with `focus` in its middle if the side allows it."""
    return min(max(focus - share / 2, 0.0), 1 - share)
