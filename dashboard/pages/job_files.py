"""The files that a job's result names: browsers show pictures among them, and download all others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from packmule.dashboard.previews.outputs import fault_of, paths_of, storage_of
from packmule.dashboard.previews.preview import LARGEST_PICTURE
from packmule.dashboard.rights import HIDDEN
from packmule.errors import NotFound
from packmule.jobs import reader
from packmule.jobs.files.signatures import kind_of
from packmule.jobs.storage import StorageError, safe_name
from packmule.units import KIB

SHOWN = ("image/jpeg", "image/png", "image/webp", "image/gif")
"""What browsers may show, judged by content; never SVG or HTML, which can hold scripts."""

CHUNK = 256 * KIB

BINARY = "application/octet-stream"
POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"


class NoSuchOutput(NotFound, LookupError):
    """A job's result names no such file, or it isn't there any more."""


def output(request: Request) -> Response:
    """`/outputs/<id>?file=<path>`: a file that the job's result names; with `download` it is never shown."""
    if not request.state.viewer.may_see_payloads:
        raise HTTPException(403, f"What the job has made is {HIDDEN}.")
    site = request.app.state.site
    id, path = request.path_params["id"], request.query_params.get("file", "")
    if path not in paths_of(reader.read(site.client, id)):
        raise NoSuchOutput(f"the result of job {id} names no such file: see its page")
    closing = ExitStack()
    try:
        file = closing.enter_context(storage_of(site).read(path, site.api.max_file_bytes))
        content = closing.enter_context(file.open("rb"))
    except (StorageError, OSError) as error:
        closing.close()
        raise NoSuchOutput(f"{path} {fault_of(path, error)}") from None
    size = file.stat().st_size
    media, how = _shown_as(request, file, size)
    name = safe_name(PurePosixPath(path).name).encode("ascii", "replace").decode().replace("?", "-")
    return StreamingResponse(
        _parts(closing, content, size),
        media_type=media,
        headers={
            "Content-Length": str(size),
            "Content-Disposition": f'{how}; filename="{name}"',
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
        },
    )


def _shown_as(request: Request, file: Path, size: int) -> tuple[str, str]:
    """The media type, and whether a browser shows it."""
    if "download" in request.query_params or size > LARGEST_PICTURE:
        return BINARY, "attachment"
    media = kind_of(file).type
    return (media, "inline") if media in SHOWN else (BINARY, "attachment")


def _parts(closing: ExitStack, content: BinaryIO, left: int) -> Iterator[bytes]:
    """As much as was promised, though somebody may write to the file meanwhile."""
    with closing:
        while part := content.read(min(left, CHUNK)):
            left -= len(part)
            yield part


ROUTES = [Route("/outputs/{id:path}", output, methods=["GET"], name="output")]
