"""Reuse: renditions made before from the same bytes with the same options are copied, not made again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
import PIL

from packmule.coordination.cache.cache import Cache
from packmule.jobs import current
from packmule.jobs.image.facts import Fact, Facts
from packmule.jobs.image.rendition import Rendition
from packmule.jobs.image.resize import resizer
from packmule.jobs.storage import Storage, StorageError
from packmule.jobs.storage.store import explained, sha256_of
from packmule.units import DAY

KEEP_SECONDS = 7.0 * DAY
LEASE = 10.0
"""Seconds for which jobs wait for another: few images take longer, and one that was killed holds up none."""


class Stored(NamedTuple):
    """A rendition in the storage: its path, SHA-256 and facts."""

    path: str
    digest: str
    facts: Facts


class Known(NamedTuple):
    """What a job made before: the source's facts, and the renditions in the order of the wishes."""

    source: dict[str, Any]
    renditions: list[Stored]

    def at(self, paths: Sequence[str]) -> Known:
        """The copies of these renditions at those paths."""
        copies = [each._replace(path=path) for each, path in zip(self.renditions, paths, strict=True)]
        return self._replace(renditions=copies)


class Reuse:
    """What was made of a source, an open file, by these wishes before.

    It is remembered in this process's `Cache`. Without one, or while Redis is unavailable, nothing is.
    """

    def __init__(
        self, storage: Storage, source: BinaryIO, wishes: Sequence[Rendition], wanted: Collection[Fact]
    ) -> None:
        self._storage = storage
        self._count = len(wishes)
        self._cache: Cache | None = None
        try:
            lent = current.resource(Cache)
        except current.NoResource:
            return
        # A lease that nobody renews needs no thread, which would end this process after the job.
        self._cache = lent.with_lease(LEASE)
        # Other versions make other bytes. Names don't matter: copies have their own.
        nameless = [msgspec.structs.replace(wish, name=None) for wish in wishes]
        options = msgspec.json.encode([PIL.__version__, resizer(), nameless, sorted(wanted)])
        content = hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]
        self._key = f"image/{content}/{hashlib.sha256(options).hexdigest()}"

    def once(self, make: Callable[[], Known]) -> tuple[Known, bool]:
        """What was made before, or is just being made by another job; else what `make` makes, and True.

        Jobs that want the same at once wait for the first of them, over all workers: as long as its process
        lives, but for `LEASE` seconds at most.
        """
        if self._cache is None:
            return make(), True
        made: list[Known] = []

        def compute() -> Any:
            made.append(make())
            return msgspec.to_builtins(made[0])

        value = self._cache.get_or_compute(self._key, compute, ttl=KEEP_SECONDS, likely_new=True)
        if made:
            return made[0], True
        try:
            known = msgspec.convert(value, Known)
        except msgspec.ValidationError:
            known = None
        if known is None or len(known.renditions) != self._count:
            return make(), True
        return known, False

    def copy(self, stored: Stored, path: str) -> bool:
        """Have a copy of it at `path`; False, with nothing written, if it is gone or has changed."""
        try:
            if stored.path == path:
                with self._storage.read(path, stored.facts.bytes) as old:
                    _refuse_changed(old, stored)
                return True
            with (
                self._storage.read(stored.path, stored.facts.bytes) as old,
                self._storage.write(path) as new,
            ):
                with explained("copy", stored.path):
                    shutil.copyfile(old, new)
                _refuse_changed(new, stored)
        except StorageError:
            return False
        return True

    def remember(self, known: Known) -> None:
        """Remember this for later jobs."""
        if self._cache:
            self._cache.put(self._key, msgspec.to_builtins(known), ttl=KEEP_SECONDS)


def _refuse_changed(copy: Path, stored: Stored) -> None:
    if sha256_of(copy) != stored.digest:
        raise StorageError(f"{stored.path} has changed")
