"""The mail catcher for development: an SMTP server that stores every mail it receives."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Awaitable
from datetime import UTC, datetime
from types import TracebackType

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from packmule.errors import Error
from packmule.jobs.storage import Storage, StorageError
from packmule.units import MIB

MAX_MAIL = 40 * MIB
"""Bytes of one mail: room for 25 MiB of attachments, which encoding enlarges by a third."""

FOLDER = "mail"
"""The folder of the storage in which mails are stored."""

READY = 30.0
"""Seconds that a busy machine may take to start the server's thread."""


class CatcherFailed(Error):
    """The mail catcher can't listen on its address."""


class Catcher:
    """Receives any mail on `host:port` and stores it in `storage` as `<folder>/<UTC time>-<id>.eml`.

    A mail is acknowledged only once it is stored; if it can't be stored, the sender is asked to try again.
    The envelope is added in front, as `X-Envelope-From` and `X-Envelope-To`, which also shows blind copies.
    `port` 0 means any free port.

    >>> with Catcher(Storage("memory://mails")) as url:
    ...     url.rpartition(":")[0]
    'smtp://127.0.0.1'
    """

    def __init__(
        self, storage: Storage, folder: str = FOLDER, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._storage = storage
        self._folder = folder
        self._host = host
        self._port = port
        self._controller: Controller | None = None

    def start(self) -> str:
        """Start listening; returns the URL to send to. Raises `CatcherFailed`."""
        try:
            listener = socket.create_server((self._host, self._port))
        except OSError as error:
            raise CatcherFailed(
                f"the mail catcher can't listen on {self._host}:{self._port}: {error.strerror}"
            ) from None
        host, port = listener.getsockname()[:2]
        # Inherited by connections; without it each greeting waits 40 ms for an acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._controller = _Listening(self, listener, host, port)
        self._controller.start()
        return f"smtp://{host}:{port}"

    def stop(self) -> None:
        """Stop listening. All mails that were acknowledged are stored."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    def __enter__(self) -> str:
        """Start; returns the URL."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Store a mail, then acknowledge it; aiosmtpd calls this for each mail."""
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}.eml"
        head = f"X-Envelope-From: {envelope.mail_from}\r\nX-Envelope-To: {', '.join(envelope.rcpt_tos)}\r\n"
        mail = head.encode(errors="surrogateescape") + (envelope.original_content or b"")
        try:
            await asyncio.to_thread(self._storage.write_bytes, f"{self._folder}/{name}", mail)
        except (StorageError, OSError) as error:
            return f"451 not stored: {error}".replace("\n", " ")
        return f"250 stored as {name}"


class _Listening(Controller):
    """aiosmtpd's server thread on a socket that already listens, so the port is known and certainly ours."""

    def __init__(self, catcher: Catcher, listener: socket.socket, host: str, port: int) -> None:
        super().__init__(
            catcher, host, port, ready_timeout=READY, data_size_limit=MAX_MAIL, enable_SMTPUTF8=True
        )
        self._listener = listener

    def _create_server(self) -> Awaitable[asyncio.AbstractServer]:
        return self.loop.create_server(self._factory_invoker, sock=self._listener)
