"""Forms: the fields of a POST, for handlers that run in threads."""

from __future__ import annotations

import anyio.from_thread
from starlette.datastructures import FormData
from starlette.requests import Request

MOST_FIELDS = 500


def form(request: Request) -> FormData:
    """The form that was sent; a field may be there several times, and files are refused.

    Only for plain handlers, which Starlette runs in threads. Starlette answers 400 for a form that is none.

    >>> ids = form(request).getlist("id")  # doctest: +SKIP
    """

    async def read() -> FormData:
        return await request.form(max_files=0, max_fields=MOST_FIELDS)

    return anyio.from_thread.run(read)


def fields(request: Request) -> dict[str, str]:
    """The fields of the form that was sent, each once: the last of a name.

    >>> fields(request).get("reason", "")  # doctest: +SKIP
    'too slow'
    """
    return {name: value for name, value in form(request).items() if isinstance(value, str)}
