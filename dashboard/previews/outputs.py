"""The files of a job: the paths in the storage that its result names, and how large they are there."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from packmule.jobs.outputs import LONGEST_PATH
from packmule.jobs.outputs import paths_of as made_by
from packmule.jobs.reader import JobInfo
from packmule.jobs.storage import MissingFile, OutsideStorage, Storage, StorageError
from packmule.plain_text import plain

if TYPE_CHECKING:
    from packmule.dashboard.site import Site

MOST_FILES = 50
"""Files of a job that are shown and may be fetched."""

LOOKING = 2.0
"""Seconds for which a page asks a storage, which may be far away, for the sizes of files."""

GONE = "is not in the storage: it was removed, or this dashboard's PACKMULE_STORAGE differs from the workers'"
UNREACHED = "can't be checked now: the storage can't be reached (see the dashboard's log)"

logger = logging.getLogger(__name__)


class Output(NamedTuple):
    """A file of a job: `bytes` is its size, None if nobody looked or `fault` says why it isn't there."""

    path: str
    bytes: int | None = None
    fault: str = ""


def paths_of(info: JobInfo) -> list[str]:
    """The paths of the files that a job has made, or of the one that it has inspected."""
    found = made_by(info)
    if not found and info.name == "packmule.jobs.files.file" and isinstance(info.result, dict):
        inspected = info.result.get("source")
        found = [inspected] if isinstance(inspected, str) and 0 < len(inspected) <= LONGEST_PATH else []
    return found[:MOST_FILES]


def outputs(site: Site, paths: Sequence[str]) -> list[Output]:
    """The files at `paths`, as far as the storage says within two seconds."""
    ends_at = time.monotonic() + LOOKING
    found = []
    for path in paths:
        found.append(_output(site, path) if time.monotonic() < ends_at else Output(path))
    return found


def storage_of(site: Site) -> Storage:
    """Where the files of jobs are. Raises `StorageError`."""
    if site.api.storage_url is None:
        raise StorageError("this dashboard has no storage: set PACKMULE_STORAGE")
    return _opened(site.api.storage_url)


@lru_cache(maxsize=4)
def _opened(url: str) -> Storage:
    return Storage(url)


def fault_of(path: str, error: Exception) -> str:
    """Why the file isn't there, for people; what the storage says may name servers, and is for the log."""
    if isinstance(error, MissingFile | OutsideStorage):
        return GONE if isinstance(error, MissingFile) else "is not a path in the storage"
    logger.warning("%s can't be checked: %s", plain(path), plain(error))
    return UNREACHED


def _output(site: Site, path: str) -> Output:
    try:
        return Output(path, storage_of(site).size(path))
    except StorageError as error:
        return Output(path, None, fault_of(path, error))
