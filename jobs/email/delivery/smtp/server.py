"""An SMTP server named by a URL: where it is, how it is trusted, and what its replies mean."""

from __future__ import annotations

import ssl
from base64 import b64encode
from functools import cached_property
from urllib.parse import parse_qsl, unquote, urlsplit

from packmule.coordination.limits.rate import InvalidRate, Rate
from packmule.errors import Error
from packmule.jobs.email.delivery.route import TemporaryFailure
from packmule.jobs.email.delivery.smtp.reply import Reply
from packmule.jobs.email.delivery.ways import InvalidServer

TIMEOUT = 60.0
"""Seconds that one reply of the server may take, if its URL says nothing else."""

LONGEST_TIMEOUT = 600
MOST_CONNECTIONS = 1000

_HOW = (
    "the SMTP URL is invalid: write smtp://user:password@host:587 or smtps://user:password@host, "
    "with %-escapes for signs such as @ / ? # : in the password"
)
_OPTIONS = (
    "the options of an SMTP URL are tls=required, ca=/path/ca.pem, verify=no, auth=xoauth2, timeout=SECONDS, "
    "connections=NUMBER and rate=100/s, joined by &"
)
_PORTS = {"smtp": 25, "smtps": 465}
SUBMISSION_PORT = 587
"""The port of `smtp://` with a user, unless the URL names one."""

_CHOICES: dict[str, frozenset[str]] = {
    "tls": frozenset({"required"}),
    "verify": frozenset({"no"}),
    "auth": frozenset({"xoauth2"}),
}


class MailRefused(Error):
    """The server refused permanently (5xx); the text quotes its reply."""


class Server:
    """A mail server. `url` is `smtp://[user:password@]host[:port]` or `smtps://...`, with percent-escapes.

    `smtp` uses TLS (STARTTLS) if the server offers it, at port 25 or, with a user, 587. `smtps` is TLS from
    the first byte, at port 465. Options follow a `?`, joined by `&`:

    - `tls=required`: send nothing to a server that doesn't offer TLS;
    - `ca=/path/ca.pem`: trust the authorities in this file instead of the system's;
    - `verify=no`: accept any certificate, which protects against eavesdroppers but not against impostors;
    - `auth=xoauth2`: the password is an OAuth access token;
    - `timeout=30`: seconds that a reply may take (60), but for that to a whole mail, which may take longer;
    - `connections=4` and `rate=100/s`: at most so many connections and mails, over all workers.

    A password is sent only over TLS or within this machine. Raises `InvalidServer`.

    >>> str(Server("smtp://ada:s3cret@mail.example.org"))
    'mail.example.org:587'
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
        self.timeout = float(_number(options.pop("timeout", None), LONGEST_TIMEOUT) or TIMEOUT)
        self.connections = _number(options.pop("connections", None), MOST_CONNECTIONS)
        self.rate = _rate(options.pop("rate", None))
        self.ca = options.pop("ca", None)
        if self.ca == "" or any(value not in _CHOICES.get(name, ()) for name, value in options.items()):
            raise InvalidServer(_OPTIONS)
        self.tls_from_start = parts.scheme == "smtps"
        self.tls_required = "tls" in options
        self.verify = "verify" not in options
        self.wants_oauth = "auth" in options
        self.user = unquote(parts.username) if parts.username else None
        self.password = unquote(parts.password or "")
        self.host = parts.hostname
        usual = SUBMISSION_PORT if self.user and not self.tls_from_start else _PORTS[parts.scheme]
        self.port = port or usual

    def __str__(self) -> str:
        """The server as `host:port`."""
        return f"{self.host}:{self.port}"

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """What no log and no error may show, in the forms in which a server could repeat it."""
        if not self.password:
            return ()
        plain = [self.password, f"\0{self.user}\0{self.password}"]
        return (self.password, *(b64encode(text.encode()).decode() for text in plain))

    def words(self, reply: Reply) -> str:
        """A reply as one printable line without secrets."""
        return reply.words(self.secrets)

    def refusal(self, what: str, reply: Reply) -> MailRefused | TemporaryFailure:
        """The error for a reply that refuses, which it quotes."""
        text = f"{self} {what}: {self.words(reply)}"
        return TemporaryFailure(text) if reply.is_for_now else MailRefused(text)

    @cached_property
    def context(self) -> ssl.SSLContext:
        """How TLS checks it. Raises `InvalidServer`."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise InvalidServer(f"?ca={self.ca} in PACKMULE_MAIL_URL: {error.strerror or error}") from None
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _number(text: str | None, most: int) -> int:
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > len(str(most)) or not 0 < int(text) <= most:
        raise InvalidServer(_OPTIONS)
    return int(text)


def _rate(text: str | None) -> Rate | None:
    try:
        return None if text is None else Rate.parse(text)
    except InvalidRate as error:
        raise InvalidServer(f"rate= in PACKMULE_MAIL_URL: {error}") from None
