"""The page to go on to after a login: one of the site's own, whatever the address asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from packmule.dashboard.guarding.forwarding import root
from packmule.dashboard.pages.addresses import address

if TYPE_CHECKING:
    from starlette.requests import Request

LONGEST = 2_000


def own_path(text: str, prefix: str = "") -> str | None:
    r"""`text` if it is a path of this site, with its query; None if a browser could take it for another's.

    >>> own_path("/jobs?q=a"), own_path("//evil.example"), own_path("/\\evil.example")
    ('/jobs?q=a', None, None)
    """
    is_plain = text.isascii() and text.isprintable() and not {" ", "\\"} & set(text)
    if not is_plain or len(text) > LONGEST or not text.startswith("/") or text.startswith("//"):
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    is_below = parts.path == prefix or parts.path.startswith(f"{prefix}/")
    if parts.scheme or parts.netloc or not is_below or ".." in parts.path.split("/"):
        return None
    return text


def next_page(request: Request, wanted: str) -> str:
    """Where a login leads: the page that was asked for, else the overview; never back to the login."""
    prefix = root(request.scope)
    path = own_path(wanted, prefix)
    if path is None or path.removeprefix(prefix).startswith(("/login", "/logout", "/static", "/api")):
        return address(request, "overview")
    return path
