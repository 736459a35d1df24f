"""Renditions: what a caller asks for."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

import msgspec

Size = tuple[int, int]
Format = Literal["jpeg", "png", "webp", "avif", "gif"]
Fit = Literal["contain", "cover", "fill", "pad", "stretch"]
Keep = Literal["copyright", "date", "camera", "gps"]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

FORMATS: tuple[Format, ...] = get_args(Format)
LOSSLESS = frozenset({"png", "gif"})
"""Formats without a quality."""

LONGEST_NAME = 200
"""Bytes of a name, which file systems limit to 255 with what is added to it."""

QUALITY = 80
AVIF_QUALITY = 60
"""The quality without a wish; AVIF's scale has another meaning, at which this looks like a JPEG of 80."""

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}([0-9a-fA-F]{2})?")


class Rendition(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One image to make. `width` and `height` are in pixels; at least one is required.

    `fit` says what to do if the source has other proportions:

    - `contain`: fit inside.
    - `cover`: have exactly this size, and crop what is too much, even of a source that must be enlarged.
    - `fill`: crop to the proportions, and be smaller if the source is.
    - `pad`: fit inside, and fill the rest of exactly this size with `background`.
    - `stretch`: have exactly this size, and distort.

    All but `contain` need both sides. `contain`, `fill` and `pad` enlarge only if `enlarge` is true. `focus`
    is the point to keep in the middle of a crop, as shares of the width and the height. `rotate` turns the
    upright image clockwise. `trim` first cuts off a border of one colour, which may vary by that many steps
    of 255. `sharpen` is a percentage. `background` is also what JPEG shows where the source is transparent.

    The default `format` is the source's if it can be written; otherwise PNG with transparency and JPEG
    without. `auto` is the first format of `accept` that can have the size, by default WebP, without loss for
    a source of few colours; if none can, it is PNG with transparency and JPEG without.
    `quality` is 1 to 100 (by default 80, for AVIF 60; PNG and GIF have none), and is lowered as far as
    `max_bytes` demands. An animation stays one unless `still` is true or the format is JPEG.

    No metadata are written but those that `keep` names. `name` is the file's name without suffix.

    >>> Rendition(width=800, format="webp").fit
    'contain'
    """

    width: Pixels | None = None
    height: Pixels | None = None
    fit: Fit = "contain"
    enlarge: bool = False
    focus: tuple[Share, Share] = (0.5, 0.5)
    background: str = "#ffffff"
    rotate: Literal[0, 90, 180, 270] = 0
    trim: Annotated[int, msgspec.Meta(ge=0, le=254)] | None = None
    sharpen: Annotated[int, msgspec.Meta(ge=0, le=300)] = 0
    format: Format | Literal["auto"] | None = None
    accept: tuple[Format, ...] | None = None
    quality: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    progressive: bool = False
    still: bool = False
    keep: tuple[Keep, ...] = ()
    name: Annotated[str, msgspec.Meta(pattern=r"^[^/\\\x00-\x1f\x7f]+$", max_length=100)] | None = None

    def __post_init__(self) -> None:
        """Check what no single field can."""
        if self.width is None and self.height is None:
            raise ValueError("a rendition needs a width or a height")
        if self.fit != "contain" and (self.width is None or self.height is None):
            raise ValueError(f"a rendition with fit {self.fit} needs both width and height")
        if not _COLOUR.fullmatch(self.background):
            raise ValueError(
                f"background is {self.background!r}: write #rrggbb, or #rrggbbaa for transparency"
            )
        if self.name is not None and len(self.name.encode(errors="replace")) > LONGEST_NAME:
            raise ValueError(f"name is longer than {LONGEST_NAME} bytes")

    @property
    def canvas(self) -> Size | None:
        """Its size, if that is the same for all sources."""
        if self.width is None or self.height is None or self.fit in {"contain", "fill"}:
            return None
        return self.width, self.height
