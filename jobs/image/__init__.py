"""The image job: decodes an image once and makes any number of renditions from it."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec

from packmule.jobs import current
from packmule.jobs.image.cascade import Cascade
from packmule.jobs.image.encode import ENCODINGS, encoded
from packmule.jobs.image.rendition import Plan, Rendition, Size, plan
from packmule.jobs.image.reuse import Made, Reuse
from packmule.jobs.image.source import ImageTooLarge, UnreadableImage, opened
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job import job
from packmule.jobs.storage import FileTooLarge, MissingFile, OutsideStorage, Storage
from packmule.jobs.storage.store import sha256_of
from packmule.units import GIB

__all__ = ["ImageTooLarge", "Rendition", "UnreadableImage", "image"]

MAX_RENDITIONS = 100
HOPELESS = (UnreadableImage, ImageTooLarge, MissingFile, OutsideStorage, FileTooLarge)
Renditions = Annotated[list[Rendition], msgspec.Meta(min_length=1, max_length=MAX_RENDITIONS)]


@job(
    queue="default",
    timeout=300,
    retries=1,
    give_up_on=HOPELESS,
    isolate=True,
    max_memory=2 * GIB,
    max_cpu=300,
)
def image(source: str, renditions: Renditions, out: str | None = None) -> dict[str, Any]:
    """Make `renditions` of the stored image `source`, upright, in sRGB, and without metadata.

    Sizes are in pixels. Each rendition is a `Rendition` or a dict of its fields, and is written to the folder
    `out` (default: `renditions/<job id>`) as `<name>.<suffix>`, or without a name as
    `<source's stem>-<width>x<height>.<suffix>`. Of an animation, the first frame is used.

    Returns the facts of the source, and of the renditions in the order given::

        {"source": {"path": "uploads/a.jpg", "format": "jpeg", "width": 6000, "height": 4000},
         "renditions": [{"path": "renditions/7f0c/a-800x533.jpg", "format": "jpeg",
                         "width": 800, "height": 533, "bytes": 90210}]}

    Raises `MissingFile`, `FileTooLarge`, `UnreadableImage` or `ImageTooLarge`. The source and the sizes are
    checked before anything is written.

    >>> image.enqueue("uploads/a.jpg", [Rendition(width=800), Rendition(width=200)])  # doctest: +SKIP
    """
    storage, limits = current.resource(Storage), current.resource(InputLimits)
    wanted = msgspec.convert(renditions, Renditions)
    total = len(wanted) + 1
    with storage.read(source, limits.file_bytes) as file, opened(file, source, limits.pixels) as original:
        plans = [plan(rendition, original.size, original.kept, original.has_alpha) for rendition in wanted]
        for planned in plans:
            _check(planned, limits.pixels)
        paths = _paths(source, (out or f"renditions/{_run(file)}").rstrip("/"), plans)

        reuse, written = Reuse(storage, file, plans), dict[str, Made]()
        for path, made in zip(paths, reuse.made(), strict=False):
            if reuse.copy(made, path):
                written[path] = made._replace(path=path)
                current.progress(1 + len(written), total, path)
        missing = [pair for pair in zip(paths, plans, strict=True) if pair[0] not in written]
        if missing:
            cascade = Cascade(original, [planned.frame for _, planned in missing])
            current.progress(1 + len(written), total, f"decoded {source}")
        for path, planned in sorted(missing, key=_largest_first):
            data = encoded(cascade.rendition(planned), planned.format, planned.quality)
            storage.write_bytes(path, data)
            written[path] = Made(path, hashlib.sha256(data).hexdigest(), len(data))
            current.progress(1 + len(written), total, path)
        reuse.remember([written[path] for path in paths])
    return {
        "source": {"path": source, **_facts(original.format, original.size)},
        "renditions": [
            {"path": path, **_facts(planned.format, planned.size), "bytes": written[path].bytes}
            for path, planned in zip(paths, plans, strict=True)
        ],
    }


def _facts(format: str, size: Size) -> dict[str, Any]:
    return {"format": format, "width": size[0], "height": size[1]}


def _largest_first(pair: tuple[str, Plan]) -> int:
    width, height = pair[1].frame
    return -width * height


def _run(file: Path) -> str:
    """The name of this run's folder: the job's id, so that a retry overwrites its files, or the digest."""
    return current.job_id() or sha256_of(file)[:16]


def _check(planned: Plan, max_pixels: int) -> None:
    width, height = planned.size
    side = ENCODINGS[planned.format].max_side
    if width * height > max_pixels:
        raise ImageTooLarge(f"a rendition of {width}x{height} is over the limit of {max_pixels:,} pixels")
    if max(width, height) > side:
        raise ImageTooLarge(
            f"a rendition of {width}x{height} is too large for {planned.format}, with at most {side:,} a side"
        )


def _paths(source: str, folder: str, plans: list[Plan]) -> list[str]:
    """A path for each plan; if several would be the same, the later ones get a number."""
    paths: list[str] = []
    for planned in plans:
        width, height = planned.size
        stem = planned.name or f"{PurePosixPath(source).stem[:80]}-{width}x{height}"
        suffix = ENCODINGS[planned.format].suffix
        path, number = f"{folder}/{stem}{suffix}", 1
        while path in paths:
            number += 1
            path = f"{folder}/{stem}-{number}{suffix}"
        paths.append(path)
    return paths
