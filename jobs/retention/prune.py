"""The pruning: deletes what jobs have made and nobody needs any more."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from redis import Redis

from packmule.jobs.retention.in_use import in_use, is_used
from packmule.jobs.retention.made import MADE, Made, gather
from packmule.jobs.storage import Storage, StorageError, StorageUnavailable

AT_ONCE = 1000

YOUNGEST = 3600.0
"""Seconds for which everything is kept: somebody may just be about to use it."""


@dataclass
class Pruned:
    """What a pruning found and deleted; `used` counts what it left because of jobs that have not ended."""

    files: int = 0
    bytes: int = 0
    used: int = 0
    deleted: list[Made] = field(default_factory=list)
    faults: list[StorageError] = field(default_factory=list)
    """Why some could not be deleted, which is no reason to leave all younger ones for ever."""

    @property
    def deleted_files(self) -> int:
        """How many files were deleted."""
        return sum(made.files for made in self.deleted)

    @property
    def deleted_bytes(self) -> int:
        """How many bytes these had."""
        return sum(made.bytes for made in self.deleted)


def prune(
    storage: Storage,
    client: Redis,
    older: float | None,
    above: int | None,
    folders: Sequence[str] = MADE,
    dry_run: bool = False,
    before: Callable[[Sequence[Made]], None] = lambda deleting: None,
) -> Pruned:
    """Delete what was made more than `older` seconds ago, and the oldest of what exceeds `above` bytes.

    Only what is in `folders` counts and goes, all that one job made in one go. What jobs use that have not
    ended stays, and what is younger than an hour. If a job is enqueued meanwhile that reads an old file, it
    may find it gone. `before` is called with up to 1,000 of what is to go before these are deleted. A broken
    pruning can be repeated. Raises `StorageError` if nothing can be read or deleted.
    """
    found = gather(each for folder in folders for each in storage.files(f"{folder}/"))
    pruned = Pruned(sum(made.files for made in found), sum(made.bytes for made in found))
    # The earlier of two clocks: by one that has jumped ahead, everything would be old.
    now, left = min(time.time(), float(client.time()[0])), pruned.bytes
    old = now - (math.inf if older is None else older)
    young, used = now - YOUNGEST, set[str]()
    spare = [made for made in found if made.written_at < young]
    if any(made.written_at < old for made in spare) or (above is not None and left > above):
        used = in_use(client)
    for made in spare:
        if made.written_at >= old and (above is None or left <= above):
            break  # all that follow are younger
        if any(is_used(name, used) for name in made.names):
            pruned.used += made.files
            continue
        pruned.deleted.append(made)
        left -= made.bytes
    going, left_over = [] if dry_run else pruned.deleted, set[str]()
    for first in range(0, len(going), AT_ONCE):
        page = going[first : first + AT_ONCE]
        before(page)
        for made in page:
            try:
                storage.delete_folder(made.path) if made.is_folder else storage.delete(made.path)
            except StorageUnavailable:
                raise
            except StorageError as error:
                pruned.faults.append(error)
                left_over.add(made.path)
    pruned.deleted = [made for made in pruned.deleted if made.path not in left_over]
    return pruned
