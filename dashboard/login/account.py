"""A user's own account: where one is logged in, and one's password."""

from __future__ import annotations

import time
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.coordination.sessions.attempts import TooManyAttempts
from packmule.dashboard.acting import acting, go
from packmule.dashboard.login import cookies
from packmule.dashboard.login.agents import in_words
from packmule.dashboard.login.links import BY_LINK, LINK_TIME
from packmule.dashboard.login.log_in import LogIn, WrongLogin
from packmule.dashboard.login.routes import Fields, in_turn, later, log_in_of
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import needs
from packmule.dashboard.users import passwords
from packmule.dashboard.users.user import InvalidUser, checked_password
from packmule.dashboard.viewer import Role


@needs(Role.VIEWER)
def sessions(request: Request) -> Response:
    """`/account`: the user's sessions."""
    log_in = log_in_of(request)
    viewer = request.state.viewer
    user = log_in.users.find(viewer.name)
    found = log_in.sessions.list(viewer.name)
    has_codes = bool(user and user.totp)
    return render(request, "account.html", sessions=found, has_codes=has_codes, in_words=in_words)


@needs(Role.VIEWER)
def end_session(request: Request) -> Response:
    """`POST /account/sessions/…/end`: end one of the user's sessions."""
    viewer, ref = request.state.viewer, request.path_params["ref"]
    with acting(request, "session end", user=viewer.name, session=ref[:12]):
        if not log_in_of(request).sessions.end_one(viewer.name, ref):
            raise HTTPException(404, "You have no such session: it may have ended already.")
    if ref == viewer.session:
        answer = go(request, address(request, "login"), "You are logged out.")
        cookies.forget(request, answer)
        return answer
    return go(request, address(request, "sessions"), "The session has ended.")


@needs(Role.VIEWER)
def end_others(request: Request) -> Response:
    """`POST /account/sessions/end-others`: end all of the user's sessions but this one."""
    viewer = request.state.viewer
    with acting(request, "user logout", name=viewer.name, but="this one") as subject:
        ended = log_in_of(request).sessions.end_all(viewer.name, but=viewer.session)
        subject["ended"] = ended
    told = f"{ended} other {'session has' if ended == 1 else 'sessions have'} ended."
    return go(request, address(request, "sessions"), told)


@needs(Role.VIEWER)
def password(request: Request) -> Response:
    """`/account/password`: the form for another password."""
    return _password_form(request)


@needs(Role.VIEWER)
@in_turn
def change_password(request: Request, fields: Fields) -> Response:
    """`POST /account/password`: the user's sessions end but this one, which gets another id.

    Somebody whom a link has just let in needs no password for that: it may be a new user, or it is forgotten.
    """
    viewer, log_in = request.state.viewer, log_in_of(request)
    new = fields.get("password", "")
    try:
        checked_password(viewer.name, new)
    except InvalidUser as error:
        return _password_form(request, "password", f"{error}.")
    if new != fields.get("again", ""):
        return _password_form(request, "again", "The two passwords differ.")
    if not _came_by_link(request, log_in) and (told := check_password(request, log_in, fields)):
        return _password_form(request, "current", told)
    hashed = passwords.hash_of(new)
    with acting(request, "user passwd", name=viewer.name):
        log_in.users.change(viewer.name, keep=viewer.session, password=hashed)
    told = "Your password is changed, and your other sessions have ended."
    return rotated(request, log_in, go(request, address(request, "sessions"), told))


def check_password(request: Request, log_in: LogIn, fields: Fields) -> str:
    """What is wrong with the user's present password; nothing if it's right."""
    try:
        log_in.check_password(cookies.visit_of(request), request.state.viewer.name, fields.get("current", ""))
    except WrongLogin as error:
        return str(error)
    except TooManyAttempts as error:
        return later(error)
    return ""


def rotated(request: Request, log_in: LogIn, answer: Response) -> Response:
    """The answer, with another id of the session."""
    session = log_in.sessions.read(cookies.session_of(request))
    data = None if session is None else {**session.data, "by": "password"}
    rotated = log_in.sessions.rotate(cookies.session_of(request), data)
    if rotated is not None:
        cookies.keep_session(request, answer, rotated)
    return answer


def _came_by_link(request: Request, log_in: LogIn) -> bool:
    session = log_in.sessions.read(cookies.session_of(request))
    return (
        session is not None
        and session.data.get("by") == BY_LINK
        and time.time() < session.begun_at + LINK_TIME
    )


def _password_form(request: Request, field: str = "", wrong: str = "") -> Response:
    status = HTTPStatus.UNPROCESSABLE_ENTITY if wrong else HTTPStatus.OK
    needs_current = not _came_by_link(request, log_in_of(request))
    values = {"field": field, "wrong": wrong, "needs_current": needs_current}
    return render(request, "account_password.html", status, **values)


ROUTES = [
    Route("/account", sessions, name="sessions"),
    Route("/account/sessions/end-others", end_others, methods=["POST"], name="end_other_sessions"),
    Route("/account/sessions/{ref}/end", end_session, methods=["POST"], name="end_session"),
    Route("/account/password", password, name="password"),
    Route("/account/password", change_password, methods=["POST"]),
]
