"""Files by HTTP: uploads for image and file jobs, streamed to the storage."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from packmule.dashboard.api.bodies import length_of
from packmule.dashboard.api.endpoint import Call, Endpoint, Reply, endpoint
from packmule.dashboard.api.problems import Fault, Refused
from packmule.dashboard.api.scopes import Scope
from packmule.jobs.storage import Storage, safe_name
from packmule.jobs.storage.store import explained
from packmule.units import MIB

MOST_NAME = 300

LARGEST_FRAME = 10_000
"""Bytes that a form may have around its file, by its own account."""

MOST_BEFORE = MIB
"""Bytes of other fields that are read until a form's file begins; what comes after it is not read."""


class Uploaded(msgspec.Struct, frozen=True):
    """A file in the storage: give its `path` to a job."""

    path: str
    bytes: int
    sha256: str


@endpoint(
    "PUT", "/files/{name}", Scope.ENQUEUE, takes="application/octet-stream", answer=Uploaded, status=201,
    may=(409, 413, 507),
)  # fmt: skip
async def put_file(call: Call) -> Reply:
    """Upload a file: the body is its content, and its path in the storage ends in the name.

    It is there whole or not at all.
    """
    return Reply(await _stored(call, call.path["name"], call.request.stream()), 201)


@endpoint(
    "POST",
    "/files",
    Scope.ENQUEUE,
    takes="multipart/form-data",
    answer=Uploaded,
    status=201,
    may=(409, 413, 507),
)
async def post_file(call: Call) -> Reply:
    """Upload a file from a form: its part is called `file`."""
    return Reply(await from_form(call), 201)


async def from_form(call: Call) -> Uploaded:
    """The file of a form, once it is in the storage. Raises `Refused`."""
    kind, options = parse_options_header(call.request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 200:  # noqa: PLR2004
        raise Refused(415, "NotAForm", "send multipart/form-data with a boundary, or PUT the bare content")
    form = _Form(boundary, call.request.stream())
    name = await form.begin()
    return await _stored(call, name, form.content())


async def _stored(call: Call, name: str, parts: AsyncIterator[bytes]) -> Uploaded:
    storage, most = call.service.storage, call.service.options.max_file_bytes
    if storage is None:
        raise Refused(409, "NoStorage", "this dashboard has no storage: set PACKMULE_STORAGE")
    if not 0 < len(name) <= MOST_NAME:
        raise Refused(
            422, "InvalidName", f"a file's name has 1 to {MOST_NAME} characters", Fault("name", "#")
        )
    _check(length_of(call.request) - LARGEST_FRAME, most)
    path = f"uploads/{secrets.token_hex(8)}/{safe_name(Path(name).name or 'file')}"
    receiving = _Receiving(storage, path)
    size, digest = 0, sha256()
    try:
        async for part in parts:
            size += len(part)
            _check(size, most)
            digest.update(part)
            await run_in_threadpool(receiving.write, part)
    except BaseException as error:
        receiving.give_up(error)
        raise
    await run_in_threadpool(receiving.end)
    return Uploaded(path, size, digest.hexdigest())


def _check(size: int, most: int) -> None:
    if size > most:
        raise Refused(413, "FileTooLarge", f"a file has at most {most:,} bytes (PACKMULE_MAX_FILE_BYTES)")


class _Receiving:
    """A file that arrives in parts; it is in the storage once `end` returns."""

    def __init__(self, storage: Storage, path: str) -> None:
        self._closing = ExitStack()
        self._storage = storage
        self._path = path
        self._file: Any = None

    def write(self, part: bytes) -> None:
        """Append a part."""
        if self._file is None:
            local = self._closing.enter_context(self._storage.write(self._path))
            with explained("write", self._path):
                self._file = self._closing.enter_context(local.open("wb", buffering=0))
        with explained("write", self._path):
            left = memoryview(part)
            while left:
                left = left[self._file.write(left) :]

    def end(self) -> None:
        """Finish the file."""
        self.write(b"")
        self._closing.close()

    def give_up(self, error: BaseException) -> None:
        """Leave nothing."""
        self._closing.__exit__(type(error), error, error.__traceback__)


class _Form:
    """The part `file` of a form, as it arrives; other parts are passed over."""

    def __init__(self, boundary: bytes, parts: AsyncIterator[bytes]) -> None:
        self._parts = parts
        self._found: list[bytes] = []
        self._field = self._value = b""
        self._is_file = self._is_over = False
        self._name: str | None = None
        callbacks: Any = {
            "on_part_begin": self._part_begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._header_end,
            "on_part_data": self._on_data,
            "on_part_end": self._part_end,
        }
        self._parser = MultipartParser(boundary, callbacks)

    async def begin(self) -> str:
        """The file's name, once it is there. Raises `Refused`."""
        size = 0
        while self._name is None:
            if size > MOST_BEFORE:
                text = f"a form has at most {MOST_BEFORE:,} bytes before its file: send that first"
                raise Refused(413, "FormTooLarge", text, Fault(text, "#/file"))
            part = await anext(self._parts, b"")
            size += len(part)
            if not part:
                raise Refused(
                    422, "NoFile", "the form has no file: name its part file", Fault("missing", "#/file")
                )
            self._feed(part)
        return self._name or "file"

    async def content(self) -> AsyncIterator[bytes]:
        """The file's content."""
        while True:
            found, self._found = self._found, []
            for each in found:
                yield each
            if self._is_over:
                return
            part = await anext(self._parts, b"")
            if not part:
                raise Refused(400, "MalformedBody", "the form ends in the middle of its file")
            self._feed(part)

    def _feed(self, part: bytes) -> None:
        try:
            self._parser.write(part)
        except Exception as error:
            raise Refused(400, "MalformedBody", f"the form can't be read: {error}") from None

    def _part_begin(self) -> None:
        self._field = self._value = b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition" and self._name is None:
            _, options = parse_options_header(self._value)
            if options.get(b"name") == b"file":
                self._is_file = True
                self._name = options.get(b"filename", b"file").decode(errors="replace") or "file"
        self._field = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._found.append(bytes(data[start:end]))

    def _part_end(self) -> None:
        if self._is_file:
            self._is_file, self._is_over = False, True


ENDPOINTS: tuple[Endpoint, ...] = (put_file, post_file)
