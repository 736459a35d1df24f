"""The mailer that a worker provides to its jobs: it keeps connections, and sends one mail per transaction."""

from __future__ import annotations

import os
import smtplib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from redis import Redis

from packmule.coordination.redis.replies import as_text
from packmule.jobs import current
from packmule.jobs.email.delivery.smtp.server import InvalidServer, MailRefused, Server, TemporaryFailure
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.outcome import Journal, Outcome, State
from packmule.jobs.email.templating.rendering import Renderer

MAX_IDLE = 30.0
"""Seconds after which an unused connection is closed instead of used; servers drop idle ones too."""

_OK = 250
_WILL_FORWARD = 251
_CLOSING = 421


class _Kept(NamedTuple):
    """An idle connection and the process that opened it."""

    connection: smtplib.SMTP
    process: int
    since: float


class Mailer:
    """Renders mails and sends them through one server; provide one to the jobs of a process.

    `url` is described at `jobs.email.server.Server`; without one, sending raises `InvalidServer`. `sender` is
    the From of mails that name none. `templates` is the user's folder of templates.

    Connections are kept between mails, one for each thread that sends at the same time. A stale connection is
    replaced before the mail is transmitted, and a forked child opens its own. A connection unused for
    `MAX_IDLE` seconds is closed by the next mail, or by `close()`.

    >>> from packmule.jobs import context
    >>> context.provide(Mailer("smtp://127.0.0.1:2525", "shop@example.org"))
    """

    def __init__(
        self,
        urls: Sequence[str] | str | None,
        sender: str,
        templates: str | None = None,
        *,
        redis: Redis | None = None,
    ) -> None:
        self.sender = sender
        self.renderer = Renderer(templates)
        self.redis = redis
        urls = urls.split() if isinstance(urls, str) else urls
        self._server = Server(urls[0]) if urls else None
        # A deque's own operations are atomic: a lock might be held by another thread when this process forks.
        self._kept: deque[_Kept] = deque()

    def send(self, letter: Letter) -> dict[str, str]:
        """Send `letter`; returns the refused recipients, each with the server's reply.

        When this returns, the server has accepted the mail for all other recipients. Raises `MailRefused` or
        `TemporaryFailure` if it accepted it for none (or, if the text says so, possibly for some),
        `InsecureServer`, and `InvalidServer` if there is no URL.
        """
        if self._server is None:
            raise InvalidServer(
                "no mail server is set: set PACKMULE_MAIL_URL to its URL (smtp://user:password@host)"
            )
        connection, refused = self._begin(self._server, letter)
        with _closed_on_failure(connection):
            current.progress(2, 3, f"sending to {self._server}")
            _transmit(self._server, connection, letter)
        self._kept.append(_Kept(connection, os.getpid(), time.monotonic()))
        return refused

    def deliver(self, letters: Iterable[Letter], journal: Journal) -> None:
        """Send each of `letters`, and let `journal` know what became of each of its recipients.

        Raises `TemporaryFailure`, `InsecureServer`, `MailRefused` or `InvalidServer` if no server takes mails
        at all: the letters that `journal` saw no end of were not taken, and may be sent again.
        """
        if self._server is None:
            raise InvalidServer(
                "no mail server is set: set PACKMULE_MAIL_URL to its URL (smtp://user:password@host)"
            )
        try:
            for letter in letters:
                journal.prepare(letter)
                connection, refused = self._begin(self._server, letter)
                ended = {to: Outcome(_state(reply), reply) for to, reply in refused.items()}
                with _closed_on_failure(connection):
                    if journal.begin(letter):
                        outcome = _delivered(self._server, connection, letter)
                        ended |= {to: outcome for to in letter.recipients if to not in refused}
                    else:
                        connection.rset()
                self._kept.append(_Kept(connection, os.getpid(), time.monotonic()))
                journal.ended(letter, ended)
        finally:
            journal.flush()

    def close(self) -> None:
        """Close all kept connections, with a QUIT."""
        while (connection := self._next_kept()) is not None:
            _leave(connection)

    def _begin(self, server: Server, letter: Letter) -> tuple[smtplib.SMTP, dict[str, str]]:
        """A connection on which the server accepted the envelope, and the recipients it refused.

        The mail's first commands test a kept connection: repeating them on a new one sends nothing twice, and
        no round trip is spent on a separate test.
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
        """The kept connection unused for longest; those that are too old or a parent's are closed."""
        while True:
            try:
                connection, process, since = self._kept.popleft()
            except IndexError:
                return None
            if process != os.getpid():
                # The parent still uses it: close our copy without a QUIT.
                connection.close()
            elif time.monotonic() - since > MAX_IDLE:
                _leave(connection)
            else:
                return connection


def _envelope(server: Server, connection: smtplib.SMTP, letter: Letter) -> dict[str, str]:
    """Send the envelope; returns the refused recipients, or raises if the server refused all."""
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
        # One recipient refused temporarily makes a retry worthwhile.
        recipient, (code, reply) = min(refused.items(), key=lambda item: item[1][0])
        others = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise server.refusal(f"refused {recipient}{others}", code, reply)
    return {recipient: server.words(code, reply) for recipient, (code, reply) in refused.items()}


def _options(server: Server, connection: smtplib.SMTP, letter: Letter) -> list[str]:
    """The options of MAIL: the size, so that a mail that is too large is refused before it is sent."""
    options = [f"size={len(letter.content)}"] if connection.has_extn("size") else []
    connection.command_encoding = "utf-8" if letter.needs_utf8 else "ascii"
    if letter.needs_utf8:
        if not connection.has_extn("smtputf8"):
            raise MailRefused(f"{server} accepts only ASCII before the @ of an address (no SMTPUTF8)")
        options.append("smtputf8")
    return options


def _state(reply: str) -> State:
    return State.DEFERRED if reply.startswith("4") else State.REFUSED


def _delivered(server: Server, connection: smtplib.SMTP, letter: Letter) -> Outcome:
    try:
        code, reply = connection.data(letter.content)
    except smtplib.SMTPResponseException as error:
        code, reply = error.smtp_code, as_text(error.smtp_error).encode()
    except OSError as error:
        return Outcome(State.UNKNOWN, f"{server} hung up before it confirmed the mail: {error}")
    words = server.words(code, reply)
    return Outcome(State.ACCEPTED if code == _OK else _state(words), words)


def _transmit(server: Server, connection: smtplib.SMTP, letter: Letter) -> None:
    try:
        code, reply = connection.data(letter.content)
    except smtplib.SMTPResponseException as error:
        raise server.refusal("did not accept the mail", error.smtp_code, error.smtp_error) from None
    except OSError as error:
        raise TemporaryFailure(
            f"{server} hung up before it confirmed {letter.message_id}, and may have accepted it: {error}"
        ) from None
    if code != _OK:
        raise server.refusal("did not accept the mail", code, reply)


def _stay(server: Server, code: int, reply: bytes) -> None:
    """Treat a server's notice that it is about to hang up (421) as the hang-up itself."""
    if code == _CLOSING:
        raise smtplib.SMTPServerDisconnected(server.words(code, reply))


@contextmanager
def _closed_on_failure(connection: smtplib.SMTP) -> Iterator[None]:
    """Close a connection whose transaction was interrupted, because its state is unknown."""
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
