"""Where a job writes what it makes of a file, if it gets a folder of its own: as pipelines place outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from packmule.jobs.job_type import JobType
from packmule.jobs.storage import safe_name

OUT = "out"
"""The argument of a job that says where it writes."""


def output_path(job: JobType, arguments: Mapping[str, Any], folder: str, source: str) -> str | None:
    """What `job` gets as its `out` to write below `folder`: a file, if that has a name, or else the folder.

    The name is that in `arguments`, or `{stem}.<to>` if the job converts. None if it takes no `out`, or
    converts nothing.
    """
    parameters = job.signature.parameters
    if OUT not in parameters:
        return None
    named = arguments.get(OUT)
    if named is None and "to" in parameters:
        if (to := arguments.get("to")) is None:
            return None
        named = f"{{stem}}.{to}"
    return f"{folder}/{filled(named, source)}" if named else folder


def filled(text: str, source: str) -> str:
    """A path with the source's `{stem}` and `{name}` in it.

    >>> filled("{stem}.txt", "uploads/7f0c/a b.csv")
    'a-b.txt'
    """
    name = safe_name(PurePosixPath(source).name)
    return str(text).replace("{stem}", PurePosixPath(name).stem).replace("{name}", name)
