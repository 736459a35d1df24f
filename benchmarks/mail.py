"""Mails a second through a kept connection and with a connection each, to three servers on this machine.

    python benchmarks/mail.py [seconds a measurement]

The mail is the shipped template of about 7 kB. The servers run in a process of their own: a bare socket that
answers 250 to everything, aiosmtpd that drops what it gets, and the mail catcher, which syncs each mail to
disk. `kept` and `each` send a mail built beforehand; `job` is the whole e-mail job (render, build, send) on
a kept connection. Each figure is the median of five measurements, the ways taking turns.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from aiosmtpd.smtp import SMTP
from harness import arguments, by_turns, machine, rate_in, table

from packmule.jobs import context
from packmule.jobs.email import Mailer, email
from packmule.jobs.email.catcher import Catcher
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.message.compose import compose
from packmule.jobs.email.templating.rendering import Renderer
from packmule.jobs.storage import Storage

ROUNDS = 5
VARIABLES = {"name": "A line of text such as mails have, to make up a mail of the size usual for one. " * 30}


def raw(report: Connection) -> None:
    """Answer every line with success, one connection after another."""
    listener = socket.create_server(("127.0.0.1", 0))
    report.send(f"smtp://127.0.0.1:{listener.getsockname()[1]}")
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 sink\r\n")
            answer(connection, lines)


def answer(connection: socket.socket, lines: Any) -> None:
    for line in lines:
        command = line[:4].upper()
        if command == b"DATA":
            connection.sendall(b"354 go on\r\n")
            while lines.readline() not in {b".\r\n", b""}:
                pass
        connection.sendall(b"221 bye\r\n" if command == b"QUIT" else b"250 ok\r\n")
        if command == b"QUIT":
            return


class Dropping:
    async def handle_DATA(self, server: SMTP, session: object, envelope: object) -> str:  # noqa: N802
        return "250 OK"


def aiosmtpd(report: Connection) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(Dropping(), loop=loop), "127.0.0.1", 0)
        report.send(f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.serve_forever()

    asyncio.run(serve())


def catcher(report: Connection) -> None:
    with tempfile.TemporaryDirectory() as folder, Catcher(Storage(folder)) as url:
        report.send(url)
        report.poll(None)


def measure(url: str, letter: Letter, seconds: float) -> dict[str, float]:
    mailer = Mailer(url, "mule@example.org")
    context.provide(mailer)

    def each() -> None:
        mailer.send(letter)
        mailer.close()

    ways: dict[str, Callable[[], object]] = {
        "kept": lambda: mailer.send(letter),
        "each": each,
        "job": lambda: email("ada@example.org", "s", template="welcome", variables=VARIABLES),
    }
    for send in ways.values():
        send()
    figures = by_turns({name: partial(rate_in, seconds, send) for name, send in ways.items()}, ROUNDS)
    mailer.close()
    return {name: statistics.median(values) for name, values in figures.items()}


def main(seconds: float) -> None:
    """Measure and print."""
    letter = compose(
        Renderer().content("welcome", VARIABLES),
        subject="s",
        sender="mule@example.org",
        to=["ada@example.org"],
        key="bench",
    )
    print(f"{machine('aiosmtpd', 'jinja2')}; a mail has {len(letter.content):,} bytes\n")
    rows = []
    forked = multiprocessing.get_context("fork")
    for serve in (raw, aiosmtpd, catcher):
        here, there = forked.Pipe()
        server = forked.Process(target=serve, args=(there,), daemon=True)
        server.start()
        figures = measure(here.recv(), letter, seconds)
        here.send("stop")
        server.join(2)
        server.terminate()
        rows.append((serve.__name__, *(f"{figures[name]:,.0f}" for name in ("kept", "each", "job"))))
    table(("mails/s to", "kept", "each", "job"), rows)


if __name__ == "__main__":
    main(*arguments(1.0))
