"""What the system refuses while a stored file is read or converted, in one line that says what to do."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packmule.errors import UsageError
from packmule.jobs.files.convert import ConversionFailed
from packmule.jobs.storage import MissingFile, StorageError, StorageFull
from packmule.jobs.storage.store import NO_SPACE


@contextmanager
def explained(source: str, content: Path, stored: str) -> Iterator[None]:
    """Turn what the system says into an error about `source`, whose `content` is worked on.

    `stored` is where it is in the storage, for which there may be no folder on this host. Raises
    `StorageFull`, `MissingFile` if the content has vanished meanwhile, and `StorageError`.
    """
    try:
        yield
    except (UsageError, ConversionFailed) as error:
        if content.exists():
            raise
        raise _vanished(source) from error
    except OSError as error:
        if error.errno is None:  # such as a timeout that ends the job
            raise
        if error.errno in NO_SPACE:
            raise StorageFull(f"{source} can't be converted: {_full(error.errno, stored)}") from error
        if not content.exists():
            raise _vanished(source) from error
        raise StorageError(f"{source} can't be converted: {os.strerror(error.errno)}") from error


def _vanished(source: str) -> MissingFile:
    return MissingFile(
        f"{source} vanished while it was read: store it again, and leave it until the job ends"
    )


def _full(number: int, stored: str) -> str:
    if number == errno.EFBIG:
        return "files may not grow so large here: raise the limit of the worker (ulimit -f)"
    temporary = Path(tempfile.gettempdir())
    places = [temporary, *(each for each in [Path(stored).parent] if each.is_dir())]
    place = min(places, key=lambda each: shutil.disk_usage(each).free)
    other = ", or set TMPDIR to a folder with more" if place == temporary else ""
    return f"there is no space left in {place}: free some{other}"
