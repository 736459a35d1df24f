"""Cookies of a login: the session's and the browser's, as strict as the way to the dashboard allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packmule.dashboard.acting import sender
from packmule.dashboard.guarding.forwarding import root
from packmule.dashboard.login.log_in import LoggedIn
from packmule.dashboard.login.record import Visit
from packmule.units import DAY

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import Response

SESSION_AGE = 7 * DAY
BROWSER_AGE = 90 * DAY


def session_name(request: HTTPConnection) -> str:
    """The name of the session's cookie.

    Behind TLS a browser then accepts it from this host only. Over plain HTTP the port is part of it, because
    cookies know no ports, and other dashboards may be on the same machine.
    """
    if _is_secure(request):
        return "__Secure-packmule" if root(request.scope) else "__Host-packmule"
    server = request.scope.get("server")
    return f"packmule-{server[1]}" if server and server[1] else "packmule"


def session_of(request: HTTPConnection) -> str:
    """The session's secret that a request shows, or nothing."""
    return request.cookies.get(session_name(request), "")


def visit_of(request: Request) -> Visit:
    """Where a request comes from."""
    agent = request.headers.get("user-agent", "")
    return Visit(sender(request), agent, request.cookies.get(_browser_name(request), ""))


def keep(request: Request, answer: Response, come: LoggedIn) -> None:
    """Let the browser keep what shows that it is logged in."""
    keep_session(request, answer, come.session)
    _set(request, answer, _browser_name(request), come.browser, BROWSER_AGE)


def keep_session(request: Request, answer: Response, session: str) -> None:
    """Let the browser keep another id of its session."""
    _set(request, answer, session_name(request), session, SESSION_AGE)


def forget(request: Request, answer: Response) -> None:
    """Let the browser forget its session."""
    _set(request, answer, session_name(request), "", 0)


def _browser_name(request: HTTPConnection) -> str:
    return f"{session_name(request)}-browser"


def _set(request: Request, answer: Response, name: str, value: str, age: int) -> None:
    answer.set_cookie(
        name,
        value,
        max_age=age,
        path=root(request.scope) or "/",
        secure=_is_secure(request),
        httponly=True,
        samesite="lax",
    )


def _is_secure(request: HTTPConnection) -> bool:
    return request.scope.get("scheme") == "https"
