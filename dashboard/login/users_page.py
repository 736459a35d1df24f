"""The page of users, for admins: who may come in and as what, and a link for each."""

from __future__ import annotations

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.acting import acting, go
from packmule.dashboard.forms import fields
from packmule.dashboard.login.links import Links
from packmule.dashboard.login.routes import log_in_of
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import needs
from packmule.dashboard.users.user import InvalidUser, User, checked_name
from packmule.dashboard.viewer import Role


@needs(Role.ADMIN)
def users(request: Request) -> Response:
    """`/users`: all users."""
    return _page(request)


@needs(Role.ADMIN)
def add(request: Request) -> Response:
    """`POST /users`: add a user without a password, and show a link for the first login."""
    given = fields(request)
    name = given.get("name", "").strip()
    store = log_in_of(request).users
    try:
        user = User(checked_name(name), _role(given), payloads="payloads" in given)
    except InvalidUser as error:
        return _page(request, f"{error}.", given, HTTPStatus.UNPROCESSABLE_ENTITY)
    if store.find(name):
        return _page(request, f"{name} already exists.", given, HTTPStatus.UNPROCESSABLE_ENTITY)
    with acting(request, "user add", name=name, role=str(user.role), payloads=user.payloads):
        store.add(user)
    return _show_link(request, name)


@needs(Role.ADMIN)
def change_role(request: Request) -> Response:
    """`POST /users/…/role`: another role and right; the user's sessions end."""
    given, name = fields(request), request.path_params["name"]
    role, payloads = _role(given), "payloads" in given
    with acting(request, "user role", name=name, role=str(role), payloads=payloads):
        log_in_of(request).users.change(name, role=role, payloads=payloads)
    return go(
        request, address(request, "users"), f"{name} has a new role, and all sessions of {name} have ended."
    )


@needs(Role.ADMIN)
def make_link(request: Request) -> Response:
    """`POST /users/…/link`: show a link that lets the user in once."""
    name = request.path_params["name"]
    log_in_of(request).users.get(name)
    return _show_link(request, name)


@needs(Role.ADMIN)
def end_sessions(request: Request) -> Response:
    """`POST /users/…/logout`: end all sessions of the user."""
    name = request.path_params["name"]
    log_in = log_in_of(request)
    log_in.users.get(name)
    with acting(request, "user logout", name=name):
        log_in.sessions.end_all(name)
    return go(request, address(request, "users"), f"All sessions of {name} have ended.")


@needs(Role.ADMIN)
def end_codes(request: Request) -> Response:
    """`POST /users/…/no-codes`: ask the user for no codes, such as when the telephone is lost."""
    name = request.path_params["name"]
    with acting(request, "user totp", name=name, switch="off"):
        log_in_of(request).users.change(name, totp="", totp_step=0)
    return go(
        request,
        address(request, "users"),
        f"{name} no longer needs a code, and all of {name}'s sessions have ended.",
    )


@needs(Role.ADMIN)
def remove(request: Request) -> Response:
    """`POST /users/…/remove`: remove the user."""
    name = request.path_params["name"]
    with acting(request, "user remove", name=name):
        log_in_of(request).users.remove(name)
    return go(request, address(request, "users"), f"{name} is removed.")


def _role(given: dict[str, str]) -> Role:
    try:
        return Role(given.get("role", ""))
    except ValueError:
        raise HTTPException(400, "Choose one of the roles: viewer, operator, admin.") from None


def _page(
    request: Request, wrong: str = "", given: dict[str, str] | None = None, status: int = HTTPStatus.OK
) -> Response:
    found = log_in_of(request).users.all()
    return render(
        request, "users.html", status, users=found, roles=list(Role), wrong=wrong, given=given or {}
    )


def _show_link(request: Request, name: str) -> Response:
    with acting(request, "user link", name=name):
        secret = Links(log_in_of(request)).make(name)
    link = f"{request.url.scheme}://{request.url.netloc}{address(request, 'login_link', secret=secret)}"
    return render(request, "user_link.html", name=name, link=link)


ROUTES = [
    Route("/users", users, name="users"),
    Route("/users", add, methods=["POST"]),
    Route("/users/{name}/role", change_role, methods=["POST"], name="user_role"),
    Route("/users/{name}/link", make_link, methods=["POST"], name="user_link"),
    Route("/users/{name}/logout", end_sessions, methods=["POST"], name="user_logout"),
    Route("/users/{name}/no-codes", end_codes, methods=["POST"], name="user_no_codes"),
    Route("/users/{name}/remove", remove, methods=["POST"], name="user_remove"),
]
