"""Static files: those whose address has their hash are kept by browsers for a year."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.staticfiles import StaticFiles

from packmule.dashboard.pages.addresses import STATIC, version

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope

FOR_A_YEAR = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"


class Static(StaticFiles):
    """The files of `static/`: `/static/packmule.css?v=<hash>` is immutable, another address has an ETag."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer with a file and how long it may be kept."""
        response = await super().get_response(path, scope)
        given: Any = Request(scope).query_params.get("v")
        is_current = bool(given) and given == version(path)
        response.headers["Cache-Control"] = FOR_A_YEAR if is_current else ASK_AGAIN
        return response
