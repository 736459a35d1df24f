"""The guard around the whole site: who asks, from which page, and what browsers may do with the answer."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request

from packmule.dashboard import messages
from packmule.dashboard.viewer import Role, Viewer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

EVERYBODY = Viewer("local", Role.ADMIN, may_see_payloads=True)

Identify = Callable[[Request], Viewer | None]
"""Who sends a request, by its cookie: None for somebody who has not logged in. It may ask Redis."""


def nobody_logs_in(request: Request) -> Viewer | None:
    """Take everybody for the one user of this machine."""
    return EVERYBODY


class Guard:
    """Lets a request through to the site with `scope["state"]`'s `viewer`, `nonce` and `message`."""

    def __init__(self, site: ASGIApp, identify: Identify = nobody_logs_in) -> None:
        self.site = site
        self.identify = identify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it to the site."""
        if scope["type"] != "http":
            await self.site(scope, receive, send)
            return
        request = Request(scope)
        nonce, message = secrets.token_urlsafe(16), messages.left(request)
        viewer = await run_in_threadpool(self.identify, request) or EVERYBODY
        scope.setdefault("state", {}).update(viewer=viewer, nonce=nonce, message=message)
        started = False

        async def guarded(event: Message) -> None:
            nonlocal started
            if event["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=event)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "same-origin"
                if message and headers.get("content-type", "").startswith("text/html"):
                    headers.append("Set-Cookie", messages.forgotten(scope))
            await send(event)

        try:
            await self.site(scope, receive, guarded)
        except Exception:
            if not started:
                raise
