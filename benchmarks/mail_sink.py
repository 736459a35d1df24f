"""A mail server for benchmarks that takes everything at once, in C if a compiler is there."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("mail_sink.c")


def program() -> list[str]:
    """The command of the sink: compiled once, into the folder of temporary files."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return [sys.executable, __file__]
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    made = Path(tempfile.gettempdir()) / f"packmule-mail-sink-{digest}"
    if not made.exists():
        trial = made.with_suffix(".new")
        options = ["-O2", "-D_GNU_SOURCE", "-pthread"]
        subprocess.run([compiler, *options, "-o", trial, SOURCE], check=True)
        trial.rename(made)
    return [str(made)]


def language() -> str:
    """What the sink is made of."""
    return "Python" if program()[0] == sys.executable else "C"


@contextmanager
def sink(delay: float = 0.0, pipelining: bool = True) -> Iterator[int]:
    """The port of a sink whose answers come `delay` seconds later, and which may offer PIPELINING."""
    command = [*program(), str(round(delay * 1_000_000)), str(int(pipelining))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


async def serve(delay: float, pipelining: bool) -> None:
    """The sink without a compiler."""
    offer = b"250-sink\r\n250-PIPELINING\r\n250 SIZE\r\n" if pipelining else b"250-sink\r\n250 SIZE\r\n"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said, in_body, rest = [b"220 sink\r\n"], False, b""
        while said is not None:
            if delay:
                await asyncio.sleep(delay)
            writer.write(b"".join(said))
            said = []
            while not said:
                data = await reader.read(1 << 20)
                if not data:
                    writer.close()
                    return
                rest += data
                while True:
                    end = b"\r\n.\r\n" if in_body else b"\n"
                    line, found, after = rest.partition(end)
                    if not found:
                        rest = rest[-4:] if in_body else rest
                        break
                    rest = after
                    verb = b"" if in_body else line[:4].upper()
                    in_body = verb == b"DATA"
                    said.append({b"DATA": b"354 go on\r\n", b"EHLO": offer}.get(verb, b"250 ok\r\n"))

    server = await asyncio.start_server(talk, "127.0.0.1", 0, limit=1 << 22)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__" and len(sys.argv) > 2:
    asyncio.run(serve(int(sys.argv[1]) / 1_000_000, sys.argv[2] == "1"))
