"""Files in a local folder: written whole, synced, and never outside the folder."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from packmule.jobs.storage.store import (
    TEMPORARY,
    OutsideStorage,
    StorageError,
    explained,
    present,
    synced,
)


class LocalFolder:
    """A store in a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

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
        unfinished = folder / f"{secrets.token_hex(8)}{PurePosixPath(path).suffix}"
        try:
            yield unfinished
            synced(unfinished, path)
            # Checked again, because a link may have been created there since.
            target = self._inside(path)
            with explained("write", path):
                target.parent.mkdir(parents=True, exist_ok=True)
                unfinished.replace(target)
                self._sync_folders(target.parent)
        finally:
            unfinished.unlink(missing_ok=True)

    def size(self, path: str) -> int | None:
        with explained("read", path):
            try:
                status = self._inside(path).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        # Opening a pipe or a device could block forever, so they don't count as files.
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def files(self, folder: str) -> Iterator[str]:
        start = self._inside(folder) if folder else self.root
        for here, folders, names in os.walk(start):
            if Path(here) == self.root:
                folders[:] = [name for name in folders if name != TEMPORARY]
            for name in names:
                path = (Path(folder) / (Path(here) / name).relative_to(start)).as_posix()
                with suppress(StorageError):
                    if self.size(path) is not None:
                        yield path

    def locate(self, path: str) -> str:
        return str(self.root / path)

    def _inside(self, path: str) -> Path:
        """`path` in the root with all links resolved. Raises `OutsideStorage` if they lead out of it."""
        try:
            resolved = (self.root / path).resolve()
        except (OSError, RuntimeError) as error:
            raise StorageError(f"can't follow {path}: {error}") from error
        if not resolved.is_relative_to(self.root):
            raise OutsideStorage(f"{path} leads out of the storage folder: replace the link with a file")
        return resolved

    def _sync_folders(self, folder: Path) -> None:
        """Sync `folder` and its parents up to the root, any of which may be new."""
        for above in (folder, *folder.parents):
            descriptor = os.open(above, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if above == self.root:
                break
