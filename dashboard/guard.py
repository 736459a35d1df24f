"""The guard around the whole site: who asks, from which page, and what browsers may do with the answer."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders

from packmule.dashboard.viewer import Role, Viewer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

EVERYBODY = Viewer("local", Role.ADMIN, may_see_payloads=True)


class Guard:
    """Lets a request through to the site with `scope["state"]`'s `viewer` and `nonce`."""

    def __init__(self, site: ASGIApp) -> None:
        self.site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it to the site."""
        if scope["type"] != "http":
            await self.site(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        scope.setdefault("state", {}).update(viewer=EVERYBODY, nonce=nonce)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "same-origin"
            await send(message)

        await self.site(scope, receive, guarded)
