"""Identifying: whose request this is, by the session's cookie or by a trusted proxy's word."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from packmule.dashboard.login.cookies import session_of
from packmule.dashboard.users.store import Users
from packmule.dashboard.viewer import Role, Viewer

if TYPE_CHECKING:
    from redis import Redis
    from starlette.requests import Request

    from packmule.coordination.sessions.sessions import Session


def identify_by(client: Redis) -> Callable[[Request], Viewer | None]:
    """What tells the guard who sends a request: None for somebody who has to log in. One round trip.

    If a trusted proxy names somebody, the request is that user's, or nobody's if there is no user of exactly
    that name, whatever its cookies say.

    >>> build(site, identify_by(client))  # doctest: +SKIP
    """
    users = Users(client)

    def identify(request: Request) -> Viewer | None:
        if request.state.named:
            return _named(users, request.state.named)
        return viewer_of(users.sessions.read(session_of(request)))

    return identify


def viewer_of(session: Session | None) -> Viewer | None:
    """The viewer whose session it is."""
    if session is None:
        return None
    try:
        role = Role(session.data.get("role", ""))
    except ValueError:
        return None
    return Viewer(session.user, role, session.data.get("payloads") is True, session.ref)


def _named(users: Users, names: list[str]) -> Viewer | None:
    user = users.find(names[0]) if len(names) == 1 else None
    return Viewer(user.name, user.role, user.payloads) if user else None
