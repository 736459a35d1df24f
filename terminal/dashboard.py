"""`packmule dashboard`: serve the dashboard over HTTP."""

from __future__ import annotations

import signal
import socket
import sys

import click

from packmule.terminal.app import App
from packmule.terminal.say import say


@click.command()
@click.option("--host", help="Listen on this address.  [default: PACKMULE_HOST or 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Listen on this port.  [default: PACKMULE_PORT, PORT or 9181]",
)
@click.pass_obj
def dashboard(app: App, host: str | None, port: int | None) -> None:
    """Serve the dashboard over HTTP.

    Without users it prints a link that makes the first admin.
    """
    from packmule.dashboard.login.links import Links, address_of
    from packmule.dashboard.login.log_in import LogIn
    from packmule.dashboard.opening import opened
    from packmule.dashboard.serving import Server
    from packmule.terminal import logs

    app.client.ping()  # the connection stays open, and so does an embedded server
    settings = app.settings
    host, port = host or settings.host, port or settings.port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
        # Accepted sockets inherit it. Without it an answer's body waits 40 ms for the head's acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, ValueError) as error:
        raise click.UsageError(
            f"can't listen on {host}:{port} ({error}): choose another with --host or --port"
        ) from None
    server = Server(opened(settings, app.client))
    for signum in (signal.SIGTERM, signal.SIGINT):  # uvicorn ends its requests, then raises the signal again
        signal.signal(signum, lambda signum, frame: sys.exit(0))
    address = address_of(host, port, settings.prefix)
    say(f"The dashboard is on {address}", err=True)
    if setup := Links(LogIn(app.client)).make_setup():
        say(f"Make the first admin, within an hour: {address}/login/setup/{setup}", err=True)
    logs.begin(app.settings)
    server.run(sockets=[listening])
