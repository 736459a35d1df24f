"""Probes: answer `/healthz`, `/readyz`, `/metrics` and `/scale` over HTTP, for clusters and for scrapers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import msgspec
from redis import Redis
from redis.exceptions import RedisError

from packmule.coordination.cache.cache import Cache
from packmule.coordination.redis.waiting import impatient
from packmule.observe.metrics import CONTENT_TYPE, exposition
from packmule.observe.scale import scales
from packmule.observe.vitals import Vitals

FRESH_SECONDS = 1.0
MOST_BYTES = 16 * 1024 * 1024
BACKLOG = 64


class Answer(NamedTuple):
    """What a probe gets."""

    status: int
    body: bytes
    type: str = "text/plain; charset=utf-8"


class Probes:
    """Answers of a process with these `vitals`, on the server that `connect` reaches, about `queues`.

    Redis is connected to when an answer first needs it, and read once a second at most for all that ask.
    """

    def __init__(
        self, vitals: Vitals, connect: Callable[[], Redis], queues: Callable[[Redis], Sequence[str]]
    ) -> None:
        self.vitals = vitals
        self.connect = connect
        self.queues = queues
        self._client: Redis | None = None

    def answer(self, path: str) -> Answer:
        """The answer to `GET path`; 503 with a line for each reason why not."""
        route, _, rest = path.partition("?")[0].lstrip("/").partition("/")
        try:
            if route == "healthz":
                return _verdict(self.vitals.why_not_alive())
            if route == "readyz":
                return _verdict([*self.vitals.why_not_alive(), *self.vitals.why_not_ready(), *self._away()])
            if route == "metrics" and not rest:
                return Answer(200, self._cached("metrics", self._metrics), CONTENT_TYPE)
            if route == "scale":
                return self._scale(rest)
        except (RedisError, OSError) as error:
            return _verdict([f"redis is unavailable: {type(error).__name__}"])
        return Answer(404, b"there are /healthz, /readyz, /metrics and /scale\n")

    def _redis(self) -> Redis:
        if self._client is None:
            self._client = impatient(self.connect())
        return self._client

    def _away(self) -> list[str]:
        try:
            self._redis().ping()
        except (RedisError, OSError) as error:
            return [f"Redis does not answer: {type(error).__name__}"]
        return []

    def _cached(self, name: str, compute: Callable[[], bytes]) -> bytes:
        cache = Cache(self._redis(), "jobs", max_bytes=MOST_BYTES)
        text: str = cache.get_or_compute(name, lambda: compute().decode(), ttl=FRESH_SECONDS)
        return text.encode()

    def _metrics(self) -> bytes:
        client = self._redis()
        return exposition(client, list(self.queues(client))).encode()

    def _scale(self, queue: str) -> Answer:
        client = self._redis()
        names = self.queues(client)
        if queue and queue not in names:
            return Answer(404, b"no queue has this name\n")
        found = scales(client, names)
        body = msgspec.json.encode(found.queues[queue] if queue else found)
        return Answer(200, body, "application/json")


def _verdict(reasons: Sequence[str]) -> Answer:
    return Answer(503, "".join(f"{each}\n" for each in reasons).encode()) if reasons else Answer(200, b"ok\n")


def listen(host: str, port: int) -> socket.socket:
    """A socket for `serve`; port 0 is any free one. Raises `OSError` and `OverflowError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def serve(listening: socket.socket, probes: Probes) -> None:
    """Answer requests until the process ends."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            answer = probes.answer(self.path)
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes are not logged."""

    with ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False) as server:
        server.socket.close()
        server.socket = listening
        server.serve_forever()
