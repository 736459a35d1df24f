"""The site: one ASGI application of our pages, the API and rq-dashboard, with the guard around all of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount

from packmule.dashboard import error_pages, health, mail_events, unsubscribe
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
from packmule.jobs.email.suppression.links import LinkKeys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from redis import Redis
    from starlette.routing import BaseRoute

    from packmule.dashboard.images import Images
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
    ledger keeps mails for `mail_keep` seconds; `templates` is the folder of the mails' templates, and
    `mail_from` their sender. `event_keys` verify the events of mail providers, by the names of these, and
    `link_keys` unsubscribe links. `images` are served on demand, if any are.
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
    templates: str | None = None
    mail_from: str = "packmule@localhost"
    event_keys: Mapping[str, str] = field(default_factory=dict)
    images: Images | None = None
    link_keys: LinkKeys = field(default_factory=LinkKeys)


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
        *mail_events.ROUTES,
        *(site.images.routes if site.images else ()),
        *streams.ROUTES,
        *more_routes,
    ]
    smaller = Middleware(GZipMiddleware, minimum_size=1000, compresslevel=4)
    live = Middleware(Positions)
    app = Starlette(routes=routes, middleware=[smaller, live], exception_handlers=error_pages.HANDLERS)
    app.state.site = site
    app.state.pulse = pulse = Pulse(site.client)
    return Guard(app, identify, pulse, Endings(site.client), rules)
