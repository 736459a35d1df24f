"""`packmule mcp`: let an assistant ask about jobs."""

from __future__ import annotations

import click

from packmule.terminal.app import App


@click.command()
@click.option("--operate", is_flag=True, help="Also offer tools that change something; each use is audited.")
@click.pass_obj
def mcp(app: App, operate: bool) -> None:
    """Serve the Model Context Protocol on standard input and output.

    An assistant starts this command. Its tools read queues, jobs, logs, errors, workers and schedules.
    """
    try:
        from packmule.dashboard.mcp.server import serve
    except ImportError as error:
        raise click.UsageError(
            f"this needs the extra mcp: pip install 'packmule[mcp]' ({error.name} is missing)"
        ) from None
    from packmule.dashboard.known_jobs import load
    from packmule.dashboard.mcp.tools import Desk

    load(app.settings)
    settings = app.settings
    desk = Desk(
        app.client,
        app.jobs_on(app.client),
        settings.queues,
        app.lock_nodes() if settings.lock_urls else (),
        settings.webhooks,
        settings.webhook_allow,
    )
    serve(desk, operate)
