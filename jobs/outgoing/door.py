"""Outgoing requests to URLs that others chose: they never reach internal hosts, and each is short."""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import urlsplit

from packmule.errors import Unavailable, UsageError
from packmule.plain_text import mask, one_line
from packmule.units import KIB, given_span

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 15.0
MOST_OF_AN_ANSWER = 4096
READ_BYTES = 256 * KIB
"""Read into buffers of our own: to `read`, a chunk of -1 bytes is all that the other side ever sends."""
LONGEST_FAULT = 200
WEB_PORTS = frozenset({80, 443})
FIRST_FREE_PORT = 1024
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "fec0::/10", "3fff::/20")))
"""Special networks that some versions of Python take for public ones."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

_AFTER_HOST = re.compile(r"(?<=[^:/?#])[/?#].+", re.DOTALL)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class InvalidTarget(UsageError, ValueError):
    """A URL to which nothing is sent, because it is not valid or leads to an internal host."""


class NotSent(Unavailable, ConnectionError):
    """No answer came: the host could not be reached, or took too long."""


def shown(url: str) -> str:
    """`url` for logs and errors: without what follows the host, which is often all that keeps it secret.

    >>> shown("https://hooks.example.org/T0/B0/s3cret?key=1")
    'https://hooks.example.org/...'
    """
    return f"{mask(_AFTER_HOST.sub('/...', url)):.200}"


class AnswerTooLarge(UsageError, ValueError):
    """What a URL answers is larger than the limit of files."""


class Allowed:
    """Internal hosts and networks that may be reached: `hooks.internal`, `10.1.0.0/16`."""

    def __init__(self, entries: Sequence[str] = ()) -> None:
        self.names: set[str] = set()
        self.networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in entries:
            try:
                self.networks.append(ipaddress.ip_network(entry))
            except ValueError:
                self.names.add(entry.lower())

    def covers(self, host: str, address: Address) -> bool:
        """Whether `host`, or the `address` that it resolved to, is allowed."""
        return host.lower() in self.names or any(address in network for network in self.networks)


class Sink(Protocol):
    """Takes what an answer holds."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take a piece of it."""


class Outgoing:
    """Posts to one URL over one connection, which is kept open; for one thread.

    Each connection resolves the name again and goes to the address that was checked. Redirects are not
    followed. Plain `http` works only with allowed hosts. Raises `InvalidTarget` for an invalid URL.

    >>> Outgoing("https://example.org/hook").post(b"{}", {"X-Kind": "test"})  # doctest: +SKIP
    (200, b'')
    """

    def __init__(self, url: str, allowed: Allowed | None = None) -> None:
        self.url = url
        self.allowed = allowed or Allowed()
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InvalidTarget(f"{shown(url)}: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidTarget(f"{shown(url)} is not an http:// or https:// URL with a host")
        if parts.username is not None or parts.password is not None:
            raise InvalidTarget("a user or password in a URL would appear in logs: omit them")
        self.host = parts.hostname
        try:
            self.host.encode("idna")
        except UnicodeError:
            raise InvalidTarget(f"{shown(url)}: its host is not a valid name") from None
        self.is_tls = parts.scheme == "https"
        self.port = port or (443 if self.is_tls else 80)
        if self.port not in WEB_PORTS and self.port < FIRST_FREE_PORT:
            raise InvalidTarget(f"{shown(url)}: use port 80, 443, or one from {FIRST_FREE_PORT} on")
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not self._path.isascii() or any(c <= " " for c in self._path):
            raise InvalidTarget(f"{shown(url)}: percent-encode everything but printable ASCII")
        self._connection: http.client.HTTPConnection | None = None
        self._is_cut = False

    def post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Post `body`; return the status and the beginning of the answer. Raises what `send` does."""
        return self.send("POST", body, headers)

    def send(self, method: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Send a request; return the status and the beginning of the answer.

        If the other side had closed the connection, it sends again over a new one: a post may arrive twice.
        Raises `NotSent`, or `InvalidTarget` if the host is internal.
        """
        was_open = self._connection is not None
        try:
            return self._exchange(method, body, headers)
        except (http.client.HTTPException, OSError) as error:
            self.close()
            # If we cut the connection, the other side had not closed it.
            if not was_open or self._is_cut or not isinstance(error, ConnectionError):
                raise NotSent(_described(error)) from None
        return self.send(method, body, headers)

    def get(self, file: Sink, most: int, seconds: float) -> tuple[int, str | None]:
        """Write what a GET answers to `file`, within `seconds`; the status, and where a redirect leads.

        Only an answer of 200 is written. Raises `AnswerTooLarge` for more than `most` bytes, and what `send`
        does.
        """
        try:
            connection = self._connected()
            self._is_cut = False
            end = threading.Timer(seconds, self._cut, (connection.sock,))
            end.daemon = True
            end.start()
            try:
                connection.request("GET", self._path, headers={"Accept-Encoding": "identity"})
                with connection.getresponse() as answer:
                    if answer.status == http.client.OK:
                        self._write(answer, file, most)
                    return answer.status, answer.headers.get("Location")
            finally:
                end.cancel()
                end.join()  # a process with two threads couldn't leave the network
                connection.close()
        except (http.client.HTTPException, OSError) as error:
            raise NotSent(
                f"it took longer than {given_span(seconds)}" if self._is_cut else _described(error)
            ) from None

    def _write(self, answer: http.client.HTTPResponse, file: Sink, most: int) -> None:
        size, part = 0, memoryview(bytearray(READ_BYTES))
        while count := answer.readinto(part):
            size += count
            if size > most:
                raise AnswerTooLarge(f"{shown(self.url)} has more bytes than the limit of {most:,}")
            file.write(part[:count])
        if answer.length or self._is_cut:  # an answer without a length just ends where it is cut
            raise http.client.IncompleteRead(b"")

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, method: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        connection = self._connection = self._connection or self._connected()
        # A receiver that sends a byte a second would never meet the timeout of a single read.
        self._is_cut = False
        end = threading.Timer(TOTAL_SECONDS, self._cut, (connection.sock,))
        end.daemon = True
        end.start()
        try:
            connection.request(method, self._path, body or None, dict(headers))
            answer = connection.getresponse()
            beginning = bytearray(MOST_OF_AN_ANSWER)
            count = answer.readinto(beginning)
            if not answer.isclosed() or answer.will_close:
                answer.close()  # do not read the rest of a long answer
                self.close()
        finally:
            end.cancel()
        return answer.status, bytes(beginning[:count])

    def _cut(self, sock: socket.socket) -> None:
        self._is_cut = True
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    def _connected(self) -> http.client.HTTPConnection:
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        for *_, where in found:
            self._check(str(where[0]))
        error: OSError | None = None
        ends_at = time.monotonic() + CONNECT_SECONDS  # for all addresses together
        for family, kind, protocol, _, where in found:
            try:
                sock = socket.socket(family, kind, protocol)
                sock.settimeout(max(0.01, ends_at - time.monotonic()))
                sock.connect(where)
                return self._http(sock)
            except OSError as failed:
                sock.close()
                error = failed
            if time.monotonic() > ends_at:
                break
        raise error or OSError(f"{self.host} has no address")

    def _http(self, sock: socket.socket) -> http.client.HTTPConnection:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.is_tls:
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self.host)
        connection = http.client.HTTPConnection(self.host, self.port)
        sock.settimeout(TOTAL_SECONDS)
        connection.sock = sock
        connection.auto_open = 0
        return connection

    def _check(self, text: str) -> None:
        """Raise `InvalidTarget` for an internal address that is not allowed."""
        address: Address = ipaddress.ip_address(text.partition("%")[0])
        if self.allowed.covers(self.host, address):
            return
        if not self.is_tls:
            raise InvalidTarget(f"{self.host}: use https://, or allow the host in PACKMULE_WEBHOOK_ALLOW")
        if not all(map(_is_public, _all_of(address))):
            raise InvalidTarget(
                f"{self.host} is {address}, which is not a public address (PACKMULE_WEBHOOK_ALLOW)"
            )


def _all_of(address: Address) -> list[Address]:
    """An address, and those that are embedded in it and reached through it."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    inner: list[Any] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    mapped = address.ipv4_mapped
    return [*([] if mapped else [address]), *(each for each in inner if each is not None)]


def _is_public(address: Address) -> bool:
    is_special = address.is_multicast or address.is_reserved or any(address in each for each in _NOT_PUBLIC)
    return address.is_global and not is_special


def _described(error: Exception) -> str:
    """What went wrong, in one line whatever the other side said."""
    if isinstance(error, http.client.IncompleteRead):
        return "the answer broke off"
    text = one_line(str(error)[: 4 * LONGEST_FAULT], LONGEST_FAULT)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
