"""Shared regions: what many viewers with the same rights fetch at the same moment is made once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from packmule.dashboard.live.streams import hub_of

LONGEST = 1.0
"""Seconds for which a region is served again if nothing changed."""

UNWATCHED = 0.2
"""Those without a hub that would know of a change."""

MOST_ENTRIES = 200


@dataclass
class _Made:
    """A response, in which generation it was begun, and until when it may be used."""

    generation: int
    until: float
    answer: asyncio.Future[tuple[bytes, int]]


def shared(handler: Callable[[Request], Response]) -> Callable[[Request], Any]:
    """Let a page's handler make a region once for all who may see the same; a whole page is made for each.

    A region that it shows must not depend on the viewer but for the role and the right to see payloads.

    >>> @shared
    ... def overview(request): ...
    """

    @wraps(handler)
    async def sharing(request: Request) -> Response:
        if "region" not in request.query_params:
            return await run_in_threadpool(handler, request)
        hub, now = hub_of(request.app), time.monotonic()
        state = request.app.state
        made: dict[Any, _Made] | None = getattr(state, "shared_regions", None)
        if made is None:
            made = state.shared_regions = {}
        viewer = request.state.viewer
        address = request.scope.get("root_path", ""), request.scope["path"], request.scope["query_string"]
        # Another process's notice may be ahead of this one's hub: what was made before it is too old.
        position = request.headers.get("packmule-position", "")
        newer = "" if hub.number_of(position) is not None else position
        key = *address, newer, viewer.role, viewer.may_see_payloads, asyncio.get_running_loop()
        found = made.get(key)
        if found is None or found.generation != hub.generation or found.until < now:
            if len(made) >= MOST_ENTRIES:
                made.clear()
            lasting = LONGEST if hub.is_watching else UNWATCHED
            answer = asyncio.ensure_future(_made(handler, request))
            found = made[key] = _Made(hub.generation, now + lasting, answer)
        try:
            # The one who left must not take the answer along that others wait for.
            body, status = await asyncio.shield(found.answer)
        except Exception:
            made.pop(key, None)
            raise
        return HTMLResponse(body, status)

    return sharing


async def _made(handler: Callable[[Request], Response], request: Request) -> tuple[bytes, int]:
    response = await run_in_threadpool(handler, request)
    return bytes(response.body), response.status_code
