"""A server that speaks clamd's protocol for tests, and answers whatever a test wants; or the real clamd."""

from __future__ import annotations

import shutil
import socket
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from packmule.jobs.files.scanning.clamd import EICAR

REAL = shutil.which("clamd") or shutil.which("clamd", path="/usr/sbin")
SIGNATURE = b"X5O" + EICAR
FOUND = b"stream: Eicar-Test FOUND\0"
CLEAN = b"stream: OK\0"
OVER_DEPTH = b"stream: Heuristics.Limits.Exceeded.MaxRecursion FOUND\0"
OVER_SIZE = b"INSTREAM size limit exceeded. ERROR\0"

Answers = Callable[[bytes], bytes | None]
"""What is answered to a file's content; None to keep silent until the client goes."""


def like_clamd(content: bytes) -> bytes:
    """The answer of a clamd with the signature of EICAR and `AlertExceedsMax yes`."""
    if SIGNATURE in content:
        return FOUND
    return OVER_DEPTH if content.startswith(b"PK") else CLEAN


@contextmanager
def clamd_server(answers: Answers = like_clamd, most: int = 1 << 30) -> Iterator[str]:
    """A server with the StreamMaxLength `most`; yields its URL."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            command = b""
            while not command.endswith(b"\0"):
                if not (more := self.rfile.read(1)):
                    return
                command += more
            if command == b"zVERSION\0":
                self.wfile.write(b"ClamAV 1.4.3/27780/Sat Nov 28 09:31:02 2026\0")
                return
            assert command == b"zINSTREAM\0"
            content = b""
            while (size := struct.unpack(">I", self.rfile.read(4))[0]) > 0:
                content += self.rfile.read(size)
                if len(content) > most:
                    self.wfile.write(OVER_SIZE)
                    return
            answer = answers(content)
            if answer is None:
                self.rfile.read(1)
            else:
                self.wfile.write(answer)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def real_clamd(folder: Path, *lines: str) -> Iterator[str]:
    """The real clamd with one signature, that of EICAR, and these lines of configuration."""
    (folder / "signatures").mkdir(parents=True)
    (folder / "signatures" / "eicar.ndb").write_text(f"Eicar-Test:0:*:{SIGNATURE.hex()}\n")
    sock = folder / "clamd.sock"
    (folder / "clamd.conf").write_text(
        "\n".join(
            [f"LocalSocket {sock}", f"DatabaseDirectory {folder}/signatures", "Foreground true", *lines, ""]
        )
    )
    assert REAL is not None
    log = folder / "clamd.log"
    with log.open("wb") as output:
        process = subprocess.Popen([REAL, f"--config-file={folder}/clamd.conf"], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while not _answers(sock):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield f"unix://{sock}"
    finally:
        process.kill()
        process.wait()


def _answers(sock: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(sock))
        except OSError:
            return False
    return True
