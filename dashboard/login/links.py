"""One-time links: they let one user in without a password, or make the first admin."""

from __future__ import annotations

from packmule.coordination.sessions.one_time import OneTime
from packmule.dashboard.login.log_in import LoggedIn, LogIn
from packmule.dashboard.login.record import Visit, record
from packmule.dashboard.users import passwords
from packmule.dashboard.users.user import User, checked_name, checked_password
from packmule.dashboard.viewer import Role
from packmule.errors import Conflict

LINK_TIME = 900.0
SETUP_TIME = 3600.0
FIRST = "first"

BY_LINK = "link"
"""How a session says that a link began it."""


class LinkOver(Conflict, RuntimeError):
    """A one-time link was used, replaced or is too old."""


class Links:
    """The one-time links of one server; a user has one at a time, and so has the first admin to be.

    A link needs no password and no code, and waits for nothing: whoever can run commands makes one for a user
    who is locked out. It ends with the user's sessions, such as when the user is removed.
    """

    def __init__(self, log_in: LogIn) -> None:
        self.log_in = log_in
        self._links = OneTime(log_in.client, "login-links")
        self._setups = OneTime(log_in.client, "setup-links")

    def make(self, name: str, lifetime: float = LINK_TIME) -> str:
        """The secret of a link that lets `name` in once. Raises `NoSuchUser` or `InvalidLifetime`."""
        ending = self.log_in.sessions.ending(checked_name(name))
        self.log_in.users.get(name)
        return self._links.make(name, {"user": name, "ending": ending}, lifetime=lifetime)

    def user_of(self, secret: str) -> str | None:
        """Whom a link would let in, without using it up."""
        found = self._links.look(secret)
        return None if found is None else str(found.get("user"))

    def use(self, visit: Visit, secret: str) -> LoggedIn:
        """Let in a visitor who has a link. Raises `LinkOver`, or `SessionsEnded`."""
        found = self._links.use(secret) or {}
        user = self.log_in.users.find(str(found.get("user", "")))
        if user is None:
            raise LinkOver("This link was used before, or is too old: ask for another.")
        return self.log_in.come_in(visit, user, str(found.get("ending", "")), BY_LINK)

    def make_setup(self) -> str | None:
        """The secret of the link that makes the first admin, in the place of the one before.

        None if there are users.
        """
        if self.log_in.users.any():
            return None
        return self._setups.make(FIRST, {"role": str(Role.ADMIN)}, lifetime=SETUP_TIME)

    def may_set_up(self, secret: str) -> bool:
        """Whether the link `secret` would make the first admin."""
        return self._setups.look(secret) is not None and not self.log_in.users.any()

    def set_up(self, visit: Visit, secret: str, name: str, password: str) -> LoggedIn:
        """Make the first admin, and let the visitor in as that.

        Raises `InvalidUser` while the link stays good, and `LinkOver` or `UserExists` when it isn't.
        """
        checked_password(checked_name(name), password)
        if not self.may_set_up(secret):
            raise LinkOver("This link was used before, or is too old: start the dashboard again for another.")
        admin = User(name, Role.ADMIN, payloads=True, password=passwords.hash_of(password))
        if self._setups.use(secret) is None:
            raise LinkOver("This link was used before, or is too old: start the dashboard again for another.")
        self.log_in.users.add(admin, is_first=True)
        record(self.log_in.client, visit, "user add", name, role=str(admin.role))
        return self.log_in.come_in(visit, admin, self.log_in.sessions.ending(name), "setup link")


def address_of(host: str, port: int, prefix: str = "") -> str:
    """Where the dashboard is, as far as its own settings say: `http://127.0.0.1:9181`."""
    name = "localhost" if host in ("", "0.0.0.0", "::") else host  # noqa: S104  which are no addresses to call
    return f"http://{f'[{name}]' if ':' in name else name}:{port}{prefix}"
