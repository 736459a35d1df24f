"""Serving: pages on an address of this machine, until a signal ends it."""

from __future__ import annotations

import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from packmule.dashboard.serving import Server

BACKLOG = 2048

NEARBY = 20
"""Ports among which a free one is looked for."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one. Raises a usage error in one line if it can't."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
        raise click.UsageError(
            f"can't listen on {host}:{port} ({reason}): choose another with --host or --port"
        ) from None
    # Accepted sockets inherit it. Without it an answer's body waits 40 ms for the head's acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def listen_nearby(host: str, port: int) -> socket.socket:
    """A socket that listens on `port`, or on the next one that is free if that is taken."""
    for number in range(port, port + NEARBY):
        with suppress(click.UsageError):
            return listen(host, number)
    return listen(host, port)


def serve(server: Server, listening: socket.socket) -> None:
    """Answer requests until SIGTERM or SIGINT, and end with the exit code 0."""
    for signum in (signal.SIGTERM, signal.SIGINT):  # uvicorn ends its requests, then raises the signal again
        signal.signal(signum, lambda signum, frame: sys.exit(0))
    server.run(sockets=[listening])
