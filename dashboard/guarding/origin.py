"""Origin: whether a request names this site, and whether one of this site's own pages sent it."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.types import Scope

    from packmule.dashboard.guarding.rules import Rules

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

PORTS = {"http": "80", "https": "443"}

_HOST = re.compile(r"(?P<name>[a-z0-9._-]{1,255}|\[[0-9a-f:.]{2,50}\])(:(?P<port>[0-9]{1,5}))?")


def check_host(scope: Scope, rules: Rules) -> None:
    """Refuse a request that calls this site by a name that isn't the site's.

    So a page elsewhere can't make its own name lead here and then read our pages as its own.
    """
    told = Headers(scope=scope).getlist("host")
    found = _HOST.fullmatch(told[0].lower()) if len(told) == 1 else None
    if found is None:
        raise HTTPException(400, "The Host header is missing or isn't the name of a host.")
    name = found["name"].strip("[]").rstrip(".")
    if _is_loopback(name):
        return
    if name not in rules.hosts if rules.hosts else _is_loopback((scope.get("server") or ("",))[0]):
        raise HTTPException(
            421,
            f"This dashboard isn't called {name}: name it in PACKMULE_HOSTS if that is meant to lead here.",
        )


def check_origin(scope: Scope) -> None:
    """Refuse a change that no page of this site asked for, and what another site wants to embed.

    Browsers say by `Sec-Fetch-Site` which page asks, and older ones by `Origin`. A change that says neither
    is refused.
    """
    headers = Headers(scope=scope)
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if scope["method"] in SAFE_METHODS:
        navigates = (
            headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        )
        if site in (None, "same-origin", "none") or navigates:
            return
        raise HTTPException(403, "Another site requested this page: open it in a tab of its own.")
    if site is None and origin is None:
        raise HTTPException(
            403,
            "The request doesn't say which page sent it, so nothing was changed: browsers send "
            "Sec-Fetch-Site or"
            " Origin. Programs use the API with a token.",
        )
    if site not in ("same-origin", "none") if site is not None else not _is_own(origin or "", headers, scope):
        raise HTTPException(403, "Another site sent this, so nothing was changed.")


def _is_own(origin: str, headers: Headers, scope: Scope) -> bool:
    """Whether an origin is this site. One that came by TLS may have lost it on its way; never the reverse."""
    scheme, _, place = origin.lower().partition("://")
    asked, own = _HOST.fullmatch(place), _HOST.fullmatch(headers.get("host", "").lower())
    if scheme not in PORTS or not asked or not own or (scope.get("scheme"), scheme) == ("https", "http"):
        return False
    return (asked["name"], asked["port"] or PORTS[scheme]) == (own["name"], own["port"] or PORTS[scheme])


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
