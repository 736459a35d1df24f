"""Positions: what was known when a page was begun, so that its stream tells all that changed since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request

from packmule.dashboard.live.streams import hub_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class Positions:
    """Notes the hub's position in `scope["state"]["position"]` before a page reads anything.

    If the hub doesn't watch, it begins to, so that a page is as good as its stream from the first one on.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as the site does."""
        if scope["type"] == "http" and _is_page(Request(scope)):
            hub = hub_of(scope["app"])
            await hub.ready()
            scope["state"]["position"] = hub.position
        await self.app(scope, receive, send)


def _is_page(request: Request) -> bool:
    """Whether somebody who has logged in may get a whole page that lives."""
    return (
        request.method == "GET"
        and "text/html" in request.headers.get("accept", "")
        and "region" not in request.query_params
        and bool(request.state.viewer and request.state.viewer.name)
    )
