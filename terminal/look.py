"""`packmule look`: the dashboard, read-only, on any RQ system."""

from __future__ import annotations

import click

from packmule.terminal.app import App
from packmule.terminal.say import say
from packmule.terminal.serving import listen, serve

LOOPBACK = "127.0.0.1"


@click.command()
@click.argument("url", required=False)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Listen on this port.  [default: any]")
@click.pass_obj
def look(app: App, url: str | None, port: int) -> None:
    """Show the jobs of any RQ system in a browser, read-only.

    URL is its server's, such as redis://localhost:6379/0, by default PACKMULE_REDIS_URL or REDIS_URL. Nothing
    is written to it. Only this machine can open the pages, by the link that is printed.
    """
    from packmule.coordination.redis.connection import connect
    from packmule.dashboard.known_jobs import load
    from packmule.dashboard.looking import Looking
    from packmule.dashboard.serving import Server
    from packmule.dashboard.site import Site
    from packmule.plain_text import mask

    url = url or app.settings.redis_url
    if url is None:
        raise click.UsageError("name a server, such as packmule look redis://localhost:6379/0")
    settings = app.settings
    client = connect(url, settings.data_dir, allow_eviction=True, warn=lambda fault: None)
    app.closing.callback(client.close)
    site = Site(client, app.jobs_on(client), (), mask(url), settings.environment, load(settings))
    looking = Looking(site)
    listening = listen(LOOPBACK, port)
    say(
        f"Looking at {mask(url)}: http://{LOOPBACK}:{listening.getsockname()[1]}/?key={looking.key}", err=True
    )
    serve(Server(looking.site, looking), listening)
