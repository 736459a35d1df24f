"""Webhooks: how far each is behind, what it delivered, and its dead letters, which can be sent again."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.config import secret
from packmule.dashboard.acting import acting, go
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.paging import PAGE, offset
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import needs
from packmule.dashboard.viewer import Role
from packmule.errors import UsageError
from packmule.jobs.outgoing.door import Allowed, shown
from packmule.observe.webhooks import sender, state
from packmule.observe.webhooks.endpoints import Endpoint, read_endpoints, read_unsigned
from packmule.observe.webhooks.state import WebhookState

MOST_SENT, SECONDS = 100, 20.0
"""What one click sends again at most, and after how long it begins no more."""


def webhooks(request: Request) -> Response:
    """`/webhooks`: each webhook of the file, and those that only Redis knows."""
    states, fault = _states(request)
    return render(
        request,
        "webhooks.html",
        states=states,
        fault=fault,
        has_file=request.app.state.site.webhooks is not None,
        shown=shown,
    )


def webhook(request: Request) -> Response:
    """`/webhooks/{name}`: one webhook and its dead letters, the newest first."""
    states, _ = _states(request)
    name, skip = request.path_params["name"], offset(request)
    found = _of(name, states)
    return render(
        request,
        "webhook.html",
        state=found,
        shown=shown,
        letters=state.dead(request.app.state.site.client, name, skip, PAGE),
        next=skip + PAGE if found.given_up > skip + PAGE else None,
        most=MOST_SENT,
    )


@needs(Role.OPERATOR)
def resend(request: Request) -> Response:
    """`POST /webhooks/{name}`: send its dead letters again, the oldest first, until one is not accepted."""
    site, name = request.app.state.site, request.path_params["name"]
    back = address(request, "webhook", name=name)
    _of(name, _states(request)[0])
    try:
        endpoint = next((each for each in _endpoints(request, with_secrets=True) if each.name == name), None)
    except UsageError as error:
        return go(request, back, f"Nothing was sent: {error}.")
    if endpoint is None:
        return go(request, back, "Nothing was sent: the dashboard's file of webhooks doesn't list it.")
    with acting(request, "webhooks dead", name=name, resend=True) as subject:
        sent, left = sender.resend(site.client, endpoint, Allowed(site.webhook_allow), MOST_SENT, SECONDS)
        subject.update(sent=sent, left=left)
    return go(request, back, f"{sent:,} sent, {left:,} left.")


def _endpoints(request: Request, *, with_secrets: bool = False) -> list[Endpoint]:
    """The webhooks of the file; keys that sign are read only to send. Raises `UsageError`."""
    site = request.app.state.site
    if site.webhooks is None:
        return []
    allowed = Allowed(site.webhook_allow)
    if with_secrets:
        return read_endpoints(site.webhooks, allowed, secret)
    return read_unsigned(site.webhooks, allowed)


def _states(request: Request) -> tuple[list[WebhookState], str]:
    """The state of each webhook, and why the file can't be read, "" if it can."""
    endpoints, fault = list[Endpoint](), ""
    try:
        endpoints = _endpoints(request)
    except UsageError as error:
        fault = str(error)
    return state.read(request.app.state.site.client, endpoints), fault


def _of(name: str, states: list[WebhookState]) -> WebhookState:
    found = next((each for each in states if each.name == name), None)
    if found is None:
        raise HTTPException(404, "There is no webhook of this name in the dashboard's file or in Redis.")
    return found


ROUTES = [
    Route("/webhooks", webhooks, name="webhooks"),
    Route("/webhooks/{name:path}", webhook, name="webhook"),
    Route("/webhooks/{name:path}", resend, methods=["POST"], name="resend_webhook"),
]
