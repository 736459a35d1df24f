"""rq-dashboard on this system's Redis, mounted at `/rq`.

Its templates, scripts and addresses are its own. What it reads and does is ours, since its views break on a
busy worker, a job of another serializer or a batch, and know no rights. Nothing of it is changed for other
applications of the process: our views replace its views in this application alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from a2wsgi import WSGIMiddleware
from flask import Flask, abort, request, url_for
from flask import Response as FlaskResponse
from jinja2 import BaseLoader
from rq.version import VERSION as RQ_VERSION
from rq_dashboard import web
from rq_dashboard.version import VERSION as RQ_DASHBOARD_VERSION
from starlette.exceptions import HTTPException
from werkzeug.exceptions import HTTPException as FlaskHTTPException
from werkzeug.exceptions import MethodNotAllowed
from werkzeug.routing import IntegerConverter, PathConverter

from packmule.dashboard.guarding.forwarding import root
from packmule.dashboard.pages.addresses import version
from packmule.dashboard.rights import check
from packmule.dashboard.rq.templates import SafeTemplates
from packmule.dashboard.rq.views import ACTS, DATA, ENDPOINT, PAGES, asked, site
from packmule.dashboard.viewer import Role
from packmule.plain_text import plain

if TYPE_CHECKING:
    from starlette.types import ASGIApp

WORKERS = 10
"""Threads that answer rq-dashboard's requests."""


class AnyText(PathConverter):
    """A name in an address; the first of several has the slashes that are too many."""

    regex = ".+"
    part_isolating = False


class SmallNumber(IntegerConverter):
    """A number that can't be absurdly long."""

    regex = r"\d{1,9}"


def create_app() -> ASGIApp:
    """The application; it finds the site in the requests that are handed to it."""
    # rq-dashboard's pages name its own static folder and the application's, both at /static: so they are one.
    app = Flask(__name__, static_folder=web.blueprint.static_folder)
    app.config["PROPAGATE_EXCEPTIONS"] = True  # to the site, which has words for them
    app.url_map.redirect_defaults = False
    app.url_map.converters.update(default=AnyText, string=AnyText, int=SmallNumber)
    app.register_blueprint(web.blueprint)
    app.before_request_funcs[ENDPOINT] = [_admit]
    app.template_context_processors[ENDPOINT] = [_context]
    app.jinja_env.filters["plain"] = plain
    app.jinja_env.loader = SafeTemplates(app.jinja_env.loader or BaseLoader())
    views: dict[str, Any] = {**PAGES, **DATA, **ACTS, "favicon": app.view_functions[f"{ENDPOINT}.favicon"]}
    known = {name.removeprefix(f"{ENDPOINT}.") for name in app.view_functions if name.startswith(ENDPOINT)}
    for name in known - {"static"}:
        app.view_functions[f"{ENDPOINT}.{name}"] = views.get(name, _unknown)
    app.register_error_handler(FlaskHTTPException, _to_the_site)
    return WSGIMiddleware(app, workers=WORKERS)  # type: ignore[arg-type, return-value]  # a2wsgi's own types


def _admit() -> None:
    """Let nothing change by a GET, and nothing at all for viewers; there is only one Redis."""
    if (request.view_args or {}).get("instance_number", 0) != 0:
        abort(404)
    if (request.endpoint or "").removeprefix(f"{ENDPOINT}.") in ACTS and request.method != "OPTIONS":
        if request.method != "POST":
            raise MethodNotAllowed(["POST"])
        check(asked(), Role.OPERATOR)


def _to_the_site(error: FlaskHTTPException) -> FlaskResponse:
    if error.code is None or error.code < 400:  # noqa: PLR2004  a redirect
        return error.get_response()  # type: ignore[return-value]
    headers = {"Allow": ", ".join(error.valid_methods or ())} if isinstance(error, MethodNotAllowed) else None
    raise HTTPException(error.code, headers=headers)


def _unknown(**names: Any) -> FlaskResponse:
    """A newer rq-dashboard's view, which nobody has looked at."""
    abort(404)


def _context() -> dict[str, Any]:
    """What all templates see."""
    state, home = asked().state, root(asked().scope) + "/"
    return {
        "poll_interval": 2500,
        "nonce": state.nonce,
        "home": home,
        "script": f"{home}static/rq.js?v={version('rq.js')}",
        "current_instance": 0,
        "instance_list": [site().url],
        "rq_url_prefix": url_for(f"{ENDPOINT}.queues_overview"),
        "rq_dashboard_version": RQ_DASHBOARD_VERSION,
        "rq_version": RQ_VERSION,
        "deprecation_options_usage": False,
        "enable_delete": state.viewer.may(Role.OPERATOR),
    }
