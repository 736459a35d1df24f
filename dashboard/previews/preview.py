"""The preview of a job: a template, and the values that it shows, by the name of the function that ran."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from packmule.dashboard.previews import sampling
from packmule.dashboard.previews.outputs import Output, outputs, paths_of
from packmule.jobs.reader import JobInfo
from packmule.units import MIB

if TYPE_CHECKING:
    from packmule.dashboard.site import Site

MOST_PICTURES = 24

LARGEST_PICTURE = 4 * MIB
"""Bytes of a picture that is shown; larger ones are links."""

LONGEST_SIDE = 1_000_000
"""Pixels of a side that a result may tell of."""

SIDE = 220
"""Pixels of the longer side of a picture on the page."""


class Preview(NamedTuple):
    """A template in `pages/templates`, which sees `values` under the name `preview`."""

    template: str
    values: Mapping[str, Any]


class Picture(NamedTuple):
    """A rendition, and the size at which it is shown; without a size it is a link."""

    file: Output
    label: str
    width: int | None
    height: int | None


class _Rendition(msgspec.Struct, frozen=True):
    path: str
    format: str
    width: Annotated[int, Meta(le=LONGEST_SIDE)]
    height: Annotated[int, Meta(le=LONGEST_SIDE)]


def preview(site: Site, info: JobInfo) -> Preview | None:
    """What the page of the job shows of what it has made, for viewers who may see that; None for nothing.

    >>> preview(site, reader.read(client, "2a9f")).template  # doctest: +SKIP
    'preview_pictures.html'
    """
    made = PREVIEWS.get(info.name, files)(site, info)
    return made or files(site, info)


def files(site: Site, info: JobInfo) -> Preview | None:
    """The files of any job, to download."""
    found = outputs(site, paths_of(info))
    # Another function's result may name a path that has nothing to do with the storage.
    if info.name not in PREVIEWS:
        found = [each for each in found if each.bytes is not None]
    return Preview("preview_files.html", {"files": found}) if found else None


def pictures(site: Site, info: JobInfo) -> Preview | None:
    """The renditions of an image job."""
    said = info.result.get("renditions") if isinstance(info.result, dict) else None
    try:
        made = {each.path: each for each in msgspec.convert(said, list[_Rendition])}
    except msgspec.ValidationError:
        return None
    found = outputs(site, [path for path in paths_of(info) if path in made][:MOST_PICTURES])
    shown = [_picture(each, made[each.path]) for each in found]
    return Preview("preview_pictures.html", {"pictures": shown, "more": len(made) - len(shown)})


def table(site: Site, info: JobInfo) -> Preview | None:
    """What a file job converted or inspected: first rows, members of an archive, or text."""
    paths = paths_of(info)
    if not paths:
        return None
    seen, fault = sampling.sampled(site, paths[0])
    return Preview("preview_table.html", {"files": outputs(site, paths), "sample": seen, "fault": fault})


def _picture(file: Output, made: _Rendition) -> Picture:
    label = f"{made.width:,} × {made.height:,} {made.format}"
    longer = max(made.width, made.height)
    is_shown = file.bytes is not None and file.bytes <= LARGEST_PICTURE and min(made.width, made.height) > 0
    if not is_shown:
        return Picture(file, label, None, None)
    scale = min(1.0, SIDE / longer)
    return Picture(file, label, max(1, round(made.width * scale)), max(1, round(made.height * scale)))


PREVIEWS: dict[str, Callable[[Site, JobInfo], Preview | None]] = {
    "packmule.jobs.image.image": pictures,
    "packmule.jobs.files.file": table,
}
"""How ready-made jobs are shown; a room with another one enters its own, such as that of mails."""
