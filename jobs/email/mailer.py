"""The mailer that a worker lends to its jobs: kept connections, and one SMTP transaction a mail."""

from __future__ import annotations

import os
import smtplib
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from packmule.jobs import current
from packmule.jobs.email.message import Letter
from packmule.jobs.email.rendering import Renderer
from packmule.jobs.email.server import InvalidServer, Refused, Server, TemporaryFailure

MAX_IDLE = 30.0
"""Seconds after which an unused connection is closed rather than used; servers hang up on idle ones too."""

_OK = 250
_WILL_FORWARD = 251
_CLOSING = 421


class _Kept(NamedTuple):
    """A connection between two mails, with the process that opened it."""

    connection: smtplib.SMTP
    process: int
    since: float


class Mailer:
    """Sends mail through one server, and renders it; lend one to the jobs of a process.

    `url` is described at `jobs.email.server.Server`; without one, sending raises `InvalidServer`. `sender` is
    the From of mails that name none. `templates` is the user's folder of templates.

    A connection is kept from one mail to the next, for each thread that sends at the time. One that has
    gone stale is replaced before the mail is handed over, and a forked child opens its own. After
    `MAX_IDLE` seconds of disuse a connection is closed by the next mail, or by `close()`.

    >>> from packmule.jobs import context
    >>> context.provide(Mailer("smtp://127.0.0.1:2525", "shop@example.org"))
    """

    def __init__(self, url: str | None, sender: str, templates: str | None = None) -> None:
        self.sender = sender
        self.renderer = Renderer(templates)
        self._server = Server(url) if url else None
        # A deque's own operations are atomic: a lock might be held by another thread when this process forks.
        self._kept: deque[_Kept] = deque()

    def send(self, letter: Letter) -> dict[str, str]:
        """Hand `letter` to the server; the result maps each refused recipient to the server's words.

        The server has taken the mail for all other recipients when this returns. Raises `Refused` or
        `TemporaryFailure` when it has taken it for none (or, where the text says so, possibly for some),
        `InsecureServer`, and `InvalidServer` where there is no URL.
        """
        if self._server is None:
            raise InvalidServer(
                "no mail server is set: put its URL into PACKMULE_SMTP_URL (smtp://user:password@host)"
            )
        connection, refused = self._begin(self._server, letter)
        with _closed_on_failure(connection):
            current.progress(2, 3, f"handing over to {self._server}")
            _hand_over(self._server, connection, letter)
        self._kept.append(_Kept(connection, os.getpid(), time.monotonic()))
        return refused

    def close(self) -> None:
        """Take leave of the server on every kept connection."""
        while (connection := self._next_kept()) is not None:
            _leave(connection)

    def _begin(self, server: Server, letter: Letter) -> tuple[smtplib.SMTP, dict[str, str]]:
        """A connection on which the server has agreed to the envelope, and the recipients it refused.

        The mail's first commands are the test of a kept connection: nothing is sent twice by asking again
        on a new one, and no trip is spent on asking beforehand.
        """
        while (connection := self._next_kept()) is not None:
            with suppress(smtplib.SMTPServerDisconnected), _closed_on_failure(connection):
                return connection, _envelope(server, connection, letter)
        connection = server.connect()
        try:
            with _closed_on_failure(connection):
                return connection, _envelope(server, connection, letter)
        except smtplib.SMTPServerDisconnected as error:
            raise TemporaryFailure(f"{server} hung up: {error}") from None

    def _next_kept(self) -> smtplib.SMTP | None:
        """The connection unused for longest that is still fit to use; unfit ones are closed on the way."""
        while True:
            try:
                connection, process, since = self._kept.popleft()
            except IndexError:
                return None
            if process != os.getpid():
                # The parent still speaks on it: close our end of it without a word.
                connection.close()
            elif time.monotonic() - since > MAX_IDLE:
                _leave(connection)
            else:
                return connection


def _envelope(server: Server, connection: smtplib.SMTP, letter: Letter) -> dict[str, str]:
    """Name sender and recipients to the server; returns those refused, or raises if it refused all."""
    code, reply = connection.mail(letter.sender, _options(server, connection, letter))
    _stay(server, code, reply)
    if code != _OK:
        raise server.refusal(f"refused the sender {letter.sender}", code, reply)
    refused: dict[str, tuple[int, bytes]] = {}
    for recipient in letter.recipients:
        code, reply = connection.rcpt(recipient)
        _stay(server, code, reply)
        if code not in {_OK, _WILL_FORWARD}:
            refused[recipient] = (code, reply)
    if len(refused) == len(letter.recipients):
        # A recipient refused for now makes it worth trying again.
        recipient, (code, reply) = min(refused.items(), key=lambda item: item[1][0])
        others = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise server.refusal(f"refused {recipient}{others}", code, reply)
    return {recipient: server.words(code, reply) for recipient, (code, reply) in refused.items()}


def _options(server: Server, connection: smtplib.SMTP, letter: Letter) -> list[str]:
    """What MAIL says beside the sender: the size, so that too large a mail is refused before it travels."""
    options = [f"size={len(letter.content)}"] if connection.has_extn("size") else []
    connection.command_encoding = "utf-8" if letter.needs_utf8 else "ascii"
    if letter.needs_utf8:
        if not connection.has_extn("smtputf8"):
            raise Refused(f"{server} takes only ASCII before the @ of an address (it offers no SMTPUTF8)")
        options.append("smtputf8")
    return options


def _hand_over(server: Server, connection: smtplib.SMTP, letter: Letter) -> None:
    try:
        code, reply = connection.data(letter.content)
    except smtplib.SMTPResponseException as error:
        raise server.refusal("did not take the mail", error.smtp_code, error.smtp_error) from None
    except OSError as error:
        raise TemporaryFailure(
            f"{server} hung up before it confirmed {letter.message_id}, and may have taken it: {error}"
        ) from None
    if code != _OK:
        raise server.refusal("did not take the mail", code, reply)


def _stay(server: Server, code: int, reply: bytes) -> None:
    """Treat the notice of a server that is about to hang up (421) as the hang-up itself."""
    if code == _CLOSING:
        raise smtplib.SMTPServerDisconnected(server.words(code, reply))


@contextmanager
def _closed_on_failure(connection: smtplib.SMTP) -> Iterator[None]:
    """Close a connection whose transaction broke off: nobody knows in which state it is."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _leave(connection: smtplib.SMTP) -> None:
    try:
        connection.quit()
    except OSError:
        connection.close()
