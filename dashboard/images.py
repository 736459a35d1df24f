"""Images on demand, without login: their addresses are signed, and workers make what is first asked for."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from packmule.coordination.redis.backoff import REDIS_ERRORS
from packmule.errors import Error, UsageError
from packmule.jobs.image import HOPELESS, UnknownPreset
from packmule.jobs.image.rendition import FORMATS
from packmule.jobs.image.serving.addresses import PREFIX, Addresses
from packmule.jobs.image.serving.served import SAFE_SECONDS
from packmule.jobs.reader import NoSuchJob
from packmule.jobs.storage import FileTooLarge, MissingFile, OutsideStorage, StorageError
from packmule.plain_text import one_line, plain
from packmule.units import MIB

if TYPE_CHECKING:
    from packmule.jobs.image.serving.served import Served, Wanted

MAKE_SECONDS = 60.0
"""Within which a rendition must be made, the time in its queue included."""

PATIENCE = 15.0
"""Seconds that one request waits for it."""

MOST_MAKING = 64
"""Renditions that one process of the dashboard waits for at once."""

MOST_WAITING = 200
"""Requests that wait for them: fewer than a process answers at once, so that pages are shown meanwhile."""

RETRY_AFTER = 2
STORAGE_RETRY_AFTER = 10

REMEMBERED, REMEMBER_SECONDS = 1000, 30.0
"""Renditions that can't be made, of which a process knows the reason, and for how long."""

NOTE_SECONDS = SAFE_SECONDS / 2
"""How often a process notes that a rendition is in use."""

MOST_NOTED = 10_000

LARGEST = 32 * MIB
"""Bytes of a rendition that is served."""

LONGEST_REASON = 300

KEPT = "public, max-age=3600, stale-while-revalidate=86400"
KEPT_ERROR = "public, max-age=30"
TYPES = {
    "jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "avif": "image/avif", "gif": "image/gif",
}  # fmt: skip
HEADERS = {
    # Other sites show them, and nothing in them runs.
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
_NEVER = re.compile(r"q=0(\.0*)?")
log = logging.getLogger("packmule.images")
REASONS = frozenset(error.__name__ for error in HOPELESS)
"""Errors of the job whose texts are about the image; others stay with the job."""


class NotYetMade(Error):
    """A rendition isn't there yet, or too many are being made."""


class NotMade(UsageError, ValueError):
    """A rendition of an image can't be made."""


class Images:
    """Answers for `addresses` with what is `served`; for one event loop."""

    def __init__(self, addresses: Addresses, served: Served) -> None:
        self.addresses = addresses
        self.served = served
        self.waiting = 0
        self._making: dict[str, asyncio.Task[str]] = {}
        self._refused: dict[str, tuple[float, str]] = {}
        self._used: dict[str, float] = {}
        self._uses: set[str] = set()
        self._noting: asyncio.Task[None] | None = None

    @property
    def routes(self) -> list[Route]:
        """Where they are served."""
        path = f"{PREFIX}/{{signature}}/{{preset}}/{{source:path}}"
        return [Route(path, self.answer, methods=["GET"], name="image")]

    async def answer(self, request: Request) -> Response:
        """`GET /i/{signature}/{preset}/{source}`."""
        signature, preset, source = (request.path_params[name] for name in ("signature", "preset", "source"))
        if not self.addresses.is_signed(signature, preset, source):
            return _said(403, "this address is not signed by us, or was changed")
        try:
            return await self._rendition(source, preset, request)
        except (UnknownPreset, MissingFile, OutsideStorage) as error:
            return _said(404, str(error))
        except NotMade as error:
            answer = _said(422, str(error))
            answer.headers["Vary"] = "Accept"  # another format may be possible
            return answer
        except NotYetMade as error:
            return _said(503, str(error), retry_after=RETRY_AFTER)
        except StorageError as error:
            log.warning("a rendition can't be served: %s", plain(error))
            return _said(503, "the storage can't be read now", retry_after=STORAGE_RETRY_AFTER)

    async def _rendition(self, source: str, preset: str, request: Request) -> Response:
        wanted, path = await run_in_threadpool(self.served.look, source, preset, _accepted(request))
        headers = {**HEADERS, "ETag": f'"{wanted.key}"', "Cache-Control": KEPT}
        if wanted.rendition.format == "auto":
            headers["Vary"] = "Accept"
        if headers["ETag"] in _tags(request):
            self._use(path)
            return Response(None, 304, headers)
        path = path or await self._made(wanted)
        content, kind = await run_in_threadpool(self._content, path)
        self._use(path)
        return Response(content, 200, headers, kind)

    def _content(self, path: str) -> tuple[bytes, str]:
        try:
            return self.served.storage.read_bytes(path, LARGEST), TYPES[path.rpartition(".")[2]]
        except (MissingFile, FileNotFoundError):  # it was deleted a moment ago
            raise NotYetMade("the rendition must be made again: try again") from None
        except FileTooLarge:
            raise NotMade(f"the rendition has more bytes than the limit of {LARGEST:,}") from None

    async def _made(self, wanted: Wanted) -> str:
        """The path of a rendition once it is made. Raises `NotYetMade` and `NotMade`."""
        until, reason = self._refused.get(wanted.key, (0.0, ""))
        if time.monotonic() < until:
            raise NotMade(reason)
        if self.waiting >= MOST_WAITING:
            raise NotYetMade("too many requests wait for renditions: try again")
        making = self._making.get(wanted.key)
        if making is None:
            if len(self._making) >= MOST_MAKING:
                raise NotYetMade("too many renditions are being made: try again")
            making = self._making[wanted.key] = asyncio.create_task(self._make(wanted))
            making.add_done_callback(lambda ended: self._forget(wanted.key, ended))
        self.waiting += 1
        try:
            return await asyncio.wait_for(asyncio.shield(making), PATIENCE)
        except TimeoutError:
            raise NotYetMade("the rendition is being made: try again") from None
        finally:
            self.waiting -= 1

    async def _make(self, wanted: Wanted) -> str:
        job = await run_in_threadpool(self.served.order, wanted, MAKE_SECONDS)
        try:
            ended = await job.await_end(MAKE_SECONDS)
        except (TimeoutError, NoSuchJob):
            raise NotYetMade("the rendition was not made in time: try again") from None
        if path := await run_in_threadpool(self.served.find, wanted):
            return path
        if ended.error_type not in REASONS:
            raise NotYetMade("the rendition can't be made now: try again")
        reason = one_line(str(ended.reason).partition(": ")[2][: 4 * LONGEST_REASON], LONGEST_REASON)
        if len(self._refused) >= REMEMBERED:
            self._refused.clear()
        self._refused[wanted.key] = time.monotonic() + REMEMBER_SECONDS, reason
        raise NotMade(reason)

    def _use(self, path: str | None) -> None:
        """Note that a rendition is in use, seldom enough for that to cost nothing."""
        now = time.monotonic()
        if path is None or now < self._used.get(path, 0.0) + NOTE_SECONDS:
            return
        if len(self._used) >= MOST_NOTED:
            self._used.clear()
        self._used[path] = now
        self._uses.add(path)
        if self._noting is None or self._noting.done():
            self._noting = asyncio.create_task(self._note_uses())

    async def _note_uses(self) -> None:
        while self._uses:
            uses, self._uses = self._uses, set()
            with suppress(*REDIS_ERRORS, Error):  # what is noted nowhere is deleted earlier, and made again
                await run_in_threadpool(self.served.note_uses, uses)

    def _forget(self, key: str, ended: asyncio.Task[str]) -> None:
        del self._making[key]
        if not ended.cancelled():
            ended.exception()  # nobody may wait for it any more


def _accepted(request: Request) -> frozenset[str]:
    """The formats of images that a browser says it can show."""
    found = set()
    for each in ",".join(request.headers.getlist("accept")).lower().split(","):
        kind, *options = (part.strip() for part in each.split(";"))
        if not any(_NEVER.fullmatch(option) for option in options):
            found.add(kind)
    return frozenset(name for name in FORMATS if f"image/{name}" in found)


def _tags(request: Request) -> set[str]:
    given = ",".join(request.headers.getlist("if-none-match"))
    return {each.strip().removeprefix("W/") for each in given.split(",")}


def _said(status: int, text: str, retry_after: int = 0) -> Response:
    later = {"Retry-After": f"{retry_after}", "Cache-Control": "no-store"}
    kept = later if retry_after else {"Cache-Control": KEPT_ERROR}
    return PlainTextResponse(f"{text}\n", status, {**HEADERS, **kept})
