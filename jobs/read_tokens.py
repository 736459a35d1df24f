"""Read tokens: short ones that let an application's user follow one job or batch by the HTTP API."""

from __future__ import annotations

from redis import Redis

from packmule.coordination.sessions.tokens import Tokens

REALM = "api"
"""The realm of the API's tokens."""

USUAL_SECONDS = 600.0


def read_token(
    client: Redis, kind: str, id: str, seconds: float = USUAL_SECONDS, *, output: bool = True
) -> str:
    """A token with which the API shows the `kind` ("job" or "batch") called `id` for `seconds`.

    That is a day at most. It shows status and progress, and with `output` what the job emits and returns,
    but never arguments, logs or tracebacks. Raises `InvalidToken`.

    >>> read_token(client, "job", "2a9f", 60)  # doctest: +SKIP
    'pm_9dKq...'
    """
    scopes = ("read", "output") if output else ("read",)
    return Tokens(client, REALM).lend(f"{kind}:{id}", scopes, lifetime=seconds)
