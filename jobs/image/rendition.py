"""Renditions: what a caller asks for, and the resulting size and crop for a given source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

Size = tuple[int, int]
Format = Literal["jpeg", "png", "webp"]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class Rendition(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One image to make. `width` and `height` are in pixels; at least one is required.

    `fit` says what to do if the source has other proportions: `contain` fits inside and never enlarges;
    `cover` fills exactly and crops around the centre; `stretch` distorts. The last two need both sides. The
    default `format` is the source's if it is one of the three, otherwise PNG with transparency and JPEG
    without. `quality` is 1 to 100, for JPEG and WebP. `name` is the file's name without suffix.

    >>> Rendition(width=800, format="webp")
    Rendition(width=800, height=None, fit='contain', format='webp', quality=80, name=None)
    """

    width: Pixels | None = None
    height: Pixels | None = None
    fit: Literal["contain", "cover", "stretch"] = "contain"
    format: Format | None = None
    quality: Annotated[int, msgspec.Meta(ge=1, le=100)] = 80
    name: Annotated[str, msgspec.Meta(pattern=r"^[^/\\\x00-\x1f\x7f]+$", max_length=100)] | None = None

    def __post_init__(self) -> None:
        """Check that the size is complete."""
        if self.width is None and self.height is None:
            raise ValueError("a rendition needs a width or a height")
        if self.fit != "contain" and (self.width is None or self.height is None):
            raise ValueError(f"a rendition of fit {self.fit} needs both width and height")


@dataclass(frozen=True, slots=True)
class Plan:
    """A rendition of one source: `size` in pixels, from the centred part `crop` of the upright image."""

    size: Size
    crop: tuple[float, float]
    format: Format
    quality: int
    name: str | None

    @property
    def frame(self) -> Size:
        """The size of the whole source at the rendition's scale."""
        return round(self.size[0] / self.crop[0]), round(self.size[1] / self.crop[1])

    @property
    def shows_all(self) -> bool:
        """Whether nothing is cropped, so that smaller renditions can be made from it."""
        return self.crop == (1.0, 1.0)


def plan(rendition: Rendition, source: Size, format: Format | None, has_alpha: bool) -> Plan:
    """The plan of `rendition` for an upright source of that size, format (None if not kept) and alpha."""
    size, crop = _geometry(rendition, source)
    kind = rendition.format or format or ("png" if has_alpha else "jpeg")
    return Plan(size, crop, kind, rendition.quality, rendition.name)


def _geometry(rendition: Rendition, source: Size) -> tuple[Size, tuple[float, float]]:
    width, height = source
    if rendition.fit == "contain" or rendition.width is None or rendition.height is None:
        return _contained(width, height, rendition.width or width, rendition.height or height), (1.0, 1.0)
    size = (rendition.width, rendition.height)
    if rendition.fit == "stretch":
        return size, (1.0, 1.0)
    wide = width * size[1] / (height * size[0])
    return size, (1 / wide, 1.0) if wide > 1 else (1.0, wide)


def _contained(width: int, height: int, max_width: int, max_height: int) -> Size:
    if width <= max_width and height <= max_height:
        return width, height
    if width * max_height >= height * max_width:
        return max_width, max(1, round(height * max_width / width))
    return max(1, round(width * max_height / height)), max_height
