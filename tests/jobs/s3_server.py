"""A server that speaks S3, a network in front of it that loses connections, and one that answers errors."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SERVE = """
import sys, threading
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def forget() -> None:
    """Let the next storage connect by the environment as it is now."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()


@contextmanager
def s3_server() -> Iterator[int]:
    """The port of a server that speaks S3, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **ENVIRONMENT},
    )
    assert process.stdin
    assert process.stdout
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


class LosingNetwork:
    """Forwards bytes to the loopback port `target`, but for connections that it loses.

    Each number of `losses` is of one connection: after so many bytes from the client it is lost. With
    `is_down`, all are.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.losses: deque[int] = deque()
        self.is_down = False
        self.lost = 0
        self.forwarded = 0
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                threading.Thread(target=self._up, args=(near, far), daemon=True).start()
                threading.Thread(target=self._down, args=(near, far), daemon=True).start()

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        count = 0
        with near, far, suppress(OSError):
            while data := near.recv(65_536):
                count += len(data)
                self.forwarded += len(data)
                if self.is_down or (self.losses and count > self.losses[0]):
                    if self.losses:
                        self.losses.popleft()
                    self.lost += 1
                    break
                far.sendall(data)
            for each in (near, far):
                each.shutdown(socket.SHUT_RDWR)

    def _down(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := far.recv(65_536):
                near.sendall(data)
            near.shutdown(socket.SHUT_WR)


@contextmanager
def cutting_answers(target: int, most: int) -> Iterator[str]:
    """The URL of a way to the loopback port `target`; each connection ends after `most` bytes of answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:

        def forward(near: socket.socket) -> None:
            with near, socket.create_connection(("127.0.0.1", target)) as far, suppress(OSError):
                threading.Thread(target=upwards, args=(near, far), daemon=True).start()
                left = most
                while left and (data := far.recv(min(left, 65_536))):
                    near.sendall(data)
                    left -= len(data)
                for each in (near, far):
                    each.shutdown(socket.SHUT_RDWR)

        def upwards(near: socket.socket, far: socket.socket) -> None:
            with suppress(OSError):
                while data := near.recv(65_536):
                    far.sendall(data)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=forward, args=[listening.accept()[0]], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


@contextmanager
def answering(status: int, code: str, message: str) -> Iterator[str]:
    """The URL of a server that answers everything with an error of S3."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # which tells clients to send their bodies

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
