"""What every store of files shares: its operations, its errors, and checks of its files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from packmule.errors import NotFound, UsageError

TEMPORARY = ".tmp"
"""The folder in a store for unfinished files; leftovers of killed processes in it are never listed."""


class StorageError(UsageError):
    """A file can't be read from or written to the storage; the text names it."""


class OutsideStorage(StorageError):
    """A path is not a plain relative path inside the storage."""


class MissingFile(StorageError, NotFound):
    """The storage has no file at the path."""


class FileTooLarge(StorageError):
    """A file is larger than the limit of the job that reads it."""


class Store(Protocol):
    """The operations of a store; paths are plain and relative."""

    def read(self, path: str, max_bytes: int | None) -> AbstractContextManager[Path]: ...
    def write(self, path: str) -> AbstractContextManager[Path]: ...
    def size(self, path: str) -> int | None: ...
    def files(self, folder: str) -> Iterator[str]: ...
    def locate(self, path: str) -> str: ...


def present(path: str, size: int | None, max_bytes: int | None) -> int:
    """`size`, if the file exists and is within the limit. Raises `MissingFile` or `FileTooLarge`."""
    if size is None:
        raise MissingFile(f"{path} is not in the storage")
    if max_bytes is not None and size > max_bytes:
        raise FileTooLarge(f"{path} has {size:,} bytes, but the limit is {max_bytes:,}")
    return size


def synced(file: Path, path: str) -> None:
    """Flush `file`, which becomes `path`, to disk. Raises `StorageError` if it isn't a regular file."""
    if file.is_symlink() or not file.is_file():
        raise StorageError(f"nothing was written for {path}")
    with file.open("rb") as written:
        os.fsync(written.fileno())


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
        raise StorageError(f"can't {verb} {path}: {error.strerror}") from error
