"""The socket below SMTP: what arrives is bounded in bytes, lines and time, and so is what is sent.

The standard library's smtplib bounds a line but neither their number nor the time of a whole reply, and it
can't send a command before the last one is answered. So this is a client of our own.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from packmule.jobs.email.delivery.route import TemporaryFailure
from packmule.jobs.email.delivery.smtp.reply import Reply

MAX_LINES = 128
MAX_REPLY = 16 * 1024
"""Bytes of one reply. RFC 5321 allows 512 a line."""

CHUNK = 64 * 1024
MOST_ADDRESSES = 4
"""Addresses of a host that are tried."""

SLICE = 0.5
"""A wait is made of slices of so many seconds, so that a thread that is asked to end notices."""

_CODE = 3
_MARKS = (b" ", b"-", b"")


class Lost(TemporaryFailure):
    """The connection is of no more use: closed, too slow, or not SMTP."""


class HungUp(Lost):
    """The connection ended."""


class Wire:
    """A connection to `host:port` that sends bytes and receives replies, each before a deadline.

    Deadlines are instants of `time.monotonic()`. Raises `Lost`.
    """

    def __init__(self, host: str, port: int, deadline: float) -> None:
        self._rest = b""
        self._poll = select.poll()
        self.socket: socket.socket | ssl.SSLSocket = self._connected(host, port, deadline)

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS protects it."""
        return isinstance(self.socket, ssl.SSLSocket)

    @property
    def has_unread(self) -> bool:
        """Whether more has arrived than was asked for."""
        return bool(self._rest)

    def secure(self, context: ssl.SSLContext, host: str, deadline: float) -> None:
        """Begin TLS. What arrived before is refused: it could have been injected. Raises `ssl.SSLError`."""
        if self._rest:
            raise Lost("it sent more than one reply before TLS")
        self._poll.unregister(self.socket)
        self.socket.setblocking(False)
        wrapped = context.wrap_socket(self.socket, server_hostname=host, do_handshake_on_connect=False)
        self.socket = wrapped
        self._poll.register(wrapped, 0)
        while True:
            try:
                return wrapped.do_handshake()
            except ssl.SSLWantReadError:
                self._pause(select.POLLIN, deadline, None)
            except ssl.SSLWantWriteError:
                self._pause(select.POLLOUT, deadline, None)

    def send(self, data: bytes, deadline: float, patience: Callable[[float], None] | None = None) -> None:
        """Send all of `data`; `patience` is that of `reply`."""
        view = memoryview(data)
        while True:
            try:
                view = view[self.socket.send(view) :]
                if not view:
                    return
                self._check(deadline, None)
            except (BlockingIOError, ssl.SSLWantWriteError):
                patience = self._pause(select.POLLOUT | select.POLLIN, deadline, patience)
                self.heed()
            except ssl.SSLWantReadError:
                patience = self._pause(select.POLLIN, deadline, patience)
            except OSError as error:
                raise _lost(error) from None

    def reply(self, deadline: float, patience: Callable[[float], None] | None = None) -> Reply:
        """The next reply. If it takes longer than a slice, `patience` is called with the seconds left."""
        lines: list[bytes] = []
        size = 0
        while True:
            line = self._line(deadline, patience)
            size += len(line)
            if len(lines) == MAX_LINES or size > MAX_REPLY:
                raise Lost("its reply is too long")
            code, mark = line[:_CODE], line[_CODE : _CODE + 1]
            if not code.isdigit() or mark not in _MARKS or not b"200" <= code < b"600":
                raise Lost("it does not speak SMTP")
            lines.append(line[_CODE + 1 :])
            if mark != b"-":
                return Reply(int(code), lines)

    def close(self) -> None:
        """Close the socket, whatever its state."""
        with suppress(OSError):
            self.socket.close()

    def heed(self) -> None:
        """Break off what is being sent if the server has answered it already, or hung up. Raises `Lost`."""
        try:
            data = self._at_once()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            raise _lost(error) from None
        self._rest += data
        if not data or b"\n" in self._rest:
            raise Lost("it broke off what was sent") if data else HungUp("it hung up")

    def _at_once(self) -> bytes:
        """What has arrived."""
        return self.socket.recv(CHUNK, 0 if self.is_encrypted else socket.MSG_DONTWAIT)

    def _line(self, deadline: float, patience: Callable[[float], None] | None) -> bytes:
        while (end := self._rest.find(b"\n")) < 0:
            if len(self._rest) > MAX_REPLY:
                raise Lost("its reply is too long")
            self._rest += self._received(deadline, patience)
        line, self._rest = self._rest[:end], self._rest[end + 1 :]
        return line.rstrip(b"\r")

    def _received(self, deadline: float, patience: Callable[[float], None] | None) -> bytes:
        while True:
            try:
                data = self.socket.recv(CHUNK) if time.monotonic() < deadline else self._at_once()
            except (BlockingIOError, ssl.SSLWantReadError):
                patience = self._pause(select.POLLIN, deadline, patience)
            except ssl.SSLWantWriteError:
                patience = self._pause(select.POLLOUT, deadline, patience)
            except OSError as error:
                raise _lost(error) from None
            else:
                if not data:
                    raise HungUp("it hung up")
                return data

    def _pause(
        self, event: int, deadline: float, patience: Callable[[float], None] | None
    ) -> Callable[[float], None] | None:
        """After a slice in which nothing happened, or the wait of one under TLS: what is left of patience."""
        if self.is_encrypted:
            self._poll.modify(self.socket, event)
            if self._poll.poll(1000 * max(0.0, min(SLICE, deadline - time.monotonic()))):
                return patience
        return self._check(deadline, patience)

    @staticmethod
    def _check(deadline: float, patience: Callable[[float], None] | None) -> Callable[[float], None] | None:
        """Raise `Lost` after the deadline, and call `patience`, once."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise Lost("it did not answer in time")
        if patience is not None:
            patience(left)
        return None

    def _connected(self, host: str, port: int, deadline: float) -> socket.socket:
        """A socket to the first address that answers; each has an equal part of the time."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[:MOST_ADDRESSES]
        except (OSError, UnicodeError) as error:
            raise Lost(getattr(error, "strerror", None) or "its name is not valid") from None
        fault: Lost | None = None
        for number, (family, kind, protocol, _, address) in enumerate(found):
            opened = socket.socket(family, kind, protocol)
            try:
                now = time.monotonic()
                self._reach(opened, address, now + (deadline - now) / (len(found) - number))
            except BaseException as error:
                with suppress(KeyError):
                    self._poll.unregister(opened)
                opened.close()
                if not isinstance(error, Lost):
                    raise
                fault = error
            else:
                return opened
        raise fault or Lost("its name has no address")

    def _reach(self, opened: socket.socket, address: object, deadline: float) -> None:
        opened.setblocking(False)  # until it is connected
        # The end of a mail must not wait for the acknowledgement of its beginning.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll.register(opened, select.POLLOUT)
        self.socket = opened
        try:
            opened.connect(address)  # type: ignore[arg-type]
        except BlockingIOError:
            while not self._poll.poll(1000 * max(0.0, min(SLICE, deadline - time.monotonic()))):
                self._check(deadline, None)
            if error := opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise _lost(OSError(error, os.strerror(error))) from None
        except OSError as error:
            raise _lost(error) from None
        # The kernel ends each call after a slice: Python's own timeouts cost two more calls for each.
        opened.setblocking(True)
        span = struct.pack("ll", 0, int(SLICE * 1_000_000))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, span)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, span)


def _lost(error: OSError) -> HungUp:
    return HungUp(error.strerror or str(error) or "the connection broke")
