"""The page of API tokens, for admins: which there are, a new one, and the end of one."""

from __future__ import annotations

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.coordination.keys import InvalidName
from packmule.coordination.sessions.tokens import InvalidToken, TokenExists, Tokens
from packmule.dashboard.acting import acting, go
from packmule.dashboard.api.scopes import Scope
from packmule.dashboard.forms import form
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import needs
from packmule.dashboard.viewer import Role
from packmule.units import DAY

REALM = "api"
LONGEST_NUMBER = 4

_WRONG = HTTPStatus.UNPROCESSABLE_ENTITY


@needs(Role.ADMIN)
def tokens(request: Request) -> Response:
    """`/tokens`: all listed tokens."""
    return _page(request)


@needs(Role.ADMIN)
def add(request: Request) -> Response:
    """`POST /tokens`: make a token, and show it this once."""
    given = form(request)
    name, days = str(given.get("name", "")).strip(), str(given.get("days", ""))
    scopes = [str(each) for each in given.getlist("scope") if str(each) in {*Scope}]
    kept: dict[str, object] = {"name": name[:100], "days": days[:10], "scopes": scopes}
    if not (days.isascii() and days.isdigit() and len(days) <= LONGEST_NUMBER):
        return _page(request, "The days are not a whole number: write 90, for example.", kept, _WRONG)
    lifetime, viewer = float(int(days) * DAY), request.state.viewer
    try:
        with acting(request, "token add", name=name[:100], scopes=scopes):
            made = _tokens(request).add(name, scopes, lifetime=lifetime, made_by=viewer.name)
    except (InvalidName, InvalidToken, TokenExists) as error:
        return _page(request, str(error), kept, _WRONG)
    return render(request, "token.html", name=name, token=made)


@needs(Role.ADMIN)
def revoke(request: Request) -> Response:
    """`POST /tokens/…/revoke`: end a token at once."""
    name = request.path_params["name"]
    with acting(request, "token revoke", name=name):
        _tokens(request).revoke(name)
    return go(request, address(request, "tokens"), f"{name} is revoked.")


def _tokens(request: Request) -> Tokens:
    return Tokens(request.app.state.site.client, REALM)


def _page(
    request: Request, wrong: str = "", given: dict[str, object] | None = None, status: int = HTTPStatus.OK
) -> Response:
    found = _tokens(request).all()
    return render(
        request, "tokens.html", status, tokens=found, scopes=list(Scope), wrong=wrong, given=given or {}
    )


ROUTES = [
    Route("/tokens", tokens, name="tokens"),
    Route("/tokens", add, methods=["POST"]),
    Route("/tokens/{name}/revoke", revoke, methods=["POST"], name="token_revoke"),
]
