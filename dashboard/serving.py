"""Serving: uvicorn with bounds that it doesn't have by itself, on connections and on how slow they are."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import resource
import socket
from collections import Counter
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from packmule.dashboard.guarding.bounds import MAX_HEADERS

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from packmule.dashboard.guard import Guard

MOST_CONNECTIONS = 4000
MOST_OF_AN_ADDRESS = 1000
"""Connections from one address, unless it is this machine's or that of a trusted proxy."""

SPARE_FILES = 300
"""Files that the process needs besides connections."""

HEAD_TIMEOUT = 10.0
"""Seconds in which the whole head of a request must have come in."""

SEND_TIMEOUT = 60.0
"""Seconds in which a client must take what is sent."""

KEEP_ALIVE = 5
END_TIMEOUT = 3
"""Seconds that requests have after SIGTERM; streams end at once."""

BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 10\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 38\r\n\r\n"
    b"Too many connections: try again soon.\n"
)


class Connections:
    """How many connections there may be, and whose those are that there are."""

    def __init__(self, site: Guard, most: int) -> None:
        self.site = site
        self.most = most
        self.open: Counter[str] = Counter()

    def admit(self, address: str) -> bool:
        """Count one more, unless there are too many."""
        is_near = self.site.rules.trust(address) or _is_loopback(address)
        if self.open.total() >= self.most or (not is_near and self.open[address] >= MOST_OF_AN_ADDRESS):
            return False
        self.open[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Count one less."""
        self.open[address] -= 1
        if not self.open[address]:
            del self.open[address]


class Server(uvicorn.Server):
    """Serves a site on sockets that listen, until a signal; streams then end at once.

    If there is a `front`, it gets all requests, and gives the site those that it lets through.
    """

    def __init__(self, site: Guard, front: ASGIApp | None = None) -> None:
        self.site = site
        self.admission = Connections(site, room_for_connections())
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # whoever sends garbage fills no log
        super().__init__(
            uvicorn.Config(
                front or site,
                http=self._protocol(),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                h11_max_incomplete_event_size=MAX_HEADERS + 16 * 1024,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=END_TIMEOUT,
            )
        )

    def _protocol(self) -> type[H11Protocol]:
        return type("Connection", (_Connection,), {"admission": self.admission})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End streams, then requests."""
        self.site.streams.end()
        await super().shutdown(sockets)


class _Connection(H11Protocol):
    """A connection whose client must send the heads of requests in time, and take the answers."""

    admission: Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waiting: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None
        self._address = self.client[0] if self.client else ""
        self._is_admitted = self.admission.admit(self._address)
        if self._is_admitted:
            self._await_head()
        else:
            self.connections.discard(self)
            transport.write(BUSY)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_sending()
        if self._is_admitted:
            self._is_admitted = False
            self.admission.leave(self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_admitted:
            super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        if self._waiting is None:
            self._await_head()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sending = self.loop.call_later(SEND_TIMEOUT, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_sending()
        super().resume_writing()

    def _await_head(self) -> None:
        self._waiting = self.loop.call_later(HEAD_TIMEOUT, self.transport.close)

    def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def room_for_connections() -> int:
    """How many connections the process has files for, after asking the system for as many as are needed."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + SPARE_FILES
    if files != resource.RLIM_INFINITY and files < wanted:
        files = wanted if most == resource.RLIM_INFINITY else min(most, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(64, min(MOST_CONNECTIONS, files - SPARE_FILES))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return not address
