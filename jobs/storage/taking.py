"""Taking files out of a storage into a folder of the caller's, over nobody's files."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from packmule.errors import Conflict
from packmule.jobs.storage import Storage
from packmule.jobs.storage.store import explained, sha256_of, synced


class NotOverwritten(Conflict):
    """Another file has the name that a file from the storage would get."""


def names_for(paths: Sequence[str]) -> dict[str, str]:
    """What files are called in a folder: as they are below the folder that they share.

    >>> names_for(["unpacked/7f0c/a.csv", "unpacked/7f0c/b/a.csv"])
    {'unpacked/7f0c/a.csv': 'a.csv', 'unpacked/7f0c/b/a.csv': 'b/a.csv'}
    """
    shared = os.path.commonpath([path.rpartition("/")[0] for path in paths]) if paths else ""
    return {path: path.removeprefix(f"{shared}/") for path in paths}


def take(storage: Storage, path: str, target: Path, overwrite: bool) -> Literal["new", "same", "replaced"]:
    """Copy the file at `path` of a storage to `target`, whole or not at all.

    A file that has the same content is left as it is. Raises `NotOverwritten` for another one, unless
    `overwrite`, and `StorageError`.
    """
    with storage.read(path) as file, explained("write", str(target)):
        if target.is_file() and sha256_of(target) == sha256_of(file):
            return "same"
        is_there = os.path.lexists(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.parent / f".{secrets.token_hex(8)}.unfinished"
        try:
            shutil.copyfile(file, unfinished)
            synced(unfinished, path)
            if overwrite:
                unfinished.replace(target)
            else:
                _move_to_new(unfinished, target)
        except FileExistsError:
            raise NotOverwritten(f"{target} exists: use --overwrite, or another folder") from None
        finally:
            with suppress(FileNotFoundError):
                unfinished.unlink()
    return "replaced" if is_there else "new"


def _move_to_new(file: Path, target: Path) -> None:
    """Move a file to a name that is free. Raises `FileExistsError` if it isn't."""
    try:
        target.hardlink_to(file)  # which fails if there is one
    except FileExistsError:
        raise
    except OSError:  # no links here, as on FAT and in some shared folders
        target.touch(exist_ok=False)  # nobody else gets the name
        try:
            file.replace(target)
        except BaseException:
            target.unlink()
            raise
