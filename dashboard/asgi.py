"""The dashboard for any ASGI server: `uvicorn packmule.dashboard.asgi:app`. The environment configures it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from packmule.config import Settings, SettingsError
from packmule.coordination.redis.connection import InvalidURL, connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.dashboard.opening import opened
from packmule.errors import Error

if TYPE_CHECKING:
    from redis import Redis
    from starlette.types import Message, Receive, Scope, Send

    from packmule.dashboard.guard import Guard


def _opened() -> tuple[Settings, Redis, Guard]:
    """What the environment describes; a mistake in it ends the process with one line."""
    try:
        settings = Settings.from_env()
        try:
            redis = connect(settings.redis_url, settings.data_dir, allow_eviction=settings.allow_eviction)
        except InvalidURL as error:
            raise SettingsError(f"PACKMULE_REDIS_URL (or REDIS_URL): {error}") from None
        return settings, redis, opened(settings, redis)
    except Error as error:
        print(f"packmule: {error}", file=sys.stderr)  # noqa: T201  the server's log isn't set up yet
        sys.exit(error.exit_code)


settings, client, site = _opened()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request; at the server's end, close what is open and stop an unused embedded Redis."""
    if scope["type"] != "lifespan":
        await site(scope, receive, send)
        return

    async def ending(message: Message) -> None:
        if message["type"].startswith("lifespan.shutdown"):
            await run_in_threadpool(_close)
        await send(message)

    await site(scope, receive, ending)


def _close() -> None:
    client.close()
    if settings.redis_url is None:
        EmbeddedServer(settings.data_dir).stop_if_unused()
