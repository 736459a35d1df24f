"""Rights: which role a handler needs; each handler that acts says so itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeAlias, TypeVar, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request

from packmule.dashboard.viewer import Role

Answer = TypeVar("Answer")
Handler: TypeAlias = Callable[[Request], Answer]

HIDDEN = "hidden by your role"
"""What a page shows instead of arguments, results, logs, output and tracebacks' values."""


def needs(role: Role) -> Callable[[Handler[Answer]], Handler[Answer]]:
    """Let a handler answer only viewers whose role includes `role`; others get a 403 in words.

    >>> @needs(Role.OPERATOR)
    ... def cancel(request): ...
    """

    def guarded(handler: Handler[Answer]) -> Handler[Answer]:
        checked: Any
        if inspect.iscoroutinefunction(handler):

            @wraps(handler)
            async def checked(request: Request) -> Any:
                check(request, role)
                return await handler(request)

        else:

            @wraps(handler)
            def checked(request: Request) -> Any:
                check(request, role)
                return handler(request)

        checked.needed_role = role
        return cast("Handler[Answer]", checked)

    return guarded


def needed(handler: Any) -> Role | None:
    """The role that a handler was marked with, if any."""
    role: Role | None = getattr(handler, "needed_role", None)
    return role


def check(request: Request, role: Role) -> None:
    """Refuse a request whose viewer may not do what needs `role`.

    >>> check(request, Role.ADMIN)  # doctest: +SKIP
    """
    if not request.state.viewer.may(role):
        raise HTTPException(403, refusal(request.state.viewer.role, role))


def refusal(has: Role, needed: Role) -> str:
    """Why somebody who has one role can't do what needs another."""
    return f"You are {has.with_article}, but this needs {needed.with_article}: ask an admin for the role."
