"""Where a source comes from: the storage, or a URL, fetched before the process leaves the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from packmule.jobs.image.encode import too_large
from packmule.jobs.image.rendition import Rendition
from packmule.jobs.outgoing.door import InvalidTarget, Outgoing, shown
from packmule.jobs.outgoing.fetched import fetched
from packmule.jobs.storage import MissingFile, OutsideStorage, Storage, checked, safe_name, temporary
from packmule.plain_text import mask


def is_at_url(source: str, *_: object, **__: object) -> bool:
    """Whether an image job has to fetch its source: no path in a storage looks like a URL."""
    return "://" in source


def check(
    source: str, renditions: Sequence[Rendition | str], out: str | None = None, facts: object = ()
) -> None:
    """Refuse a source, a folder or a size that no worker could use. Raises `ValueError`."""
    try:
        if is_at_url(source):
            Outgoing(source)
        else:
            checked(source)
    except (InvalidTarget, OutsideStorage) as error:
        raise ValueError(f"argument source: {error}") from None
    try:
        checked((out or "x").rstrip("/"))
    except OutsideStorage as error:
        raise ValueError(f"argument out: {error}") from None
    for number, wish in enumerate(renditions):
        if isinstance(wish, str) or not (size := wish.canvas) or wish.format is None or wish.format == "auto":
            continue
        if wrong := too_large(wish.format, size):
            raise ValueError(f"argument renditions[{number}]: {wrong}")


def named(source: str) -> str:
    """What errors and files call a source: its path, or its URL without what may be secret.

    >>> named("https://img.example.org/albums/7f/a.jpg?token=s3cret")
    'https://img.example.org/.../a.jpg'
    """
    if not is_at_url(source):
        return source
    try:
        parts = urlsplit(source)
    except ValueError:  # the door says what is wrong with it
        return shown(source)
    name = PurePosixPath(unquote(parts.path)).name
    return f"{parts.scheme}://{parts.hostname}" + (f"/.../{safe_name(name)}" if name else "/image")


def where(source: str) -> dict[str, str]:
    """What the result says of where the source is."""
    return {"url": mask(source)} if is_at_url(source) else {"path": source}


@contextmanager
def original(source: str, storage: Storage, most: int) -> Iterator[Path]:
    """A local file with the source, at most `most` bytes; after a download, the network is left for good.

    Raises what `Storage.read` and `fetched` do.
    """
    if not is_at_url(source):
        with ExitStack() as stack:
            try:
                file = stack.enter_context(storage.read(source, most))
            except MissingFile:
                if storage.names(f"{source}/"):
                    raise MissingFile(f"{source} is a folder of the storage: name an image in it") from None
                raise
            yield file
        return
    with temporary.folder() as folder:
        file = folder / "source"
        fetched(source, file, most)
        yield file
