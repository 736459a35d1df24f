"""`packmule dashboard`: serve the dashboard over HTTP."""

from __future__ import annotations

import click

from packmule.terminal.app import App
from packmule.terminal.say import say
from packmule.terminal.serving import listen, listen_nearby, serve


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

    In development, if no port is given and 9181 is taken, it uses the next free one. If there are no users,
    it prints a link that creates the first admin.
    """
    from packmule.dashboard.login.links import Links, address_of
    from packmule.dashboard.login.log_in import LogIn
    from packmule.dashboard.opening import opened
    from packmule.dashboard.serving import Server
    from packmule.observe.check.variables import DEFAULT, origins
    from packmule.terminal import logs

    app.client.ping()  # the connection stays open, and so does an embedded server
    settings = app.settings
    host = host or settings.host
    is_free = port is None and origins()["port"] == DEFAULT and settings.environment == "development"
    listening = (listen_nearby if is_free else listen)(host, port or settings.port)
    port = listening.getsockname()[1]
    server = Server(opened(settings, app.client))
    address = address_of(host, port, settings.prefix)
    say(f"The dashboard is on {address}", err=True)
    if setup := Links(LogIn(app.client)).make_setup():
        say(f"Create the first admin within an hour: {address}/login/setup/{setup}", err=True)
    logs.begin(app.settings)
    serve(server, listening)
