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
    import uvicorn

    from packmule.config import mask
    from packmule.coordination.redis.embedded_server import EmbeddedServer
    from packmule.dashboard.api.options import api_options
    from packmule.dashboard.guarding.rules import Rules
    from packmule.dashboard.known_jobs import load
    from packmule.dashboard.login.identify import identify_by
    from packmule.dashboard.login.links import Links, address_of
    from packmule.dashboard.login.log_in import LogIn
    from packmule.dashboard.site import Site, build

    app.client.ping()  # the connection stays open, and so does an embedded server
    settings = app.settings
    url = mask(settings.redis_url or EmbeddedServer(settings.data_dir).url)
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
    jobs, fault = app.jobs_on(app.client), load(settings)
    limits = settings.storage_url, settings.max_file_bytes
    api = api_options(settings.api_rate, settings.api_origins, *limits)
    site = Site(app.client, jobs, settings.queues, url, settings.environment, fault, api)
    guarded = build(site, identify_by(app.client), rules=Rules.of(settings))
    config = uvicorn.Config(guarded, log_level="warning", proxy_headers=False, server_header=False)
    for signum in (signal.SIGTERM, signal.SIGINT):  # uvicorn ends its requests, then raises the signal again
        signal.signal(signum, lambda signum, frame: sys.exit(0))
    address = address_of(host, port, settings.prefix)
    say(f"The dashboard is on {address}", err=True)
    if setup := Links(LogIn(app.client)).make_setup():
        say(f"Make the first admin, within an hour: {address}/login/setup/{setup}", err=True)
    uvicorn.Server(config).run(sockets=[listening])
