"""Who may let a bulk action go on: a user who is still an operator, or a token with the scope `act`."""

from __future__ import annotations

from redis import Redis

from packmule.coordination.sessions.tokens import Tokens
from packmule.dashboard.api.scopes import Scope, includes
from packmule.dashboard.bulk.record import NotNow
from packmule.dashboard.users.store import Users
from packmule.dashboard.viewer import Role
from packmule.jobs.read_tokens import REALM


def refuse_without_right(client: Redis, who: str) -> None:
    """Raise `NotNow` if `who` may no longer act on jobs; while there are no users, all may.

    >>> refuse_without_right(client, "token shop")  # doctest: +SKIP
    """
    kind, _, name = who.partition(" ")
    if kind == "token" and name:  # no user's name has a space
        may = any(
            each.name == name and includes(each.scopes, Scope.ACT) for each in Tokens(client, REALM).all()
        )
    else:
        users = Users(client)
        user = users.find(who)
        may = user.role.includes(Role.OPERATOR) if user is not None else not users.any()
    if not may:
        raise NotNow(f"{who} may no longer act on jobs")
