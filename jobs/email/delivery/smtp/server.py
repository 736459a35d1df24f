"""An SMTP server named by a URL: connecting to it, and logging in without exposing the password."""

from __future__ import annotations

import smtplib
import ssl
from functools import cached_property, lru_cache
from ipaddress import ip_address
from socket import IPPROTO_TCP, TCP_NODELAY, getfqdn
from urllib.parse import parse_qsl, unquote, urlsplit

from packmule.coordination.redis.replies import as_text
from packmule.errors import Error, Unavailable, UsageError

TIMEOUT = 15.0
"""Seconds that one reply of the server may take."""

MAX_WORDS = 500
"""Characters of a reply that errors quote."""

_HOW = (
    "the SMTP URL is invalid: write smtp://user:password@host:587 or smtps://user:password@host, "
    "with %-escapes for signs such as @ / ? # : in the password"
)
_PORTS = {"smtp": 25, "smtps": 465}
SUBMISSION_PORT = 587
"""The port of `smtp://` with a user, unless the URL names one."""


class InvalidServer(UsageError, ValueError):
    """The mail server's URL is missing or invalid."""


class InsecureServer(Unavailable):
    """The server offers less security for the mail or the password than the URL requires."""


class MailRefused(Error):
    """The server refused permanently (5xx); the text quotes its reply."""


class TemporaryFailure(Unavailable):
    """The server can't be reached or refused temporarily (4xx), so a later retry may succeed."""


class Server:
    """A mail server. `url` is `smtp://[user:password@]host[:port]` or `smtps://...`, with percent-escapes.

    `smtp` uses TLS (STARTTLS) if the server offers it, at port 25 or, with a user, 587. `smtps` is TLS from
    the first byte, at port 465. Options follow a `?`, joined by `&`:

    - `tls=required`: send nothing to a server that doesn't offer TLS;
    - `ca=/path/ca.pem`: trust the authorities in this file instead of the system's;
    - `verify=no`: accept any certificate, which protects against eavesdroppers but not against impostors.

    A password is sent only over TLS or within this machine. Raises `InvalidServer`.
    """

    def __init__(self, url: str) -> None:
        # No error quotes the URL: in an invalid one, the password may be in any part.
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise InvalidServer(_HOW) from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.path not in {"", "/"} or parts.fragment:
            raise InvalidServer(_HOW)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        known: dict[str, set[str | None]] = {
            "tls": {"required"},
            "verify": {"no"},
            "ca": {options.get("ca")} - {""},
        }
        if any(value not in known.get(name, ()) for name, value in options.items()):
            raise InvalidServer(
                "the options of the SMTP URL are tls=required, ca=/path/ca.pem and verify=no, joined by &"
            )
        self._tls_from_start = parts.scheme == "smtps"
        self._tls_required = "tls" in options
        self._ca = options.get("ca")
        self._verify = "verify" not in options
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password or "")
        if not (self._user or "").isascii() or not self._password.isascii():
            raise InvalidServer("SMTP logins must be ASCII: choose such a user and password")
        self.host = parts.hostname
        usual = SUBMISSION_PORT if self._user and not self._tls_from_start else _PORTS[parts.scheme]
        self.port = port or usual

    def __str__(self) -> str:
        """The server as `host:port`."""
        return f"{self.host}:{self.port}"

    def connect(self) -> smtplib.SMTP:
        """A connection ready for mail: greeted, under TLS as the URL requires, and logged in.

        Raises `TemporaryFailure`, `MailRefused` or `InsecureServer`.
        """
        try:
            connection = self._opened()
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
        except smtplib.SMTPResponseException as error:
            raise self.refusal("does not accept mail", error.smtp_code, error.smtp_error) from None
        except ssl.SSLCertVerificationError as error:
            raise InsecureServer(
                f"the certificate of {self} is not trusted ({error.verify_message}): name its CA with "
                "?ca=/path/ca.pem in PACKMULE_MAIL_URL, or accept any with ?verify=no"
            ) from None
        except OSError as error:
            raise TemporaryFailure(
                f"can't reach the mail server {self}: {error.strerror or error}"
            ) from error
        return connection

    def refusal(self, what: str, code: int, words: bytes | str) -> MailRefused | TemporaryFailure:
        """The error for a 4xx or 5xx reply, which it quotes."""
        kind = TemporaryFailure if 400 <= code < 500 else MailRefused  # noqa: PLR2004
        return kind(f"{self} {what}: {self.words(code, words)}")

    def words(self, code: int, words: bytes | str) -> str:
        """A reply as one printable line; the password is masked in case the server repeats it."""
        text = as_text(words)
        if self._password:
            text = text.replace(self._password, "***")
        return f"{code} " + " ".join("".join(c if c.isprintable() else " " for c in text).split())[:MAX_WORDS]

    def _opened(self) -> smtplib.SMTP:
        if self._tls_from_start:
            return smtplib.SMTP_SSL(self.host, self.port, _own_name(), timeout=TIMEOUT, context=self._context)
        return smtplib.SMTP(self.host, self.port, _own_name(), timeout=TIMEOUT)

    def _prepare(self, connection: smtplib.SMTP) -> None:
        if connection.sock is not None:
            # The end of a mail must not wait for the acknowledgement of its beginning.
            connection.sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        connection.ehlo_or_helo_if_needed()
        if not self._tls_from_start and connection.has_extn("starttls"):
            connection.starttls(context=self._context)
            connection.ehlo_or_helo_if_needed()
        encrypted = isinstance(connection.sock, ssl.SSLSocket)
        if self._tls_required and not encrypted:
            raise InsecureServer(f"{self} offers no TLS, but PACKMULE_MAIL_URL says tls=required")
        if self._user is not None:
            self._log_in(connection, self._user, encrypted)

    def _log_in(self, connection: smtplib.SMTP, user: str, encrypted: bool) -> None:
        if not encrypted and not _within_this_machine(connection):
            raise InsecureServer(
                f"{self} offers no TLS, so the password was not sent; use smtps:// or another port"
            )
        try:
            connection.login(user, self._password)
        except smtplib.SMTPAuthenticationError as error:
            raise self.refusal(f"does not let {user} log in", error.smtp_code, error.smtp_error) from None
        except smtplib.SMTPServerDisconnected:
            raise
        except smtplib.SMTPException as error:
            raise MailRefused(
                f"{self} can't log {user} in: {error}; leave user and password out of the URL?"
            ) from None

    @cached_property
    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca)
        except (OSError, ssl.SSLError) as error:
            raise InvalidServer(f"?ca={self._ca} in PACKMULE_MAIL_URL: {error.strerror or error}") from None
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@lru_cache(maxsize=1)
def _own_name() -> str:
    """Our name in greetings; looked up once, so that a slow name server doesn't delay each connection."""
    name = getfqdn()
    return name if "." in name else "[127.0.0.1]"


def _within_this_machine(connection: smtplib.SMTP) -> bool:
    return connection.sock is not None and ip_address(connection.sock.getpeername()[0]).is_loopback
