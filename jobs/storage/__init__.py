"""Storage: where jobs read and write files, in a local folder or behind an fsspec URL."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from packmule.jobs.storage.faults import StorageUnavailable
from packmule.jobs.storage.local import LocalFolder
from packmule.jobs.storage.remote import RemoteStore
from packmule.jobs.storage.store import (
    TEMPORARY,
    FilesLeft,
    FileTooLarge,
    MissingFile,
    OutsideStorage,
    StorageError,
    StorageFull,
    Store,
    StoredFile,
    check_deleted,
    explained,
    present,
    sha256_of,
)

__all__ = [
    "FileTooLarge",
    "FilesLeft",
    "MissingFile",
    "OutsideStorage",
    "Storage",
    "StorageError",
    "StorageFull",
    "StorageUnavailable",
    "StoredFile",
    "check_deleted",
]


class Storage:
    """Files under one root. `url` is a local folder, `file://...`, or any fsspec URL (`s3://bucket/prefix`).

    Paths are relative POSIX paths inside the root (no `..`, no leading `/`, no symlink that leads out); any
    other path raises `OutsideStorage`. Safe in threads and after a fork.

    >>> storage = Storage("memory://docs")
    >>> storage.write_bytes("notes/a.txt", b"hello")
    >>> storage.read_bytes("notes/a.txt")
    b'hello'
    >>> with storage.read("notes/a.txt", max_bytes=100) as file:
    ...     file.stat().st_size
    5
    """

    def __init__(self, url: str) -> None:
        protocol = urlsplit(url).scheme if "://" in url else "file"
        self._store: Store
        if protocol in {"file", "local"}:
            folder = unquote(url.removeprefix(f"{protocol}://")) if "://" in url else url
            self._store = LocalFolder(Path(folder).expanduser().resolve())
        else:
            self._store = RemoteStore(url, protocol)

    def read(self, path: str, max_bytes: int | None = None) -> AbstractContextManager[Path]:
        """A local file with the content of `path`, to be read only, and only inside the `with` block.

        In a local folder it is the file itself, otherwise a temporary download. Raises `MissingFile`, or
        `FileTooLarge` for more than `max_bytes` bytes, before any work.
        """
        return self._store.read(checked(path), max_bytes)

    def write(self, path: str) -> AbstractContextManager[Path]:
        """A local path to write to; the file becomes `path` if the `with` block ends without an exception.

        It appears whole (synced, and replacing an older file in one step) or not at all. The local path has
        the suffix of `path` and doesn't exist yet. Raises `StorageError` if nothing was written.
        """
        return self._store.write(checked(path))

    def together(self) -> AbstractContextManager[None]:
        """A block that writes several files: the names of all of them are synced at its end, which is faster.

        Each still appears whole or not at all, but a power cut before the end may take some of them away.
        """
        return self._store.together()

    def write_folder(
        self, path: str, last: str, ours: Callable[[str], bool] = lambda name: True
    ) -> AbstractContextManager[Path]:
        """A local folder to fill; it becomes the folder `path` if the `with` block ends without an exception.

        In a local folder it appears whole, by one rename. Elsewhere its files are written one by one and
        `last` behind the others, so the folder is whole once that is there. An older folder is replaced if it
        has `last`, and no file of a name that isn't `ours`. Raises `StorageError` if something else is at
        `path`, or if `last` wasn't written.
        """
        return self._store.write_folder(checked(path), last, ours)

    def read_bytes(self, path: str, max_bytes: int | None = None) -> bytes:
        """The content of `path`. Raises `MissingFile`, or `FileTooLarge` for more than `max_bytes` bytes."""
        with self.read(path, max_bytes) as file:
            return file.read_bytes()

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write `data` to `path`, whole or not at all."""
        with self.write(path) as file, explained("write", path):
            file.write_bytes(data)

    def exists(self, path: str) -> bool:
        """Whether `path` is a file in the storage; False for a folder."""
        return self._store.size(checked(path)) is not None

    def size(self, path: str) -> int:
        """The size of `path` in bytes. Raises `MissingFile`."""
        return present(path, self._store.size(checked(path)), None)

    def version(self, path: str) -> str | None:
        """A text that is another one when `path` was written again; None if it is not a file."""
        return self._store.version(checked(path))

    def delete(self, path: str) -> bool:
        """Delete the file `path`; False if there is none."""
        return self._store.delete(checked(path))

    def delete_folder(self, folder: str) -> None:
        """Delete all files below `folder`, and in a local folder itself; nothing if there is none."""
        self._store.delete_folder(checked(folder))

    def move_folder(self, old: str, new: str, last: str) -> None:
        """Make the folder `old` the new folder `new`; by its file `last` readers know that it is whole.

        In a local folder that is one rename. Elsewhere each file is copied, `last` behind the others, and
        then `old` is deleted; if that is broken off, do it again. Raises `MissingFile` if `old` has no
        `last`.
        """
        if not self.exists(f"{old}/{last}"):
            raise MissingFile(f"{old} has no {last}")
        self._store.move_folder(checked(old), checked(new), last)

    @property
    def needs_network(self) -> bool:
        """Whether its files are elsewhere, so that isolated jobs have to connect."""
        return isinstance(self._store, RemoteStore)

    def remove_unfinished(self) -> int:
        """Delete what killed processes have left unfinished; how many files that was.

        What living processes write stays, and for a day what those of other machines have begun, and uploads.
        """
        return self._store.remove_unfinished()

    def files(self, prefix: str = "") -> Iterator[StoredFile]:
        """All files whose paths begin with `prefix`, in no order, without unfinished ones."""
        folder = prefix.rpartition("/")[0]
        if folder:
            checked(folder)
        return (
            each for each in self._store.files(folder) if each.path.startswith(prefix) and _is_fit(each.path)
        )

    def names(self, prefix: str = "") -> list[str]:
        """The paths of all files that begin with `prefix`, sorted, without unfinished ones."""
        return sorted(each.path for each in self.files(prefix))

    def put(self, local: Path, folder: str = "uploads") -> str:
        """Copy the file `local` into the storage; returns its path there.

        The path is `<folder>/<16 hex digits of its SHA-256>/<file name>`, so a file put twice is stored once.
        Raises `MissingFile` if `local` is not a file.
        """
        if not local.is_file():
            raise MissingFile(f"{local} is not a file")
        with explained("read", str(local)):
            digest = sha256_of(local)
        path = f"{folder}/{digest[:16]}/{safe_name(local.name)}"
        if not self.exists(path):
            with self.write(path) as file:
                with explained("write", path):
                    shutil.copyfile(local, file)
                if sha256_of(file) != digest:
                    raise StorageError(f"{local} changed while it was copied: try again")
        return path

    def locate(self, path: str) -> str:
        """The full location of `path` to display: an absolute path, or a URL without its password."""
        return self._store.locate(checked(path))


def checked(path: str) -> str:
    """`path`, checked to be a plain relative path. Raises `OutsideStorage`."""
    if not _is_fit(path):
        raise OutsideStorage(
            f"{path!r} is not a path in the storage: use one such as uploads/a.jpg, without .. and leading /"
        )
    return path


def _is_fit(path: str) -> bool:
    parts = path.split("/")
    plain = all(part not in {"", ".", ".."} for part in parts) and parts[0] != TEMPORARY
    # Control characters (Cc), and lone surrogates (Cs), which stand for bytes that aren't UTF-8.
    return plain and "\\" not in path and not any(unicodedata.category(c) in {"Cc", "Cs"} for c in path)


def safe_name(name: str) -> str:
    """`name` reduced to letters, digits and `. _ -`, at most 150 bytes long, with its suffix."""
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in unicodedata.normalize("NFC", name))
    stem, suffix = PurePosixPath(safe.lstrip(".")).stem, PurePosixPath(safe).suffix[:20]
    return (stem.encode()[:100].decode(errors="ignore") or "file") + suffix
