"""The two kinds of store behind `jobs.storage`: a folder of this machine and an fsspec file system."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from packmule.config import mask
from packmule.units import MIB

TEMPORARY = ".tmp"
"""The folder in the store for files not yet whole; what a killed process left there is never listed."""

CHUNK = 8 * MIB
ATOMIC_UPLOADS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "r2"})
"""Protocols of object stores, where an upload is seen whole or not at all."""


class StorageError(Exception):
    """A file could not be taken from the store or left there; the text names it."""


class OutsideStorage(StorageError):
    """A path that is not a plain relative path inside the store."""


class MissingFile(StorageError):
    """A path at which the store has no file."""


class TooLarge(StorageError):
    """A file over the limit of the job that asked for it."""


class Store(Protocol):
    """What a kind of store does; paths are plain and relative."""

    def read(self, path: str, max_bytes: int | None) -> AbstractContextManager[Path]: ...
    def write(self, path: str) -> AbstractContextManager[Path]: ...
    def size(self, path: str) -> int | None: ...
    def files(self, folder: str) -> Iterator[str]: ...
    def locate(self, path: str) -> str: ...


class Folder:
    """A store in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def read(self, path: str, max_bytes: int | None) -> Iterator[Path]:
        present(path, self.size(path), max_bytes)
        file = self._inside(path)
        if not os.access(file, os.R_OK):
            raise StorageError(f"can't read {path}: permission denied")
        yield file

    @contextmanager
    def write(self, path: str) -> Iterator[Path]:
        folder = self._inside(TEMPORARY)
        with explained("write", path):
            if self._inside(path).is_dir():
                raise StorageError(f"can't write {path}: it is a folder")
            folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{secrets.token_hex(8)}{PurePosixPath(path).suffix}"
        try:
            yield unfinished
            _synced(unfinished, path)
            # Looked at again, for a link may have been laid there since.
            target = self._inside(path)
            with explained("write", path):
                target.parent.mkdir(parents=True, exist_ok=True)
                unfinished.replace(target)
                self._sync_folders(target.parent)
        finally:
            unfinished.unlink(missing_ok=True)

    def size(self, path: str) -> int | None:
        with explained("read", path):
            try:
                status = self._inside(path).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        # Opening a pipe or a device could block for ever: to a job they are no files.
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def files(self, folder: str) -> Iterator[str]:
        start = self._inside(folder) if folder else self.root
        for here, folders, names in os.walk(start):
            if Path(here) == self.root:
                folders[:] = [name for name in folders if name != TEMPORARY]
            for name in names:
                path = (Path(folder) / (Path(here) / name).relative_to(start)).as_posix()
                with suppress(StorageError):
                    if self.size(path) is not None:
                        yield path

    def locate(self, path: str) -> str:
        return str(self.root / path)

    def _inside(self, path: str) -> Path:
        """`path` in the root with all links followed. Raises `OutsideStorage` if they lead out of it."""
        try:
            resolved = (self.root / path).resolve()
        except (OSError, RuntimeError) as error:
            raise StorageError(f"can't follow {path}: {error}") from error
        if not resolved.is_relative_to(self.root):
            raise OutsideStorage(f"{path} leads out of the storage folder: replace the link by a file")
        return resolved

    def _sync_folders(self, folder: Path) -> None:
        """Sync `folder` and those above it up to the root, any of which may be new."""
        for above in (folder, *folder.parents):
            descriptor = os.open(above, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if above == self.root:
                break


class Remote:
    """A store behind an fsspec file system; local temporary files stand in for its files."""

    def __init__(self, url: str, protocol: str) -> None:
        self.url = url
        self.shown = mask(url)
        self.atomic = protocol in ATOMIC_UPLOADS
        self._opened: tuple[int, Any, str] | None = None
        try:
            import_module("fsspec").get_filesystem_class(protocol)
        except (ImportError, ValueError) as error:
            raise StorageError(f"can't use the storage {self.shown}: {error}") from error

    @contextmanager
    def read(self, path: str, max_bytes: int | None) -> Iterator[Path]:
        size = present(path, self.size(path), max_bytes)
        with tempfile.TemporaryDirectory(prefix="packmule-") as folder:
            local = Path(folder) / f"file{PurePosixPath(path).suffix}"
            with self._explained("read", path), local.open("wb") as file:
                system, key = self._at(path)
                # Ranges, for a file object of some systems is shared between threads.
                for start in range(0, size, CHUNK):
                    file.write(system.cat_file(key, start=start, end=min(start + CHUNK, size)))
            if local.stat().st_size != size:
                raise StorageError(f"{path} changed while it was read: try again")
            yield local

    @contextmanager
    def write(self, path: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="packmule-") as folder:
            local = Path(folder) / f"file{PurePosixPath(path).suffix}"
            yield local
            _synced(local, path)
            with self._explained("write", path):
                self._upload(local, path)

    def size(self, path: str) -> int | None:
        with self._explained("read", path):
            system, key = self._at(path)
            try:
                found = system.info(key)
            except (FileNotFoundError, NotADirectoryError):
                return None
        if found["type"] != "file":
            return None
        if found["size"] is None:
            raise StorageError(f"can't read {path}: {self.shown} does not tell its size")
        return int(found["size"])

    def files(self, folder: str) -> Iterator[str]:
        with self._explained("list", folder or "the files"):
            system, root = self._at("")
            start = str(root).strip("/")
            for key in system.find(f"{root}/{folder}" if folder else root):
                name = str(key).strip("/").removeprefix(start).lstrip("/")
                if not name.startswith(f"{TEMPORARY}/"):
                    yield name

    def locate(self, path: str) -> str:
        return self.shown + ("" if self.shown.endswith("/") else "/") + path

    def _upload(self, local: Path, path: str) -> None:
        system, key = self._at(path)
        if self.atomic:
            system.put_file(str(local), key)
            return
        _, unfinished = self._at(f"{TEMPORARY}/{secrets.token_hex(8)}")
        for name in (unfinished, key):
            system.makedirs(name.rpartition("/")[0], exist_ok=True)
        try:
            system.put_file(str(local), unfinished)
            system.mv(unfinished, key)
        finally:
            if system.exists(unfinished):
                system.rm_file(unfinished)

    def _at(self, path: str) -> tuple[Any, str]:
        """The file system and `path`'s key in it; each process opens its own, for none outlives a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            system, root = import_module("fsspec").url_to_fs(self.url)
            self._opened = (os.getpid(), system, root.rstrip("/"))
        _, system, root = self._opened
        # Listings that it keeps would hide what other processes write.
        system.invalidate_cache()
        return system, f"{root}/{path}" if path else root

    @contextmanager
    def _explained(self, verb: str, path: str) -> Iterator[None]:
        """Every system raises errors of its own classes: make them ours."""
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            # The job's timeout may strike in here as well, and must stay what it is.
            if isinstance(error, import_module("rq.timeouts").BaseTimeoutException):
                raise
            raise StorageError(f"can't {verb} {path} in {self.shown}: {error}") from error


@contextmanager
def explained(verb: str, path: str) -> Iterator[None]:
    """Make an error of the operating system in this block a `StorageError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"can't {verb} {path}: {error.strerror}") from error


def present(path: str, size: int | None, max_bytes: int | None) -> int:
    """`size`, if the file is there and within the limit. Raises `MissingFile` or `TooLarge`."""
    if size is None:
        raise MissingFile(f"{path} is not in the storage")
    if max_bytes is not None and size > max_bytes:
        raise TooLarge(f"{path} has {size:,} bytes, and the limit is {max_bytes:,}")
    return size


def _synced(file: Path, path: str) -> None:
    """Have the kernel write `file` out. Raises `StorageError` if there is no such regular file."""
    if file.is_symlink() or not file.is_file():
        raise StorageError(f"nothing was written for {path}")
    with file.open("rb") as written:
        os.fsync(written.fileno())
