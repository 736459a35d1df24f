"""Names of members: which path in a folder each gets, none outside of it and none twice."""

from __future__ import annotations

import itertools
import re
import unicodedata
from pathlib import PurePosixPath

from packmule.errors import UsageError
from packmule.jobs.files.encodings import SURE, found_encoding, western
from packmule.jobs.files.unpacking.bounds import Bounds

DRIVE = re.compile("[A-Za-z]:")
DOS = "cp437"
"""The encoding of a ZIP's names that don't say another."""


class UnfitMember(UsageError):
    """A member of an archive can't be a plain file in a folder; the text is the reason."""


class Paths:
    """The paths that members of one archive get, by their names."""

    def __init__(self, bounds: Bounds, *taken: str) -> None:
        self._bounds = bounds
        self._files = {_folded(path) for path in taken}
        self._folders: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        """The next number for a name that was there before, so that many equal ones take no longer."""

    def place(self, name: str) -> str:
        """The relative path for the next member. Raises `UnfitMember`.

        Names that only differ in case or in how an accent is written would be one file on some systems, so
        the second is told apart: `Photo-2.jpg`.
        """
        parts = self._checked(name)
        folder = ""
        for part in parts[:-1]:
            folder = self._folder(f"{folder}{part}")
        path = f"{folder}{parts[-1]}"
        if _folded(path) in self._files or _folded(path) in self._folders:
            path = self._told_apart(PurePosixPath(path))
        self._files.add(_folded(path))
        return path

    def _checked(self, name: str) -> list[str]:
        """The parts of a name that leads nowhere else."""
        if any(unicodedata.category(each) in {"Cc", "Cs"} for each in name):
            raise UnfitMember("its name has control characters, or bytes that are not text")
        if "\\" in name:
            raise UnfitMember("its name has a backslash")
        if name.startswith("/") or DRIVE.match(name):
            raise UnfitMember("its path is absolute")
        parts = [unicodedata.normalize("NFC", part) for part in name.split("/") if part not in {"", "."}]
        if ".." in parts:
            raise UnfitMember("its path leads out of the folder")
        if not parts or name.endswith("/"):
            raise UnfitMember("it has no name")
        if len(parts) > self._bounds.depth:
            raise UnfitMember(f"it is more than {self._bounds.depth} folders deep (max_depth)")
        if len("/".join(parts).encode()) > self._bounds.path:
            raise UnfitMember(f"its path has more than {self._bounds.path} bytes (max_path)")
        if max(len(part.encode()) for part in parts) > self._bounds.name:
            raise UnfitMember(f"a name in its path has more than {self._bounds.name} bytes (max_name)")
        return parts

    def _folder(self, path: str) -> str:
        """The folder as it was written first, with a slash at its end."""
        if _folded(path) in self._files:
            raise UnfitMember("a file has the name of its folder")
        return self._folders.setdefault(_folded(path), f"{path}/")

    def _told_apart(self, path: PurePosixPath) -> str:
        for number in itertools.count(self._numbers.get(_folded(str(path)), 2)):
            stem = path.stem.encode()[: self._bounds.name - 20].decode(errors="ignore")
            other = str(path.with_name(f"{stem}-{number}{path.suffix[:10]}"))
            if _folded(other) not in self._files and _folded(other) not in self._folders:
                break
        self._numbers[_folded(str(path))] = number + 1
        return other


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path.casefold())


def encoding_of(names: list[bytes]) -> str:
    """The encoding of the names of a ZIP that don't say it, judged by all of them together."""
    content = b"\n".join(name for name in names if not name.isascii())
    try:
        content.decode()
    except UnicodeError:
        if western(content.decode(DOS)) >= SURE:
            return DOS
        return found_encoding(content)[0] or DOS
    return "utf-8"
