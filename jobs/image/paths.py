"""Where renditions are written: a path for each, that no other has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from packmule.errors import UsageError
from packmule.jobs.image.encode import ENCODINGS
from packmule.jobs.image.rendition import Format, Rendition, Size

LONGEST_STEM = 180
"""Bytes of a name that come from the source's; file systems hold 255."""


class OverwritesSource(UsageError, ValueError):
    """A rendition would be written over the image that it is made from."""


def paths_of(
    source: str, folder: str, wishes: Sequence[Rendition], made: Sequence[tuple[Format, Size]]
) -> list[str]:
    """A path in `folder` for each wish, of which `made` has the formats and sizes.

    If several would be the same, the later ones get a number. Raises `OverwritesSource`.
    """
    paths: list[str] = []
    stem = _cut(PurePosixPath(source).stem)
    for wish, (kind, (width, height)) in zip(wishes, made, strict=True):
        name = wish.name or f"{stem}-{width}x{height}"
        suffix = ENCODINGS[kind].suffix
        path, number = f"{folder}/{name}{suffix}", 1
        while path in paths:
            number += 1
            path = f"{folder}/{name}-{number}{suffix}"
        paths.append(path)
    if source in paths:
        raise OverwritesSource(
            f"a rendition would be written over its source {source}: choose another out or name"
        )
    return paths


def _cut(stem: str) -> str:
    """As much of `stem` as fits, without half a character at its end."""
    return stem.encode()[:LONGEST_STEM].decode(errors="ignore")
