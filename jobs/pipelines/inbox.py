"""An inbox: the files in a folder, as one look after another sees them, and where they go afterwards."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

DONE, FAILED = "done", "failed"

LONGEST_STEM = 200
"""Bytes of a name's stem, where a number is put behind it."""


class Signature(NamedTuple):
    """What is another when a file is, or when somebody has written to it."""

    device: int
    inode: int
    size: int
    changed: int


@dataclass(slots=True)
class Seen:
    """A file of the inbox: what its status said last, since when, and whether anything is left to do."""

    file: Path
    signature: Signature
    since: float
    is_changed: bool = False
    """Whether it has changed since it was seen first."""
    is_over: bool = False
    try_at: float = 0.0
    told: str = ""


class Inbox:
    """The files in `folder`, of which hidden ones, links, folders and devices are left alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, Seen] = {}

    def look(self) -> list[tuple[str, str]]:
        """See what is there now; the new ones of what is left alone, with what they are.

        Raises `OSError` if the folder can't be read.
        """
        found, left_alone, now = {}, [], time.monotonic()
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name in (DONE, FAILED):
                    continue
                with suppress(FileNotFoundError):  # it has just gone
                    status = entry.stat(follow_symlinks=False)
                    found[entry.name] = self._seen(entry.name, status, now)
                    if found[entry.name].is_over and entry.name not in self.files:
                        left_alone.append((entry.name, _kind(status.st_mode)))
        self.files = found
        return left_alone

    def ready(self, stable: float) -> Iterator[Seen]:
        """The files that nobody has changed for `stable` seconds and that are not over."""
        now = time.monotonic()
        for each in self.files.values():
            if not each.is_over and now - each.since >= stable and now >= each.try_at:
                yield each

    def move(self, seen: Seen, folder: str) -> bool:
        """Move a file to a folder in the inbox, never over another; False if it has changed or is gone."""
        target = self.folder / folder
        target.mkdir(exist_ok=True)
        for name in _names(seen.file):
            place = target / name
            try:
                os.link(seen.file, place, follow_symlinks=False)
            except FileExistsError:
                if not os.path.samestat(place.lstat(), seen.file.lstat()):
                    continue  # another file has that name
            except FileNotFoundError:
                return False
            except OSError:  # a file system without links, or a file of somebody else's
                if os.path.lexists(place):
                    continue
                if signature_of(seen.file.lstat()) != seen.signature:
                    return False
                seen.file.rename(place)
                return True
            if signature_of(place.lstat()) != seen.signature:
                place.unlink()
                return False
            seen.file.unlink()
            return True
        return False

    def _seen(self, name: str, status: os.stat_result, now: float) -> Seen:
        signature = signature_of(status)
        before = self.files.get(name)
        if before is not None and before.signature == signature:
            return before
        is_over = not stat.S_ISREG(status.st_mode)
        return Seen(self.folder / name, signature, now, is_changed=before is not None, is_over=is_over)


def signature_of(status: os.stat_result) -> Signature:
    """The signature of the file with this status."""
    return Signature(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _names(file: Path) -> Iterator[str]:
    """The name of a file, and others if it is taken: `a.csv`, `a-2.csv`, ..."""
    yield file.name
    stem = os.fsdecode(os.fsencode(file.stem)[:LONGEST_STEM])
    for number in count(2):
        yield f"{stem}-{number}{file.suffix[:20]}"


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a link"
    return "a folder" if stat.S_ISDIR(mode) else "not a file"
