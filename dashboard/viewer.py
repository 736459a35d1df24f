"""A viewer: somebody who has logged in to the dashboard, and what that person may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a user may do: a viewer sees, an operator also acts on jobs, an admin also manages users."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Whether this role may do what `other` may: `Role.ADMIN.includes(Role.OPERATOR)`."""
        order = tuple(Role)
        return order.index(self) >= order.index(other)

    @property
    def with_article(self) -> str:
        """As a sentence says it: `Role.ADMIN.with_article == "an admin"`."""
        return f"{'a' if self is Role.VIEWER else 'an'} {self}"


@dataclass(frozen=True, slots=True)
class Viewer:
    """A user with a session; `session` names the session without giving its secret.

    Arguments and results of jobs are shown only if `may_see_payloads`.
    """

    name: str
    role: Role
    may_see_payloads: bool = False
    session: str = ""

    def may(self, role: Role) -> bool:
        """Whether the viewer may do what needs `role`."""
        return self.role.includes(role)


NOBODY = Viewer("", Role.VIEWER)
"""Somebody who has not logged in, as public pages see it."""
