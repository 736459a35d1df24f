"""Files in an fsspec file system, such as an object store."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from packmule.config import mask
from packmule.jobs.storage.store import TEMPORARY, StorageError, present, synced
from packmule.units import MIB

CHUNK = 8 * MIB
ATOMIC_UPLOADS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "r2"})
"""Protocols of object stores, in which an upload appears whole or not at all."""


class RemoteStore:
    """A store in an fsspec file system; jobs work on temporary local copies of its files."""

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
                # In ranges, because some systems share a file object between threads.
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
            synced(local, path)
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
            raise StorageError(f"can't read {path}: {self.shown} does not report its size")
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
        """The file system and the key of `path` in it; each process opens its own: none survives a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            system, root = import_module("fsspec").url_to_fs(self.url)
            self._opened = (os.getpid(), system, root.rstrip("/"))
        _, system, root = self._opened
        # Its cached listings would hide files that other processes write.
        system.invalidate_cache()
        return system, f"{root}/{path}" if path else root

    @contextmanager
    def _explained(self, verb: str, path: str) -> Iterator[None]:
        """Turn any error of the file system, which has its own classes, into a `StorageError`."""
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            # A job's timeout may be raised in here too, and must not be replaced.
            if isinstance(error, import_module("rq.timeouts").BaseTimeoutException):
                raise
            raise StorageError(f"can't {verb} {path} in {self.shown}: {error}") from error
