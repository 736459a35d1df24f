"""The image job: decodes an image once and makes any number of renditions from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec

from packmule.jobs import context, current
from packmule.jobs.image.encode import TooManyBytes
from packmule.jobs.image.facts import Fact, srcset
from packmule.jobs.image.hostile import ImageTooLarge
from packmule.jobs.image.making import Making
from packmule.jobs.image.memory import MAX_MEMORY, given_back
from packmule.jobs.image.origin import check, is_at_url, named, original, where
from packmule.jobs.image.paths import OverwritesSource, paths_of
from packmule.jobs.image.presets import Presets, UnknownPreset
from packmule.jobs.image.rendition import Rendition
from packmule.jobs.image.reuse import Known, Reuse, Stored
from packmule.jobs.image.source import UnreadableImage, opened
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job import job
from packmule.jobs.outgoing.door import AnswerTooLarge, InvalidTarget
from packmule.jobs.outgoing.download import NotServed
from packmule.jobs.outgoing.fetch_list import NotOnList
from packmule.jobs.preset_file import PresetFile
from packmule.jobs.retention.made import new_place
from packmule.jobs.storage import FileTooLarge, MissingFile, OutsideStorage, Storage
from packmule.units import GIB

__all__ = [
    "ImageTooLarge", "OverwritesSource", "Presets", "Rendition", "TooManyBytes", "UnknownPreset",
    "UnreadableImage", "image",
]  # fmt: skip

MAX_RENDITIONS = 100
HOPELESS = (
    UnreadableImage, ImageTooLarge, TooManyBytes, OverwritesSource, UnknownPreset,
    MissingFile, OutsideStorage, FileTooLarge, InvalidTarget, NotOnList, AnswerTooLarge, NotServed,
)  # fmt: skip
Preset = Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
Renditions = Annotated[list[Rendition | Preset], msgspec.Meta(min_length=1, max_length=MAX_RENDITIONS)]


@job(
    queue="default",
    timeout=300,
    retries=1,
    give_up_on=HOPELESS,
    check=check,
    isolate=True,
    reuse=500,
    network=is_at_url,
    max_memory=MAX_MEMORY,
    max_cpu=300,
)
def image(
    source: str, renditions: Renditions, out: str | None = None, facts: tuple[Fact, ...] = ()
) -> dict[str, Any]:
    """Make `renditions` of the image `source`, a path in the storage or a URL, upright and in sRGB.

    Each rendition is a `Rendition`, a dict of its fields, or the name of a preset, such as `thumb`, `card`,
    `hero` or `hero@2x`. It is written to the folder `out` (default: `renditions/<job id>`) as
    `<name>.<suffix>`, or without a name as `<source's stem>-<width>x<height>.<suffix>`.

    Returns the facts of the source, and of the renditions in the order given::

        {"source": {"path": "uploads/a.jpg", "format": "jpeg", "width": 6000, "height": 4000},
         "renditions": [{"path": "renditions/7f0c/a-800x533.jpg", "format": "jpeg",
                         "width": 800, "height": 533, "bytes": 90210}]}

    An animation has `frames`. A rendition has `quality` if `max_bytes` lowered it, and says in `dropped` what
    the source has and its format hasn't: `animation`, `pages`, `transparency` or `metadata`.

    `facts` adds to the source `exif` (who made it, when, with which camera), `gps` (where), `colour` (the
    dominant one) and `thumbhash` (a placeholder, in base64), and to the result `srcset` for each format.

    Raises `MissingFile`, `FileTooLarge`, `UnreadableImage`, `ImageTooLarge`, `UnknownPreset`,
    `OverwritesSource` or `TooManyBytes`, and for a URL `InvalidTarget`, `NotOnList`, `AnswerTooLarge` or
    `DownloadFailed`. The source, the sizes and the paths are checked before anything is written.

    >>> image.enqueue("uploads/a.jpg", [Rendition(width=800), "thumb"], facts=["colour"])  # doctest: +SKIP
    """
    storage, limits = current.resource(Storage), current.resource(InputLimits)
    wishes = [_found(each) for each in msgspec.convert(renditions, Renditions)]
    total, name = len(wishes) + 1, named(source)

    with (
        original(source, storage, limits.file_bytes) as file,
        # Opened once, for what is remembered of these bytes must be made of them.
        file.open("rb") as content,
        _memory_explained(name),
    ):
        folder = (out or new_place("renditions", file)).rstrip("/")
        reuse = Reuse(storage, content, wishes, facts)

        def make() -> Known:
            with given_back(), opened(content, name, limits.pixels) as picture:
                making = Making(picture, wishes, limits.pixels)
                paths = paths_of(name, folder, wishes, [(plan.format, plan.canvas) for plan in making.plans])
                for path in paths:
                    storage.locate(path)
                making.decode()
                _report(1, total, f"decoded {name}")
                stored: dict[int, Stored] = {}
                with storage.together():
                    for made in making.renditions():
                        path = paths[made.wish]
                        storage.write_bytes(path, made.data)
                        stored[made.wish] = Stored(path, hashlib.sha256(made.data).hexdigest(), made.facts)
                        _report(1 + len(stored), total, path)
                return Known(making.facts(facts), [stored[index] for index in range(len(wishes))])

        known, is_own = reuse.once(make)
        if not is_own:
            paths = paths_of(name, folder, wishes, [each.facts.shape for each in known.renditions])
            with storage.together():
                are_copied = all(map(reuse.copy, known.renditions, paths))
            if are_copied:
                known = known.at(paths)
                _report(total, total, paths[-1])
            else:
                known = make()
            reuse.remember(known)
        return _result(source, known, facts)


def _report(done: int, total: int, message: str) -> None:
    if job := context.running():
        job.report_unless_brief(done, total, message)


def _found(wanted: Rendition | str) -> Rendition:
    """The rendition that is wanted, perhaps by the name of one of this process's presets."""
    if isinstance(wanted, Rendition):
        return wanted
    try:
        path = current.resource(PresetFile).path
    except current.NoResource:
        path = None
    return Presets(path).find(wanted)


def _result(source: str, known: Known, facts: tuple[Fact, ...]) -> dict[str, Any]:
    renditions = [{"path": each.path, **msgspec.to_builtins(each.facts)} for each in known.renditions]
    result = {"source": where(source) | known.source, "renditions": renditions}
    return result | {"srcset": srcset(renditions)} if "srcset" in facts else result


@contextmanager
def _memory_explained(source: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise ImageTooLarge(
            f"{source} and its renditions take more memory than the {MAX_MEMORY // GIB} GiB of an image job"
        ) from None
