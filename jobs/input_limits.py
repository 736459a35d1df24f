"""The largest inputs that ready-made jobs accept; lent to jobs as a resource."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InputLimits:
    """Upper bounds in bytes and pixels, which ready-made jobs check before they start work."""

    file_bytes: int
    attachment_bytes: int
    pixels: int
