"""The pace of mails by domain and server, over all processes; staging, and mails that are stored."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from packmule.jobs.email.delivery import pace as paces
from packmule.jobs.email.delivery.mailer import Mailer
from packmule.jobs.email.delivery.pace import SLOW, InvalidMailPace, Pace, Paced, pace_key, parse
from packmule.jobs.email.delivery.staging import InvalidStaging
from packmule.jobs.email.delivery.stored import remembered
from packmule.jobs.email.delivery.ways import InvalidServer
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.outcome import Outcome, State
from packmule.tests.jobs.mail_journal import Book
from packmule.tests.jobs.mail_server import DOT, MailServer

ACCEPTED, REFUSED, DEFERRED = State.ACCEPTED, State.REFUSED, State.DEFERRED


def letter(number, *to, content=b"Subject: s\r\n\r\nt\r\n"):
    return Letter(f"<{number}@example.org>", "mule@example.org", to, content, needs_utf8=False)


@pytest.fixture
def mailer(client):
    made = []

    def make(url, **options):
        made.append(Mailer(url, "mule@example.org", redis=client, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def delivered(mailer, *letters):
    book = Book()
    mailer.deliver(letters, book)
    return book


@pytest.mark.parametrize(
    "text",
    [
        "gmail.com",
        "gmail.com=",
        "gmail.com=fast",
        "=1/s",
        "a b=1/s",
        "gmail.com=0/s",
        "@x=1/s",
        "x=1/s burst",
    ],
)
def test_a_wrong_pace_is_refused_in_one_line(text):
    with pytest.raises(InvalidMailPace, match=r"\w") as refused:
        parse(text)
    assert "\n" not in str(refused.value)


def test_paces_are_read_by_domain_in_lower_case():
    assert {name: str(rate) for name, rate in parse(" Gmail.com = 20/s , *=100/m,").items()} == {
        "gmail.com": "20/s",
        "*": "100/m",
    }


def test_a_domain_gets_its_rate_over_all_processes_and_what_must_wait_is_deferred(mailer):
    with MailServer() as server:
        one, two = (mailer(server.url, pace="one.example=3/h, *=5/h") for _ in range(2))
        letters = [
            letter(n, f"a{n}@One.example", f"b{n}@two.example", f"c{n}@three.example") for n in range(4)
        ]
        books = [delivered(one, *letters[:2]), delivered(two, *letters[2:])]
        assert len(server.mails) == 4
        assert [to for to in server.recipients if "One" in to] == [f"a{n}@One.example" for n in range(3)]
    waiting = books[1].outcomes["<3@example.org>", "a3@One.example"]
    assert waiting.state is DEFERRED
    assert waiting.reply == "one.example gets mails at its pace"
    assert 1000 < waiting.retry_at - time.time() < 1300
    states = {**books[0].states(), **books[1].states()}
    assert [to for to, state in states.items() if state is not ACCEPTED] == ["a3@One.example"]


def test_a_mail_in_doubt_keeps_all_its_recipients(mailer):
    """Its server would know it again only with all of them."""
    with MailServer() as server:
        again = replace(letter(1, "b@one.example", "c@two.example"), request="that of before")
        book = delivered(mailer(server.url, pace="*=1/h"), letter(0, "a@one.example"), again)
        assert set(book.states(again.message_id).values()) == {State.UNKNOWN}


def test_those_that_wait_are_told_to_come_back_one_after_another(mailer):
    with MailServer() as server:
        book = delivered(
            mailer(server.url, pace="*=1/m"), *(letter(n, f"a{n}@one.example") for n in range(4))
        )
        waits = [outcome.retry_at - time.time() for outcome in book.outcomes.values() if outcome.retry_at]
        assert len(waits) == 3
        assert [round(wait / 60) for wait in waits] == [1, 2, 3]


def test_a_server_gets_its_rate_and_the_rest_waits_or_goes_to_the_next(mailer):
    with MailServer() as first, MailServer() as second:
        limited = f"{first.url}?rate=2/h"
        book = delivered(mailer(limited), *(letter(n, f"a{n}@one.example") for n in range(3)))
        assert list(book.states().values()) == [ACCEPTED, ACCEPTED, DEFERRED]
        assert f"127.0.0.1:{first.port} is limited to 2/h" in book.reply("a2@one.example")
        assert len(first.mails) == 2
        assert not any(b"MAIL" in packet and b"Subject" in packet for packet in first.packets)
        assert second.mails == []


def test_a_server_has_no_more_connections_than_it_may_and_gets_them_back(mailer, client):
    with MailServer() as server:
        url = f"{server.url}?connections=1"
        entered, gate = threading.Event(), threading.Event()

        def answer(server):
            entered.set()
            gate.wait(60)
            return b"250 at last\r\n"

        server.answers[DOT] = [answer]
        one, two = mailer(url), mailer(url)
        books = []
        thread = threading.Thread(target=lambda: books.append(delivered(one, letter(0, "a@one.example"))))
        thread.start()
        assert entered.wait(60)
        book = delivered(two, letter(1, "b@one.example"))
        assert book.states() == {"b@one.example": DEFERRED}
        assert "all of its 1 connections" in book.reply("b@one.example")
        gate.set()
        thread.join(60)
        assert books[0].states() == {"a@one.example": ACCEPTED}
        one.close()
        assert delivered(two, letter(1, "b@one.example")).states() == {"b@one.example": ACCEPTED}
        assert server.connections == 2


def test_a_server_at_its_limit_leaves_its_mails_to_the_next(mailer):
    with MailServer() as first, MailServer() as second:
        urls = [f"{first.url}?connections=1", second.url]
        one, two = mailer(urls), mailer(urls)
        delivered(one, letter(0, "a@one.example"))
        delivered(two, letter(1, "b@one.example"))
        assert (len(first.mails), len(second.mails)) == (1, 1)


# What a domain teaches


def test_a_domain_that_refuses_for_now_is_slowed_for_all_processes_and_the_others_are_not(mailer, client):
    with MailServer({"RCPT a@slow.example": [b"421 4.7.0 too many\r\n"]}) as server:
        one, two = mailer(server.url), mailer(server.url)
        began = time.time()
        delivered(one, letter(0, "a@slow.example"))
        book = delivered(two, letter(1, "b@slow.example", "c@quick.example"))
        assert book.states() == {"b@slow.example": DEFERRED, "c@quick.example": ACCEPTED}
        waiting = book.outcomes["<1@example.org>", "b@slow.example"]
        assert began + 9 < waiting.retry_at < time.time() + 11
        assert server.recipients == ["c@quick.example"]
    assert client.zrange(SLOW, 0, -1) == [b"slow.example"]
    assert 0 < client.ttl(pace_key("slow.example")) <= 7200


@pytest.mark.parametrize(
    ("reply", "is_slowed"),
    [
        ("421 4.7.0 too many", True),
        ("451 4.7.1 later", True),
        ("450 greylisted", True),
        ("452 4.2.2 the mailbox is full", False),
        ("450 4.1.8 no such sender", False),
        ("550 5.7.1 spam", False),
    ],
)
def test_only_refusals_that_say_something_of_the_domain_slow_it(client, reply, is_slowed):
    state = DEFERRED if reply.startswith("4") else REFUSED
    paced = Paced(Book(), Pace(client, {}))
    paced.ended(letter(0, "a@x.example"), {"a@x.example": Outcome(state, reply)})
    assert (client.zscore(SLOW, "x.example") is not None) is is_slowed


def test_a_domain_is_slowed_once_a_rest_and_learned_up_again_until_it_is_forgotten(client, monkeypatch):
    pace = Pace(client, {})
    for _ in range(100):  # as when a hundred mails are on their way
        pace.learn("x.example", "slow")
    interval, _, _ = map(int, client.get(pace_key("x.example")).split())
    assert interval == 1_000_000
    client.set(pace_key("x.example"), f"{interval} 0 0")  # its rest is over
    began = time.monotonic()
    assert pace.wait("x.example", 1) == 0.0
    wait = pace.wait("x.example", 1)
    assert began + 0.99 - time.monotonic() < wait <= 1.0
    client.set(pace_key("x.example"), f"{interval} 0 0")
    pace.learn("x.example", "slow")
    assert int(client.get(pace_key("x.example")).split()[0]) == 2_000_000
    steps = 0
    while client.exists(pace_key("x.example")):
        pace.learn("x.example", "ease")
        steps += 1
    assert 5 < steps < 20
    assert client.zcard(SLOW) == 0
    assert pace.wait("x.example", 100) == 0.0


def test_the_slowest_pace_has_a_bound_and_turns_are_spread(client):
    pace = Pace(client, {})
    for _ in range(30):
        client.set(pace_key("x.example"), "600000000 0 0")
        pace.learn("x.example", "slow")
    assert int(client.get(pace_key("x.example")).split()[0]) == 600_000_000
    waits = [pace.wait("x.example", 1) for _ in range(3)]
    assert waits[0] > 590
    assert waits[1] - waits[0] > 590
    assert all(pace.wait("x.example", 50) <= 3601 for _ in range(10))


@pytest.mark.parametrize("garbage", ["", "x", "1 2", "-1 2 3", "1 2 3 4", "9" * 400 + " 1 1", "nan inf 1"])
def test_garbage_in_redis_lets_mails_go(client, garbage):
    pace = Pace(client, parse("limited.example=1/h"))
    client.set(pace_key("x.example"), garbage)
    client.zadd(SLOW, {"x.example": time.time() + 100, b"\xff\x00": time.time() + 100})
    assert pace.wait("x.example", 1) < 10_000
    pace.learn("x.example", "slow")
    pace.learn("x.example", "ease")
    client.delete(pace_key("x.example"))
    client.lpush(pace_key("x.example"), "a list")
    client.delete(SLOW)
    client.set(SLOW, "a string")
    client.lpush("pm:rate:mail:limited.example", "a list")
    other = Pace(client, parse("limited.example=1/h"))
    for name in ("x.example", "limited.example"):
        assert other.wait(name, 1) == 0.0
        other.learn(name, "slow")


def test_while_redis_is_away_nothing_waits_for_the_pace(server, client):
    pace = Pace(client, parse("*=1/h"))
    server.stop()
    assert pace.wait("x.example", 1) == 0.0
    pace.learn("x.example", "slow")


def test_a_look_for_slow_domains_costs_one_command_a_second(client, monkeypatch):
    pace = Pace(client, {})
    looks = []
    real = client.zrangebyscore
    monkeypatch.setattr(client, "zrangebyscore", lambda *args: looks.append(1) or real(*args))
    monkeypatch.setattr(paces, "LOOK_AGAIN", 3600.0)
    for _ in range(100):
        pace.wait("x.example", 1)
    assert len(looks) == 1


# Staging and storing


def test_in_staging_all_mails_go_to_one_address_and_say_to_whom_they_would_have_gone(mailer):
    with MailServer() as server:
        sender = mailer(server.url, to="Staging <staging@example.org>", pace="*=1/h")
        book = delivered(sender, *(letter(n, f"a{n}@one.example", f"b{n}@two.example") for n in range(3)))
        assert set(book.states().values()) == {ACCEPTED}
        assert len(book.outcomes) == 6
        assert server.recipients == ["staging@example.org"] * 3
        assert server.mails[1].content == (
            b"X-Packmule-Recipient: a1@one.example\r\nX-Packmule-Recipient: b1@two.example\r\n"
            b"Subject: s\r\n\r\nt\r\n"
        )


def test_no_address_puts_a_header_of_its_own_into_a_staged_mail(mailer):
    with MailServer() as server:
        delivered(
            mailer(server.url, to="staging@example.org"), letter(0, "a@x.example\r\nBcc: b@example.org")
        )
        assert b"\r\nBcc" not in server.mails[0].content


def test_a_refusal_of_the_staging_address_suppresses_nobody(mailer):
    with MailServer({"RCPT staging@example.org": b"550 5.1.1 no such user\r\n"}) as server:
        book = delivered(mailer(server.url, to="staging@example.org"), letter(0, "a@one.example"))
        assert book.outcomes["<0@example.org>", "a@one.example"] == Outcome(REFUSED, "550 5.1.1 no such user")


def test_a_staging_address_that_is_none_is_refused():
    with pytest.raises(InvalidStaging, match="PACKMULE_MAIL_TO: 'me' is not an email address"):
        Mailer("memory://", "mule@example.org", to="me")


def test_mails_are_written_to_a_folder_with_their_envelopes(mailer, tmp_path):
    book = delivered(mailer(f"file://{tmp_path}/mails"), *(letter(n, f"a{n}@x.example") for n in range(3)))
    assert set(book.states().values()) == {ACCEPTED}
    files = sorted((tmp_path / "mails").glob("*.eml"))
    assert len(files) == 3
    assert {file.read_bytes() for file in files} == {
        b"X-Envelope-From: mule@example.org\r\nX-Envelope-To: a%d@x.example\r\nSubject: s\r\n\r\nt\r\n"
        % number
        for number in range(3)
    }
    assert book.reply("a0@x.example").startswith("stored as ")


def test_a_folder_that_cannot_be_written_defers(mailer, tmp_path):
    (tmp_path / "mails").write_text("a file where the folder should be")
    book = delivered(mailer(f"file://{tmp_path}/mails"), letter(0, "a@x.example"))
    assert book.states() == {"a@x.example": DEFERRED}
    assert "not stored" in book.reply("a@x.example")


def test_mails_are_remembered_in_memory(mailer):
    remembered.clear()
    delivered(mailer("memory://"), letter(0, "a@x.example"))
    assert [each.recipients for each in remembered] == [("a@x.example",)]


@pytest.mark.parametrize(
    "url",
    [
        "file://",
        "file:///",
        "file://host/x",
        "file:///x?y=1",
        "memory://x",
        "pop3://x",
        "mail.example.org",
        "",
    ],
)
def test_a_url_that_names_no_way_is_refused_without_being_quoted(url):
    with pytest.raises(InvalidServer) as refused:
        Mailer([url], "mule@example.org")
    assert not url.strip("/:").partition("//")[2] or url not in str(refused.value)
