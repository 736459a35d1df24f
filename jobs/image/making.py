"""Making the renditions of one source: all are planned and checked first, then made from one decode."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from PIL import Image

from packmule.jobs.image import memory, metadata
from packmule.jobs.image.cascade import Cascade
from packmule.jobs.image.colour import ToSRGB, eight_bit
from packmule.jobs.image.encode import ENCODINGS, Frames, encoded, too_large
from packmule.jobs.image.facts import Fact, Facts, of_source
from packmule.jobs.image.finish import finished, is_transparent
from packmule.jobs.image.hostile import ImageTooLarge, refuse_frames
from packmule.jobs.image.plan import (
    ANIMATED,
    WHOLE,
    Box,
    Plan,
    geometry,
    stored,
    stored_box,
    turned,
    upright_box,
)
from packmule.jobs.image.rendition import Format, Rendition
from packmule.jobs.image.source import Source, readable
from packmule.jobs.image.trim import inside_border

FEW_COLOURS = 256
"""A source with no more colours is a drawing, which `auto` keeps without loss."""

MAX_ANIMATED = 200_000_000
"""Pixels of all frames of all animations that a job may write."""

_MOST = 65_535
"""Milliseconds and loops that every format can say."""

_UNSAID = 100
"""Milliseconds of a frame that doesn't say how long it is shown, as in browsers."""


class Made(NamedTuple):
    """A rendition: which of the wishes it is, its file and its facts."""

    wish: int
    data: bytes
    facts: Facts


class Making:
    """What becomes of `source`. Raises `ImageTooLarge`, or `UnreadableImage`, before anything is made."""

    def __init__(self, source: Source, wishes: Sequence[Rendition], max_pixels: int) -> None:
        self._source = source
        self._decoded: Image.Image | None = None
        self._beside = memory.USABLE  # at most: nothing is planned yet
        borders = {wish.trim: self._inside(wish.trim) for wish in wishes if wish.trim is not None}
        self.plans = [
            _planned(wish, source, WHOLE if wish.trim is None else borders[wish.trim]) for wish in wishes
        ]
        for plan in self.plans:
            _check(plan, max_pixels)
        self._beside = _checked_together(source, self.plans)

    def decode(self) -> None:
        """Decode the source, large enough for all. Raises `UnreadableImage`, or `ImageTooLarge`."""
        frames = [plan.frame for plan in self.plans]
        if self._decoded is None:
            largest = max(width for width, _ in frames), max(height for _, height in frames)
            self._decoded = self._pixels(largest)
        else:
            self._source.decode(None, self._beside)  # which takes more memory, but decodes nothing again
        self._transforms: dict[str, ToSRGB] = {}
        self._cascade = self._cascade_of(self._decoded)

    def renditions(self) -> Iterator[Made]:
        """Make each rendition, the largest first and the animations last."""
        order = sorted(range(len(self.plans)), key=self._largest_first)
        moving: dict[int, list[Image.Image]] = {}
        for index in order:
            plan = self.plans[index]
            image = self._cascade.rendition(plan)
            if plan.animated:
                moving[index] = [finished(image, plan)]
            else:
                dropped = ["transparency"] if plan.format == "jpeg" and is_transparent(image) else []
                yield self._made(index, Frames([finished(image, plan)]), dropped)
        if moving:
            yield from self._animations(moving)

    def facts(self, wanted: Collection[Fact]) -> dict[str, Any]:
        """The source's facts, with those that are wanted."""
        source = self._source
        width, height = source.size
        found: dict[str, Any] = {"format": source.format, "width": width, "height": height}
        if source.frames > 1:
            found["frames"] = source.frames
        if not wanted:
            return found
        small = _planned(Rendition(width=100, height=100, still=True), source, WHOLE)
        return found | of_source(source, self._cascade.rendition(small), wanted)

    def _animations(self, moving: dict[int, list[Image.Image]]) -> Iterator[Made]:
        """Decode the frames after the first, and make the animations of which `moving` has that."""
        source = self._source
        durations, loop = [_duration(source.picture)], _loop(source)
        for frame in range(1, source.frames):
            with readable(source.path):
                source.picture.seek(frame)
                source.picture.load()
                cascade = self._cascade_of(eight_bit(source.picture))
            for index, images in moving.items():
                images.append(finished(cascade.rendition(self.plans[index]), self.plans[index]))
            durations.append(_duration(source.picture))
        for index in list(moving):
            yield self._made(index, Frames(_alike(moving.pop(index)), durations, loop), [])

    def _made(self, index: int, frames: Frames, dropped: list[str]) -> Made:
        plan, source = self.plans[index], self._source
        exif = metadata.kept(source.picture, plan.wish.keep)
        if exif and plan.format == "gif":
            exif, dropped = b"", [*dropped, "metadata"]
        if source.pages:
            dropped = ["pages", *dropped]
        if source.frames > 1 and not plan.animated and not plan.wish.still:
            dropped = ["animation", *dropped]
        lossless = plan.wish.format == "auto" and self._is_drawing
        data, quality = encoded(frames, plan, exif, lossless)
        return Made(
            index,
            data,
            Facts(
                plan.format,
                *plan.canvas,
                bytes=len(data),
                quality=quality if quality < plan.quality else None,
                frames=len(frames.images) if plan.animated else None,
                dropped=dropped,
            ),
        )

    @property
    def _is_drawing(self) -> bool:
        return self._decoded is not None and self._decoded.getcolors(FEW_COLOURS) is not None

    def _inside(self, tolerance: int) -> Box:
        if self._decoded is None:
            self._decoded = self._pixels(None)
        return upright_box(inside_border(self._decoded, tolerance), self._source.orientation)

    def _pixels(self, frame: tuple[int, int] | None) -> Image.Image:
        self._extent = self._source.decode(frame, self._beside)
        with readable(self._source.path):
            image = eight_bit(self._source.picture)
        # The next frame of an animation replaces the picture's own pixels.
        return image.copy() if image is self._source.picture and self._source.frames > 1 else image

    def _cascade_of(self, image: Image.Image) -> Cascade:
        if image.mode not in self._transforms:
            self._transforms[image.mode] = ToSRGB(self._source.picture.info.get("icc_profile"), image.mode)
        return Cascade(image, self._transforms[image.mode], self._extent)

    def _largest_first(self, index: int) -> int:
        width, height = self.plans[index].frame
        return -width * height


def _planned(wish: Rendition, source: Source, inner: Box) -> Plan:
    orientation = turned(source.orientation, wish.rotate)
    if wish.rotate:
        inner = upright_box(stored_box(inner, source.orientation), orientation)
    size = stored(stored(source.size, source.orientation), orientation)
    part, small, canvas = geometry(wish, size, inner)
    plain: Format = "png" if source.has_alpha else "jpeg"
    if wish.format == "auto":
        accepted = ("webp",) if wish.accept is None else wish.accept
        kind = next((each for each in accepted if max(canvas) <= ENCODINGS[each].max_side), plain)
    else:
        kind = wish.format or source.kept or plain
    animated = source.frames > 1 and not wish.still and kind in ANIMATED
    return Plan(wish, orientation, part, small, canvas, kind, animated)


def _check(plan: Plan, max_pixels: int) -> None:
    width, height = plan.canvas
    if width * height > max_pixels:
        raise ImageTooLarge(f"a rendition of {width}x{height} is over the limit of {max_pixels:,} pixels")
    if wrong := too_large(plan.format, plan.canvas):
        raise ImageTooLarge(wrong)


def _checked_together(source: Source, plans: Sequence[Plan]) -> int:
    """The bytes that all take together."""
    taken = memory.of_renditions(source.path, plans, source.frames)
    written = sum(plan.canvas[0] * plan.canvas[1] * source.frames for plan in plans if plan.animated)
    if written:
        refuse_frames(source.frames, source.size[0] * source.size[1], source.path)
    if written > MAX_ANIMATED:
        raise ImageTooLarge(
            f"the animations of {source.path} have {written:,} pixels in all frames, over {MAX_ANIMATED:,}: "
            "make them smaller, or still"
        )
    return taken


def _duration(picture: Image.Image) -> int:
    """The milliseconds for which the frame is shown that `picture` has now."""
    duration = picture.info.get("duration", 0)
    return round(duration) if isinstance(duration, int | float) and 0 < duration <= _MOST else _UNSAID


def _loop(source: Source) -> int:
    """How often an animation is shown; 0 is for ever. A GIF that doesn't say so is shown once."""
    loop = source.picture.info.get("loop", source.format == "gif")
    return int(loop) if isinstance(loop, int) and 0 <= loop <= _MOST else 0


def _alike(frames: list[Image.Image]) -> list[Image.Image]:
    """The frames in one mode, since encoders expect that."""
    mode = "RGBA" if any(map(is_transparent, frames)) else "RGB"
    return [frame if frame.mode == mode else frame.convert(mode) for frame in frames]
