"""A reader of Server-Sent Events for tests: what `/live` says, as it comes."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from packmule.tests.command_line import DEADLINE


class Heard:
    """The events of one stream: names and data, and the id of the last one, as a browser keeps it."""

    def __init__(self) -> None:
        self.last_id = self.hello_id = ""
        self.events: queue.Queue[tuple[str, str]] = queue.Queue()

    def next(self, name: str = "stale", having: str = "") -> str:
        """The data of the next event of that name, with a word in it if `having` is given."""
        while True:
            found, data = self.events.get(timeout=DEADLINE)
            if found == name and (not having or having in data.split(" ")):
                return data


@contextmanager
def listening(address: str, path: str, last_id: str = "") -> Iterator[Heard]:
    """Read `address`'s stream at `path` in a thread until the block ends, from its `hello` on.

    With `last_id` as a browser does that has been cut off behind the event of that id.
    """
    here = urlsplit(address)
    assert here.hostname and here.port
    with socket.create_connection((here.hostname, here.port), DEADLINE) as connection:
        connection.settimeout(None)
        request = f"GET {path} HTTP/1.1\r\nHost: {here.netloc}\r\nAccept: text/event-stream\r\n"
        request += f"Last-Event-ID: {last_id}\r\n" if last_id else ""
        connection.sendall(f"{request}\r\n".encode())
        heard = Heard()
        thread = threading.Thread(target=_read, args=(connection, heard), daemon=True)
        thread.start()
        try:
            heard.next("hello")
            yield heard
        finally:
            connection.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE)


def _read(connection: socket.socket, heard: Heard) -> None:
    found: dict[str, str] = {}
    with connection.makefile("r") as lines:
        for line in lines:
            field, _, value = line.strip().partition(": ")
            if field in ("event", "data", "id"):
                found[field] = value
            elif not field and "data" in found:
                heard.last_id = found.get("id", heard.last_id)
                if found["event"] == "hello":
                    heard.hello_id = heard.last_id
                heard.events.put((found["event"], found["data"]))
                found = {}
