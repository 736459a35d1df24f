"""The guard around the whole site: who asks, from which page, and what browsers may do with the answer."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from packmule.dashboard import error_pages, messages
from packmule.dashboard.guarding import bounds, headers, origin
from packmule.dashboard.guarding.endings import Endings, session_holder
from packmule.dashboard.guarding.forwarding import below_prefix, forwarded
from packmule.dashboard.guarding.rules import Rules
from packmule.dashboard.guarding.streams import BUSY, Right, Stream, Streams
from packmule.dashboard.viewer import NOBODY, Viewer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from packmule.dashboard.health import Pulse

logger = logging.getLogger(__name__)

Identify = Callable[[Request], Viewer | None]
"""Who sends a request, by its cookie: None for somebody who has not logged in. It may ask Redis."""

PUBLIC = ("/login", "/static", "/health")
"""What is shown to people who have not logged in."""

API = "/api"

PROVEN = ("/unsubscribe", "/mail/events", "/i")
"""What mail readers, mail providers and other sites ask for: it proves itself, and no cookie counts."""

MOST_REQUESTS = 500
"""Requests that are answered at once, streams left out."""

SLOW = 2.0
"""Seconds without an answer after which Redis is asked whether it is there."""

PATIENCE = 3.0
"""Seconds that Redis then has: far more than a busy machine lets it wait."""

LOOKS = 4
"""Threads that look whether streams may go on: while Redis is away, they are none of those of pages."""


class Guard:
    """Lets a request through to the site with `scope["state"]`'s `viewer`, `nonce` and `message`.

    On public pages the viewer may be `NOBODY`, and below `/api` None: the API asks for a token then. It also
    sets `peer`, the address of the trusted proxy that has forwarded the request, or nothing.
    """

    def __init__(
        self,
        site: ASGIApp,
        identify: Identify,
        pulse: Pulse,
        endings: Endings,
        rules: Rules | None = None,
    ) -> None:
        self.site = site
        self.identify = identify
        self.pulse = pulse
        self.rules = rules or Rules()
        self.looks = anyio.CapacityLimiter(LOOKS)
        self.streams = Streams(endings)
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it to the site."""
        if scope["type"] == "lifespan":
            await self.site(scope, receive, send)
        elif scope["type"] == "http":
            scope = below_prefix(forwarded(scope, self.rules), self.rules.prefix)
            await _Exchange(self, scope, receive, send).run()
        else:
            await send({"type": "websocket.close", "code": 1008})


class _Exchange:
    """One request and its answer."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard, self.scope, self.receive, self._send = guard, scope, receive, send
        self.path: str = scope["path"].removeprefix(scope["root_path"])
        self.request = Request(scope)
        self.nonce = secrets.token_urlsafe(16)
        self.message = messages.left(self.request)
        scope.setdefault("app", guard.site)
        scope["state"].update(viewer=NOBODY, nonce=self.nonce, message=self.message)
        self.viewer: Viewer | None = None
        self.stream: Stream | None = None
        self.refusal: Exception | None = None
        self.slow: asyncio.TimerHandle | None = None
        self.doubting: asyncio.Task[None] | None = None
        self.started = self.ended = self.counted = False
        self.running = anyio.CancelScope()
        self.watching: asyncio.Task[None] | None = None

    async def run(self) -> None:
        try:
            with self.running:
                await self.guard.site(self.scope, await self.admit(), self.send)
            if self.refusal:
                await self.refuse(self.refusal)
            elif self.running.cancel_called:
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except Exception as error:
            await self.refuse(error)
        finally:
            self.leave()

    async def admit(self) -> Receive:
        """Judge the request; what gives the site its body. Raises what is wrong with it."""
        bounds.check_head(self.scope)
        if self.path == "/health":
            return self.receive
        origin.check_host(self.scope, self.guard.rules)
        if self.guard.running >= MOST_REQUESTS:
            raise HTTPException(503, "Too many requests at once: try again.", BUSY)
        self.guard.running += 1
        self.counted = True
        changes = self.scope["method"] not in origin.SAFE_METHODS
        if _is_below(self.path, API):
            await self.admit_to_api()
            return bounds.steady_body(self.receive) if changes else self.receive
        self.expect_an_answer()
        if not _is_below(self.path, "/static", *PROVEN):
            await self.admit_viewer()
        if not changes:
            return self.receive
        bounds.check_length(self.scope, bounds.MAX_BODY)
        return await bounds.whole_body(self.receive, bounds.MAX_BODY)

    async def admit_to_api(self) -> None:
        """A request with a token is judged by that alone, so its cookies are taken away."""
        if "authorization" in self.request.headers:
            self.scope["headers"] = [each for each in self.scope["headers"] if each[0] != b"cookie"]
        elif "cookie" in self.request.headers:
            origin.check_origin(self.scope)
            self.viewer = await run_in_threadpool(self.guard.identify, self.request)
        self.scope["state"]["viewer"] = self.viewer

    async def admit_viewer(self) -> None:
        origin.check_origin(self.scope)
        self.viewer = await run_in_threadpool(self.guard.identify, self.request)
        if self.viewer is None and not _is_below(self.path, *PUBLIC):
            raise HTTPException(401, "Your session has ended, or you have not logged in.")
        self.scope["state"]["viewer"] = self.viewer or NOBODY

    def expect_an_answer(self) -> None:
        """Look after a while whether Redis is why there is none."""
        self.slow = asyncio.get_running_loop().call_later(SLOW, self.doubt_redis)

    def doubt_redis(self) -> None:
        self.doubting = asyncio.create_task(self.end_without_redis())

    async def end_without_redis(self) -> None:
        """End the request if Redis doesn't answer: others may hold all threads that pages are made in."""
        try:
            await self.guard.pulse.check(PATIENCE)
        except Exception as error:
            if not self.started:
                self.refusal = error
                self.running.cancel()
        else:
            if not self.started:
                self.expect_an_answer()

    async def send(self, event: Message) -> None:
        """Send a part of the site's answer on, the first with the guard's headers."""
        if self.refusal:  # the guard answers instead, as soon as the site has ended
            return
        if event["type"] == "http.response.start":
            sent = MutableHeaders(scope=event)
            is_page = sent.get("content-type", "").startswith("text/html")
            if sent.get("content-type", "").startswith("text/event-stream"):
                self.begin_stream()
                if self.refusal:
                    return
            headers.protect(sent, self.path, self.nonce, self.scope.get("scheme") == "https")
            if self.message and is_page and "region" not in self.request.query_params:
                sent.append("Set-Cookie", messages.forgotten(self.scope))
            self.started = True
            if self.slow:
                self.slow.cancel()
        else:
            self.ended = not event.get("more_body", False)
        await self._send(event)

    def begin_stream(self) -> None:
        right: Right | None = self.scope["state"].get("right")
        if self.viewer:
            session = f"{self.viewer.name} {self.viewer.session}"
            right = Right(session_holder(self.viewer.name), self.is_the_same, session)
        try:
            self.stream = self.guard.streams.open(right, self.running)
        except HTTPException as full:
            self.refusal = full
            self.running.cancel()
            return
        self.uncount()
        if right:
            self.watching = asyncio.create_task(self.guard.streams.watch(self.stream, right))

    async def is_the_same(self) -> bool:
        """Whether the viewer still has the session and the rights with which the stream began."""
        found = await anyio.to_thread.run_sync(self.guard.identify, self.request, limiter=self.guard.looks)
        return found == self.viewer

    def uncount(self) -> None:
        self.guard.running -= self.counted
        self.counted = False

    async def refuse(self, error: Exception) -> None:
        """Answer a request that can't be let through, or whose handler broke."""
        error, self.refusal = self.refusal or error, None
        if self.started:
            if getattr(self.request.state, "broken", None) is not error:
                logger.error("A response was cut short:%s", error_pages.told(error))
            if not self.ended:
                raise ConnectionAbortedError("a response was cut short") from None
            return
        if (
            isinstance(error, HTTPException)
            and error.status_code == HTTPStatus.UNAUTHORIZED
            and self.wants_page()
        ):
            answer: Response = RedirectResponse(self.login_url(), 303)
        else:
            answer = error_pages.answer(self.request, error)
        await answer(self.scope, self.receive, self.send)

    def wants_page(self) -> bool:
        return self.request.method in ("GET", "HEAD") and "text/html" in self.request.headers.get(
            "accept", ""
        )

    def login_url(self) -> str:
        query = self.scope["query_string"].decode("ascii")
        here = quote(self.scope["path"]) + ("?" if query else "") + query
        return f"{self.scope['root_path']}/login?next={quote(here, safe='')}"

    def leave(self) -> None:
        """Give back what the request held; after a change its viewer's streams are looked at again."""
        self.uncount()
        if self.slow:
            self.slow.cancel()
        if self.doubting:
            self.doubting.cancel()
        if self.stream is not None:
            self.guard.streams.close(self.stream)
        if self.watching:
            self.watching.cancel()
        if self.viewer and self.scope["method"] not in origin.SAFE_METHODS:
            self.guard.streams.doubt(session_holder(self.viewer.name))


def _is_below(path: str, *roots: str) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)
