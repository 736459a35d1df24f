"""The fetch job: stores what a URL leads to."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from packmule.errors import UsageError
from packmule.jobs import current
from packmule.jobs.files.signatures import kind_of
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job import job
from packmule.jobs.outgoing.door import AnswerTooLarge, InvalidTarget, Outgoing, shown
from packmule.jobs.outgoing.download import NotServed
from packmule.jobs.outgoing.fetch_list import NotOnList
from packmule.jobs.outgoing.fetched import fetched
from packmule.jobs.retention.made import new_place
from packmule.jobs.storage import OutsideStorage, Storage, checked, safe_name, temporary
from packmule.jobs.storage.store import explained, sha256_of
from packmule.plain_text import mask
from packmule.units import GIB

FOLDER = "fetched"
SECONDS, MOST_SECONDS = 900.0, 3000.0


class WrongType(UsageError, ValueError):
    """A URL leads to a file of another type than those that are wanted."""


def check(
    source: str,
    out: str | None = None,
    types: list[str] | None = None,
    max_bytes: int | None = None,
    seconds: float = SECONDS,
) -> None:
    """Refuse a call that no worker could perform. Raises `ValueError`."""
    try:
        Outgoing(source)
        checked(out or "x")
    except (InvalidTarget, OutsideStorage) as error:
        raise ValueError(str(error)) from None
    if types == []:
        raise ValueError("types=[]: name at least one, such as text/csv, or omit it")
    if max_bytes is not None and max_bytes < 1:
        raise ValueError(f"max_bytes={max_bytes}: give at least 1")
    if not 0 < seconds <= MOST_SECONDS:
        raise ValueError(f"seconds={seconds!r}: give more than 0 and at most {MOST_SECONDS:g}")


def leaves_network(*_: object, **__: object) -> bool:
    """Each call may connect until it has the file."""
    return True


@job(
    queue="low",
    timeout=3600,
    retries=3,
    give_up_on=(AnswerTooLarge, InvalidTarget, NotOnList, NotServed, OutsideStorage, WrongType),
    isolate=True,
    network=leaves_network,
    max_memory=GIB,
    max_cpu=1200,
    check=check,
)
def fetch(
    source: str,
    out: str | None = None,
    *,
    types: list[str] | None = None,
    max_bytes: int | None = None,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """Store what is at the URL `source`, at `out`, by default at `fetched/<job id>/<name in the URL>`.

    The file is stored whole, or not at all. It takes `max_bytes` (`PACKMULE_MAX_FILE_BYTES` at most) and
    `seconds`; a server that is silent for 15 s is given up earlier. `types` are those that the content may
    have, such as `["text/csv", "image/*"]`. `PACKMULE_FETCH_FROM` says which URLs are fetched; redirects too
    must be among them, and three are followed. None leads to an internal host, unless
    `PACKMULE_WEBHOOK_ALLOW` names it::

        {"source": "https://example.org/a.csv", "path": "fetched/7f0c/a.csv", "bytes": 48219,
         "sha256": "0f5a...", "type": "text/csv"}

    Raises `InvalidTarget`, `NotOnList`, `AnswerTooLarge`, `WrongType`, `NotServed`, and `DownloadFailed` if
    another try may help.

    >>> fetch.enqueue("https://example.org/a.csv")  # doctest: +SKIP
    """
    storage, limits = current.resource(Storage), current.resource(InputLimits)
    most = min(limits.file_bytes, max_bytes or limits.file_bytes)
    with temporary.folder() as folder:
        file = folder / "file"
        last = fetched(source, file, most, seconds)
        type = kind_of(file).type
        if types is not None and not any(fnmatch(type, each.lower()) for each in types):
            raise WrongType(f"{shown(source)} is {type}, not {' or '.join(types)}")
        path = out or f"{new_place(FOLDER, file)}/{_name(source, last)}"
        size, sha256 = file.stat().st_size, sha256_of(file)
        with storage.write(path) as target, explained("write", path):
            shutil.copyfile(file, target)
    return {"source": mask(source), "path": path, "bytes": size, "sha256": sha256, "type": type}


def _name(*urls: str) -> str:
    """The name in the first of the URLs that has one."""
    names = (PurePosixPath(unquote(urlsplit(url).path)).name for url in urls)
    return safe_name(next(filter(None, names), "file"))
