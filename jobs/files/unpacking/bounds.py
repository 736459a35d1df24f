"""How much an archive may unpack to."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

from packmule.errors import UsageError
from packmule.jobs.input_limits import InputLimits
from packmule.units import MIB

RATIO_FROM = 16 * MIB
"""Up to this size anything may unpack, however small it was: empty tables and logs shrink well."""
MOST = {"ratio": 10_000, "depth": 64, "path": 900, "name": 255}
"""What no argument exceeds; the keys of object stores have 1,024 bytes, what is in front included."""
DEFAULTS = {"ratio": 200, "depth": 32, "path": 900, "name": 255}


class UnfitBound(UsageError):
    """A bound for an archive is not a number, or above what the settings allow."""


class ArchiveTooLarge(UsageError):
    """An archive has more in it than its bounds allow."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """At most so many members and bytes in all, times the archive's size, folders, and bytes of names."""

    members: int
    bytes: int
    ratio: int
    depth: int
    path: int
    name: int

    @classmethod
    def of(cls, limits: InputLimits, given: dict[str, int | None]) -> Self:
        """What is `given`, and otherwise the defaults. Raises `UnfitBound` for more than is allowed."""
        most = {"members": limits.members, "bytes": limits.unpacked_bytes, **MOST}
        wanted = {**most, **DEFAULTS, **{name: value for name, value in given.items() if value is not None}}
        for each in fields(cls):
            if not 1 <= wanted[each.name] <= most[each.name]:
                raise UnfitBound(
                    f"max_{each.name}={wanted[each.name]:,}: give a number from 1 to {most[each.name]:,}"
                )
        return cls(**wanted)

    def check_members(self, source: str, count: int) -> None:
        """Raise `ArchiveTooLarge` for more members."""
        if count > self.members:
            raise ArchiveTooLarge(f"{source} has more than {self.members:,} members (max_members)")

    def check_bytes(self, source: str, unpacked: int, packed: int) -> None:
        """Raise `ArchiveTooLarge` for more bytes, or if they were packed too tightly."""
        if unpacked > self.bytes:
            raise ArchiveTooLarge(f"{source} unpacks to more than {self.bytes:,} bytes (max_bytes)")
        if unpacked > max(RATIO_FROM, self.ratio * packed):
            raise ArchiveTooLarge(
                f"{source} unpacks to more than {self.ratio:,} times its {packed:,} bytes (max_ratio)"
            )
