"""The scan job: lets clamd look for viruses in a stored file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Literal

from packmule.errors import UsageError
from packmule.jobs import current
from packmule.jobs.files.scanning.clamd import CHUNK, Clamd, ScanIncomplete, UnfitScanner
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job import job
from packmule.jobs.storage import FileTooLarge, MissingFile, OutsideStorage, Storage
from packmule.jobs.virus_scanner import VirusScanner
from packmule.units import MIB


class Infected(UsageError):
    """A file has a virus in it."""


class NoScanner(UsageError):
    """No clamd is named, so nothing can be scanned."""


@job(
    queue="default",
    timeout=1800,
    retries=3,
    give_up_on=(
        Infected, NoScanner, ScanIncomplete, UnfitScanner, MissingFile, OutsideStorage, FileTooLarge,
    ),
    isolate=True,
    max_memory=512 * MIB,
    max_cpu=600,
)  # fmt: skip
def scan(
    source: str, *, infected: Literal["fail", "report"] = "fail", partial: bool = False
) -> dict[str, Any]:
    """Scan the stored file `source` for viruses with the clamd that `PACKMULE_CLAMD` names.

    A file in which something is found fails the job, or with `infected="report"` is reported. Before a file
    counts as clean, clamd must find the EICAR test file, and report an archive beyond its limits. With
    `partial`, a clamd is believed that calls clean what it hasn't scanned to the end.

    Returns whether it is clean, what was found, and which bytes were scanned by what::

        {"source": "uploads/a.zip", "clean": True, "found": None, "bytes": 48219, "sha256": "0f5a...",
         "scanner": "ClamAV 1.4.3/27780/Sat Nov 28 09:31:02 2026"}

    Raises `Infected`, `ScanIncomplete` for a file over a limit of clamd, `UnfitScanner`, `NoScanner`,
    `ClamdUnavailable`, `MissingFile` or `FileTooLarge`.

    >>> scan.enqueue("uploads/a.zip")  # doctest: +SKIP
    """
    storage, limits = current.resource(Storage), current.resource(InputLimits)
    url = current.resource(VirusScanner).url
    if url is None:
        raise NoScanner(f"{source} was not scanned: set PACKMULE_CLAMD to a clamd, such as tcp://clamav:3310")
    clamd, digest = Clamd(url), hashlib.sha256()
    with storage.read(source, limits.file_bytes) as file, file.open("rb") as content:
        size = file.stat().st_size
        scanner = clamd.prove(is_partial_fine=partial)

        def chunks() -> Iterator[bytes]:
            while chunk := content.read(CHUNK):
                digest.update(chunk)
                yield chunk
                current.progress(content.tell(), size, "scanning")

        found = clamd.found_in(source, chunks())
    if found is not None and infected == "fail":
        raise Infected(f"{source} contains {found}, says {scanner}")
    return {
        "source": source,
        "clean": found is None,
        "found": found,
        "bytes": size,
        "sha256": digest.hexdigest(),
        "scanner": scanner,
    }
