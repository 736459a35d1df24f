"""The metrics server: answer `GET /metrics`, reading Redis at most once a second."""

from __future__ import annotations

import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from redis import Redis
from redis.exceptions import RedisError

from packmule.coordination.cache.cache import Cache
from packmule.observe.metrics import CONTENT_TYPE, exposition

FRESH_SECONDS = 1.0
MOST_BYTES = 16 * 1024 * 1024


def listen(host: str, port: int, client: Redis, queues: Callable[[], list[str]]) -> ThreadingHTTPServer:
    """An HTTP server for the metrics of `client`'s server, bound but not running. Raises `OSError`."""

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    return Server((host, port), _handler(client, queues))


def _handler(client: Redis, queues: Callable[[], list[str]]) -> type[BaseHTTPRequestHandler]:
    # The cache is shared: many scrapers of many processes read Redis once a second.
    cache = Cache(client, "jobs", max_bytes=MOST_BYTES)

    def compute() -> str:
        return exposition(client, queues())

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "the metrics are at /metrics")
                return
            try:
                body = cache.get_or_compute("metrics", compute, ttl=FRESH_SECONDS).encode()
            except RedisError as error:
                self.send_error(503, f"redis is unavailable: {type(error).__name__}")
                return
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are not logged."""

    return Handler
