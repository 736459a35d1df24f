"""The site: one ASGI application of our pages, the API and rq-dashboard, with the guard around all of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount

from packmule.dashboard import error_pages, health, unsubscribe
from packmule.dashboard.api import api
from packmule.dashboard.api.options import ApiOptions
from packmule.dashboard.guard import Guard, Identify
from packmule.dashboard.guarding.endings import Endings
from packmule.dashboard.guarding.rules import Rules
from packmule.dashboard.health import Pulse
from packmule.dashboard.live import streams
from packmule.dashboard.live.positions import Positions
from packmule.dashboard.login import login_pages
from packmule.dashboard.pages import pages
from packmule.dashboard.rq import app as rq_app
from packmule.dashboard.static_files import Static
from packmule.jobs.email.ledger.acts import KEEP

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from redis import Redis
    from starlette.routing import BaseRoute

    from packmule.jobs.client import Client
    from packmule.observe.check.checks import Checks


@dataclass(frozen=True, slots=True)
class Site:
    """What pages and the API work with: `request.app.state.site`.

    `queues` are the settings' queues in their order, `url` names the server without its password, and
    `environment` is `development` or `production`. `modules_fault` says why the user's jobs aren't known, and
    `api` has the options of the HTTP API. `lock_nodes` are those of the settings; without any, the
    job server is the only one. `webhooks` is the file of webhooks, and `webhook_allow` which internal hosts
    they may reach. `checks` finds out what the settings promise, where they are this process's own. The
    ledger keeps mails for `mail_keep` seconds.
    """

    client: Redis
    jobs: Client
    queues: tuple[str, ...]
    url: str
    environment: str
    modules_fault: str = ""
    api: ApiOptions = field(default_factory=ApiOptions)
    lock_nodes: tuple[Redis, ...] = ()
    webhooks: Path | None = None
    webhook_allow: tuple[str, ...] = ()
    checks: Checks | None = None
    mail_keep: float = KEEP


def build(
    site: Site,
    identify: Identify,
    more_routes: Sequence[BaseRoute] = (),
    rules: Rules | None = None,
) -> Guard:
    """The application that shows and steers the jobs on `site`'s server, for the users that `identify` knows.

    >>> site = Site(client, Client(client), ("default",), "redis://localhost", "production")  # doctest: +SKIP
    >>> build(site, identify_by(client))  # doctest: +SKIP
    """
    routes = [
        Mount("/static", Static(), name="static"),
        Mount("/rq", rq_app.create_app(), name="rq"),
        *health.ROUTES,
        api.mount(site, site.api),
        *login_pages.ROUTES,
        *pages.ROUTES,
        *unsubscribe.ROUTES,
        *streams.ROUTES,
        *more_routes,
    ]
    smaller = Middleware(GZipMiddleware, minimum_size=1000, compresslevel=4)
    live = Middleware(Positions)
    app = Starlette(routes=routes, middleware=[smaller, live], exception_handlers=error_pages.HANDLERS)
    app.state.site = site
    app.state.pulse = pulse = Pulse(site.client)
    return Guard(app, identify, pulse, Endings(site.client), rules)
