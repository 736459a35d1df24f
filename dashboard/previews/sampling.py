"""Sampling: the beginning of a file is read in a process of its own, few at a time, and kept a minute."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from packmule.dashboard.previews.outputs import fault_of, storage_of
from packmule.jobs.files.sample import Sample
from packmule.jobs.storage import FileTooLarge, StorageError, temporary
from packmule.units import MIB

if TYPE_CHECKING:
    from packmule.dashboard.site import Site

MOST_BYTES = 64 * MIB
"""Bytes of a file that is looked into, since one in a remote storage is fetched whole."""

AT_ONCE, PATIENCE, LONGEST = 2, 3.0, 10.0
"""Processes at a time, seconds that a page waits for its turn, and seconds that one may take."""

KEPT, KEPT_SECONDS = 64, 60.0

BUSY = "Too many previews are being made: reload the page."
TOO_DEAR = "No preview: reading the file took too much time or memory."

_turns = threading.BoundedSemaphore(AT_ONCE)
_kept: OrderedDict[tuple[str, str, int], tuple[float, Sample | None, str]] = OrderedDict()
_lock = threading.Lock()


def sampled(site: Site, path: str) -> tuple[Sample | None, str]:
    """The beginning of the file at `path`, or None and why there is none.

    >>> sampled(site, "converted/7f0c/a.parquet")  # doctest: +SKIP
    (Sample(type='application/vnd.apache.parquet', ...), '')
    """
    try:
        storage = storage_of(site)
        key = str(site.api.storage_url), path, storage.size(path)
        if known := _known(key):
            return known
        if not _turns.acquire(timeout=PATIENCE):
            return None, BUSY
        try:
            with storage.read(path, MOST_BYTES) as local:
                found = _looked(str(local))
        finally:
            _turns.release()
    except FileTooLarge:
        return None, f"No preview: the file is larger than {MOST_BYTES // MIB} MiB."
    except StorageError as error:
        return None, f"{path} {fault_of(path, error)}."
    with _lock:
        _kept[key] = (time.monotonic(), *found)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return found


def _known(key: tuple[str, str, int]) -> tuple[Sample | None, str] | None:
    with _lock:
        at, seen, fault = _kept.get(key, (0.0, None, ""))
    return (seen, fault) if (seen or fault) and time.monotonic() - at < KEPT_SECONDS else None


def _looked(file: str) -> tuple[Sample | None, str]:
    """What the process prints. It has none of our secrets, and its files go with it even if it is killed."""
    paths = os.pathsep.join(filter(None, sys.path))
    with temporary.folder() as folder:
        command = [sys.executable, "-P", "-m", "packmule.jobs.files.sample", file]
        try:
            done = subprocess.run(  # noqa: S603  our own module
                command,
                env={"PYTHONPATH": paths, "PYTHONUTF8": "1", "TMPDIR": str(folder)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LONGEST,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None, TOO_DEAR
    try:
        return msgspec.json.decode(done.stdout, type=Sample), ""
    except msgspec.DecodeError:
        pass
    try:
        return None, f"No preview: {msgspec.json.decode(done.stdout, type=dict[str, str])['reason']}."
    except (msgspec.DecodeError, KeyError):
        return None, TOO_DEAR
