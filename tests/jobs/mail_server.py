"""A mail server that misbehaves on command: a script says what it answers, in which pieces, and when.

It runs in a thread of its own and speaks SMTP by hand, because a real server can't be told to send half a
reply, and keeps each mail that it has confirmed, with its envelope.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

DOT = "."
"""The step that follows the end of a body."""

BODY = "body"
"""The step that follows the first line of a body."""

HANG_UP = b""
"""The answer with which the server closes the connection."""


class Silence:
    """The answer of a server that says nothing any more, until it stops."""


SILENCE = Silence()
Answer = bytes | Silence | Callable[["MailServer"], bytes]


@dataclass
class Mail:
    """A mail that the server has confirmed."""

    sender: str
    recipients: list[str]
    content: bytes
    connection: int
    is_encrypted: bool


@dataclass
class _Session:
    number: int
    sender: str | None = None
    recipients: list[str] = field(default_factory=list)
    is_encrypted: bool = False


class MailServer:
    """Listens on a free port of 127.0.0.1 while it is a context.

    `answers` has an answer for each step that is to go wrong: a verb (`MAIL`), a verb with its argument
    (`RCPT bob@example.org`), `greeting`, `BODY` or `DOT`. A list holds the answers of one time after another,
    None among them for the usual one; after its end all is as usual. At a `Gate` for `BODY` the server stops
    reading, and then goes on. `extensions` are what EHLO offers.

    >>> with MailServer(answers={DOT: [b"451 later\\r\\n", None]}) as server:
    ...     server.url.rpartition(":")[0]
    'smtp://127.0.0.1'
    """

    def __init__(
        self,
        answers: dict[str, Answer | list[Answer | None]] | None = None,
        extensions: tuple[str, ...] = ("PIPELINING", "SIZE 1000000", "8BITMIME", "SMTPUTF8"),
        tls: ssl.SSLContext | None = None,
        is_wrapped: bool = False,
    ) -> None:
        self.answers = answers or {}
        self.extensions = extensions
        self.tls = tls
        self.is_wrapped = is_wrapped
        self.mails: list[Mail] = []
        self.commands: list[str] = []
        """Each command, in its order over all connections."""
        self.packets: list[bytes] = []
        """What each read from a socket returned."""
        self.connections = 0
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"smtp{'s' if is_wrapped else ''}://127.0.0.1:{self.port}"

    def __enter__(self) -> MailServer:
        self._start(self._accept)
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)
        for each in self._sockets:
            each.close()

    @property
    def recipients(self) -> list[str]:
        """The recipients of all mails, one after another."""
        return [to for mail in self.mails for to in mail.recipients]

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(connection)
            self.connections += 1
            self._start(self._serve, connection, self.connections)

    def _serve(self, connection: socket.socket, number: int) -> None:
        with suppress(OSError, EOFError):
            _Talk(self, connection, _Session(number)).run()
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def cut(self, *said: Answer) -> bytes:
        """Say all that and hang up: for the answer that is a function."""
        for each in said:
            if isinstance(each, Silence):
                self.stopped.wait()
            elif isinstance(each, bytes) and each:
                self.talk.sendall(each)
        return HANG_UP

    @property
    def talk(self) -> socket.socket:
        """The socket of the newest connection."""
        return self._sockets[-1]

    def answer(self, step: str) -> Answer | None:
        """What is answered this time instead of the usual."""
        with self._lock:
            found = self.answers.get(step)
            if isinstance(found, list):
                return found.pop(0) if found else None
            return found


class _Talk:
    """One connection."""

    def __init__(self, server: MailServer, connection: socket.socket, session: _Session) -> None:
        self.server = server
        self.socket = connection
        self.session = session
        self._rest = b""
        self._line_said = ""

    def run(self) -> None:
        if self.server.is_wrapped:
            self._encrypt()
        self._say("greeting", b"220 mail.test ESMTP\r\n")
        while True:
            line = self._line_said = self._line().decode(errors="replace")
            self.server.commands.append(line)
            verb, _, rest = line.partition(" ")
            self._perform(verb.upper(), rest)

    def _perform(self, verb: str, rest: str) -> None:
        session = self.session
        match verb:
            case "EHLO":
                offered = [*self.server.extensions]
                if self.server.tls and not session.is_encrypted:
                    offered.append("STARTTLS")
                lines = ["mail.test", *offered]
                marks = "-" * (len(lines) - 1) + " "
                usual = "".join(f"250{m}{text}\r\n" for m, text in zip(marks, lines, strict=True))
                self._say("EHLO", usual.encode())
            case "STARTTLS":
                self._say("STARTTLS", b"220 go on\r\n")
                self._encrypt()
            case "MAIL":
                session.sender, session.recipients = None, []
                if self._say("MAIL", b"250 2.1.0 fine\r\n"):
                    session.sender = _address(rest)
            case "RCPT":
                to = _address(rest)
                usual = b"503 5.5.1 MAIL first\r\n" if session.sender is None else b"250 2.1.5 fine\r\n"
                if self._say(f"RCPT {to}", usual) and session.sender is not None:
                    session.recipients.append(to)
            case "DATA":
                usual = b"354 go on\r\n" if session.recipients else b"503 5.5.1 no recipients\r\n"
                if self._say("DATA", usual) and session.recipients:
                    self._take_body()
            case "QUIT":
                self._say("QUIT", b"221 bye\r\n")
                raise EOFError
            case "RSET":
                session.sender, session.recipients = None, []
                self._say("RSET", b"250 reset\r\n")
            case _:
                # What a client encodes is told apart by its letters, too.
                step = verb if verb in {"NOOP", "HELO", "AUTH"} else self._line_said
                self._say(step, b"250 fine\r\n" if verb in {"NOOP", "HELO"} else b"500 5.5.2 what?\r\n")

    def _take_body(self) -> None:
        lines = [self._line()]
        if isinstance(early := self.server.answer(BODY), Gate):
            early(self.server)  # and goes on reading
        elif early is not None:
            self._send(early)
            raise EOFError
        while lines[-1] != b".":
            lines.append(self._line())
        content = b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:-1])
        session = self.session
        said = self.server.answer(DOT)
        if said is None or (isinstance(said, bytes) and said.startswith(b"2")) or callable(said):
            self.server.mails.append(
                Mail(
                    session.sender or "",
                    session.recipients,
                    content,
                    session.number,
                    session.is_encrypted,
                )
            )
        session.sender, session.recipients = None, []
        self._send(b"250 2.0.0 queued\r\n" if said is None else said)

    def _say(self, step: str, usual: bytes) -> bool:
        """Answer; whether the client may go on as usual."""
        said = self.server.answer(step)
        return self._send(usual if said is None else said)[:1] in {b"2", b"3"}

    def _send(self, said: Answer) -> bytes:
        data = self._data(said)
        if data == HANG_UP:
            raise EOFError
        self.socket.sendall(data)
        if data.startswith(b"421"):
            raise EOFError
        return data

    def _data(self, said: Answer) -> bytes:
        if isinstance(said, Silence):
            self.server.stopped.wait()
            return HANG_UP
        return said if isinstance(said, bytes) else said(self.server)

    def _encrypt(self) -> None:
        assert self.server.tls
        self.socket = self.server.tls.wrap_socket(self.socket, server_side=True)
        self.server._sockets.append(self.socket)
        self.session.is_encrypted = True
        self._rest = b""

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.server.packets.append(data)
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.rstrip(b"\r")


def _address(text: str) -> str:
    return text.partition("<")[2].partition(">")[0]


class Gate:
    """An answer that is given once the test opens the gate."""

    def __init__(self, said: bytes) -> None:
        self.said = said
        self.is_reached, self.may_pass = threading.Event(), threading.Event()

    def __call__(self, server: MailServer) -> bytes:
        self.is_reached.set()
        while not self.may_pass.wait(0.05) and not server.stopped.is_set():
            pass
        return self.said
