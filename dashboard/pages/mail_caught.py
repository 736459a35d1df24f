"""Caught mails: what the mail catcher has stored in development, readable, and without loading anything."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from html import escape
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from packmule.dashboard.pages.paging import MOST_BYTES, page_of, small
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.previews.outputs import fault_of, storage_of
from packmule.dashboard.rights import HIDDEN
from packmule.errors import NotFound
from packmule.jobs.email.catcher import FOLDER, MAX_MAIL
from packmule.jobs.email.received import Received, UnreadableMail, read
from packmule.jobs.storage import StorageError
from packmule.units import KIB, MIB

MOST_FILES = 5_000
MOST_RAW = 20 * KIB
"""Bytes of a mail that its page shows raw; the whole is a download."""

A_ROW = 200
"""Characters of the text and the source that a mail's page shows for each of its rows."""

MOST_IMAGES = 2 * MIB
"""Bytes of images inside a mail that are shown with its HTML."""

IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
SANDBOX = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'self'"
"""What the HTML of a mail may do: be styled by itself, and show the images that it has inside."""

FRAMED = {"Content-Security-Policy": SANDBOX, "X-Frame-Options": "SAMEORIGIN"}

_NAME = re.compile(r"(\d{8}T\d{6}\.\d{6})Z-[0-9a-f]{8}\.eml")
_CID = re.compile(r"(?i)\bcid:([A-Za-z0-9._@%+-]{1,200})")


class NoSuchMail(NotFound, LookupError):
    """The mail catcher has stored no such mail, or somebody has removed it."""


class Caught(NamedTuple):
    """A file of the catcher: its name, and when the mail came, in Unix seconds."""

    name: str
    at: float


def caught(request: Request) -> Response:
    """`/mail/caught`: the mails that the catcher has stored, the newest first."""
    fault, found = "", list[Caught]()
    if request.state.viewer.may_see_payloads:
        try:
            found = _listed(request)
        except (StorageError, OSError) as error:
            fault = fault_of(FOLDER, error)

    def of_rows(size: int) -> Response:
        page = page_of(found, request, size)
        rows = [(each, *_head(request, each.name)) for each in page.rows]
        return render(
            request,
            "mail_caught.html",
            page=page,
            rows=rows,
            fault=fault,
            sees=request.state.viewer.may_see_payloads,
        )

    return small(of_rows, MOST_BYTES, "list", size=25)


def one(request: Request) -> Response:
    """`/mail/caught/{name}`: its HTML in a frame of its own, its text, headers and source."""
    content = _content(request)
    fault, mail = "", Received([], [], None, None)
    try:
        mail = read(content)
    except UnreadableMail as error:
        fault = str(error)
    name = request.path_params["name"]

    def of_size(size: int) -> Response:
        return render(
            request,
            "mail_caught_one.html",
            name=name,
            fault=fault,
            at=_at(name),
            **sizes(mail, content, size),
        )

    return small(of_size, MOST_BYTES, "mail", size=64)


def html(request: Request) -> Response:
    """`/mail/caught/{name}/html`: the mail's HTML, for the frame."""
    try:
        mail = read(_content(request))
    except UnreadableMail as error:
        return HTMLResponse(escape(str(error)), headers=FRAMED)
    return HTMLResponse(with_images(mail), headers=FRAMED)


def raw(request: Request) -> Response:
    """`/mail/caught/{name}/raw`: the mail as it came, to download."""
    headers = {"Content-Disposition": f'attachment; filename="{request.path_params["name"]}"'}
    return Response(_content(request), media_type="application/octet-stream", headers=headers)


def sizes(mail: Received, content: bytes, size: int) -> dict[str, Any]:
    """What a page shows of a mail whose source is `content`, the smaller the smaller `size` is."""
    raw = content[: min(MOST_RAW, size * A_ROW)]
    return {
        "mail": mail,
        "size": len(content),
        "text": (mail.text or "")[: size * A_ROW],
        "headers": [(each, value[: 6 * size]) for each, value in mail.headers[:size]],
        "parts": mail.parts[:size],
        "raw": raw.decode("utf-8", "replace"),
        "is_cut": len(content) > len(raw),
    }


def with_images(mail: Received) -> str:
    """A mail's HTML, which shows the images that the mail has inside."""
    room, found = MOST_IMAGES, dict[str, str]()
    for part in mail.parts:
        if part.cid and part.type in IMAGES and part.cid not in found and len(part.content) <= room:
            room -= len(part.content)
            found[part.cid] = f"data:{part.type};base64,{base64.b64encode(part.content).decode()}"
    used = set[str]()

    def shown(match: re.Match[str]) -> str:
        if match[1] not in found or match[1] in used:  # each once: a mail can't blow itself up
            return match[0]
        used.add(match[1])
        return found[match[1]]

    return _CID.sub(shown, mail.html or "")


def _listed(request: Request) -> list[Caught]:
    names = (each.rpartition("/")[2] for each in storage_of(request.app.state.site).names(f"{FOLDER}/"))
    found = [Caught(name, _at(name)) for name in names if _NAME.fullmatch(name)]
    found.sort(key=lambda each: each.name, reverse=True)
    return found[:MOST_FILES]


def _head(request: Request, name: str) -> tuple[str, str, str]:
    """The recipients, the sender and the subject of a stored mail."""
    try:
        with (
            storage_of(request.app.state.site).read(f"{FOLDER}/{name}", MAX_MAIL + MIB) as path,
            path.open("rb") as file,
        ):
            head = file.read(16 * KIB)
        mail = read(head.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    except (StorageError, OSError, UnreadableMail):
        return "", "", "it can't be read"
    return mail.header("X-Envelope-To"), mail.header("From"), mail.header("Subject")


def _content(request: Request) -> bytes:
    if not request.state.viewer.may_see_payloads:
        raise HTTPException(403, f"The content of mails is {HIDDEN}.")
    name = request.path_params["name"]
    if not _NAME.fullmatch(name):
        raise NoSuchMail("the mail catcher has stored no mail of this name: see /mail/caught")
    try:
        return storage_of(request.app.state.site).read_bytes(f"{FOLDER}/{name}", MAX_MAIL + MIB)
    except (StorageError, OSError) as error:
        raise NoSuchMail(f"{name} {fault_of(name, error)}") from None


def _at(name: str) -> float:
    found = _NAME.fullmatch(name)
    try:
        return datetime.strptime(found[1], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC).timestamp() if found else 0
    except ValueError:
        return 0


ROUTES = [
    Route("/mail/caught", caught, methods=["GET"], name="mail_caught"),
    Route("/mail/caught/{name}/html", html, methods=["GET"], name="mail_caught_html"),
    Route("/mail/caught/{name}/raw", raw, methods=["GET"], name="mail_caught_raw"),
    Route("/mail/caught/{name}", one, methods=["GET"], name="mail_caught_one"),
]
