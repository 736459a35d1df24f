"""Pruning: deletes served renditions that nobody has used for long, or that are too many bytes together."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.cache.cache import Cache
from packmule.coordination.redis.backoff import is_transient
from packmule.errors import Error
from packmule.jobs import current
from packmule.jobs.auditor import Auditor
from packmule.jobs.image.serving.served import FOLDER, SAFE_SECONDS, USES
from packmule.jobs.job import job
from packmule.jobs.schedule import Schedule, of_settings
from packmule.jobs.storage import Storage, StorageError, StorageUnavailable, check_deleted

SCHEDULE = "image-prune"
EVERY = "1h"
AT_ONCE = 500


class NotPruned(Error):
    """It can't be known which renditions are in use."""


@job(queue="low", timeout=3600, singleton=True, singleton_policy="skip", result_ttl=3600)
def image_prune(keep: float, most: int) -> dict[str, int]:
    """Delete served renditions that were not used for `keep` seconds, and what exceeds `most` bytes.

    Those that were used least recently go first, and none that was used a moment ago. The audit has them
    before. Returns how many there are, their bytes, and how many were deleted. Raises `NotPruned`,
    `StorageError`, and `FilesLeft` when all else is deleted.
    """
    storage, redis = current.resource(Storage), current.resource(Cache).client
    try:
        return _pruned(storage, redis, keep, most)
    except ResponseError as error:
        if is_transient(error):
            raise
        raise NotPruned(f"{USES} in Redis can't be read ({error}): delete it") from None


def _pruned(storage: Storage, redis: Redis, keep: float, most: int) -> dict[str, int]:
    now, auditor = time.time(), current.resource(Auditor)
    sizes = {each.path: each.bytes or 0 for each in storage.files(f"{FOLDER}/")}
    uses = _uses(redis, list(sizes), now)
    total, deleted, faults = sum(sizes.values()), 0, list[StorageError]()
    oldest_first = sorted(sizes, key=lambda path: (uses[path], path))
    for start in range(0, len(oldest_first), AT_ONCE):
        window = oldest_first[start : start + AT_ONCE]
        spare, safe = {}, time.time() - SAFE_SECONDS
        for path, used in _uses(redis, window, now).items():  # some may have been used since
            if (used < now - keep or total > most) and used < safe:
                spare[path] = sizes.pop(path)
                total -= spare[path]
        if spare:
            auditor.deletes("image prune", list(spare), len(spare), sum(spare.values()))
        for path, size in spare.items():
            try:
                deleted += storage.delete(path)
            except StorageUnavailable:
                raise
            except StorageError as fault:  # which is no reason to keep all others
                current.log(str(fault), level="warning")
                faults.append(fault)
                sizes[path] = size
        current.progress(start + len(window), len(oldest_first), f"{deleted:,} deleted")
    _forget(redis, sizes)
    check_deleted(faults, deleted)
    return {"renditions": len(sizes), "bytes": total, "deleted": deleted}


def _uses(redis: Redis, paths: list[str], now: float) -> dict[str, float]:
    """When each was used last; one of which that isn't known counts as used now, from now on."""
    uses: dict[str, float] = {}
    for start in range(0, len(paths), AT_ONCE):
        window = paths[start : start + AT_ONCE]
        found = redis.zmscore(USES, window)
        uses |= {path: now if used is None else used for path, used in zip(window, found, strict=True)}
        if unknown := [path for path, used in zip(window, found, strict=True) if used is None]:
            redis.zadd(USES, dict.fromkeys(unknown, now), nx=True)
    return uses


def _forget(redis: Redis, there: Iterable[str]) -> None:
    """Forget the uses of what is not there."""
    known = {path.encode() for path in there}
    found: Any = redis.zscan_iter(USES, count=AT_ONCE)
    gone = [path for path, _ in found if path not in known]
    for start in range(0, len(gone), AT_ONCE):
        redis.zrem(USES, *gone[start : start + AT_ONCE])


def pruning(queue: str, keep: float, most: int) -> Schedule:
    """The schedule of the job, in a queue that workers serve."""
    return of_settings(SCHEDULE, image_prune.job.name, EVERY, queue, keep=keep, most=most)
