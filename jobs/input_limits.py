"""How much a job may take on before it refuses; lent to jobs as a resource."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InputLimits:
    """Upper bounds that ready-made jobs check before work begins. Bytes and pixels."""

    file_bytes: int
    attachment_bytes: int
    pixels: int
