"""The largest inputs that ready-made jobs accept; lent to jobs as a resource."""

from __future__ import annotations

from dataclasses import dataclass

from packmule.units import GIB


@dataclass(frozen=True, slots=True)
class InputLimits:
    """Upper bounds in bytes, pixels and members, which ready-made jobs keep to."""

    file_bytes: int
    attachment_bytes: int
    pixels: int
    unpacked_bytes: int = 8 * GIB
    members: int = 10_000
