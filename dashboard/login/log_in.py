"""Logging in: a name with a password, and perhaps a code, become a session, at a bounded pace."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import msgspec
from redis import Redis

from packmule.coordination.sessions.attempts import Attempts, Pace
from packmule.coordination.sessions.one_time import OneTime
from packmule.coordination.sessions.opaque import new_id
from packmule.coordination.sessions.sessions import Sessions
from packmule.dashboard.login.record import Visit, record, record_failure
from packmule.dashboard.users import passwords, totp
from packmule.dashboard.users.store import Users
from packmule.dashboard.users.user import InvalidUser, User, checked_name
from packmule.errors import Conflict, UsageError
from packmule.units import DAY, YEAR

PACES = {
    "address": Pace(free=20, first=1.0, longest=60.0),
    "user": Pace(free=5, first=2.0, longest=300.0),
    "browser": Pace(free=5, first=2.0, longest=300.0),
    "code": Pace(free=5, first=2.0, longest=300.0),
}
"""How often one may try: from an address, for a user, in a browser that the user knows, with codes."""

CODE_TIME = 300.0
"""Seconds that may pass between the password and the code."""

NETWORK = {4: 32, 6: 64}
"""How many bits of an address count: whoever has one of IPv6 has its 64 bits."""

NO_NAME = "?"
"""Under which all names are counted that no user can have."""


class WrongLogin(UsageError, ValueError):
    """The name, the password or the code is wrong; the text doesn't say which."""


class TooLate(Conflict, RuntimeError):
    """A step of the login came too late, or a second time."""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """Somebody has come in; `session` and `browser` are secrets for that visitor's cookies."""

    user: User
    session: str
    browser: str


@dataclass(frozen=True, slots=True)
class CodeNeeded:
    """The password was right; `step` is what the form for the code has to bring back."""

    step: str


class LogIn:
    """The way in, on one server.

    An attempt by password is counted under the user and the visitor's address, whether or not there is such a
    user, and takes as long. In a browser in which the user logged in before, it is counted under the browser
    alone: nobody can lock a user out of it by guessing elsewhere. No wait is longer than five minutes.

    >>> LogIn(client).by_password(Visit("192.0.2.7"), "ada", password).user.role  # doctest: +SKIP
    <Role.ADMIN: 'admin'>
    """

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.users = Users(client)
        self.sessions = self.users.sessions
        self.browsers = Sessions(client, "dashboard-browsers", idle=90.0 * DAY, absolute=float(YEAR))
        self.attempts = Attempts(client, "login", PACES)
        self.steps = OneTime(client, "login-steps")

    def by_password(self, visit: Visit, name: str, password: str) -> LoggedIn | CodeNeeded:
        """Let a visitor in whose name and password are right.

        Raises `WrongLogin`, `TooManyAttempts`, `TooBusy`, or `SessionsEnded` if the user was changed
        meanwhile.
        """
        counted = self._count(visit, name)
        self.attempts.begin(**counted)
        user, ending = self._find(name)
        if not passwords.is_right(user.password if user else "", password) or user is None:
            record_failure(self.client, visit, user.name if user else "", "password")
            raise WrongLogin("The name or the password is wrong.")
        if user.totp:
            return CodeNeeded(self.steps.make(new_id(), {"user": name, "ending": ending}, lifetime=CODE_TIME))
        self._hash_again_if_outdated(user, password)
        self._forgive(counted)
        return self.come_in(visit, user, ending, "password")

    def by_code(self, visit: Visit, step: str, code: str) -> LoggedIn:
        """Let a visitor in whose password was right, and whose code is.

        Raises `TooLate`, and like `by_password`.
        """
        begun = self.steps.look(step) or {}
        name, ending = str(begun.get("user", "")), str(begun.get("ending", ""))
        user, _ = self._find(name)
        if user is None:
            raise TooLate("It took too long: log in again.")
        self.attempts.begin(code=name)
        if not self.accept_code(name, code):
            record_failure(self.client, visit, name, "code")
            raise WrongLogin("The code is wrong, or was used before: wait for the next one.")
        if self.steps.use(step) is None:
            raise TooLate("It took too long: log in again.")
        self._forgive({**self._count(visit, name), "code": name})
        return self.come_in(visit, user, ending, "password and code")

    def accept_code(self, name: str, code: str) -> bool:
        """Whether `code` is one of the user's; it then is never accepted again."""

        def accepted(user: User) -> User | None:
            step = totp.step_of(user.totp, code, user.totp_step) if user.totp else None
            return None if step is None else msgspec.structs.replace(user, totp_step=step)

        return self.users.note(name, accepted)

    def check_password(self, visit: Visit, name: str, password: str) -> User:
        """The user whose password this is: for somebody who is in and changes something.

        Raises `WrongLogin`, `TooManyAttempts` or `TooBusy`.
        """
        counted = self._count(visit, name)
        self.attempts.begin(**counted)
        user, _ = self._find(name)
        if user is None or not passwords.is_right(user.password, password):
            record_failure(self.client, visit, name, "password")
            raise WrongLogin("The password is wrong.")
        self._forgive(counted)
        return user

    def come_in(self, visit: Visit, user: User, ending: str, by: str) -> LoggedIn:
        """Begin a session of `user`, under a new id. Raises `SessionsEnded`."""
        data = {"role": str(user.role), "payloads": user.payloads, "by": by}
        session = self.sessions.start(user.name, data, origin=visit.address, agent=visit.agent, ending=ending)
        browser = visit.browser
        known = self.browsers.read(browser)
        if known is None or known.user != user.name:
            browser = self.browsers.start(user.name)
        record(self.client, visit, "login", user.name, by=by)
        return LoggedIn(user, session, browser)

    def _find(self, name: str) -> tuple[User | None, str]:
        """The user of that name, and the mark of her sessions, which is read first."""
        try:
            checked_name(name)
        except InvalidUser:
            return None, ""
        ending = self.sessions.ending(name)
        return self.users.find(name), ending

    def _count(self, visit: Visit, name: str) -> dict[str, str]:
        """Under which keys an attempt counts."""
        known = self.browsers.read(visit.browser)
        if known is not None and known.user == name:
            return {"browser": known.ref}
        try:
            user = checked_name(name)
        except InvalidUser:
            user = NO_NAME
        return {"address": _network(visit.address), "user": user}

    def _forgive(self, counted: dict[str, str]) -> None:
        """Forget the attempts of a user who has come in; those of others from the address stay counted."""
        self.attempts.forgive(**{kind: key for kind, key in counted.items() if kind != "address"})
        if "address" in counted:
            self.attempts.give_back(address=counted["address"])

    def _hash_again_if_outdated(self, user: User, password: str) -> None:
        if passwords.is_outdated(user.password):
            hashed = passwords.hash_of(password)

            def renewed(now: User) -> User | None:
                is_same = now.password == user.password
                return msgspec.structs.replace(now, password=hashed) if is_same else None

            self.users.note(user.name, renewed)


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, NETWORK[found.version]), strict=False))
