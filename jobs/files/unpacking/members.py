"""What the readers of all archives yield: members one by one, each with its content or why it has none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from packmule.errors import UsageError


class NotAnArchive(UsageError):
    """A file is no archive of a kind that can be unpacked."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its `name` as it is there, and its `content`, which is read before the next member is.

    `fault` says why it can't be a plain file; a folder has neither, because a storage has files only.
    """

    name: str
    content: Iterable[bytes] = ()
    fault: str | None = None
    is_folder: bool = False
