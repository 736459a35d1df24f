"""Mails a second to a sink on this machine, beside bare loops of the standard library's smtplib.

    python benchmarks/mail.py [mails] [rounds] [jobs]

The sink takes everything at once; it is in C if a compiler is there, and the first line says so. A mail has
about 7 kB and was built before, so that all ways send the same bytes. Each way sends them in each round, in
turns; the figures are medians, and each ratio is the median of the rounds' own ratios.

- *kept*: one process and one connection. `smtplib` is `sendmail` in a loop. `deliver` is what jobs call, with
  a journal that keeps nothing, to the same server, which offers no PIPELINING, and to one that does.
- *20 ms*: the same, with answers that come 20 ms later. `connect` opens a connection for each mail,
  `threads` send side by side, each over its own, as those of a worker do.
- *jobs*: e-mail jobs on a pool of two processes, each with its own body, recorded in the ledger; beside two
  processes of which each sends half of the mails in a loop of smtplib on one connection. The processor's
  time is that of these processes, with their start, and of Redis, whatever else the machine does.
"""

from __future__ import annotations

import os
import smtplib
import statistics
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

from harness import (
    Pace,
    arguments,
    by_turns,
    client_of,
    in_a_pool,
    in_processes,
    machine,
    pace,
    rate,
    ratio,
    table,
)
from mail_sink import language, sink

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import context
from packmule.jobs.client import Client
from packmule.jobs.email import Ledger, Mailer, email
from packmule.jobs.email.letter import Content, Letter
from packmule.jobs.email.message.compose import compose
from packmule.jobs.email.outcome import Outcome
from packmule.testing import private_server

DELAY = 0.02
THREADS = 8
TEXT = "A line of text such as mails have, to make up a mail of the size usual for one.\n" * 84


class Forgetful:
    """A journal that keeps nothing but how many were accepted."""

    def __init__(self) -> None:
        self.ends = 0

    def prepare(self, letter: Letter) -> None: ...

    def begin(self, letter: Letter) -> bool:
        return True

    def ended(self, letter: Letter, outcomes: Mapping[str, Outcome]) -> None:
        self.ends += 1

    def flush(self) -> None: ...


def letter() -> Letter:
    return compose(
        Content(TEXT, None),
        subject="A benchmark",
        sender="mule@example.org",
        to=["ada@example.org"],
        key="bench",
    )


def by_smtplib(port: int, sent: Letter, mails: int) -> None:
    with smtplib.SMTP("127.0.0.1", port) as connection:
        for _ in range(mails):
            connection.sendmail(sent.sender, sent.recipients, sent.content)


def by_connecting(port: int, sent: Letter, mails: int) -> None:
    for _ in range(mails):
        by_smtplib(port, sent, 1)


def by_deliver(mailer: Mailer, sent: Letter, mails: int) -> None:
    journal = Forgetful()

    def letters() -> Iterator[Letter]:
        for _ in range(mails):
            yield sent

    mailer.deliver(letters(), journal)
    assert journal.ends == mails


def by_threads(mailer: Mailer, sent: Letter, mails: int) -> None:
    """As a worker does that has so many threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        for each in [pool.submit(by_deliver, mailer, sent, mails // THREADS) for _ in range(THREADS)]:
            each.result()


def transport(ways: Mapping[str, tuple[int, Callable[[], None]]], rounds: int, base: str) -> None:
    """Print the rate of each way beside that of `base`."""
    figures = by_turns({name: partial(rate, mails, run) for name, (mails, run) in ways.items()}, rounds)
    rows = [
        (name, f"{statistics.median(values):,.0f}", f"{ratio(values, figures[base]):.2f}")
        for name, values in figures.items()
    ]
    table(("", "mails/s", f"to {base}"), rows)
    print()


def kept(mails: int, rounds: int) -> None:
    sent = letter()
    with ExitStack() as stack:
        plain = stack.enter_context(sink(pipelining=False))
        quick = stack.enter_context(sink(pipelining=True))
        far = stack.enter_context(sink(DELAY, pipelining=False))
        far_quick = stack.enter_context(sink(DELAY, pipelining=True))
        mailers = {
            port: Mailer(f"smtp://127.0.0.1:{port}", "mule@example.org")
            for port in (plain, quick, far, far_quick)
        }
        for mailer in mailers.values():
            stack.callback(mailer.close)
        print("kept")
        transport(
            {
                "smtplib": (mails, partial(by_smtplib, plain, sent, mails)),
                "deliver": (mails, partial(by_deliver, mailers[plain], sent, mails)),
                "deliver, PIPELINING": (mails, partial(by_deliver, mailers[quick], sent, mails)),
            },
            rounds,
            "smtplib",
        )
        few = max(mails // 20, 20)
        print("20 ms")
        transport(
            {
                "connect": (few // 4, partial(by_connecting, far, sent, few // 4)),
                "smtplib": (few, partial(by_smtplib, far, sent, few)),
                "deliver": (few, partial(by_deliver, mailers[far], sent, few)),
                f"deliver, {THREADS} threads": (few, partial(by_threads, mailers[far], sent, few)),
                "deliver, PIPELINING": (few, partial(by_deliver, mailers[far_quick], sent, few)),
            },
            min(rounds, 3),
            "connect",
        )


def perform(server: EmbeddedServer, port: int, jobs: int) -> Pace:
    """The pace of e-mail jobs that are enqueued before."""
    client = client_of(server)
    client.flushall()
    Client(client).make_default()
    email.enqueue_many(
        {"to": f"ada{number}@example.org", "subject": "A benchmark", "body": TEXT} for number in range(jobs)
    )
    context.provide(
        Mailer(f"smtp://127.0.0.1:{port}", "mule@example.org", redis=client), Ledger(client, 86_400.0)
    )
    return pace(client, jobs, lambda: in_a_pool(server, "high"))


def jobs(count: int, rounds: int) -> None:
    sent = letter()
    with private_server() as server, sink(pipelining=True) as port:
        print("jobs")
        figures = by_turns(
            {
                "smtplib": lambda: pace(
                    client_of(server),
                    2 * (count // 2),
                    lambda: in_processes(partial(by_smtplib, port, sent, count // 2)),
                ),
                "jobs": lambda: perform(server, port, count),
            },
            rounds,
        )
        base = [each.rate for each in figures["smtplib"]]
        rows = [
            (
                name,
                *(f"{statistics.median(each):,.0f}" for each in (rates, *spent)),
                f"{ratio(rates, base):.2f}",
            )
            for name, values in figures.items()
            for rates, *spent in [list(zip(*values, strict=True))]
        ]
        table(("", "mails/s", "CPU µs a mail", "of Redis", "to smtplib"), rows)


def main(mails: int, rounds: int, count: int) -> None:
    """Measure and print."""
    os.environ["PACKMULE_LOG_LEVEL"] = "error"
    print(f"{machine()}; the sink is in {language()}; a mail has {len(letter().content):,} bytes\n")
    kept(mails, rounds)
    jobs(count, min(rounds, 3))


if __name__ == "__main__":
    main(*arguments(1_000, 15, 1_000))
