"""Looking: the dashboard on any RQ system, for whoever holds one key, and nothing that could change it."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from packmule.dashboard.guarding.origin import SAFE_METHODS
from packmule.dashboard.site import Site, build
from packmule.dashboard.viewer import Role, Viewer

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

LOOKER = Viewer("looker", Role.VIEWER, may_see_payloads=True)
"""Who has the URL of a server can read all that is on it."""

KEY = "key"
NO_KEY = "Open the link that `packmule look` has printed: it has the key to this page.\n"
READ_ONLY = "`packmule look` changes nothing: use `packmule dashboard` to act on jobs.\n"


class Looking:
    """The pages of `site` for browsers that came by `/?key=<key>`; it writes nothing to the server.

    Its key is in this process only, since a login would leave a session on a server that isn't ours.

    >>> looking = Looking(site)  # doctest: +SKIP
    >>> f"http://127.0.0.1:9181/?key={looking.key}"  # doctest: +SKIP
    """

    def __init__(self, site: Site) -> None:
        self.key = secrets.token_urlsafe(24)
        # Browsers send cookies to every port of a host, so each process needs a name of its own.
        self.cookie = f"packmule-look-{hashlib.sha256(self.key.encode()).hexdigest()[:12]}"
        self.site = build(site, lambda request: LOOKER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, if it is one that reads and its browser has the key."""
        if scope["type"] == "http":
            refused = self._judge(Request(scope))
            if refused is not None:
                await refused(scope, receive, send)
                return
            # A token would be noted as used.
            scope = {**scope, "headers": [each for each in scope["headers"] if each[0] != b"authorization"]}
        await self.site(scope, receive, send)

    def _judge(self, request: Request) -> Response | None:
        if not self._holds(request.cookies.get(self.cookie, "")):
            if request.url.path != "/" or not self._holds(request.query_params.get(KEY, "")):
                return PlainTextResponse(NO_KEY, 401)
            answer = RedirectResponse(
                "/", 303, {"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
            )
            answer.set_cookie(self.cookie, self.key, httponly=True, samesite="lax")
            return answer
        if request.method not in SAFE_METHODS:
            return PlainTextResponse(READ_ONLY, 405, {"Allow": "GET, HEAD"})
        return None

    def _holds(self, key: str) -> bool:
        return secrets.compare_digest(key.encode(errors="replace"), self.key.encode())
