"""Rendering: a template with values becomes a page, or some regions of it."""

from __future__ import annotations

from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from packmule.dashboard.guarding.forwarding import root
from packmule.dashboard.pages import charts, filters
from packmule.dashboard.pages.addresses import address, here, jobs_where, known
from packmule.dashboard.pages.menu import menu
from packmule.dashboard.rights import HIDDEN, needed

MOST_REGIONS = 10
"""Regions that one request may ask for."""

templates = Environment(
    loader=PackageLoader("packmule.dashboard.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
templates.filters.update(filters.FILTERS | charts.FILTERS)
templates.globals["HIDDEN"] = HIDDEN


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page, or with `?region=name` only the block `name` of it, for the script that keeps the page fresh.

    The template sees `values`, the `viewer`, the `nonce`, the `site`, the macros as `ui`, and the functions
    `url(name, **path_and_query)`, `here(**query)`, `jobs_where(queue=name)` and `has(route)`. A region is a
    block of its own name, which imports what it needs itself:

        {% block queues %}<section data-region="queues" data-on="jobs queues">...</section>{% endblock %}

    >>> render(request, "overview.html", queues=queues)  # doctest: +SKIP
    """
    page = templates.get_template(template)
    routes = set(known(request))
    shared = {
        "viewer": request.state.viewer,
        "nonce": request.state.nonce,
        "site": request.app.state.site,
        "request": request,
        "url": partial(address, request),
        "here": partial(here, request),
        "has": routes.__contains__,
        "jobs_where": partial(jobs_where, request),
    }
    shared["ui"] = templates.get_template("macros.html").make_module(shared)
    values = shared | values
    wanted = request.query_params.getlist("region")[:MOST_REGIONS]
    if wanted:
        return HTMLResponse("".join(_region(page, name, values) for name in wanted), status)
    state = request.state
    values |= {
        "menu": menu({name for name in routes if _is_open(request, name)}),
        "message": state.message,
        "root": root(request.scope),
    }
    values["position"] = getattr(state, "position", "")
    return HTMLResponse(page.render(values), status)


def _is_open(request: Request, name: str) -> bool:
    """Whether the viewer's role may see the page of a route, as its handler says."""
    route = known(request)[name]
    role = needed(route.endpoint) if isinstance(route, Route) else None
    return role is None or request.state.viewer.may(role)


def _region(page: Template, name: str, values: dict[str, Any]) -> str:
    """One block; nothing if the page has none of that name."""
    block = page.blocks.get(name)
    return "".join(block(page.new_context(values))) if block else ""
