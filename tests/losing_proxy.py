"""A proxy that loses replies, as when a connection breaks after the server has done its work, or is cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from packmule.coordination.readable import readable


class LosingProxy:
    """Passes bytes on and back; while told to, loses the reply to a script, connection and all.

    While `is_cut` it is silent, as a network without a route: what was sent meanwhile arrives later.
    """

    def __init__(self, path: Path, server: Path) -> None:
        self.url = f"unix://{path}"
        self.lost = 0
        self.to_lose = 0
        self.is_cut = False
        self.on_loss: Callable[[], object] = lambda: None
        self._server = server
        self._closing = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            if readable([self._listener], 0.02):
                passing = threading.Thread(target=self._pass, args=(self._listener.accept()[0],))
                self._threads.append(passing)
                passing.start()

    def _pass(self, client: socket.socket) -> None:
        script = False
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(str(self._server))
            while not self._closing.is_set():
                if self.is_cut:
                    self._closing.wait(0.02)
                    continue
                for ready in readable([client, server], 0.02):
                    data = ready.recv(2**20)
                    if not data:
                        return
                    if ready is client:
                        script = script or b"EVALSHA" in data  # a long one comes in several pieces
                        server.sendall(data)
                    elif script and self.to_lose:
                        self.to_lose -= 1
                        self.lost += 1
                        self.on_loss()
                        return
                    else:
                        script = False
                        client.sendall(data)

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()
