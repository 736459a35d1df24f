"""The pages of mails take a few round trips, commands and bytes, however much there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec
import pytest
from redis import Redis
from redis.connection import AbstractConnection

from packmule.coordination.redis.connection import connect
from packmule.jobs.client import Client
from packmule.jobs.email import send_bulk
from packmule.jobs.email.ledger import names, reader
from packmule.jobs.email.ledger.reader import MailFilter
from packmule.jobs.email.outcome import State
from packmule.jobs.email.suppression.store import Suppressions
from packmule.testing import private_server
from packmule.tests.dashboard.visits import Visit, visiting
from packmule.tests.jobs.test_mail_ledger import LOST, run_of, sent

MANY = 100_000
SENDS = 60
SMALL = 60_000


def write_mails(client: Redis) -> None:
    """As many mails that are unknown and deferred, as the ledger writes them."""
    run = run_of(client, "job0", "e1")
    run.reserve(["ada@example.org"])
    assert sent(run, LOST, "ada@example.org")
    (first,) = reader.search(client, MailFilter([State.UNKNOWN])).mails
    packed = msgspec.msgpack.decode(client.get(names.mail_key(first.id)))
    end = time.time() + 86_400
    for state, index in (("u", "pm:mails:unknown"), ("d", "pm:mails:deferred")):
        for begin in range(0, MANY, 10_000):
            values, scores = {}, {}
            for number in range(begin, begin + 10_000):
                to = f"user{number}@example.org"
                id = names.mail_id(f"send {state}", to)
                values[names.mail_key(id)] = msgspec.msgpack.encode([state, to, *packed[2:]])
                scores[id] = end + number
            client.mset(values)
            client.zadd(index, scores)


@pytest.fixture(scope="module")
def large() -> Iterator[tuple[Visit, Redis]]:
    """A site on a server with many mails, suppressed addresses and bulk sends."""
    with private_server() as server, connect(None, server.data_dir) as client:
        write_mails(client)
        named = [(f"user{number}@example.org", "a bounce") for number in range(MANY)]
        Suppressions(client).add_all(named, "bounce", None)
        for number in range(SENDS):
            send_bulk(
                [{"email": "ada@example.net"}], f"s{number}", "t", key=f"k{number}", client=Client(client)
            )
        assert (reader.counts(client)["unknown"], Suppressions(client).count()) == (MANY + 1, MANY)
        with visiting(client) as visit:
            visit.get("/mails")  # scripts are loaded now
            yield visit, client


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    sent: list[object] = []
    send = AbstractConnection.send_packed_command

    def count(connection: object, command: object, *args: object, **options: object) -> object:
        sent.append(command)
        return send(connection, command, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(AbstractConnection, "send_packed_command", count)
    return lambda: len(sent)


def commands(client: Redis) -> int:
    return sum(each["calls"] for each in client.info("commandstats").values())


@pytest.mark.parametrize(
    ("path", "most_trips", "most_commands", "shown"),
    [
        ("/mails", 3, 6, "user99999@example.org"),
        ("/mails?state=all", 3, 6, "user99999@example.org"),
        ("/mails?state=deferred&within=24h", 3, 6, "user99999@example.org"),
        ("/mails?who=nowhere.example", 9, 12, "None of the 2,000 mails searched so far matches"),
        ("/mails?state=active", 2, 5, "No mail is in this state now"),
        ("/mail/suppressed", 2, 2, "100,000 in all"),
        ("/mail/suppressed?q=nowhere", 9, 9, "None of those searched so far matches"),
        ("/mail/suppressed?q=user5@example.org", 2, 2, "user5@example.org"),
        ("/mail/sends", 4, 4 * 51 + 11, "The latest 50"),
        ("/mail/templates", 0, 0, "welcome"),
    ],
)
def test_a_page_takes_a_few_trips_commands_and_bytes(large, trips, path, most_trips, most_commands, shown):
    visit, client = large
    asked, before = commands(client), trips()
    page = visit.get(path)
    taken = trips() - before
    assert shown in page
    assert taken <= most_trips
    assert commands(client) - asked - 1 <= most_commands  # one of them is ours
    assert len(page.encode()) <= SMALL


def test_a_download_takes_a_trip_for_some_hundreds(large, trips):
    visit, _ = large
    before = trips()
    answer = visit.http.get("/mail/suppressed.csv")
    assert answer.text.count("\n") == MANY + 1
    assert trips() - before <= MANY // 100
