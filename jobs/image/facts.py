"""Facts about a source and its renditions that pages need, each only on wish."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal
from urllib.parse import quote

import msgspec
from PIL import Image

from packmule.jobs.image import metadata
from packmule.jobs.image.rendition import Format, Keep, Size
from packmule.jobs.image.source import Source
from packmule.jobs.image.thumbhash import thumbhash

Fact = Literal["exif", "gps", "colour", "thumbhash", "srcset"]

_EXIF: tuple[Keep, ...] = ("copyright", "date", "camera")
_SIDE = 64
"""Pixels of a side at which the colours of an image are counted."""

_COLOURS = 8
_VISIBLE = 128
_ALIKE = 0.02
"""By which share the proportions of two renditions may differ that show the same part."""


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a result says of a rendition, beside its path."""

    format: Format
    width: int
    height: int
    bytes: int
    quality: int | None = None
    frames: int | None = None
    dropped: list[str] = []

    @property
    def shape(self) -> tuple[Format, Size]:
        """The format and size."""
        return self.format, (self.width, self.height)


def of_source(source: Source, small: Image.Image, wanted: Collection[Fact]) -> dict[str, Any]:
    """The wanted facts of `source`, which `small` shows whole, upright and in sRGB."""
    found: dict[str, Any] = {}
    if "exif" in wanted:
        found["exif"] = metadata.listed(source.picture, _EXIF)
    if "gps" in wanted:
        found["gps"] = metadata.listed(source.picture, ["gps"])
    if "colour" in wanted:
        found["colour"] = dominant_colour(small)
    if "thumbhash" in wanted:
        found["thumbhash"] = thumbhash(small)
    return found


def dominant_colour(image: Image.Image) -> str:
    """The colour that most of the visible pixels are near to, as `#rrggbb`."""
    small = image.convert("RGBA")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    data = small.tobytes()
    visible = b"".join(data[at : at + 3] for at in range(0, len(data), 4) if data[at + 3] >= _VISIBLE)
    if not visible:
        return "#ffffff"
    row = Image.frombytes("RGB", (len(visible) // 3, 1), visible)
    counted = row.quantize(_COLOURS, dither=Image.Dither.NONE)
    histogram = counted.histogram()
    most = histogram.index(max(histogram))
    return "#" + bytes((counted.getpalette() or [])[3 * most : 3 * most + 3]).hex()


def srcset(renditions: Sequence[dict[str, Any]]) -> dict[str, str]:
    """For each format the value of an `srcset` attribute, with the renditions' paths as URLs.

    Renditions of other proportions than the widest aren't in it, since they show another part.
    """
    sets: dict[str, dict[int, str]] = {}
    widest = max(renditions, key=lambda each: each["width"])
    for each in renditions:
        alike = abs(each["height"] * widest["width"] - widest["height"] * each["width"])
        if alike <= max(_ALIKE * widest["height"] * each["width"], widest["width"]):
            sets.setdefault(each["format"], {}).setdefault(each["width"], quote(each["path"]))
    return {
        kind: ", ".join(f"{url} {width}w" for width, url in sorted(urls.items()))
        for kind, urls in sets.items()
    }
