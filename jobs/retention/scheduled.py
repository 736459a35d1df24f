"""The job that prunes as the settings say; the scheduler enqueues it each hour."""

from __future__ import annotations

from collections.abc import Sequence

from packmule.coordination.cache.cache import Cache
from packmule.jobs import current
from packmule.jobs.auditor import Auditor
from packmule.jobs.job import job
from packmule.jobs.retention.made import Made
from packmule.jobs.retention.prune import prune
from packmule.jobs.schedule import Schedule, of_settings
from packmule.jobs.storage import FilesLeft, Storage, check_deleted
from packmule.units import DAY

SCHEDULE = "files-prune"
EVERY = "1h"


@job(
    queue="low",
    timeout=3600,
    singleton=True,
    singleton_policy="skip",
    retries=1,
    give_up_on=(FilesLeft,),
    result_ttl=DAY,
)
def files_prune(keep: float | None = None, most: int | None = None) -> dict[str, int]:
    """Delete what jobs have made more than `keep` seconds ago, and the oldest of what exceeds `most` bytes.

    Returns how many files there were, their bytes, how many were deleted, their bytes, and how many stayed
    because of jobs that have not ended. Before anything is deleted, it is in its log, and in the audit.
    Raises `FilesLeft` when all else is deleted.
    """
    auditor, done = current.resource(Auditor), 0

    def before(deleting: Sequence[Made]) -> None:
        nonlocal done
        done += len(deleting)
        current.progress(done, None, "pruning")
        for made in deleting:
            current.log(f"deletes {made.path}: {made.files:,} files, {made.bytes:,} bytes")
        files, size = sum(made.files for made in deleting), sum(made.bytes for made in deleting)
        auditor.deletes("files prune", [made.path for made in deleting], files, size)

    pruned = prune(current.resource(Storage), current.resource(Cache).client, keep, most, before=before)
    for fault in pruned.faults:
        current.log(str(fault), level="warning")
    check_deleted(pruned.faults, len(pruned.deleted))
    return {
        "files": pruned.files,
        "bytes": pruned.bytes,
        "deleted": pruned.deleted_files,
        "deleted_bytes": pruned.deleted_bytes,
        "used": pruned.used,
    }


def keeping(queue: str, keep: float | None, most: int | None) -> Schedule:
    """The schedule of the job, in a queue that workers serve."""
    return of_settings(SCHEDULE, files_prune.job.name, EVERY, queue, keep=keep, most=most)
