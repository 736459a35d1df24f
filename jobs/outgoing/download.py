"""Downloads of URLs that others chose, by the door of outgoing requests, redirects included."""

from __future__ import annotations

import string
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import IO
from urllib.parse import quote, urljoin

from packmule.errors import Error
from packmule.jobs.outgoing.door import Allowed, InvalidTarget, NotSent, Outgoing, shown
from packmule.jobs.storage import StorageError, StorageFull
from packmule.jobs.storage.store import NO_SPACE

MOST_REDIRECTS = 3
TOTAL_SECONDS = 120.0
MOMENTARY = frozenset({408, 425, 429})
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class DownloadFailed(Error, OSError):
    """A URL has answered something else than a file, or not at all."""


class NotServed(DownloadFailed):
    """A server says that it has no such file, or that it gives it to nobody who asks like this."""


def download(
    url: str,
    file: Path,
    most: int,
    allowed: Allowed,
    *,
    seconds: float | None = None,
    check: Callable[[str], None] = lambda url: None,
    report: Callable[[int], None] = lambda size: None,
) -> str:
    """Write what is at `url` to `file`, at most `most` bytes; the URL at which that was.

    Redirects are followed three times, and each leads through the same door: none to an internal host, and to
    no URL for which `check` raises an error. `report` is called with the size so far. Raises `InvalidTarget`,
    `AnswerTooLarge`, `StorageError` for a full disk, or `DownloadFailed`; `NotServed` if another try would
    bring no more.

    >>> download("https://example.org/a.jpg", Path("a.jpg"), 10_000_000, Allowed())  # doctest: +SKIP
    'https://example.org/a.jpg'
    """
    here, ends_at = url, time.monotonic() + (seconds or TOTAL_SECONDS)
    for _ in range(MOST_REDIRECTS + 1):
        check(here)
        try:
            with _kept(here, file), file.open("wb") as content:
                status, where = Outgoing(here, allowed).get(
                    _Reporting(content, report, here), most, max(0.1, ends_at - time.monotonic())
                )
        except NotSent as error:
            raise DownloadFailed(f"{shown(here)} can't be fetched: {error}") from None
        if status not in REDIRECTS or where is None:
            break
        try:
            here = urljoin(here, quote(where.encode("latin-1"), safe=string.punctuation))
        except ValueError as error:
            raise InvalidTarget(f"{shown(here)} redirects to an invalid URL: {error}") from None
    else:
        raise NotServed(f"{shown(url)} redirects more than {MOST_REDIRECTS} times")
    if status != HTTPStatus.OK:
        is_final = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
        kind = NotServed if is_final and status not in MOMENTARY else DownloadFailed
        raise kind(f"{shown(here)} answers {status}")
    return here


class _Reporting:
    """A file, filled from `url`, that reports its size whenever something is written."""

    def __init__(self, file: IO[bytes], report: Callable[[int], None], url: str) -> None:
        self.file = file
        self.report = report
        self.url = url

    def write(self, data: bytes | memoryview) -> int:
        with _kept(self.url, Path(self.file.name)):  # here, or the fault would count as one of the network
            count = self.file.write(data)
        self.report(self.file.tell())
        return count


@contextmanager
def _kept(url: str, file: Path) -> Iterator[None]:
    """Tell a fault of this host's disk from those of the network."""
    try:
        yield
    except NotSent:
        raise
    except OSError as error:
        kind = StorageFull if error.errno in NO_SPACE else StorageError
        raise kind(
            f"{shown(url)} can't be kept in {file.parent}: {error.strerror}: free space there, or set TMPDIR"
        ) from None
