"""Metadata: the few EXIF fields of a source that a rendition may keep, or a result may list."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from PIL import ExifTags, Image, TiffImagePlugin

from packmule.jobs.image.rendition import Keep
from packmule.jobs.image.source import DECODER_ERRORS
from packmule.plain_text import plain

_IMAGE, _EXIF, _GPS = 0, int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo)

FIELDS: dict[Keep, dict[int, tuple[str, ...]]] = {
    "copyright": {_IMAGE: ("Copyright", "Artist")},
    "date": {_EXIF: ("DateTimeOriginal", "OffsetTimeOriginal")},
    "camera": {
        _IMAGE: ("Make", "Model"),
        _EXIF: ("LensModel", "ExposureTime", "FNumber", "ISOSpeedRatings", "FocalLength"),
    },
}
"""What each word keeps: the names of fields for each of the directories of EXIF data; `gps` all of one."""

MOST_TEXT = 1000
"""Characters of one text that are kept."""

MOST_NUMBERS = 8

MOST_BYTES = 60_000
"""Bytes of EXIF data; a JPEG has room for 65,533."""


def kept(picture: Image.Image, keep: Collection[Keep]) -> bytes:
    """The EXIF data of `picture` that `keep` names, to be written; empty if there are none."""
    found = _values(picture, keep)
    if not found:
        return b""
    exif = Image.Exif()
    for directory, values in found.items():
        # Pillow would write what isn't ASCII as question marks, but leaves bytes alone.
        fields = {
            tag: value.encode("latin-1") if _is_foreign(value) else value for tag, value in values.items()
        }
        (exif if directory == _IMAGE else exif.get_ifd(directory)).update(fields)
    data = exif.tobytes()
    return data if len(data) <= MOST_BYTES else b""


def listed(picture: Image.Image, keep: Collection[Keep]) -> dict[str, Any]:
    """Those fields by their names, as texts and numbers."""
    return {
        _names(directory)[tag]: _shown(value)
        for directory, values in _values(picture, keep).items()
        for tag, value in values.items()
    }


def _values(picture: Image.Image, keep: Collection[Keep]) -> dict[int, dict[int, Any]]:
    """The values of those fields by directory and tag; broken ones are left out."""
    found: dict[int, dict[int, Any]] = {}
    for word in keep:
        for directory, names in FIELDS.get(word, {_GPS: tuple(ExifTags.GPSTAGS.values())}).items():
            try:
                exif = picture.getexif()
                given = dict(exif if directory == _IMAGE else exif.get_ifd(directory))
            except DECODER_ERRORS:
                continue
            for tag, value in given.items():
                if _names(directory).get(tag) in names and (clean := _clean(value)) is not None:
                    found.setdefault(directory, {})[tag] = clean
    return found


def _names(directory: int) -> dict[int, str]:
    return ExifTags.GPSTAGS if directory == _GPS else ExifTags.TAGS


def _clean(value: Any) -> Any:
    """A text, a finite number, or several; None for anything else."""
    if isinstance(value, str):
        return value.strip("\0 ")[:MOST_TEXT] or None
    if isinstance(value, tuple):
        cleaned = tuple(map(_clean, value[:MOST_NUMBERS]))
        return None if None in cleaned else cleaned
    return value if isinstance(value, (int, TiffImagePlugin.IFDRational)) and math.isfinite(value) else None


def _is_foreign(value: Any) -> bool:
    return isinstance(value, str) and not value.isascii()


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return plain(value.encode("latin-1").decode())
        except UnicodeError:
            return plain(value)
    if isinstance(value, tuple):
        return [_shown(each) for each in value]
    return value if isinstance(value, int) else round(float(value), 6)
