"""Messages: what an act has done, kept in a cookie for the page that comes next."""

from __future__ import annotations

import base64
import binascii

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from packmule.dashboard.guarding.forwarding import root

COOKIE = "packmule_message"
MAX_CHARACTERS = 600
TTL = 60


def leave(request: HTTPConnection, answer: Response, message: str) -> None:
    """Let the next page show `message`.

    >>> leave(request, answer, "3 jobs are queued again.")  # doctest: +SKIP
    """
    kept = base64.urlsafe_b64encode(message[:MAX_CHARACTERS].encode(errors="replace")).decode()
    answer.set_cookie(
        COOKIE, kept, max_age=TTL, path=root(request.scope) or "/", httponly=True, samesite="lax"
    )


def left(request: HTTPConnection) -> str:
    """The message that the page before left, or nothing."""
    kept = request.cookies.get(COOKIE, "")
    try:
        return base64.b64decode(kept, altchars=b"-_", validate=True).decode()[:MAX_CHARACTERS]
    except (binascii.Error, ValueError):
        return ""


def forgotten(scope: Scope) -> str:
    """The header that makes a browser forget the message it has been shown."""
    return f"{COOKIE}=; Max-Age=0; Path={root(scope) or '/'}; HttpOnly; SameSite=lax"
