"""A folder of an IMAP server, of which each unread mail is taken once, in bounds, and then marked as read."""

from __future__ import annotations

import imaplib
import io
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from packmule.errors import Error, Unavailable, UsageError
from packmule.jobs.email.received import MOST_BYTES
from packmule.jobs.email.suppression import visit
from packmule.plain_text import mask, one_line

EXAMPLE = "imaps://bounces@mail.example.org/INBOX"
SECRET = "IMAP"  # noqa: S105  its name

PORT = 993

TIMEOUT = 30.0
"""Seconds in which something must arrive."""

PARTING_SECONDS = 2.0
"""Seconds in which a server must have answered a logout, which changes nothing any more."""

MOST_ANSWERED = MOST_BYTES + (4 << 20)
"""Bytes of one answer."""

MOST_IN_LINE = 1_000_000

WINDOW = 5_000
"""Mails of which one search asks, since the answer is one line."""

_OPTIONS = {"ca", "secret", "auth"}
_WORDS = 300


class InvalidMailbox(UsageError, ValueError):
    """What should name a folder of an IMAP server doesn't."""


class MailboxRefused(Error):
    """An IMAP server doesn't let us in, or doesn't do what is asked."""


class MailboxUnavailable(Unavailable):
    """An IMAP server can't be reached, or hangs up."""


class Folder:
    """The folder that `url` names, such as `imaps://bounces@mail.example.org/INBOX`.

    The password is a secret of the settings, `PACKMULE_SECRET_IMAP`; `?secret=BOUNCES` names another one.
    `?ca=/path/ca.pem` trusts the authorities in this file, and with `?auth=xoauth2` the password is an access
    token. Raises `InvalidMailbox`.
    """

    def __init__(self, url: str, secret: Callable[[str], str]) -> None:
        how = f"write {EXAMPLE}, with %-escapes for signs such as @ / ? # : in the user"
        try:
            parts = urlsplit(url)
            self.host, self.port = parts.hostname or "", parts.port or PORT
            options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        except ValueError:
            raise InvalidMailbox(how) from None
        if parts.password is not None:
            raise InvalidMailbox(
                f"the password doesn't belong in the URL: set PACKMULE_SECRET_{SECRET}, and {how}"
            )
        self.user, self.name = unquote(parts.username or ""), unquote(parts.path.removeprefix("/"))
        is_plain = all(each.isascii() and each.isprintable() for each in (self.user, self.name))
        if parts.scheme != "imaps" or not self.host or not self.user or not self.name or not is_plain:
            raise InvalidMailbox(how)
        if set(options) - _OPTIONS or options.get("auth", "xoauth2") != "xoauth2":
            raise InvalidMailbox(f"{how}; options are ?ca=/path, ?secret=NAME and ?auth=xoauth2")
        self.ca, self.is_oauth = options.get("ca"), "auth" in options
        self._secret, self._secret_name = secret, options.get("secret", SECRET)

    def __str__(self) -> str:
        """Its user, host and name, for people."""
        return f"{self.user}@{self.host}/{self.name}"

    def check(self) -> None:
        """Raise what `take_each` would raise before the first mail."""
        with self._opened():
            pass

    def take_each(self, take: Callable[[bytes, str], None]) -> bool:
        """Give each unread mail with a name to `take`, and mark it as read when that returns.

        A mail over the bound is cut behind it. If the process dies in between, the mail is taken again.
        Whether all were taken: otherwise the `Visit` is over, and the others wait for the next.
        Raises `MailboxRefused` and `MailboxUnavailable`.
        """
        with self._opened() as server:
            for uid in self._unread(server):
                if server.visit.is_over:
                    return False
                content = self._content(server, uid)
                if content is not None:
                    take(content, f"{self} {uid}")
                    server.visit.count(content)
                    self._asked(server, "STORE", uid, "+FLAGS.SILENT", r"(\Seen)")
        return True

    @contextmanager
    def _opened(self) -> Iterator[_Server]:
        """A connection that has selected the folder."""
        password = self._secret(self._secret_name)
        try:
            context = ssl.create_default_context(cafile=self.ca)
            server = _Server(self.host, self.port, ssl_context=context, timeout=TIMEOUT)
            try:
                self._log_in(server, password)
                kind, said = server.select(_quoted(self.name))
                if kind != "OK":
                    raise MailboxRefused(f"{self}: {_words(said)}")
                self._count = int(said[0] or 0)
                yield server
            finally:
                with suppress(OSError, imaplib.IMAP4.error):
                    server.sock.settimeout(min(TIMEOUT, PARTING_SECONDS))
                    server.logout()
                with suppress(OSError):  # a logout that fails leaves the connection open
                    server.shutdown()
        except (OSError, imaplib.IMAP4.abort) as error:
            raise MailboxUnavailable(f"{self}: {_words(error)}") from None
        except (imaplib.IMAP4.error, ValueError) as error:  # no ASCII, or a number of thousands of digits
            raise MailboxRefused(f"{self}: {_words(error).replace(password, '***')}") from None

    def _log_in(self, server: imaplib.IMAP4, password: str) -> None:
        if self.is_oauth:
            server.authenticate("XOAUTH2", lambda _: f"user={self.user}\1auth=Bearer {password}\1\1".encode())
        elif "AUTH=PLAIN" in server.capabilities:
            server.authenticate("PLAIN", lambda _: f"\0{self.user}\0{password}".encode())
        else:
            server.login(self.user, password)

    def _unread(self, server: _Server) -> list[str]:
        """The ids of the first unread mails."""
        found: list[str] = []
        for first in range(1, self._count + 1, WINDOW):
            said = self._asked(server, "SEARCH", f"{first}:{min(first + WINDOW - 1, self._count)}", "UNSEEN")
            found += _text(said).split()
            if len(found) > visit.MOST_MAILS:
                break
        return [each for each in found if each.isdecimal()][: visit.MOST_MAILS + 1]

    def _content(self, server: _Server, uid: str) -> bytes | None:
        """A mail, of which one byte more than may be taken apart; None if it was deleted meanwhile."""
        said = self._asked(server, "FETCH", uid, f"(BODY.PEEK[]<0.{MOST_BYTES + 1}>)")
        return next(
            (each[1] for each in said if isinstance(each, tuple) and b"BODY[]" in each[0].upper()), None
        )

    def _asked(self, server: _Server, command: str, *words: str) -> list[Any]:
        server.left = MOST_ANSWERED
        kind, said = server.uid(command, *words)
        if kind != "OK":
            raise MailboxRefused(f"{self}: {command}: {_words(said)}")
        return said


class _Server(imaplib.IMAP4_SSL):
    """Python's own client, with a bound on what one answer has, and on how long all may take."""

    def open(self, host: str = "", port: int | None = PORT, timeout: float | None = None) -> None:
        """Connect."""
        self.left, self.visit = MOST_ANSWERED, visit.Visit()
        super().open(host, port, timeout)
        self._arriving = io.BufferedReader(_Bounded(self))

    def read(self, size: int) -> bytes:
        """The next bytes."""
        if size > MOST_BYTES + 1:
            raise self.abort(f"the server sends {size:,} bytes at once, and was asked for {MOST_BYTES:,}")
        return self._arriving.read(size)

    def readline(self) -> bytes:
        """The next line."""
        line = self._arriving.readline(MOST_IN_LINE + 1)
        if len(line) > MOST_IN_LINE:
            raise self.error(f"the server sends more than {MOST_IN_LINE:,} bytes in a line")
        return line


class _Bounded(io.RawIOBase):
    """What a server sends, until it is too much or takes too long."""

    def __init__(self, server: _Server) -> None:
        self._server = server

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive some bytes."""
        if time.monotonic() > self._server.visit.ends + TIMEOUT:  # however little arrives at a time
            raise TimeoutError("it takes too long")
        count = self._server.sock.recv_into(buffer)
        self._server.left -= count
        if self._server.left < 0:
            raise self._server.abort("the server answers more than it was asked for")
        return count


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _words(said: object) -> str:
    """What a server said, or what went wrong, as one line."""
    text = _text(said) if isinstance(said, list) else str(said)
    return one_line(mask(text), _WORDS) or type(said).__name__


def _text(said: list[Any]) -> str:
    return b" ".join(each for each in said if isinstance(each, bytes)).decode(errors="replace")
