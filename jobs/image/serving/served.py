"""What is served: for each source and preset a rendition in the storage, which workers make once."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256

import msgspec
from msgspec import structs

from packmule.jobs.client import Client
from packmule.jobs.handle import JobHandle
from packmule.jobs.image import image
from packmule.jobs.image.presets import Presets
from packmule.jobs.image.rendition import Format, Rendition
from packmule.jobs.storage import MissingFile, Storage

FOLDER = "renditions/served"
PRIORITY = 10
"""Somebody waits for these jobs, so they run before those of folders."""

KEEP_SECONDS = 60.0
KEEP_FAILED_SECONDS = 3600.0

SAFE_SECONDS = 1200.0
"""For which a rendition is safe from being pruned after somebody used it."""

USES = "pm:images-used"
"""The sorted set of the paths of served renditions, by when somebody used each last."""

AUTO: tuple[Format, ...] = ("avif", "webp")
"""What `auto` may be where browsers say what they accept, the smallest first."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A rendition of the stored image `source`; `key` is another one if the source or the preset is."""

    source: str
    key: str
    rendition: Rendition

    @property
    def folder(self) -> str:
        """The folder of all that is served of the source."""
        return folder_of(self.source)


class Served:
    """The renditions that are served from `storage`, by the names of `presets`. Safe in threads."""

    def __init__(self, jobs: Client, storage: Storage, presets: Presets) -> None:
        self.jobs = jobs
        self.storage = storage
        self.presets = presets

    def look(self, source: str, preset: str, accepted: Collection[str]) -> tuple[Wanted, str | None]:
        """What is wanted, and its path in the storage; None if it must be made first.

        `auto` is a format that is `accepted`. Raises `UnknownPreset`, `MissingFile` and `StorageError`.
        """
        rendition = self.presets.find(preset)
        if rendition.format == "auto":
            possible = AUTO if rendition.accept is None else rendition.accept
            fitting = tuple(each for each in possible if each in accepted)
            rendition = structs.replace(rendition, accept=fitting)
        version = self.storage.version(source)
        if version is None:
            raise MissingFile(f"{source} is not in the storage")
        told = msgspec.json.encode([version, rendition])
        wanted = Wanted(source, f"{preset}-{sha256(told).hexdigest()[:32]}", rendition)
        return wanted, self.find(wanted)

    def find(self, wanted: Wanted) -> str | None:
        """Its path in the storage; None if it isn't made yet."""
        found = self.storage.names(f"{wanted.folder}/{wanted.key}.")
        return found[0] if found else None

    def order(self, wanted: Wanted, expires: float) -> JobHandle:
        """The job that makes it, one for all who want the same; it fails if it doesn't start in time."""
        named = structs.replace(wanted.rendition, name=wanted.key)
        job = image.options(
            unique=True,
            expires=expires,
            priority=PRIORITY,
            result_ttl=KEEP_SECONDS,
            failure_ttl=KEEP_FAILED_SECONDS,
            description=f"{wanted.key.rpartition('-')[0]} of {wanted.source}, to be served",
        )
        return self.jobs.enqueue(job, wanted.source, [named], wanted.folder)

    def note_uses(self, paths: Collection[str]) -> None:
        """Note that these renditions are in use."""
        now = time.time()
        self.jobs.redis.zadd(USES, dict.fromkeys(paths, now))


def forget(storage: Storage, source: str) -> int:
    """Delete all that is served of the stored image `source`; how many files that was.

    Call it when you delete the source. What is asked for later is made again.
    """
    return sum(storage.delete(name) for name in storage.names(f"{folder_of(source)}/"))


def folder_of(source: str) -> str:
    """The folder of what is served of a source."""
    return f"{FOLDER}/{sha256(source.encode()).hexdigest()[:32]}"
