"""The manifest: what a folder of renditions was made from, so that the next run goes on from there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import msgspec

from packmule.coordination.redis.replies import UNREADABLE
from packmule.errors import UsageError
from packmule.jobs.image.batch.target import Target
from packmule.jobs.storage import StorageError
from packmule.units import MIB

NAME = "manifest.json"
LARGEST = 512 * MIB


class InvalidManifest(UsageError, ValueError):
    """A folder has a file of the manifest's name that isn't one."""


class Entry(msgspec.Struct, omit_defaults=True):
    """One source: its content, what was asked for, and the renditions, or the error that there was instead.

    `place` is the folder and the beginning of its renditions' names. `facts` are those of the source; each
    rendition has its own, with its path in the manifest's folder.
    """

    digest: str
    options: str
    place: str
    facts: dict[str, Any] = {}
    renditions: list[dict[str, Any]] = []
    error: str | None = None

    def paths(self) -> list[str]:
        """The paths of its renditions."""
        return [path for each in self.renditions if isinstance(path := each.get("path"), str)]

    def stems(self) -> set[str]:
        """Those paths without suffixes."""
        return {str(PurePosixPath(path).with_suffix("")) for path in self.paths() if PurePosixPath(path).name}


class Sent(msgspec.Struct):
    """A job that was sent: its source's name and stored path, and its entry without what will be made."""

    name: str
    path: str
    entry: Entry


class Manifest(msgspec.Struct):
    """All sources by name. While a run is under way, `batch` is its id and `jobs` those it has sent.

    `claimed` are the paths, without suffixes, of files that runs have or may have made and no source lists.
    """

    version: int = 1
    batch: str | None = None
    jobs: dict[str, Sent] = {}
    claimed: list[str] = []
    sources: dict[str, Entry] = {}


def read(target: Target) -> Manifest:
    """The manifest of a folder; an empty one if it has none. Raises `InvalidManifest` and `StorageError`."""
    path = target.path(NAME)
    if not target.storage.exists(path):
        return Manifest()
    try:
        found = msgspec.json.decode(target.storage.read_bytes(path, LARGEST), type=Manifest)
    except (*UNREADABLE, msgspec.ValidationError) as error:
        raise InvalidManifest(
            f"{target.locate(NAME)} is not a manifest of renditions ({error}): move it away, or choose "
            "another folder"
        ) from None
    if found.version != Manifest().version:
        raise InvalidManifest(
            f"{target.locate(NAME)} is of version {found.version}, which this packmule doesn't know: "
            "choose another folder"
        )
    return found


def write(target: Target, manifest: Manifest) -> None:
    """Write it, whole or not at all, with the sources in the order of their names."""
    manifest.sources = dict(sorted(manifest.sources.items()))
    target.storage.write_bytes(target.path(NAME), msgspec.json.format(msgspec.json.encode(manifest)))


def is_whole(target: Target, entry: Entry) -> bool:
    """Whether all that an entry lists is still there, with the sizes that it names."""
    if entry.error is not None or not entry.renditions:
        return False
    try:
        return all(is_there(target, each) for each in entry.renditions)
    except StorageError:
        return False


def is_there(target: Target, rendition: Mapping[str, Any]) -> bool:
    """Whether a rendition is in the folder, with the size that it had. Raises `StorageError`."""
    return bool(target.size(str(rendition.get("path"))) == rendition.get("bytes", -1))
