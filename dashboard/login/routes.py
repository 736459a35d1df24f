"""The pages on which people log in, and the way out."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from http import HTTPStatus

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from packmule.coordination.sessions.attempts import TooManyAttempts
from packmule.coordination.sessions.sessions import SessionsEnded
from packmule.dashboard import messages
from packmule.dashboard.login import cookies
from packmule.dashboard.login.links import LinkOver, Links
from packmule.dashboard.login.log_in import CodeNeeded, LoggedIn, LogIn, TooLate, WrongLogin
from packmule.dashboard.login.next_page import next_page
from packmule.dashboard.login.record import record
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.users.passwords import TooBusy
from packmule.dashboard.users.store import UserExists
from packmule.dashboard.users.user import InvalidUser
from packmule.units import span

AT_ONCE = 4
"""How many logins are worked on at once; others wait without holding a thread."""

MOST_WAITING = 50
MOST_FIELDS = 20

_turns: RunVar[anyio.CapacityLimiter] = RunVar("turns of logins")
"""One for each event loop."""

Fields = dict[str, str]
Handler = Callable[[Request, Fields], Response]


def in_turn(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler of a form that checks or hashes a password: few of them run at once, and few wait."""

    @wraps(handler)
    async def take_turn(request: Request) -> Response:
        form = await request.form(max_files=0, max_fields=MOST_FIELDS)
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        turns = _turns.get(None)
        if turns is None:
            turns = anyio.CapacityLimiter(AT_ONCE)
            _turns.set(turns)
        if turns.statistics().tasks_waiting >= MOST_WAITING:
            raise TooBusy("Too many people are logging in: try again in a minute.")
        return await anyio.to_thread.run_sync(partial(handler, request, fields), limiter=turns)

    return take_turn


def log_in_of(request: Request) -> LogIn:
    """The way in to the site that a request is for."""
    return LogIn(request.app.state.site.client)


def show(request: Request) -> Response:
    """`GET /login`: the form, or on to the next page for somebody who is in."""
    wanted = request.query_params.get("next", "")
    if request.state.viewer.name:
        return RedirectResponse(next_page(request, wanted), 303)
    return _form(request, wanted)


@in_turn
def enter(request: Request, fields: Fields) -> Response:
    """`POST /login`: check a name and a password."""
    wanted, name = fields.get("next", ""), fields.get("user", "").strip()
    try:
        found = log_in_of(request).by_password(cookies.visit_of(request), name, fields.get("password", ""))
    except WrongLogin as error:
        return _form(request, wanted, name, str(error), HTTPStatus.UNAUTHORIZED)
    except TooManyAttempts as error:
        return _wait(_form(request, wanted, name, later(error), HTTPStatus.TOO_MANY_REQUESTS), error)
    except SessionsEnded:
        return _form(
            request, wanted, name, "The user was changed in the meantime: log in again.", HTTPStatus.CONFLICT
        )
    if isinstance(found, CodeNeeded):
        return _code_form(request, wanted, found.step)
    return _come_in(request, found, wanted)


@in_turn
def enter_code(request: Request, fields: Fields) -> Response:
    """`POST /login/code`: check the code after the password."""
    wanted, step = fields.get("next", ""), fields.get("step", "")
    try:
        found = log_in_of(request).by_code(cookies.visit_of(request), step, fields.get("code", ""))
    except WrongLogin as error:
        return _code_form(request, wanted, step, str(error), HTTPStatus.UNAUTHORIZED)
    except TooManyAttempts as error:
        return _wait(_code_form(request, wanted, step, later(error), HTTPStatus.TOO_MANY_REQUESTS), error)
    except (TooLate, SessionsEnded):
        return _form(request, wanted, "", "It took too long: log in again.", HTTPStatus.CONFLICT)
    return _come_in(request, found, wanted)


def show_link(request: Request) -> Response:
    """`GET /login/link/…`: ask whether to use the link; opening it uses nothing up."""
    user = Links(log_in_of(request)).user_of(request.path_params["secret"])
    if user is None:
        return _link_over(request, "This link was used before, or is too old: ask for another.")
    return render(request, "login_link.html", user=user)


def use_link(request: Request) -> Response:
    """`POST /login/link/…`: let the visitor in."""
    try:
        found = Links(log_in_of(request)).use(cookies.visit_of(request), request.path_params["secret"])
    except (LinkOver, SessionsEnded):
        return _link_over(request, "This link was used before, or is too old: ask for another.")
    return _come_in(request, found, "")


def show_setup(request: Request) -> Response:
    """`GET /login/setup/…`: the form for the first admin."""
    if not Links(log_in_of(request)).may_set_up(request.path_params["secret"]):
        return _link_over(request, "There are users already, or this link was used, replaced or is too old.")
    return _setup_form(request)


@in_turn
def set_up(request: Request, fields: Fields) -> Response:
    """`POST /login/setup/…`: make the first admin."""
    name, password = fields.get("user", "").strip(), fields.get("password", "")
    if password != fields.get("again", ""):
        return _setup_form(request, name, "again", "The two passwords differ.")
    links = Links(log_in_of(request))
    try:
        found = links.set_up(cookies.visit_of(request), request.path_params["secret"], name, password)
    except InvalidUser as error:
        field = "user" if "not a user name" in str(error) else "password"
        return _setup_form(request, name, field, f"{error}.")
    except (LinkOver, UserExists, SessionsEnded) as error:
        return _link_over(request, str(error))
    return _come_in(request, found, "")


def log_out(request: Request) -> Response:
    """`POST /logout`: end the session."""
    viewer, log_in = request.state.viewer, log_in_of(request)
    if log_in.sessions.end(cookies.session_of(request)):
        record(log_in.client, cookies.visit_of(request), "logout", viewer.name)
    answer = RedirectResponse(address(request, "login"), 303)
    cookies.forget(request, answer)
    messages.leave(request, answer, "You are logged out.")
    return answer


def _come_in(request: Request, found: LoggedIn, wanted: str) -> Response:
    before = cookies.session_of(request)
    if before:
        log_in_of(request).sessions.end(before)
    answer = RedirectResponse(next_page(request, wanted), 303)
    cookies.keep(request, answer, found)
    return answer


def _form(request: Request, wanted: str, user: str = "", wrong: str = "", status: int = 200) -> Response:
    return render(request, "login.html", status, next=wanted, user=user[:100], wrong=wrong)


def _code_form(request: Request, wanted: str, step: str, wrong: str = "", status: int = 200) -> Response:
    return render(request, "login_code.html", status, next=wanted, step=step, wrong=wrong)


def _setup_form(request: Request, user: str = "", field: str = "", wrong: str = "") -> Response:
    status = HTTPStatus.UNPROCESSABLE_ENTITY if wrong else HTTPStatus.OK
    return render(request, "login_setup.html", status, user=user[:100], field=field, wrong=wrong)


def _link_over(request: Request, why: str) -> Response:
    return render(request, "login_over.html", HTTPStatus.GONE, why=why)


def later(error: TooManyAttempts) -> str:
    """When to try again, in words."""
    return f"Too many attempts: try again in {span(math.ceil(error.retry_after))}."


def _wait(answer: Response, error: TooManyAttempts) -> Response:
    answer.headers["Retry-After"] = str(math.ceil(error.retry_after))
    return answer


ROUTES = [
    Route("/login", show, name="login"),
    Route("/login", enter, methods=["POST"]),
    Route("/login/code", enter_code, methods=["POST"], name="login_code"),
    Route("/login/link/{secret}", show_link, name="login_link"),
    Route("/login/link/{secret}", use_link, methods=["POST"]),
    Route("/login/setup/{secret}", show_setup, name="login_setup"),
    Route("/login/setup/{secret}", set_up, methods=["POST"]),
    Route("/logout", log_out, methods=["POST"], name="logout"),
]
