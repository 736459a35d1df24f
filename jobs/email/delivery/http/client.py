"""Requests to a provider over one kept connection, each bounded in time and in the bytes of its answer."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from packmule.coordination.readable import readable
from packmule.errors import Unavailable
from packmule.jobs.email.delivery.route import TemporaryFailure

CONNECT_SECONDS = 15.0
ANSWER_SECONDS = 60.0
MOST_OF_AN_ANSWER = 64 * 1024
MAX_IDLE = 30.0


class AnswerLost(Unavailable):
    """A provider's answer to a request was lost: whether it took the mail is unknown."""


class Answer(NamedTuple):
    """A provider's answer; `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Api:
    """Posts to the API at `url` (scheme, host and port). For one thread and one process at a time."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.process = os.getpid()
        self._host, self._port = parts.hostname or "", parts.port
        self._context = ssl.create_default_context() if parts.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None
        self.used_at = time.monotonic()

    @property
    def is_ready(self) -> bool:
        """Whether it is connected, was used lately, and nothing has arrived: who hangs up is heard."""
        opened = self._connection.sock if self._connection is not None else None
        is_young = time.monotonic() - self.used_at < MAX_IDLE
        return opened is not None and is_young and not readable([opened], 0)

    def connect(self) -> None:
        """Be connected. Raises `TemporaryFailure`."""
        if self.is_ready:
            return
        self.close()
        if self._context is not None:
            opened: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=CONNECT_SECONDS, context=self._context
            )
        else:
            opened = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_SECONDS)
        try:
            opened.connect()
            opened.sock.settimeout(ANSWER_SECONDS)
        except OSError as error:
            opened.close()
            raise TemporaryFailure(f"can't reach {self._host}: {error.strerror or error}") from None
        self._connection = opened
        self.used_at = time.monotonic()

    def heed(self) -> None:
        """Raise `TemporaryFailure` if the connection has ended."""
        if not self.is_ready:
            self.close()
            raise TemporaryFailure(f"{self._host}: it hung up before the request")

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post `body` over the connection that `connect` made, and return the answer.

        Raises `TemporaryFailure` if that has ended, and then `AnswerLost`.
        """
        self.heed()
        return self._asked("POST", path, headers, body)

    def get(self, path: str) -> Answer:
        """Ask for what is at `path`. Raises what `connect` and `post` do."""
        self.connect()
        return self._asked("GET", path, {}, b"")

    def _asked(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        connection = self._connection
        assert connection is not None  # noqa: S101  the callers have made it
        # Python's timeout is that of each piece: this one is that of the whole exchange.
        was_cut = threading.Event()
        cut = threading.Timer(ANSWER_SECONDS, _cut, [connection.sock, was_cut])
        cut.daemon = True
        cut.start()
        try:
            connection.request(method, path, body, dict(headers))
            answer = self._answered(connection)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise AnswerLost(f"{self._host}: {why}"[:300]) from None
        except BaseException:
            self.close()
            raise
        finally:
            cut.cancel()
            self.used_at = time.monotonic()
        if was_cut.is_set():  # http.client takes half a head for a whole one
            self.close()
            raise AnswerLost(f"{self._host}: it did not answer in time")
        return answer

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answered(self, connection: http.client.HTTPConnection) -> Answer:
        answer = connection.getresponse()
        body = b""
        while piece := answer.read1(MOST_OF_AN_ANSWER - len(body) + 1):
            body += piece
            if len(body) > MOST_OF_AN_ANSWER:
                answer.close()  # what is left of it is not read
                self.close()
                body = body[:MOST_OF_AN_ANSWER]
                break
        else:
            answer.read()  # nothing is left; only this says so to the connection
        headers = {name.lower(): value for name, value in answer.getheaders()}
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(answer.status, headers, body)


def _cut(opened: socket.socket | None, was_cut: threading.Event) -> None:
    """End an exchange that takes too long, from another thread."""
    was_cut.set()
    if opened is not None:
        with suppress(OSError):
            opened.shutdown(socket.SHUT_RDWR)
