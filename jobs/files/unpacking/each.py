"""The job that makes a job of each member of an unpacked archive."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from packmule.jobs import current, registry
from packmule.jobs.files.unpacking.folder import LISTING
from packmule.jobs.flow_parts import group
from packmule.jobs.job import Prepared, job
from packmule.jobs.job_type import InvalidCall, JobType
from packmule.jobs.options import Options
from packmule.jobs.output_path import OUT, output_path
from packmule.jobs.storage import MissingFile, OutsideStorage, Storage


@job(
    queue="default",
    timeout=600,
    retries=3,
    give_up_on=(registry.NotRegistered, InvalidCall, MissingFile, OutsideStorage),
)
def each_member(
    source: str | dict[str, Any],
    each: str,
    arguments: dict[str, Any] | None = None,
    out: str | None = None,
) -> dict[str, Any]:
    """Enqueue a job `each` for every file that `unpack` has made in the folder `source`.

    `source` may also be what `unpack` returned. `each` is the dotted name of a registered job or the short
    one of a ready-made job, which gets a file's path as its first argument, and `arguments` by name. In a
    flow they become its nodes, otherwise a flow of their own; if this job runs again, each is there once. In
    the folder `out`, as a pipeline gives it, each job gets an `out` that is named after its file.

    Returns how many there are, and in which flow::

        {"source": "unpacked/7f0c", "each": "packmule.jobs.files.file", "jobs": 2, "flow": "9c1e..."}

    Raises `NotRegistered`, `InvalidCall` or `MissingFile`; then nothing is enqueued.

    >>> chain(unpack.call("uploads/a.zip"), each_member.call(result, "file")).enqueue()  # doctest: +SKIP
    """
    # They load redis-py.
    from packmule.jobs.delivery import BatchClosed  # noqa: PLC0415
    from packmule.jobs.flow import MOST_ADDED, Flow  # noqa: PLC0415

    folder = source if isinstance(source, str) else str(source.get("path", ""))
    found = registry.find(registry.ready(each))
    lines = current.resource(Storage).read_bytes(f"{folder}/{LISTING}").splitlines()
    members = (msgspec.json.decode(line) for line in lines)
    names = [str(member["path"]) for member in members if "path" in member]
    calls = [
        Prepared(found, ((f"{folder}/{name}",), _arguments(found, arguments or {}, name, out)), Options())
        for name in names
    ]
    for call in calls:
        found.validate(*call.call)
    id = current.job_id()
    flow = current.flow()
    if id is not None and flow is not None:
        for first in range(0, len(calls), MOST_ADDED):
            flow.add(group(*calls[first : first + MOST_ADDED]), after=id)
    elif calls:
        flow = Flow(f"each of {folder}", id=f"{id}-members" if id else None)
        flow.add(group(*calls))
        with suppress(BatchClosed):  # an earlier run has started it, and it has ended
            flow.start()
    return {"source": folder, "each": found.name, "jobs": len(calls), "flow": flow.id if flow else None}


def _arguments(job: JobType, arguments: dict[str, Any], name: str, out: str | None) -> dict[str, Any]:
    """The arguments of the job of a member; below `out` it gets a folder that no other writes to."""
    place = output_path(job, arguments, f"{out}/{name}", name) if out else None
    return {**arguments, OUT: place} if place else arguments
