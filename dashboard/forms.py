"""Forms: the fields of a POST, for handlers that run in threads."""

from __future__ import annotations

import anyio.from_thread
from starlette.datastructures import FormData, UploadFile
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


def upload(request: Request, name: str) -> tuple[dict[str, str], bytes | None]:
    """The fields of a form with one file, and the content of its field `name`; None if no file was chosen.

    A form has a MiB at most, as the guard says.

    >>> given, content = upload(request, "file")  # doctest: +SKIP
    """

    async def read() -> tuple[dict[str, str], bytes | None]:
        async with request.form(max_files=1, max_fields=MOST_FIELDS) as given:
            file = given.get(name)
            content = await file.read() if isinstance(file, UploadFile) and file.filename else None
            return {each: value for each, value in given.items() if isinstance(value, str)}, content

    return anyio.from_thread.run(read)
