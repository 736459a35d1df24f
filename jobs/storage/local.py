"""Files in a local folder: written whole, synced, and never outside the folder."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path, PurePosixPath

from packmule.jobs.storage.owners import owner, remove_dead
from packmule.jobs.storage.store import (
    TEMPORARY,
    OutsideStorage,
    StorageError,
    StoredFile,
    check_ours,
    explained,
    present,
    synced,
    synced_folder,
)

MOST_KNOWN = 1000
"""Folders whose names need no further sync; beyond that it starts again."""

_to_sync: ContextVar[set[Path] | None] = ContextVar("to_sync", default=None)
"""The folders in which files were written together that are not synced yet."""

PLACING_TRIES = 100


class LocalFolder:
    """A store in a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[Path, tuple[int, int]] = {}
        """Folders whose names, and those of all above them, this process has synced: device and inode."""

    @contextmanager
    def read(self, path: str, max_bytes: int | None) -> Iterator[Path]:
        present(path, self.size(path), max_bytes)
        file = self._inside(path)
        if not os.access(file, os.R_OK):
            raise StorageError(f"can't read {path}: permission denied")
        yield file

    @contextmanager
    def write(self, path: str) -> Iterator[Path]:
        folder = self._inside(TEMPORARY)
        with explained("write", path):
            if self._inside(path).is_dir():
                raise StorageError(f"can't write {path}: it is a folder")
            folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{secrets.token_hex(8)}.{owner()}{PurePosixPath(path).suffix}"
        try:
            yield unfinished
            synced(unfinished, path)
            # Checked again, because a link may have been created there since.
            target = self._inside(path)
            with explained("write", path):
                self._place(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)

    @contextmanager
    def together(self) -> Iterator[None]:
        to_sync: set[Path] = set()
        token = _to_sync.set(to_sync)
        try:
            yield
        finally:
            _to_sync.reset(token)
        for folder in to_sync:
            with explained("write", folder.name):
                self._sync_folders(folder)

    @contextmanager
    def write_folder(self, path: str, last: str, ours: Callable[[str], bool]) -> Iterator[Path]:
        with explained("write", path):
            self._refuse_others(path, last, ours)
            beside = f"{secrets.token_hex(8)}.{owner()}"
            unfinished, replaced = (self._inside(f"{TEMPORARY}/{beside}.{each}") for each in ("new", "old"))
            unfinished.mkdir(parents=True)
        try:
            yield unfinished
            with explained("write", path):
                synced_folder(unfinished, path, last)
                target = self._refuse_others(path, last, ours)
                with suppress(FileNotFoundError):
                    target.rename(replaced)
                self._place(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)

    def _refuse_others(self, path: str, last: str, ours: Callable[[str], bool]) -> Path:
        """Where the folder `path` is or will be. Raises `StorageError` if it is there, but not as ours."""
        target = self._inside(path)
        if target.exists() and not (target / last).is_file():
            raise StorageError(f"can't write the folder {path}: something else is there")
        inside = (each for each in target.rglob("*") if each.is_symlink() or not each.is_dir())
        check_ours(path, (each.relative_to(target).as_posix() for each in inside), ours)
        return target

    def size(self, path: str) -> int | None:
        status = self._status(path)
        return status.st_size if status else None

    def version(self, path: str) -> str | None:
        status = self._status(path)
        return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}" if status else None

    def delete(self, path: str) -> bool:
        if self._status(path) is None:
            return False
        with explained("delete", path):
            self._inside(path)  # what follows deletes a link itself, not what it leads to
            (self.root / path).unlink(missing_ok=True)
        self._remove_empty((self.root / path).parent)
        return True

    def delete_folder(self, folder: str) -> None:
        self._inside(folder)  # what follows refuses a link itself
        with explained("delete", folder), suppress(FileNotFoundError):
            shutil.rmtree(self.root / folder)
        self._remove_empty((self.root / folder).parent)

    def move_folder(self, old: str, new: str, last: str) -> None:
        target = self._inside(new)
        with explained("move", old):
            self._place(self._inside(old), target)

    def remove_unfinished(self) -> int:
        with explained("clean up", TEMPORARY):
            folder = self.root / TEMPORARY
            return 0 if folder.is_symlink() else remove_dead(folder)  # others' files are behind a link

    def files(self, folder: str) -> Iterator[StoredFile]:
        start = self._inside(folder) if folder else self.root
        for here, folders, names in os.walk(start):
            if Path(here) == self.root:
                folders[:] = [name for name in folders if name != TEMPORARY]
            for name in names:
                path = (Path(folder) / (Path(here) / name).relative_to(start)).as_posix()
                with suppress(StorageError):
                    if status := self._status(path):
                        yield StoredFile(path, status.st_size, status.st_mtime)

    def locate(self, path: str) -> str:
        return str(self.root / path)

    def _status(self, path: str) -> os.stat_result | None:
        with explained("read", path):
            try:
                status = self._inside(path).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        # Opening a pipe or a device could block forever, so they don't count as files.
        return status if stat.S_ISREG(status.st_mode) else None

    def _inside(self, path: str) -> Path:
        """`path` in the root with all links resolved. Raises `OutsideStorage` if they lead out of it."""
        try:
            resolved = (self.root / path).resolve()
        except (OSError, RuntimeError) as error:
            raise StorageError(f"can't follow {path}: {error}") from error
        if not resolved.is_relative_to(self.root):
            raise OutsideStorage(f"{path} leads out of the storage folder: replace the link with a file")
        return resolved

    def _place(self, source: Path, target: Path) -> None:
        """Rename `source` to `target`, whose folder others may remove until something is in it."""
        for tries_left in reversed(range(PLACING_TRIES)):
            try:
                self._make(target.parent)
                source.rename(target)
                break
            except (FileNotFoundError, FileExistsError):  # the latter, too, if a folder goes right now
                if not tries_left or not source.exists():
                    raise
        self._sync_folders(target.parent)

    def _remove_empty(self, folder: Path) -> None:
        """Remove `folder` and those above it that are empty, but none that is directly in the root."""
        with suppress(OSError):  # of the first that isn't
            while self.root not in {folder, folder.parent}:
                folder.rmdir()
                folder = folder.parent

    def _make(self, folder: Path) -> None:
        """Make `folder` and those above it, as far as they are new."""
        if folder.is_dir():
            return
        if folder != self.root:
            self._make(folder.parent)
        folder.mkdir(parents=folder == self.root, exist_ok=True)
        self._known.pop(folder, None)  # an older one, which is gone

    def _sync_folders(self, folder: Path) -> None:
        """Sync `folder`, and those above it up to the root whose names may not be on the disk yet."""
        if (to_sync := _to_sync.get()) is not None:
            to_sync.add(folder)
            return
        found: dict[Path, tuple[int, int]] = {}
        for above in (folder, *folder.parents):
            try:
                descriptor = os.open(above, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:  # somebody has deleted what was in it already
                continue
            try:
                os.fsync(descriptor)
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            found[above] = status.st_dev, status.st_ino
            if above == self.root or self._known.get(above) == found[above]:
                break
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        self._known |= found
