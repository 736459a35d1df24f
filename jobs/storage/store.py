"""What every store of files shares: its operations, its errors, and checks of its files."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from packmule.errors import NotFound, UsageError
from packmule.plain_text import plain

_sync_file_system = getattr(ctypes.CDLL(None), "syncfs", None)

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

TEMPORARY = ".tmp"
"""The folder in a store for unfinished files; leftovers of killed processes in it are never listed."""


class StorageError(UsageError):
    """A file can't be read from or written to the storage; the text names it."""


class OutsideStorage(StorageError):
    """A path is not a plain relative path inside the storage."""


class StorageFull(StorageError):
    """There is no space for a file, or its owner may have no more."""


class MissingFile(StorageError, NotFound):
    """The storage has no file at the path."""


class FileTooLarge(StorageError):
    """A file is larger than the limit of the job that reads it."""


class FilesLeft(StorageError):
    """Some of the files that are to go can't be deleted; all others are."""


class StoredFile(NamedTuple):
    """A file in a storage: its size in bytes and when it was written, None where the store doesn't say so."""

    path: str
    bytes: int | None
    written_at: float | None


class Store(Protocol):
    """The operations of a store; paths are plain and relative."""

    def read(self, path: str, max_bytes: int | None) -> AbstractContextManager[Path]: ...
    def write(self, path: str) -> AbstractContextManager[Path]: ...
    def together(self) -> AbstractContextManager[None]: ...
    def write_folder(
        self, path: str, last: str, ours: Callable[[str], bool]
    ) -> AbstractContextManager[Path]: ...
    def size(self, path: str) -> int | None: ...
    def version(self, path: str) -> str | None: ...
    def delete(self, path: str) -> bool: ...
    def delete_folder(self, folder: str) -> None: ...
    def move_folder(self, old: str, new: str, last: str) -> None: ...
    def remove_unfinished(self) -> int: ...
    def files(self, folder: str) -> Iterator[StoredFile]: ...
    def locate(self, path: str) -> str: ...


def present(path: str, size: int | None, max_bytes: int | None) -> int:
    """`size`, if the file exists and is within the limit. Raises `MissingFile` or `FileTooLarge`."""
    if size is None:
        raise MissingFile(f"{path} is not in the storage")
    if max_bytes is not None and size > max_bytes:
        raise FileTooLarge(f"{path} has {size:,} bytes, but the limit is {max_bytes:,}")
    return size


def check_ours(path: str, names: Iterable[str], ours: Callable[[str], bool]) -> None:
    """Raise `StorageError` if a file in the folder `path`, which is to be replaced, has another's name."""
    if (other := next((name for name in names if not ours(name)), None)) is not None:
        raise StorageError(f"can't write the folder {path}: {plain(other)} is there, too: give another out")


def check_written(file: Path, path: str) -> None:
    """Raise `StorageError` if `file`, which is to become `path`, isn't a regular file."""
    if file.is_symlink() or not file.is_file():
        raise StorageError(f"nothing was written for {path}")


def synced(file: Path, path: str) -> None:
    """Flush `file`, which becomes `path`, to disk. Raises `StorageError` if it isn't a regular file."""
    check_written(file, path)
    with file.open("rb") as written:
        os.fsync(written.fileno())


def synced_folder(folder: Path, path: str, last: str) -> None:
    """Flush `folder`, which becomes `path`, to disk. Raises `StorageError` if it has no file `last`."""
    synced(folder / last, path)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # All files of its file system at once, where that is possible: one by one takes many times longer.
        if _sync_file_system is None or _sync_file_system(descriptor):
            os.sync()
    finally:
        os.close(descriptor)


def sha256_of(file: Path) -> str:
    """The SHA-256 of a local file, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def explained(verb: str, path: str) -> Iterator[None]:
    """Turn an `OSError` into a `StorageError` that names `path`."""
    try:
        yield
    except OSError as error:
        text = f"can't {verb} {path}: {error.strerror}"
        if error.errno in NO_SPACE:
            raise StorageFull(text) from error
        raise StorageError(text) from error


def check_deleted(faults: Sequence[StorageError], deleted: int) -> None:
    """Raise `FilesLeft` if there were `faults` while so many others were deleted."""
    if faults:
        raise FilesLeft(
            f"{len(faults):,} of {len(faults) + deleted:,} can't be deleted, such as this: {faults[0]}"
        )
