"""`packmule metrics`: print or serve metrics in Prometheus's text format."""

from __future__ import annotations

import click

from packmule.terminal.app import App
from packmule.terminal.health import address_of
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
    from packmule.observe import probes
    from packmule.observe.vitals import Vitals

    host, port = address_of(address, "--serve")
    try:
        listening = probes.listen(host, port)
    except (OSError, OverflowError) as error:
        raise click.UsageError(f"can't listen on {address}: {error}") from None
    vitals = Vitals()
    vitals.show(loops=False)
    say(f"The metrics are at http://{host}:{listening.getsockname()[1]}/metrics", err=True)
    probes.serve(listening, probes.Probes(vitals, app.connect, app.queues_on))
