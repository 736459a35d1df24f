"""`packmule metrics`: print or serve metrics in Prometheus's text format."""

from __future__ import annotations

import click

from packmule.terminal.app import App
from packmule.terminal.say import say


@click.command()
@click.option(
    "--serve", "address", metavar="HOST:PORT", help="Serve them at /metrics on this address instead."
)
@click.pass_obj
def metrics(app: App, address: str | None) -> None:
    """Print metrics of queues, workers and executions for Prometheus."""
    if address is None:
        from packmule.observe.metrics import exposition

        click.echo(exposition(app.client, app.queues()), nl=False)
        return
    from packmule.observe.metrics_server import listen

    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise click.BadParameter(f"{address!r} is not an address: write 127.0.0.1:9464", param_hint="--serve")
    try:
        server = listen(host.strip("[]"), int(port), app.client, app.queues)
    except (OSError, OverflowError) as error:
        raise click.UsageError(f"can't listen on {address}: {error}") from None
    with server:
        say(f"The metrics are at http://{host}:{server.server_address[1]}/metrics", err=True)
        server.serve_forever()
