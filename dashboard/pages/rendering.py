"""Rendering: a template with values becomes a page, or one region of it."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from packmule.plain_text import plain
from packmule.units import span

templates = Environment(
    loader=PackageLoader("packmule.dashboard.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters.update(plain=plain, span=span)


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page: the template sees `values`, `viewer`, `nonce`, `message`, `site` and `url(name, **path)`.

    >>> render(request, "overview.html", queues=queues)  # doctest: +SKIP
    """
    shown = templates.get_template(template).render(
        values,
        viewer=request.state.viewer,
        nonce=request.state.nonce,
        message=request.state.message,
        site=request.app.state.site,
        request=request,
        url=lambda name, **path: request.url_for(name, **path).path,
    )
    return HTMLResponse(shown, status)
