"""`packmule dashboard`: serve the dashboard over HTTP."""

from __future__ import annotations

import signal
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

    It has no login yet: serve it on this machine only.
    """
    import waitress

    from packmule.coordination.redis.embedded_server import EmbeddedServer
    from packmule.dashboard import create_app

    app.client.ping()  # the connection stays open, and so does an embedded server
    url = app.settings.redis_url or EmbeddedServer(app.settings.data_dir).url
    host, port = host or app.settings.host, port or app.settings.port
    try:
        server = waitress.create_server(create_app(app.client, url), host=host, port=port)
    except (OSError, ValueError) as error:
        raise click.UsageError(
            f"can't listen on {host}:{port} ({error}): choose another with --host or --port"
        ) from None
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))
    say(f"The dashboard is on http://{host}:{port}", err=True)
    server.run()
