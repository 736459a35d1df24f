"""The folder that an archive becomes: its files, and the listing that says what each of them was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from packmule.errors import UsageError
from packmule.jobs import current
from packmule.jobs.files.unpacking.bounds import Bounds
from packmule.jobs.files.unpacking.members import Member
from packmule.jobs.files.unpacking.names import Paths, UnfitMember
from packmule.jobs.storage.store import explained
from packmule.plain_text import plain

LISTING = "members.jsonl"
SHOWN = 100
"""Members that a result names; the listing has all."""


class MembersRefused(UsageError):
    """An archive has members that can't be plain files in a folder."""


class Folder:
    """A local folder that members are written to, within the bounds.

    `packed` is the archive's file, whose position shows how far it is.
    """

    def __init__(self, source: str, folder: Path, bounds: Bounds, packed: BinaryIO) -> None:
        self.bytes = self.members = 0
        self.paths: list[str] = []
        self.refused: list[dict[str, str]] = []
        self._source, self._folder, self._bounds, self._packed = source, str(folder), bounds, packed
        self._size = os.fstat(packed.fileno()).st_size
        self._made = {""}
        self._places = Paths(bounds, LISTING)
        self._listing: list[dict[str, Any]] = []

    def add(self, member: Member) -> None:
        """Write a member's content, or keep why there is none. Raises `ArchiveTooLarge`."""
        self.members += 1
        self._bounds.check_members(self._source, self.members)
        if member.is_folder:
            return
        name = plain(member.name)
        try:
            if member.fault is not None:
                raise UnfitMember(member.fault)  # noqa: TRY301
            path = self._places.place(member.name)
        except UnfitMember as error:
            self.refused.append({"name": name[:1000], "reason": str(error)})
            return
        self.paths.append(path)
        self._listing.append({"name": name, "path": path, "bytes": self._written(path, member)})

    def finish(self, skip: bool) -> None:
        """Write the listing. Raises `MembersRefused` for members that were refused, unless to `skip` them."""
        if self.refused and not skip:
            first = self.refused[0]
            more = f" and {len(self.refused) - 1:,} more" if len(self.refused) > 1 else ""
            raise MembersRefused(
                f"{self._source}: {first['name'][:200]} can't be unpacked{more}: {first['reason']}; "
                "skip=True (--skip) leaves such members out"
            )
        lines = [
            *self._listing,
            *({"name": each["name"], "refused": each["reason"]} for each in self.refused),
        ]
        with explained("write", LISTING):
            Path(self._folder, LISTING).write_bytes(msgspec.json.Encoder().encode_lines(lines))
        current.progress(self._size, self._size, "unpacked")

    def _written(self, path: str, member: Member) -> int:
        """Write the content to `path`; how many bytes that was."""
        parent = path.rpartition("/")[0]
        size = 0
        with explained("write", path):
            if parent not in self._made:
                os.makedirs(f"{self._folder}/{parent}", exist_ok=True)  # noqa: PTH103  paths cost too much here
                self._made.add(parent)
            with open(f"{self._folder}/{path}", "xb", buffering=0) as file:  # noqa: PTH123
                for piece in member.content:
                    size += len(piece)
                    self.bytes += len(piece)
                    self._bounds.check_bytes(self._source, self.bytes, self._size)
                    file.write(piece)
                    current.progress(self._packed.tell(), self._size, "unpacking")
        return size
