"""Presets: renditions by name, shipped ones and those of a site's own file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from packmule.errors import NotFound
from packmule.jobs.image.rendition import Rendition
from packmule.jobs.toml_file import InvalidFile, read_toml

SHIPPED: Mapping[str, Rendition] = {
    "thumb": Rendition(width=200, height=200, fit="cover"),
    "card": Rendition(width=600, height=400, fit="cover"),
    "hero": Rendition(width=1600),
}

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DENSITY = re.compile(r"([234])x")


class UnknownPreset(NotFound, LookupError):
    """No preset has this name."""


class Presets:
    """The shipped presets and those of a TOML file, which win.

    >>> Presets().find("hero@2x").width
    3200
    """

    def __init__(self, path: Path | None = None) -> None:
        """Read the file at `path`. Raises `InvalidFile` if it can't be read or has what is no rendition."""
        tables = read_toml(path)[1] if path else {}
        self._known = {**SHIPPED, **{name: _rendition(path, name, table) for name, table in tables.items()}}

    @property
    def names(self) -> list[str]:
        """The presets' names, in order."""
        return sorted(self._known)

    def find(self, name: str) -> Rendition:
        """The rendition called `name`; `@2x`, `@3x` or `@4x` after it multiplies its sides.

        Raises `UnknownPreset`.
        """
        base, at, density = name.partition("@")
        preset, factor = self._known.get(base), _DENSITY.fullmatch(density)
        if preset is None or (at and not factor):
            near = get_close_matches(base, self._known, 1)
            way_out = f"did you mean {near[0]}?" if near else f"there are {', '.join(self.names)}"
            if preset is not None:
                way_out = f"after {base} only @2x, @3x and @4x may follow"
            raise UnknownPreset(f"there is no preset {name[:80]!r}: {way_out}")
        return _times(preset, int(factor[1])) if factor else preset


def _times(preset: Rendition, factor: int) -> Rendition:
    return msgspec.structs.replace(
        preset,
        width=preset.width and preset.width * factor,
        height=preset.height and preset.height * factor,
        name=preset.name and f"{preset.name}@{factor}x",
    )


def _rendition(path: Path | None, name: str, table: Any) -> Rendition:
    if not _NAME.fullmatch(name):
        raise InvalidFile(f"{path}: {name[:80]!r} can't name a preset: use letters, digits, - and _")
    try:
        return msgspec.convert(table, Rendition)
    except msgspec.ValidationError as error:
        raise InvalidFile(f"{path}: preset {name}: {error}") from None
