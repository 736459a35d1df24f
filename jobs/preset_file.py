"""The site's own image presets; lent to jobs as a resource, which costs nothing until an image is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PresetFile:
    """Where the presets are: a TOML file, or None for the shipped ones alone."""

    path: Path | None
