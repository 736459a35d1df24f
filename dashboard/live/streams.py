"""`/live`: Server-Sent Events that say which topics of an open page changed, and whether Redis is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from packmule.dashboard.live.hub import Hub, Subscriber

MOST_TOPICS = 100
LONGEST_TOPIC = 300
SILENCE = 15.0
"""Seconds after which a comment keeps proxies from closing a stream that has nothing to say."""

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def hub_of(app: Starlette) -> Hub:
    """The hub of the site, which all its pages share."""
    found: Hub | None = getattr(app.state, "hub", None)
    if found is None:
        site = app.state.site
        found = app.state.hub = Hub(site.client, site.queues)
    return found


async def live(request: Request) -> Response:
    """`/live?on=jobs+workers&since=...`: events `hello` (with the time), `stale` (topics), `away` and `back`.

    `since` is the position at which the page was made. Events have the position up to which they tell all
    that changed as their id, so that a browser that connects again goes on there.
    """
    query = request.query_params
    given = query.get("on", "").split(" ")
    wanted = {topic for topic in given[:MOST_TOPICS] if 0 < len(topic) <= LONGEST_TOPIC}
    since = request.headers.get("last-event-id") or query.get("since")
    return StreamingResponse(_events(hub_of(request.app), wanted, since), 200, HEADERS, "text/event-stream")


async def _events(hub: Hub, wanted: set[str], since: str | None) -> AsyncIterator[str]:
    await hub.ready()
    subscriber = hub.subscribe(wanted, since)
    try:
        # Without an id if something else must be told first: a client that is cut off here asks for it again.
        yield "retry: 2000\n" + _event("hello", _now(), "" if subscriber.topics else subscriber.position)
        was_away = False
        while True:
            if hub.is_away != was_away:
                was_away = hub.is_away
                yield _event("away" if was_away else "back", _now())
            if subscriber.topics:
                topics, subscriber.topics = subscriber.topics, set()
                told = "*" if "*" in topics else " ".join(sorted(topics))
                yield _event("stale", told, subscriber.position)
            elif not await _arrives(subscriber):
                yield ": still here\n\n"
    finally:
        hub.unsubscribe(subscriber)


def _event(name: str, data: str, id: str = "") -> str:
    return f"event: {name}\ndata: {data}\n" + (f"id: {id}\n\n" if id else "\n")


def _now() -> str:
    return f"{time.time():.3f}"


async def _arrives(subscriber: Subscriber) -> bool:
    """Wait until there is something to say, but not for longer than a stream may be silent."""
    try:
        async with asyncio.timeout(SILENCE):
            await subscriber.arrived.wait()
    except TimeoutError:
        return False
    subscriber.arrived.clear()
    return True


ROUTES = [Route("/live", live, name="live")]
