"""The target: the folder that gets the renditions, the caller's own or one in the storage."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from packmule.jobs.image.batch.sources import Source
from packmule.jobs.storage import MissingFile, Storage, StorageError
from packmule.jobs.storage.store import explained


@dataclass(frozen=True, slots=True)
class Target:
    """The folder `folder` of `storage`, or its root without one; `is_workers` if workers write there."""

    storage: Storage
    folder: str = ""
    is_workers: bool = False

    def path(self, name: str) -> str:
        """`name` in the folder, as the storage knows it."""
        return f"{self.folder}/{name}" if self.folder else name

    def locate(self, name: str) -> str:
        """`name` in the folder, for people."""
        return self.storage.locate(self.path(name))

    def inside(self, source: Source) -> str | None:
        """The name in the folder of a source that is itself there; None if it's elsewhere."""
        if source.kind != ("stored" if self.is_workers else "file"):
            return None
        at = Path(source.at if self.is_workers else os.path.realpath(source.at))
        root = Path(self.folder) if self.is_workers else Path(self.locate("x")).parent
        return at.relative_to(root).as_posix() if at.is_relative_to(root) else None

    def names(self) -> list[str]:
        """The files in the folder."""
        start = len(self.path(""))
        return [path[start:] for path in self.storage.names(self.path(""))]

    def size(self, name: str) -> int | None:
        """The bytes of a file in the folder; None if there is none."""
        try:
            return self.storage.size(self.path(name))
        except MissingFile:
            return None

    def delete(self, name: str) -> bool:
        """Delete a file in the folder; False if there is none."""
        return self.storage.delete(self.path(name))

    def fetch(self, storage: Storage, path: str, name: str, size: int) -> None:
        """Copy what workers have made at `path` of `storage`, `size` bytes long. Raises `StorageError`."""
        with storage.read(path) as old, self.storage.write(self.path(name)) as new:
            with explained("copy", path):
                shutil.copyfile(old, new)
            if new.stat().st_size != size:
                raise StorageError(f"{path} changed after it was made")
