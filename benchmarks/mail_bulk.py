"""Bulk sends: how long a list takes to be enqueued, in which memory, and mails a second beside smtplib.

    python benchmarks/mail_bulk.py [recipients] [mails] [rounds]

- *list*: a CSV of so many recipients is checked, looked up in the ledger and enqueued in chunks, by a process
  of its own, whose largest memory stands beside. `Redis` is what its server took for the chunks.
- *bulk*: chunks on a pool of two processes, each mail with a subject of its own, 7 kB, recorded in the
  ledger. The sink (`mail_sink.py`) takes everything at once. Beside it two processes of which each sends half
  of the mails in a loop of smtplib on one connection: `built before` sends the same bytes each time, `built
  each` makes each mail by the standard library's `EmailMessage`. `CPU` is the processor time of a mail in
  these processes, the pool's start included, and `Redis` that of its server.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from email.message import EmailMessage
from functools import partial
from itertools import count
from pathlib import Path
from smtplib import SMTP

from harness import (
    Pace,
    arguments,
    by_turns,
    client_of,
    in_a_pool,
    in_processes,
    machine,
    pace,
    ratio,
    table,
)
from mail import TEXT, by_smtplib, letter
from mail_sink import language, sink

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import context
from packmule.jobs.client import Client
from packmule.jobs.email import Ledger, Mailer, send_bulk
from packmule.testing import private_server

ENQUEUE = """
import resource, sys, time
from packmule.jobs.client import Client
from packmule.jobs.email import send_bulk
redis = Client.default().redis
before, begun = redis.info("memory")["used_memory"], time.monotonic()
send_bulk(sys.argv[1], "Hello {{ name }}", "Soon more.", key=sys.argv[1])
taken = time.monotonic() - begun
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(taken, peak, (redis.info("memory")["used_memory"] - before) / 2**20)
"""


def enqueued(server: EmbeddedServer, folder: Path, recipients: int) -> tuple[str, ...]:
    """How long a list takes, in seconds, and in which memory."""
    file = folder / f"{recipients}.csv"
    with file.open("w") as content:
        content.write("email,name,code\n")
        content.writelines(
            f"user{n}@mail{n % 997}.example.org,Person {n},{hash(n) & 0xFFFFFFFF:08x}\n"
            for n in range(recipients)
        )
    done = subprocess.run(
        [sys.executable, "-c", ENQUEUE, str(file)],
        env=os.environ | {"PACKMULE_REDIS_URL": server.url},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    taken, peak, stored = map(float, done.stdout.split())
    return f"{recipients:,}", f"{taken:.1f}", f"{peak:.0f}", f"{stored:.1f}"


def by_building(port: int, mails: int) -> None:
    with SMTP("127.0.0.1", port) as connection:
        for number in range(mails):
            mail = EmailMessage()
            mail["From"], mail["To"] = "mule@example.org", f"ada{number}@example.org"
            mail["Subject"] = f"Hello Person {number}"
            mail.set_content(TEXT)
            connection.send_message(mail)


def sent(server: EmbeddedServer, port: int, mails: int, numbers: count[int]) -> Pace:
    """The figures of chunks that are enqueued before."""
    client = client_of(server)
    Client(client).make_default()
    rows = ({"email": f"ada{n}@example.org", "name": f"Person {n}"} for n in range(mails))
    send_bulk(rows, "Hello {{ name }}", TEXT, key=f"round {next(numbers)}")
    context.provide(
        Mailer(f"smtp://127.0.0.1:{port}", "mule@example.org", redis=client), Ledger(client, 86_400.0)
    )
    return pace(client, mails, lambda: in_a_pool(server, "low"))


def main(recipients: int, mails: int, rounds: int) -> None:
    """Measure and print."""
    os.environ["PACKMULE_LOG_LEVEL"] = "error"
    print(f"{machine()}; the sink is in {language()}; a mail has {len(letter().content):,} bytes\n")
    with private_server() as server, tempfile.TemporaryDirectory() as folder:
        sizes = [recipients // 100, recipients]
        rows = [enqueued(server, Path(folder), size) for size in sizes]
        table(("list", "seconds", "MiB", "MiB in Redis"), rows)
        print()
    half, numbers = mails // 2, count()
    with private_server() as server, sink(pipelining=True) as port:
        client = client_of(server)
        loops = {
            "smtplib, built before": partial(by_smtplib, port, letter(), half),
            "smtplib, built each": partial(by_building, port, half),
        }
        figures = by_turns(
            {name: partial(pace, client, mails, partial(in_processes, loop)) for name, loop in loops.items()}
            | {"bulk": lambda: sent(server, port, mails, numbers)},
            rounds,
        )
    rates = {name: [each.rate for each in found] for name, found in figures.items()}
    rows = [
        (
            name,
            f"{statistics.median(rates[name]):,.0f}",
            *(f"{ratio(rates[name], rates[loop]):.2f}" for loop in loops),
            f"{min(each.cpu for each in found):,.0f}",
            f"{min(each.redis for each in found):,.0f}",
        )
        for name, found in figures.items()
    ]
    table(("bulk", "mails/s", "to built before", "to built each", "CPU µs", "Redis µs"), rows)


if __name__ == "__main__":
    main(*arguments(100_000, 30_000, 3))
