"""The dashboard for any ASGI server: `uvicorn packmule.dashboard.asgi:app`. The environment configures it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from packmule.config import Settings
from packmule.coordination.redis.configured import job_server
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.dashboard.login.links import Links
from packmule.dashboard.login.log_in import LogIn
from packmule.dashboard.opening import opened
from packmule.errors import Error

if TYPE_CHECKING:
    from redis import Redis
    from starlette.types import Message, Receive, Scope, Send

    from packmule.dashboard.guard import Guard

SAID = "pm:setup-link-said"
"""There while the link for the first admin has just been printed: of several processes, one prints it."""

SAID_SECONDS = 20


def _opened() -> tuple[Settings, Redis, Guard]:
    """What the environment describes; a mistake in it ends the process with one line."""
    try:
        settings = Settings.from_env()
        redis = job_server(settings)
        return settings, redis, opened(settings, redis)
    except Error as error:
        _say(str(error))
        sys.exit(error.exit_code)


def _say(text: str) -> None:
    print(f"packmule: {text}", file=sys.stderr, flush=True)  # noqa: T201  the server's log isn't set up yet


settings, client, site = _opened()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request; at the server's end, close what is open and stop an unused embedded Redis."""
    if scope["type"] != "lifespan":
        await site(scope, receive, send)
        return

    async def passing(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            await run_in_threadpool(_say_setup_link)
        elif message["type"].startswith("lifespan.shutdown"):
            await run_in_threadpool(_close)
        await send(message)

    await site(scope, receive, passing)


def _say_setup_link() -> None:
    """Without users, print the link that makes the first admin; where this server listens, only it knows."""
    try:
        links = Links(LogIn(client))
        if links.log_in.users.any():
            return
        if not client.set(SAID, 1, nx=True, ex=SAID_SECONDS):
            _say("another process of this server has just printed the link that creates the first admin")
        elif setup := links.make_setup():
            path = f"{settings.prefix}/login/setup/{setup}"
            _say(f"to create the first admin, open {path} at this server's address within an hour")
    except (Error, RedisError) as error:
        _say(f"whether there are users can't be looked up: {error}")


def _close() -> None:
    client.close()
    if settings.redis_url is None:
        EmbeddedServer(settings.data_dir).stop_if_unused()
