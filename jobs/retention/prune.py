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

KNOWN_SECONDS = 60.0
"""For which it is believed what jobs use."""

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
    young, used = now - YOUNGEST, _Used(client)
    going: list[Made] = []
    for made in found:
        if made.written_at >= young or (made.written_at >= old and (above is None or left <= above)):
            break  # all that follow are younger
        if made in used:
            pruned.used += made.files
            continue
        going.append(made)
        left -= made.bytes
    if dry_run:
        pruned.deleted = going
        return pruned
    for first in range(0, len(going), AT_ONCE):
        page = going[first : first + AT_ONCE]
        before(page)
        for made in page:
            if made in used:
                pruned.used += made.files
            elif _is_as_found(storage, made, young):
                _delete(storage, made, pruned)
    return pruned


class _Used:
    """What jobs use, as it is now or was a minute ago: to delete many files takes hours."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._names: set[str] = set()
        self._asked_at = -math.inf

    def __contains__(self, made: object) -> bool:
        if time.time() - self._asked_at > KNOWN_SECONDS or time.time() < self._asked_at:
            self._names, self._asked_at = in_use(self._client), time.time()
        return isinstance(made, Made) and any(is_used(name, self._names) for name in made.names)


def _is_as_found(storage: Storage, made: Made, young: float) -> bool:
    """Whether nobody has written to a folder since it was found."""
    names = set(made.names)
    return not made.is_folder or all(
        each.path in names and (each.written_at or math.inf) < young
        for each in storage.files(f"{made.path}/")
    )


def _delete(storage: Storage, made: Made, pruned: Pruned) -> None:
    try:
        storage.delete_folder(made.path) if made.is_folder else storage.delete(made.path)
    except StorageUnavailable:
        raise
    except StorageError as error:
        pruned.faults.append(error)
    else:
        pruned.deleted.append(made)
