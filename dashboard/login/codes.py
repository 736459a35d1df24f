"""A user's codes: an authenticator app is tried before a login asks for what it shows."""

from __future__ import annotations

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.coordination.sessions.one_time import OneTime
from packmule.dashboard.acting import acting, go
from packmule.dashboard.login.account import check_password, rotated
from packmule.dashboard.login.log_in import LogIn
from packmule.dashboard.login.routes import Fields, in_turn, log_in_of
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import needs
from packmule.dashboard.users import totp
from packmule.dashboard.viewer import Role

SETUP_TIME = 900.0


@needs(Role.VIEWER)
def code(request: Request) -> Response:
    """`/account/code`: whether a login asks for a code."""
    user = log_in_of(request).users.find(request.state.viewer.name)
    return render(request, "account_code.html", has_codes=bool(user and user.totp), field="", wrong="")


@needs(Role.VIEWER)
@in_turn
def begin_codes(request: Request, fields: Fields) -> Response:
    """`POST /account/code/begin`: show the secret to scan, after the password."""
    log_in = log_in_of(request)
    if told := check_password(request, log_in, fields):
        return _code_page(request, log_in, "password", told)
    secret = totp.new_secret()
    name = request.state.viewer.name
    setup = _setups(log_in).make(name, {"user": name, "secret": secret}, lifetime=SETUP_TIME)
    return _scan_page(request, setup, secret)


@needs(Role.VIEWER)
@in_turn
def confirm_codes(request: Request, fields: Fields) -> Response:
    """`POST /account/code/confirm`: ask for codes from now on, if the app shows the right one."""
    viewer, log_in = request.state.viewer, log_in_of(request)
    setup = fields.get("setup", "")
    begun = _setups(log_in).look(setup)
    if begun is None or begun.get("user") != viewer.name:  # whose password has begun it
        return go(request, address(request, "code"), "It took too long: start again.")
    secret = str(begun.get("secret"))
    step = totp.step_of(secret, fields.get("code", ""), 0)
    if step is None:
        return _scan_page(request, setup, secret, "That isn't the code that the app shows now.")
    if _setups(log_in).use(setup) is None:
        return go(request, address(request, "code"), "It took too long: start again.")
    with acting(request, "user totp", name=viewer.name, switch="on"):
        log_in.users.change(viewer.name, keep=viewer.session, totp=secret, totp_step=step)
    told = "Login now asks for a code. Your other sessions have ended."
    return rotated(request, log_in, go(request, address(request, "sessions"), told))


@needs(Role.VIEWER)
@in_turn
def end_codes(request: Request, fields: Fields) -> Response:
    """`POST /account/code/off`: ask for no codes any more, after the password."""
    viewer, log_in = request.state.viewer, log_in_of(request)
    if told := check_password(request, log_in, fields):
        return _code_page(request, log_in, "password", told)
    with acting(request, "user totp", name=viewer.name, switch="off"):
        log_in.users.change(viewer.name, keep=viewer.session, totp="", totp_step=0)
    told = "Login no longer asks for a code. Your other sessions have ended."
    return rotated(request, log_in, go(request, address(request, "sessions"), told))


def _setups(log_in: LogIn) -> OneTime:
    return OneTime(log_in.client, "code-setups")


def _code_page(request: Request, log_in: LogIn, field: str, wrong: str) -> Response:
    user = log_in.users.find(request.state.viewer.name)
    values = {"has_codes": bool(user and user.totp), "field": field, "wrong": wrong}
    return render(request, "account_code.html", HTTPStatus.UNPROCESSABLE_ENTITY, **values)


def _scan_page(request: Request, setup: str, secret: str, wrong: str = "") -> Response:
    status = HTTPStatus.UNPROCESSABLE_ENTITY if wrong else HTTPStatus.OK
    drawn = totp.qr_svg(totp.link(request.state.viewer.name, secret))
    return render(request, "account_scan.html", status, setup=setup, secret=secret, drawn=drawn, wrong=wrong)


ROUTES = [
    Route("/account/code", code, name="code"),
    Route("/account/code/begin", begin_codes, methods=["POST"], name="begin_codes"),
    Route("/account/code/confirm", confirm_codes, methods=["POST"], name="confirm_codes"),
    Route("/account/code/off", end_codes, methods=["POST"], name="end_codes"),
]
