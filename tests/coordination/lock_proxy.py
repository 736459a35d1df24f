"""A proxy in front of a lock node that delays or drops replies, or cuts the connection."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

from packmule.coordination.readable import readable


class Proxy:
    """Listens at `path` and forwards everything to the socket `target`; `mode` says what replies meet.

    Modes are `pass`, `slow` (30 ms late), `swallow` (no answer, and in the end no connection), `cut` (the
    connection ends instead, once a command with `only` in it has come) and `cut once`. Commands are passed
    on, so that the node has performed what nobody hears of, but not with `drop`: silence both ways.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.mode = "pass"
        self.only = b""
        self._target = target
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError), near, socket.socket(socket.AF_UNIX) as far:
            far.connect(str(self._target))
            swallowed = meant = False
            while True:
                for ready in readable([near, far], None):
                    data = ready.recv(65_536)
                    meant = meant or (ready is near and self.only in data)
                    if not data or (ready is far and meant and self.mode.startswith("cut")):
                        self.mode = "pass" if data and self.mode == "cut once" else self.mode
                        return
                    if ready is near and self.mode != "drop":
                        far.sendall(data)
                        continue
                    if self.mode == "slow":
                        time.sleep(0.03)
                    swallowed = swallowed or self.mode in ("swallow", "drop")
                    if not swallowed:
                        near.sendall(data)
                    elif self.mode not in ("swallow", "drop"):
                        return  # after a gap, a later reply would be taken for another
