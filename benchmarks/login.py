"""A wrong login by a known name, and by others: nobody tells them apart by time.

python benchmarks/login.py [rounds]

Reading a session, a token and a refresh token stand below it, beside a bare GET.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from functools import partial

from harness import arguments, by_turns, client_of, machine, microseconds, ratio, table

from packmule.coordination.sessions.refresh import RefreshTokens
from packmule.coordination.sessions.tokens import Tokens
from packmule.dashboard.login.log_in import LogIn, WrongLogin
from packmule.dashboard.login.record import Visit
from packmule.dashboard.users import passwords
from packmule.dashboard.users.user import User
from packmule.dashboard.viewer import Role
from packmule.testing import private_server

BATCH = 50
KNOWN = "a known name, a wrong password"
BASE = "bare GET"


def attempts(client) -> dict[str, Callable[[], float]]:
    """Wrong logins, each with the seconds it took."""
    login = LogIn(client)
    login.users.add(User("ada", Role.ADMIN, password=passwords.hash_of("correct horse battery")))
    login.users.add(User("proxied", Role.ADMIN))

    def wrong(name: str) -> float:
        for key in client.keys("pm:attempts:*"):
            client.delete(key)
        begun = time.perf_counter()
        with contextlib.suppress(WrongLogin):
            login.by_password(Visit("192.0.2.7"), name, "a wrong password")
        return time.perf_counter() - begun

    return {
        KNOWN: partial(wrong, "ada"),
        "an unknown name": partial(wrong, "eve"),
        "a user without a password": partial(wrong, "proxied"),
        "a name that no user can have": partial(wrong, "<b>"),
    }


def reads(client) -> dict[str, Callable[[], object]]:
    """What is read once a request."""
    sessions, tokens = LogIn(client).sessions, Tokens(client, "bench")
    refresh = RefreshTokens(client, "bench")
    id, token, state = sessions.start("ada"), tokens.add("bench", ["read"]), {"token": refresh.begin("ada")}
    client.set("bare", "x" * 200)

    def renew() -> None:
        renewed = refresh.use(state["token"])
        assert renewed
        state["token"] = renewed.token

    return {
        BASE: lambda: client.get("bare"),
        "read a session": lambda: sessions.read(id),
        "read an API token": lambda: tokens.read(token),
        "refuse a mistyped token": lambda: tokens.read(token[:-1] + "!"),
        "use a refresh token": renew,
    }


def main(rounds: int) -> None:
    """Measure and print."""
    with private_server() as server, client_of(server) as client:
        print(machine("argon2-cffi", "redis", client=client), end="\n\n")
        measured = by_turns(attempts(client), rounds)
        rows = [
            (way, f"{statistics.median(found) * 1000:.1f}", f"{ratio(found, measured[KNOWN]):.3f}")
            for way, found in measured.items()
        ]
        table(("a wrong login by", "ms", "x the first"), rows)
        print()
        ways = {name: partial(microseconds, BATCH, way) for name, way in reads(client).items()}
        measured = by_turns(ways, rounds)
        rows = [
            (way, f"{statistics.median(found):.0f} us", f"{ratio(found, measured[BASE]):.2f}")
            for way, found in measured.items()
        ]
        table(("", "a call", "x GET"), rows)


if __name__ == "__main__":
    main(*arguments(100))
