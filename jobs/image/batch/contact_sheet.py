"""The contact sheet: a page that shows what a run made, for a browser, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib import resources
from typing import Any
from urllib.parse import quote

from packmule.jobs.image.batch.manifest import Entry, Manifest
from packmule.jobs.image.batch.target import Target
from packmule.plain_text import plain

NAME = "contact-sheet.html"

ENOUGH = 240
"""The width in pixels of which a picture on the sheet should be."""


def write(target: Target, manifest: Manifest) -> None:
    """Write the sheet beside the manifest."""
    target.storage.write_bytes(target.path(NAME), page(manifest).encode())


def page(manifest: Manifest) -> str:
    """The sheet as HTML: a figure for each source, and those without renditions with the reason."""
    template = resources.files(__package__).joinpath("contact_sheet.html").read_text()
    done = {
        name: entry for name, entry in manifest.sources.items() if entry.error is None and entry.renditions
    }
    failed = {name: entry.error for name, entry in manifest.sources.items() if entry.error is not None}
    summary = f"{len(done):,} image{'' if len(done) == 1 else 's'}"
    if failed:
        summary += f", {len(failed):,} failed"
    parts = {
        "summary": summary,
        "figures": "\n".join(_figure(name, entry) for name, entry in done.items()),
        "failures": "\n".join(
            f"<li><b>{_text(name)}</b> {_text(error)}</li>" for name, error in failed.items()
        ),
    }
    for name, part in parts.items():
        template = template.replace(f"<!--{name}-->", part, 1)
    return template


def _figure(name: str, entry: Entry) -> str:
    shown = _shown(entry)
    size = "".join(
        f' {side}="{shown[side]}"' for side in ("width", "height") if isinstance(shown.get(side), int)
    )
    links = " ".join(_links(entry))
    return (
        f'<figure><a href="{_address(shown)}"><img src="{_address(shown)}" alt="{_text(name)}"{size} '
        f'loading="lazy" decoding="async"></a><figcaption><b>{_text(name)}</b> {links}</figcaption></figure>'
    )


def _links(entry: Entry) -> Iterator[str]:
    for each in entry.renditions:
        said = f"{each.get('width')} × {each.get('height')} {each.get('format')}"
        yield f'<a href="{_address(each)}">{_text(said)}</a>'


def _shown(entry: Entry) -> dict[str, Any]:
    """The smallest rendition that is wide enough, or else the widest."""
    ordered = sorted(entry.renditions, key=_width)
    return next((each for each in ordered if _width(each) >= ENOUGH), ordered[-1])


def _width(rendition: dict[str, Any]) -> int:
    width = rendition.get("width")
    return width if isinstance(width, int) else 0


def _address(rendition: dict[str, Any]) -> str:
    # A colon in the first folder would make a scheme of it.
    return escape("./" + quote(str(rendition.get("path"))))


def _text(text: object) -> str:
    return escape(plain(text))
