"""Sources: the images that a caller names, as files, folders, URLs, or paths in the storage."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from packmule.errors import UsageError
from packmule.jobs.storage import MissingFile, Storage
from packmule.jobs.storage.store import explained

STORED = "store:"
"""The prefix of a path that is in the storage already."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif"}
    | {".heic", ".heif"}
)
"""What the names of a folder's images end with, unless the caller chooses files."""


class NoImages(UsageError, LookupError):
    """A folder has no file that looks like an image."""


class TargetIsSource(UsageError, ValueError):
    """Renditions would get into the folder of their sources, and be sources of the next run."""


class Source(NamedTuple):
    """One image: the `name` by which people and manifests know it, and where it is (`at`)."""

    name: str
    kind: Literal["file", "stored", "url"]
    at: str


class _Found(NamedTuple):
    short: str
    long: str
    kind: Literal["file", "stored", "url"]
    at: str


def gather(
    words: Sequence[str],
    storage: Storage,
    globs: Sequence[str] = (),
    leave_out: Sequence[str] = (),
) -> list[Source]:
    """The images that `words` name, each once: files, folders, `store:PATH` and URLs.

    Folders are searched with all below them, but for hidden files and `leave_out`, which are local folders or
    `store:PATH`. Of a folder come the files that fit one of `globs`, by default those named like images.
    Raises `MissingFile`, or `NoImages` for a folder without any.

    >>> gather(["a/x.jpg", "b/x.jpg"], storage)  # doctest: +SKIP
    [Source(name='a/x.jpg', kind='file', at='a/x.jpg'), Source(name='b/x.jpg', kind='file', at='b/x.jpg')]
    """
    outside = {each.rstrip("/") if each.startswith(STORED) else os.path.realpath(each) for each in leave_out}
    found: dict[tuple[str, str], _Found] = {}
    for word in words:
        is_alone = len(words) == 1
        named: Iterable[_Found]
        if "://" in word:
            named = _of_url(word)
        elif word.startswith(STORED):
            named = _stored(word.removeprefix(STORED), storage, globs, outside, is_alone)
        else:
            named = _local(word, globs, outside, is_alone)
        for each in named:
            found.setdefault((each.kind, os.path.realpath(each.at) if each.kind == "file" else each.at), each)
    return _named(found.values())


def folded(name: str) -> str:
    """What file systems that ignore cases and forms of letters take for the same name."""
    return unicodedata.normalize("NFC", name).casefold()


def clean(name: str) -> str:
    """`name` without what no path in a storage may have: controls, `\\`, and bytes that aren't UTF-8."""
    text = unicodedata.normalize("NFC", os.fsencode(name).decode(errors="replace"))
    return "".join("-" if c == "\\" or unicodedata.category(c) == "Cc" else c for c in text)


def _local(word: str, globs: Sequence[str], outside: set[str], is_alone: bool) -> Iterable[_Found]:
    path = Path(word)
    with explained("read", f"{word:.200}"):
        if path.is_dir():
            return _in_folder(path, globs, outside, is_alone)
        if path.is_file():
            long = "/".join(part for part in path.parts if part not in ("..", "/"))
            return [_Found(path.name, long, "file", word)]
    raise MissingFile(f"there is no file {word:.200}; {STORED}PATH names one in the storage")


def _in_folder(folder: Path, globs: Sequence[str], outside: set[str], is_alone: bool) -> Iterator[_Found]:
    _refuse_itself(str(folder), os.path.realpath(folder), outside)
    count = 0
    own = f"{folder.resolve().name}/"
    root = "" if is_alone else own

    def fail(error: OSError) -> None:
        raise error

    with explained("read", str(folder)):
        for here, folders, names in os.walk(folder, onerror=fail):
            folders[:] = sorted(
                each
                for each in folders
                if not each.startswith(".") and os.path.realpath(Path(here) / each) not in outside
            )
            for name in sorted(names):
                at = Path(here) / name
                inner = at.relative_to(folder).as_posix()
                if _fits(inner, globs) and at.is_file():
                    count += 1
                    yield _Found(root + inner, own + inner, "file", str(at))
    if not count:
        raise _nothing_in(str(folder), globs)


def _stored(
    path: str, storage: Storage, globs: Sequence[str], outside: set[str], is_alone: bool
) -> Iterator[_Found]:
    folder = path.rstrip("/")
    if path and folder == path and storage.exists(path):
        yield _Found(PurePosixPath(path).name, path, "stored", path)
        return
    _refuse_itself(f"{STORED}{folder}", f"{STORED}{folder}", outside)
    names = storage.names(f"{folder}/" if folder else "")
    if not names:
        raise MissingFile(f"the storage has neither a file nor a folder {path}")
    root = "" if is_alone or not folder else f"{PurePosixPath(folder).name}/"
    count = 0
    for name in names:
        inner = name[len(folder) + 1 :] if folder else name
        if _fits(inner, globs) and not any(f"{STORED}{name}".startswith(f"{each}/") for each in outside):
            count += 1
            yield _Found(root + inner, name, "stored", name)
    if not count:
        raise _nothing_in(f"{STORED}{path}", globs)


def _of_url(url: str) -> list[_Found]:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"{url:.200}: {error}") from None
    path = unquote(parts.path).strip("/")
    host = parts.hostname or "image"
    return [_Found(PurePosixPath(path).name or host, f"{host}/{path}".rstrip("/"), "url", url)]


def _fits(inner: str, globs: Sequence[str]) -> bool:
    path = PurePosixPath(inner)
    if any(part.startswith(".") for part in path.parts):
        return False
    return any(map(path.match, globs)) if globs else path.suffix.lower() in SUFFIXES


def _nothing_in(folder: str, globs: Sequence[str]) -> NoImages:
    if globs:
        return NoImages(f"no file in {folder} matches {' or '.join(globs)}")
    return NoImages(f"{folder} has no file that is named like an image: --glob '*' takes all")


def _refuse_itself(said: str, folder: str, outside: set[str]) -> None:
    if folder in outside:
        raise TargetIsSource(
            f"{said} contains the sources: put the renditions into another folder, or a folder in it"
        )


def _named(found: Iterable[_Found]) -> list[Source]:
    """Short names where they differ, else longer ones where these do, and numbers where neither does."""
    alike: dict[str, list[_Found]] = {}
    for each in found:
        alike.setdefault(folded(clean(each.short)), []).append(each)
    taken: set[str] = set()
    sources = []
    for group in alike.values():
        longer = {folded(clean(each.long)) for each in group}
        for each in group:
            wish = PurePosixPath(clean(each.long if len(longer) == len(group) > 1 else each.short))
            name, number = wish, 1
            while folded(str(name)) in taken:
                number += 1
                name = wish.with_name(f"{wish.stem}-{number}{wish.suffix}")
            taken.add(folded(str(name)))
            sources.append(Source(str(name), each.kind, each.at))
    return sources
