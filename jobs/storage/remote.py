"""Files in an fsspec file system, such as an object store."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from packmule.jobs.storage import temporary, uploads
from packmule.jobs.storage.faults import fault, is_missing
from packmule.jobs.storage.infos import changed_at, is_forgotten, version_of
from packmule.jobs.storage.owners import is_dead, owner
from packmule.jobs.storage.store import (
    TEMPORARY,
    StorageError,
    StoredFile,
    check_ours,
    check_written,
    present,
)
from packmule.plain_text import mask
from packmule.units import MIB

CHUNK = 8 * MIB
READS = 5
"""How often a file is read that changes meanwhile."""

S3 = frozenset({"s3", "s3a"})
GCS = frozenset({"gs", "gcs"})
AZURE = frozenset({"az", "abfs", "abfss"})
ATOMIC_UPLOADS = S3 | GCS | AZURE | {"oss"}
"""Protocols of object stores, in which an upload appears whole or not at all."""

READ_ONLY = frozenset({"http", "https"})
EXTRAS = {
    **dict.fromkeys(S3, "s3"),
    **dict.fromkeys(GCS, "gcs"),
    **dict.fromkeys(AZURE, "azure"),
    **dict.fromkeys(READ_ONLY, "http"),
}
"""Our extras that bring what a protocol needs."""


class RemoteStore:
    """A store in an fsspec file system; jobs work on temporary local copies of its files."""

    def __init__(self, url: str, protocol: str) -> None:
        self.url = url
        self.shown = mask(url)
        self.protocol = protocol
        self._opened: tuple[int, Any, str] | None = None
        host = urlsplit(url).netloc
        if protocol in S3 | GCS and (not host or "@" in host):
            more = "its library finds credentials in the environment" if host else "it names no bucket"
            raise StorageError(
                f"can't use the storage {self.shown}: {more}: write {protocol}://bucket/prefix"
            )
        try:
            import_module("fsspec").get_filesystem_class(protocol)
        except (ImportError, ValueError) as error:
            more = f": pip install 'packmule[{EXTRAS[protocol]}]'" if protocol in EXTRAS else ""
            raise StorageError(f"can't use the storage {self.shown}: {error}{more}") from error

    @contextmanager
    def read(self, path: str, max_bytes: int | None) -> Iterator[Path]:
        with temporary.folder() as folder:
            local = folder / f"file{PurePosixPath(path).suffix}"
            for _ in range(READS):
                found = self._info(path)
                size = present(path, self._size_in(path, found), max_bytes)
                with self._explained("read", path):
                    parts = self._download(path, local, size)
                if local.stat().st_size == size and (parts == 1 or self.version(path) == version_of(found)):
                    break
            else:
                raise StorageError(f"{path} changes while it is read: try again")
            yield local

    @contextmanager
    def write(self, path: str) -> Iterator[Path]:
        self._check_writable(path, "write")
        with temporary.folder() as folder:
            local = folder / f"file{PurePosixPath(path).suffix}"
            yield local
            check_written(local, path)
            self._put(local, path)

    @contextmanager
    def together(self) -> Iterator[None]:
        yield  # each upload is whole by itself

    @contextmanager
    def write_folder(self, path: str, last: str, ours: Callable[[str], bool]) -> Iterator[Path]:
        self._check_writable(path, "write")
        old, begun = {each.path for each in self.files(path)}, f"{path}/{last}.unfinished"
        if old.isdisjoint({f"{path}/{last}", begun}) and old:
            raise StorageError(f"can't write the folder {path}: something else is in {self.shown}")
        check_ours(path, (each.removeprefix(f"{path}/") for each in sorted(old - {begun})), ours)
        with temporary.folder() as folder:
            yield folder
            check_written(folder / last, path)
            names = [each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()]
            (folder / f"{last}.unfinished").touch()
            try:
                # By it a later run knows what a kill has left.
                self._put(folder / f"{last}.unfinished", begun)
                self.delete(f"{path}/{last}")
                for name in sorted(names, key=last.__eq__):
                    self._put(folder / name, f"{path}/{name}")
            except BaseException:
                with suppress(Exception):
                    self.delete_folder(path)
                raise
        for name in {*old, begun} - {f"{path}/{name}" for name in names}:
            self.delete(name)

    def _put(self, local: Path, path: str) -> None:
        with self._explained("write", path):
            self._upload(local, path)

    def size(self, path: str) -> int | None:
        return self._size_in(path, self._info(path))

    def version(self, path: str) -> str | None:
        return version_of(self._info(path))

    def delete(self, path: str) -> bool:
        self._check_writable(path, "delete")
        if self._info(path) is None:
            return False
        with self._explained("delete", path):
            system, key = self._at(path)
            system.rm_file(key)
        return True

    def delete_folder(self, folder: str) -> None:
        self._check_writable(folder, "delete")
        for each in list(self.files(folder)):
            self.delete(each.path)

    def move_folder(self, old: str, new: str, last: str) -> None:
        self._check_writable(old, "move")
        names = sorted((each.path for each in self.files(old)), key=f"{old}/{last}".__eq__)
        with self._explained("move", old):
            for name in names:
                system, key = self._at(name)
                target = self._at(new + name.removeprefix(old))[1]
                if self.protocol not in ATOMIC_UPLOADS:
                    system.makedirs(target.rpartition("/")[0], exist_ok=True)
                system.cp_file(key, target)  # `copy` would take the signs *, ? and [ for patterns
        self.delete_folder(old)

    def remove_unfinished(self) -> int:
        if self.protocol in READ_ONLY:
            return 0
        with self._explained("clean up", TEMPORARY):
            system, root = self._at("")
            if self.protocol in S3:
                return uploads.abort_forgotten(system, root)
            count = 0
            with suppress(FileNotFoundError):
                for key, info in system.find(f"{root}/{TEMPORARY}", detail=True).items():
                    if is_dead(str(key).rpartition(".")[2]) or is_forgotten(info):
                        system.rm_file(key)
                        count += 1
            return count

    def files(self, folder: str) -> Iterator[StoredFile]:
        with self._explained("list", folder or "the files"):
            system, root = self._at("")
            start = str(root).strip("/")
            for key, info in system.find(f"{root}/{folder}" if folder else root, detail=True).items():
                name = str(key).strip("/").removeprefix(start).removeprefix("/")
                # Some programs mark a folder by an empty file whose name ends with a slash.
                if not name.startswith(f"{TEMPORARY}/") and not str(key).endswith("/"):
                    yield StoredFile(self._unquoted(name), info.get("size"), changed_at(info))

    def locate(self, path: str) -> str:
        return self.shown + ("" if self.shown.endswith("/") else "/") + path

    def _check_writable(self, path: str, verb: str) -> None:
        if self.protocol in READ_ONLY:
            raise StorageError(
                f"can't {verb} {path}: the storage {self.shown} can only be read: "
                "set PACKMULE_STORAGE to a folder or an object store"
            )

    def _info(self, path: str) -> dict[str, Any] | None:
        """What the file system says of a file; None for a folder, or if there is none."""
        with self._explained("read", path):
            system, key = self._at(path)
            try:
                found: dict[str, Any] = system.info(key)
            except (FileNotFoundError, NotADirectoryError) as error:
                if is_missing(error):
                    return None
                raise error.__cause__ or error from None
        return found if found["type"] == "file" else None

    def _size_in(self, path: str, found: dict[str, Any] | None) -> int | None:
        if found is None:
            return None
        if found["size"] is None:
            raise StorageError(f"can't read {path}: {self.shown} does not report its size")
        return int(found["size"])

    def _download(self, path: str, local: Path, size: int) -> int:
        """Write the file to `local`; in how many parts it came, each of the file as it was then."""
        system, key = self._at(path)
        if size > CHUNK and system.async_impl:
            # It streams, S3 best in one answer, and resumes an answer that breaks off.
            system.get_file(key, str(local), **({"max_concurrency": 1} if self.protocol in S3 else {}))
            return 2
        starts = range(0, size, CHUNK)
        with local.open("wb") as file:
            # In ranges, because some systems share a file object between threads.
            for start in starts:
                file.write(system.cat_file(key, start=start, end=min(start + CHUNK, size)))
        return max(1, len(starts))

    def _upload(self, local: Path, path: str) -> None:
        system, key = self._at(path)
        if self.protocol in ATOMIC_UPLOADS:
            if self.protocol in S3:
                uploads.upload(system, local, key)
            else:
                system.put_file(str(local), key)
            return
        _, unfinished = self._at(f"{TEMPORARY}/{secrets.token_hex(8)}.{owner()}")
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
        name = quote(path) if self.protocol in READ_ONLY else path
        return system, f"{root}/{name}" if path else root

    def _unquoted(self, name: str) -> str:
        return unquote(name) if self.protocol in READ_ONLY else name

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
            raise fault(f"can't {verb} {path} in {self.shown}", error) from error


def _forget_lock() -> None:
    """Let fsspec begin anew in a forked process, where the thread that had its lock may not be."""
    if asyn := sys.modules.get("fsspec.asyn"):
        asyn.reset_lock()


os.register_at_fork(after_in_child=_forget_lock)
