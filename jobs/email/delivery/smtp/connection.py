"""A connection that is ready for mail: greeted, under TLS as its server's URL requires, and logged in."""

from __future__ import annotations

import os
import ssl
import time
from base64 import b64encode
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from socket import getfqdn

from packmule.errors import Unavailable
from packmule.jobs.email.delivery.route import TemporaryFailure
from packmule.jobs.email.delivery.smtp.reply import CLOSING, Reply
from packmule.jobs.email.delivery.smtp.server import MailRefused, Server
from packmule.jobs.email.delivery.smtp.wire import Lost, Wire


class InsecureServer(Unavailable):
    """The server offers less security for the mail or the password than the URL requires."""


class Connection:
    """A connection to `server`. Raises `TemporaryFailure`, `MailRefused` or `InsecureServer`.

    `extensions` are what the server offers, in capitals, each with its parameters.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.process = os.getpid()
        self.extensions: dict[str, str] = {}
        self.opened_at = time.monotonic()
        try:
            self.wire = Wire(server.host, server.port, self.deadline())
            try:
                self._prepare()
            except BaseException:
                self.wire.close()
                raise
        except ssl.SSLCertVerificationError as error:
            raise InsecureServer(
                f"the certificate of {server} is not trusted ({error.verify_message}): name its CA with "
                "?ca=/path/ca.pem in PACKMULE_MAIL_URL, or accept any with ?verify=no"
            ) from None
        except (Lost, OSError) as error:
            why = getattr(error, "strerror", None) or error
            raise TemporaryFailure(f"can't reach the mail server {server}: {why}") from error

    def deadline(self) -> float:
        """The instant until which a reply to what is sent now may take."""
        return time.monotonic() + self.server.timeout

    def ask(self, command: bytes) -> Reply:
        """Send one command and return its reply. Raises `Lost`, also if the server says that it hangs up."""
        deadline = self.deadline()
        self.wire.send(command + b"\r\n", deadline)
        return self.answer(deadline)

    def answer(self, deadline: float | None = None) -> Reply:
        """The next reply. Raises `Lost`, also if the server says that it hangs up."""
        reply = self.wire.reply(deadline or self.deadline())
        if reply.code == CLOSING:
            raise Lost(self.server.words(reply))
        return reply

    def leave(self) -> None:
        """Say goodbye without waiting for the answer, and close; in a forked child only close."""
        if self.process == os.getpid():
            with suppress(Lost, OSError):
                self.wire.send(b"QUIT\r\n", time.monotonic())
        self.wire.close()

    def _prepare(self) -> None:
        server = self.server
        if server.tls_from_start:
            self.wire.secure(server.context, server.host, self.deadline())
        greeting = self.answer()
        if not greeting.is_done:
            raise server.refusal("does not accept mail", greeting)
        self._greet()
        if not server.tls_from_start and "STARTTLS" in self.extensions:
            reply = self.ask(b"STARTTLS")
            if reply.is_done:
                self.wire.secure(server.context, server.host, self.deadline())
                self._greet()  # what was said before TLS counts no more
        if server.tls_required and not self.wire.is_encrypted:
            raise InsecureServer(f"{server} offers no TLS, but PACKMULE_MAIL_URL says tls=required")
        if server.user is not None:
            self._log_in(server.user)

    def _greet(self) -> None:
        self.extensions = {}
        reply = self.ask(b"EHLO " + own_name())
        if reply.is_done:
            for line in reply.lines[1:]:
                word, _, parameters = line.decode("ascii", "replace").replace("=", " ", 1).partition(" ")
                self.extensions[word.upper()] = parameters
            return
        reply = self.ask(b"HELO " + own_name())
        if not reply.is_done:
            raise self.server.refusal("does not accept mail", reply)

    def _log_in(self, user: str) -> None:
        server = self.server
        if not self.wire.is_encrypted and not self._is_within_this_machine():
            raise InsecureServer(
                f"{server} offers no TLS, so the password was not sent; use smtps:// or another port"
            )
        reply = self._authenticated(user, set(self.extensions.get("AUTH", "").upper().split()))
        if not reply.is_done:
            raise server.refusal(f"does not let {user} log in", reply)

    def _authenticated(self, user: str, offered: set[str]) -> Reply:
        server = self.server
        if server.wants_oauth:
            offered &= {"XOAUTH2"}
        if "XOAUTH2" in offered and server.wants_oauth:
            token = f"user={user}\1auth=Bearer {server.password}\1\1"
            reply = self.ask(b"AUTH XOAUTH2 " + _encoded(token))
            return self.ask(b"") if reply.is_go_on else reply  # the server explains, then refuses
        if "PLAIN" in offered:
            return self.ask(b"AUTH PLAIN " + _encoded(f"\0{user}\0{server.password}"))
        if "LOGIN" in offered:
            reply = self.ask(b"AUTH LOGIN")
            for text in (user, server.password):
                if not reply.is_go_on:
                    return reply
                reply = self.ask(_encoded(text))
            return reply
        wanted = "AUTH XOAUTH2" if server.wants_oauth else "AUTH PLAIN or LOGIN"
        raise MailRefused(
            f"{server} can't log {user} in: it offers no {wanted}; omit user and password from the URL?"
        )

    def _is_within_this_machine(self) -> bool:
        return ip_address(self.wire.socket.getpeername()[0]).is_loopback


def _encoded(text: str) -> bytes:
    return b64encode(text.encode())


@lru_cache(maxsize=1)
def own_name() -> bytes:
    """Our name in greetings; looked up once, so that a slow name server doesn't delay each connection."""
    name = getfqdn()
    return name.encode("ascii") if "." in name and name.isascii() else b"[127.0.0.1]"
