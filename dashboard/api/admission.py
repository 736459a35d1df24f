"""Admission: who asks, by a bearer token or a dashboard's session, and whether they ask too often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request

from packmule.coordination.limits.rate import Rate
from packmule.coordination.limits.rate_limit import Answer, TokenBucket
from packmule.coordination.sessions.opaque import hashed
from packmule.coordination.sessions.tokens import Grant, Tokens, is_token
from packmule.dashboard.api.problems import Refused
from packmule.dashboard.api.scopes import Scope, includes
from packmule.dashboard.api.together import Together
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs.read_tokens import REALM

if TYPE_CHECKING:
    from redis import Redis

TRUSTED_FOR = 1.0
"""Seconds for which this process believes what Redis said of a token: so long one works after its end."""

MOST_TRUSTED = 10_000

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="packmule"'}
_SCOPES = {
    Role.VIEWER: frozenset({Scope.READ}),
    Role.OPERATOR: frozenset({Scope.READ, Scope.ENQUEUE, Scope.ACT}),
    Role.ADMIN: frozenset({Scope.READ, Scope.ENQUEUE, Scope.ACT, Scope.ADMIN}),
}


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: `name` for the audit, what the asker may do, and how much of the rate is left.

    `key` stands for a token without being it, and is "" for a session. `bound_to` is the one thing that a
    short token is good for.
    """

    name: str
    scopes: frozenset[str]
    key: str = ""
    bound_to: str | None = None
    expires_at: float = float("inf")
    rate: Answer | None = None

    def may(self, scope: Scope) -> bool:
        """Whether the asker may do what needs `scope`."""
        return includes(self.scopes, scope)

    @property
    def viewer(self) -> Viewer:
        """The asker as the audit and rights know one."""
        roles = [role for role, scopes in _SCOPES.items() if all(map(self.may, scopes))]
        return Viewer(self.name, roles[-1] if roles else Role.VIEWER, self.may(Scope.PAYLOADS))

    def check(self, scope: Scope, thing: str | None) -> None:
        """Raise `Refused` unless the asker may do `scope` to `thing`, such as `job:2a9f`."""
        if self.bound_to is not None and self.bound_to != thing:
            raise Refused(403, "OtherThing", f"this token is for {self.bound_to} alone")
        if not self.may(scope):
            raise Refused(
                403, "MissingScope", f"this needs the scope {scope}: {self.name} has {', '.join(self.scopes)}"
            )


class Admission:
    """Lets askers in, many in a round trip; `rate` holds for each token."""

    def __init__(self, client: Redis, rate: Rate, executor: Executor) -> None:
        self.rate = rate
        self._tokens = Tokens(client, REALM)
        self._bucket = TokenBucket(client, "api", rate)
        self._trusted: dict[str, tuple[float, Grant]] = {}
        self._executor = executor
        self._asked = Together[str, tuple[Grant, Answer]](self._admit, executor)

    async def of(self, request: Request, takes_token: bool) -> Asker:
        """Who sent `request`; with `takes_token` the token may be in the query if it is bound to one thing.

        Raises `Refused`.
        """
        token, is_in_url = _bearer(request), False
        if not token and takes_token and "token" in request.query_params:
            token, is_in_url = request.query_params["token"], True
        if not token:
            return _of_session(request)
        if not is_token(token):
            raise Refused(401, "InvalidToken", "this is not a token of this API", headers=_CHALLENGE)
        grant, answer = await self._asked.ask(token)
        if is_in_url and grant.bound_to is None:
            raise Refused(401, "TokenInURL", "only a read token may be in a URL", headers=_CHALLENGE)
        name = f"token {grant.name}"
        found = Asker(name, grant.scopes, hashed(token)[:32], grant.bound_to, grant.expires_at, answer)
        if not answer.allowed:
            headers = {"Retry-After": f"{max(1, round(answer.retry_after + 0.5))}", **self.headers(found)}
            raise Refused(429, "TooManyRequests", f"a token allows {self.rate}", headers=headers)
        return found

    async def still(self, request: Request) -> bool:
        """Whether the token of a long answer still grants anything."""
        token = _bearer(request) or request.query_params.get("token", "")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._tokens.read, token) is not None

    def headers(self, asker: Asker) -> dict[str, str]:
        """How much of the rate is left."""
        if asker.rate is None:
            return {}
        return {
            "RateLimit-Policy": f'"token";q={self.rate.burst};w={_whole(self.rate.burst / self._per_second)}',
            "RateLimit": f'"token";r={asker.rate.remaining};t={_whole(asker.rate.reset_after)}',
        }

    @property
    def _per_second(self) -> float:
        return self.rate.limit / self.rate.period

    def _admit(self, tokens: Sequence[str]) -> list[tuple[Grant, Answer] | Exception]:
        """In a thread: what each token grants, and what its rate says to one more request."""
        now = time.monotonic()
        grants: dict[str, Grant | None] = {}
        for token in dict.fromkeys(tokens):
            at, grant = self._trusted.get(token, (0.0, None))
            grants[token] = grant if grant and now - at < TRUSTED_FOR else self._tokens.read(token)
            if grants[token] is not grant:
                self._trust(token, grants[token], now)
        known = [token for token in tokens if grants[token]]
        answers = iter(self._bucket.hit_each([hashed(token)[:32] for token in known]))
        found: list[tuple[Grant, Answer] | Exception] = []
        for token in tokens:
            grant = grants[token]
            found.append((grant, next(answers)) if grant else _unknown())
        return found

    def _trust(self, token: str, grant: Grant | None, now: float) -> None:
        if len(self._trusted) >= MOST_TRUSTED:
            self._trusted.clear()
        if grant:
            self._trusted[token] = (now, grant)
        else:
            self._trusted.pop(token, None)


def _unknown() -> Refused:
    return Refused(401, "InvalidToken", "unknown or expired token", headers=_CHALLENGE)


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _of_session(request: Request) -> Asker:
    """The viewer with a session, who may only read here."""
    viewer: Viewer | None = request.scope.get("state", {}).get("viewer")
    if viewer is None or not viewer.session:  # such as a trusted proxy's user
        raise Refused(401, "NoToken", "send a token: Authorization: Bearer pm_...", headers=_CHALLENGE)
    if request.method not in ("GET", "HEAD"):
        raise Refused(401, "NoToken", "a session may only read here: send a token", headers=_CHALLENGE)
    payloads = {Scope.PAYLOADS} if viewer.may_see_payloads else set()
    return Asker(viewer.name, _SCOPES[viewer.role] | payloads)


def _whole(seconds: float) -> int:
    return max(0, round(seconds + 0.5))
