"""Reuse: renditions made before from the same bytes with the same options are copied, not made again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import PIL

from packmule.coordination.cache.cache import Cache
from packmule.jobs import current
from packmule.jobs.image.rendition import Plan
from packmule.jobs.image.resize import resizer
from packmule.jobs.storage import Storage, StorageError
from packmule.jobs.storage.store import explained, sha256_of
from packmule.units import DAY

KEEP_SECONDS = 7.0 * DAY


class Made(NamedTuple):
    """A stored rendition: its path, SHA-256 and size in bytes."""

    path: str
    digest: str
    bytes: int


class Reuse:
    """Renditions of the source `file` by `plans` that were made before and are still stored.

    They are remembered in this process's `Cache`. Without one, or while Redis is unavailable, nothing is.
    """

    def __init__(self, storage: Storage, file: Path, plans: Sequence[Plan]) -> None:
        self._storage = storage
        self._count = len(plans)
        self._cache: Cache | None = None
        try:
            self._cache = current.resource(Cache)
        except current.NoResource:
            return
        digest = sha256_of(file)
        # Other versions make other bytes. Names don't matter: copies have their own.
        options = [PIL.__version__, resizer(), [[p.size, p.crop, p.format, p.quality] for p in plans]]
        self._key = f"image/{digest}/{hashlib.sha256(msgspec.json.encode(options)).hexdigest()}"

    def made(self) -> list[Made]:
        """The renditions made before, in the order of the plans; empty if unknown."""
        known = self._cache.get(self._key) if self._cache else None
        try:
            found = msgspec.convert(known or [], list[Made])
        except msgspec.ValidationError:
            return []
        return found if len(found) == self._count else []

    def copy(self, made: Made, path: str) -> bool:
        """Copy it to `path`; False, with nothing written, if it is gone or has changed."""
        try:
            with self._storage.read(made.path, made.bytes) as old, self._storage.write(path) as new:
                with explained("copy", made.path):
                    shutil.copyfile(old, new)
                _refuse_changed(new, made)
        except StorageError:
            return False
        return True

    def remember(self, made: Sequence[Made]) -> None:
        """Remember these for later jobs, in the order of the plans."""
        if self._cache:
            self._cache.put(self._key, list(made), ttl=KEEP_SECONDS)


def _refuse_changed(copy: Path, made: Made) -> None:
    if sha256_of(copy) != made.digest:
        raise StorageError(f"{made.path} has changed")
