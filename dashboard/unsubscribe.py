"""Unsubscribing by a link in a mail: a page with a button, and the one click of RFC 8058; without login."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.forms import fields
from packmule.dashboard.pages.rendering import render
from packmule.jobs.email.suppression.links import InvalidLink, UnsubscribeLinks
from packmule.jobs.email.suppression.store import Suppressions

PREFIX = "/unsubscribe"
FIELD, CLICK = "List-Unsubscribe", "One-Click"
"""What a mail reader posts, and the button of our page too."""


def page(request: Request) -> Response:
    """`/unsubscribe/{token}`: asks; opening a link, as scanners of mails do, changes nothing."""
    try:
        name = _links(request).read(request.path_params["token"])
    except InvalidLink as error:
        return render(request, "unsubscribe.html", 404, name="", fault=str(error), is_done=False)
    return render(request, "unsubscribe.html", name=name, fault="", is_done=False)


def unsubscribe(request: Request) -> Response:
    """`POST /unsubscribe/{token}`: the address gets no more mail, however often it is said."""
    try:
        name = _links(request).read(request.path_params["token"])
    except InvalidLink as error:
        return render(request, "unsubscribe.html", 404, name="", fault=str(error), is_done=False)
    if fields(request).get(FIELD) != CLICK:
        return render(request, "unsubscribe.html", 400, name=name, fault="", is_done=False)
    store = Suppressions(request.app.state.site.client)
    store.add_all([(name, "unsubscribed by the link in a mail")], "unsubscribe")
    return render(request, "unsubscribe.html", name=name, fault="", is_done=True)


def _links(request: Request) -> UnsubscribeLinks:
    site = request.app.state.site
    return UnsubscribeLinks(site.client, site.link_keys)


ROUTES = [
    Route(f"{PREFIX}/{{token}}", page, methods=["GET"], name="unsubscribe"),
    Route(f"{PREFIX}/{{token}}", unsubscribe, methods=["POST"], name="unsubscribe_now"),
]
