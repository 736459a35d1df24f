"""`packmule metrics`: Prometheus's text format, printed or served."""

from __future__ import annotations

import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import click

from terminal.app import App

FRESH_SECONDS = 1.0
MOST_BYTES = 16 * 1024 * 1024


@click.command()
@click.option("--serve", "address", metavar="HOST:PORT", help="Answer GET /metrics there instead.")
@click.pass_obj
def metrics(app: App, address: str | None) -> None:
    """Queues, workers and executions, for Prometheus."""
    from jobs.metrics import exposition

    if address is None:
        click.echo(exposition(app.client, app.queues()), nl=False)
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise click.BadParameter(f"{address!r} is no address: say 127.0.0.1:9464", param_hint="--serve")
    try:
        server = _server(host.strip("[]"), int(port), _handler(app))
    except (OSError, OverflowError) as error:
        raise click.UsageError(f"can't listen on {address}: {error}") from None
    with server:
        click.echo(f"metrics are at http://{host}:{server.server_address[1]}/metrics", err=True)
        server.serve_forever()


def _server(host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    return Server((host, port), handler)


def _handler(app: App) -> type[BaseHTTPRequestHandler]:
    from redis.exceptions import RedisError

    from coordination.cache import Cache
    from jobs.metrics import CONTENT_TYPE, exposition

    client = app.client
    # However many scrape however many of these, the server is asked once a second.
    cache = Cache(client, "jobs", max_bytes=MOST_BYTES)

    def compute() -> str:
        return exposition(client, app.queues())

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "the metrics are at /metrics")
                return
            try:
                body = cache.get_or_compute("metrics", compute, ttl=FRESH_SECONDS).encode()
            except RedisError as error:
                self.send_error(503, f"redis is away: {type(error).__name__}")
                return
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are not logged."""

    return Handler
