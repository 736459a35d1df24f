"""Delivery over SMTP to a server that misbehaves: what is not taken, what is sure, what is unknown."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from packmule.jobs import context
from packmule.jobs.email import InsecureServer, Mailer, MailRefused, TemporaryFailure
from packmule.jobs.email.delivery import route
from packmule.jobs.email.delivery.mailer import MOST_ALONE
from packmule.jobs.email.delivery.smtp import channel, envelope
from packmule.jobs.email.letter import Content, Letter
from packmule.jobs.email.message.compose import compose
from packmule.jobs.email.outcome import State
from packmule.tests.alarm import taken
from packmule.tests.jobs.mail_journal import Book
from packmule.tests.jobs.mail_server import BODY, DOT, HANG_UP, SILENCE, MailServer

PASSWORD = "s3cret-pass"
ACCEPTED, REFUSED, DEFERRED, UNKNOWN = State.ACCEPTED, State.REFUSED, State.DEFERRED, State.UNKNOWN
PLAIN = ("SIZE 1000000", "8BITMIME", "SMTPUTF8")
BOTH = [pytest.param(("PIPELINING", *PLAIN), id="pipelined"), pytest.param(PLAIN, id="plain")]


def letter(number=0, to=None, content=b"Subject: s\r\n\r\nt\r\n", **fields):
    recipients = tuple(to or (f"to{number}@example.org",))
    return Letter(
        f"<{number}@example.org>", "mule@example.org", recipients, content, **{"needs_utf8": False, **fields}
    )


@pytest.fixture
def mailer():
    """Makes mailers that are closed at the end."""
    made = []

    def make(*servers, options="timeout=60"):
        made.append(Mailer([f"{server.url}?{options}" for server in servers], "mule@example.org"))
        return made[-1]

    yield make
    for each in made:
        each.close()


def delivered(mailer, *letters, book=None):
    book = book or Book()
    mailer.deliver(letters, book)
    assert book.calls[-1] == ("flush", "")
    return book


@pytest.mark.parametrize("extensions", BOTH)
def test_each_letter_of_many_is_taken_once_and_in_order(mailer, extensions):
    with MailServer(extensions=extensions) as server:
        book = delivered(mailer(server), *map(letter, range(50)))
        assert set(book.states().values()) == {ACCEPTED}
        assert server.recipients == [f"to{number}@example.org" for number in range(50)]
        assert server.connections == 1
    assert book.reply("to7@example.org") == "250 2.0.0 queued"
    one = [f"<{number}@example.org>" for number in range(50)]
    assert book.calls[1:-1] == [(kind, each) for each in one for kind in ("prepare", "begin", "ended")]


def test_the_next_envelope_travels_with_the_body_before_it(mailer):
    with MailServer() as server:
        delivered(mailer(server), *map(letter, range(20)))
        bodies = [packet for packet in server.packets if b"Subject: s" in packet]
        assert len(bodies) == 20
        assert [b"MAIL FROM" in packet for packet in bodies] == [True] * 19 + [False]
        # EHLO, the first envelope, the bodies, and nothing else before QUIT.
        assert len(server.packets) == 2 + 20


def test_a_server_without_pipelining_hears_one_command_at_a_time(mailer):
    with MailServer(extensions=PLAIN) as server:
        delivered(mailer(server), letter(0, ["a@example.org", "b@example.org"]), letter(1))
        assert all(packet.count(b"\r\n") == 1 or b"Subject" in packet for packet in server.packets)


@pytest.mark.parametrize("extensions", BOTH)
@pytest.mark.parametrize(
    "content",
    [
        b"Subject: s\r\n\r\n.\r\n..\r\n.x\r\n\r\n.\r\n",
        b".",
        b"",
        b"Subject: s\r\n\r\nno end",
        b"x" * 3_000_000 + b"\r\n.\r\n",
    ],
    ids=["dots", "dot", "nothing", "no end", "large"],
)
def test_a_body_arrives_as_it_is_whatever_its_lines_look_like(mailer, extensions, content):
    with MailServer(extensions=extensions) as server:
        delivered(mailer(server), letter(0, content=content), letter(1))
        expected = content if not content or content.endswith(b"\r\n") else content + b"\r\n"
        assert server.mails[0].content in {expected, expected or b"\r\n"}
        assert len(server.mails) == 2


@pytest.mark.parametrize("text", ["no dots", ".\n..\n.x\n\n.", "x\r.\rQUIT"], ids=["none", "dots", "bare"])
def test_a_composed_mail_arrives_as_it_is(mailer, text):
    mail = compose(
        Content(text, None), subject="s", sender="mule@example.org", to=["to0@example.org"], key="k"
    )
    with MailServer() as server:
        delivered(mailer(server), mail, letter(1))
        assert server.mails[0].content == mail.content
        assert len(server.mails) == 2


def test_bare_line_ends_cannot_smuggle_a_second_mail(mailer):
    smuggled = b"Subject: s\n\nx\n.\nMAIL FROM:<evil@example.org>\r.\rRCPT TO:<b@example.org>\r\n"
    with MailServer() as server:
        delivered(mailer(server), letter(0, content=smuggled))
        assert len(server.mails) == 1
        assert b"\n\nx" not in server.mails[0].content
        assert b"x\r\n.\r\nMAIL FROM:<evil@example.org>\r\n.\r\nRCPT" in server.mails[0].content
        assert b"\r\n..\r\n" in b"".join(server.packets)


@pytest.mark.parametrize(
    "to", ["a@example.org> SIZE=1", "a@example.org\r\nDATA", "a b@example.org", "jörg@example.org", ""]
)
def test_an_address_that_is_no_part_of_a_command_is_never_sent(mailer, to):
    with MailServer() as server:
        book = delivered(mailer(server), letter(0, [to, "b@example.org"]), letter(1))
        assert book.states() == {to: REFUSED, "b@example.org": REFUSED, "to1@example.org": ACCEPTED}
        assert server.recipients == ["to1@example.org"]


def test_a_quoted_local_part_and_an_empty_sender_are_sent(mailer):
    with MailServer() as server:
        delivered(mailer(server), replace(letter(0, ['"a b"@example.org']), sender=""))
        assert server.recipients == ['"a b"@example.org']
        assert server.mails[0].sender == ""


def test_a_server_without_smtputf8_gets_nothing_of_a_letter_that_needs_it(mailer):
    with MailServer(extensions=("PIPELINING",)) as server:
        book = delivered(
            mailer(server), letter(0), letter(1, ["jörg@example.org"], needs_utf8=True), letter(2)
        )
        assert book.states("<1@example.org>") == {"jörg@example.org": REFUSED}
        assert "no SMTPUTF8" in book.reply("jörg@example.org")
        assert server.recipients == ["to0@example.org", "to2@example.org"]


# Refusals before the body


@pytest.mark.parametrize("extensions", BOTH)
@pytest.mark.parametrize("step", ["MAIL", "RCPT to1@example.org", "DATA"])
@pytest.mark.parametrize(
    ("reply", "state"), [(b"550 5.7.1 no\r\n", REFUSED), (b"451 4.7.1 no\r\n", DEFERRED)]
)
def test_a_refusal_costs_a_reset_and_not_the_connection(mailer, extensions, step, reply, state):
    answers = {step: [reply] if step.startswith("RCPT") else [None, reply]}
    with MailServer(answers, extensions) as server:
        book = delivered(mailer(server), *map(letter, range(3)))
        assert book.states() == {
            "to0@example.org": ACCEPTED,
            "to1@example.org": state,
            "to2@example.org": ACCEPTED,
        }
        assert reply.decode().strip() in book.reply("to1@example.org")
        assert server.recipients == ["to0@example.org", "to2@example.org"]
        assert server.connections == 1
        assert server.commands.count("RSET") == 1
    assert ("begin", "<1@example.org>") not in book.calls


@pytest.mark.parametrize("extensions", BOTH)
def test_refused_recipients_are_told_apart_and_the_others_get_the_mail(mailer, extensions):
    answers = {
        "RCPT a@example.org": b"550 5.1.1 no such user\r\n",
        "RCPT b@example.org": b"450 4.2.0 greylisted\r\n",
        "RCPT c@example.org": b"550 5.7.1 we do not like you\r\n",
        "RCPT d@example.org": b"251 2.1.5 will forward\r\n",
        "RCPT e@example.org": b"252 2.1.5 will try\r\n",
        "RCPT f@example.org": b"552 5.2.2 the mailbox is full\r\n",
        "RCPT g@example.org": b"550 5.1.8 we know no such sender\r\n",
    }
    everybody = [f"{name}@example.org" for name in "abcdefg"]
    with MailServer(answers, extensions) as server:
        book = delivered(mailer(server), letter(0, everybody))
        assert list(book.states().values()).count(ACCEPTED) == 2
        assert server.recipients == ["d@example.org", "e@example.org"]
    outcomes = {to[0]: outcome for (_, to), outcome in book.outcomes.items()}
    assert [name for name, outcome in outcomes.items() if outcome.is_bad_address] == ["a"]
    assert [name for name, outcome in outcomes.items() if outcome.state is DEFERRED] == ["b"]
    assert outcomes["a"].reply == "550 5.1.1 no such user"


@pytest.mark.parametrize("extensions", BOTH)
@pytest.mark.parametrize(
    "full", [b"452 4.5.3 too many\r\n", b"452 enough\r\n", b"552 too many recipients\r\n"]
)
def test_a_server_that_has_enough_recipients_gets_the_others_in_a_second_transaction(
    mailer, extensions, full
):
    everybody = [f"{name}@example.org" for name in "abcdef"]
    answers = {f"RCPT {name}@example.org": [full] for name in "def"}
    with MailServer(answers, extensions) as server:
        book = delivered(mailer(server), letter(0, everybody), letter(1))
        assert set(book.states().values()) == {ACCEPTED}
        assert [mail.recipients for mail in server.mails] == [
            everybody[:3], everybody[3:], ["to1@example.org"]
        ]  # fmt: skip
        assert server.connections == 1


def test_a_server_that_takes_no_recipient_at_all_is_not_asked_for_ever(mailer):
    with MailServer({"RCPT to0@example.org": b"452 4.5.3 too many\r\n"}) as server:
        assert delivered(mailer(server), letter(0)).states() == {"to0@example.org": DEFERRED}


def test_many_recipients_are_sent_in_several_transactions(mailer):
    everybody = [f"a{number}@example.org" for number in range(2 * envelope.MOST_RECIPIENTS + 1)]
    with MailServer() as server:
        book = delivered(mailer(server), letter(0, everybody), letter(1))
        assert set(book.states().values()) == {ACCEPTED}
        assert [len(mail.recipients) for mail in server.mails] == [100, 100, 1, 1]


def test_a_server_that_takes_data_for_nobody_gets_an_empty_mail_and_the_next_letter(mailer):
    answers = {
        "RCPT to0@example.org": b"550 no\r\n",
        "DATA": [b"354 go on anyway\r\n"],
        ".": [b"554 nobody\r\n"],
    }
    with MailServer(answers) as server:
        book = delivered(mailer(server), letter(0), letter(1))
        assert book.states() == {"to0@example.org": REFUSED, "to1@example.org": ACCEPTED}
        assert server.recipients == ["to1@example.org"]


def test_a_letter_that_another_run_has_is_not_sent_and_the_next_is(mailer):
    with MailServer() as server:
        book = Book(may_begin=lambda letter: letter.message_id != "<1@example.org>")
        delivered(mailer(server), *map(letter, range(3)), book=book)
        assert server.recipients == ["to0@example.org", "to2@example.org"]
        assert book.states() == {"to0@example.org": ACCEPTED, "to2@example.org": ACCEPTED}


@pytest.mark.parametrize("extensions", BOTH)
@pytest.mark.parametrize("is_dotless", [True, False])
def test_a_long_body_that_another_run_has_sent_is_not_ended_and_the_next_goes(mailer, extensions, is_dotless):
    content = b"." * (not is_dotless) + b"x\r\n" * 50_000
    long = replace(letter(1), content=content, is_dotless=is_dotless)
    with MailServer(extensions=extensions) as server:
        book = Book(may_end=lambda letter: False)
        delivered(mailer(server), letter(0), long, letter(2), book=book)
        assert book.states() == {
            "to0@example.org": ACCEPTED, "to1@example.org": DEFERRED, "to2@example.org": ACCEPTED
        }  # fmt: skip
        assert server.recipients == ["to0@example.org", "to2@example.org"]
        assert [id for call, id in book.calls if call == "still"] == ["<1@example.org>"]
        delivered(mailer(server), replace(long, message_id="<3@example.org>"))
        assert server.mails[-1].content == content


# The answer to the body


@pytest.mark.parametrize("extensions", BOTH)
@pytest.mark.parametrize(
    ("reply", "state"),
    [
        (b"554 5.6.0 spam\r\n", REFUSED),
        (b"451 4.3.0 later\r\n", DEFERRED),
        (b"421 4.3.2 closing\r\n", DEFERRED),
    ],
)
def test_a_body_that_is_refused_was_not_taken(mailer, extensions, reply, state):
    with MailServer({DOT: [None, reply]}, extensions) as server:
        book = delivered(mailer(server), *map(letter, range(3)))
        assert book.states() == {
            "to0@example.org": ACCEPTED,
            "to1@example.org": state,
            "to2@example.org": ACCEPTED,
        }
        assert server.recipients == ["to0@example.org", "to2@example.org"]
    assert not book.outcomes["<1@example.org>", "to1@example.org"].is_bad_address


@pytest.mark.parametrize("extensions", BOTH)
@pytest.mark.parametrize(
    ("step", "answer"),
    [
        (BODY, HANG_UP),
        (DOT, HANG_UP),
        (DOT, b"25"),
        (DOT, b"250-queued, but\r\n250"),
        (DOT, b"what?\r\n"),
        (DOT, b"354 more?\r\n"),
        (DOT, b"250-" + b"x" * 100_000),
        (DOT, b"250-x\r\n" * 10_000),
    ],
    ids=[
        "in the body",
        "after it",
        "half a line",
        "half a reply",
        "nonsense",
        "go on",
        "a long line",
        "many lines",
    ],
)
def test_after_a_lost_answer_to_the_body_it_is_unknown_whether_it_was_taken(mailer, extensions, step, answer):
    with MailServer({step: [None, answer]}, extensions) as server:
        # A server that sent half an answer hangs up, too.
        if answer:
            server.answers[step] = [None, lambda server: server.cut(answer)]
        book = delivered(mailer(server), *map(letter, range(3)))
        assert book.states() == {
            "to0@example.org": ACCEPTED,
            "to1@example.org": UNKNOWN,
            "to2@example.org": ACCEPTED,
        }
        assert server.recipients.count("to2@example.org") == 1
        assert server.connections == 2
    assert [call for call in book.calls if call[1] == "<1@example.org>"] == [
        (kind, "<1@example.org>") for kind in ("prepare", "begin", "ended")
    ]


def test_a_server_that_refuses_a_body_before_its_end_is_believed(mailer):
    with MailServer({BODY: [b"552 5.3.4 too large\r\n"]}) as server:
        book = delivered(mailer(server), letter(0, content=b"x\r\n" * 3_000_000), letter(1))
        assert book.states()["to1@example.org"] is ACCEPTED
        # What a system keeps of an answer whose connection broke is up to it.
        assert book.states()["to0@example.org"] in {REFUSED, UNKNOWN}


def test_a_late_answer_to_the_body_is_waited_for_longer_than_any_other_and_the_job_is_spared(mailer):
    """The server thinks for longer than its other replies may take."""
    prolonged = []
    with MailServer({DOT: lambda server: server.stopped.wait(6) or b"250 at last\r\n"}) as server:
        with context.Running("j", 1, lambda *_: None, prolong=prolonged.append):
            book = delivered(mailer(server, options="timeout=4"), letter(0))
        assert book.states() == {"to0@example.org": ACCEPTED}
        assert server.recipients == ["to0@example.org"]
    assert prolonged[0] == channel.MARGIN
    assert max(prolonged) > 590


def test_a_server_that_never_answers_the_body_is_left_at_its_deadline(mailer, monkeypatch):
    def begin(letter: Letter) -> bool:
        monkeypatch.setattr(channel, "BODY_TIMEOUT", 1.0 if letter.message_id == "<0@example.org>" else 60.0)
        return True

    with MailServer({DOT: [SILENCE]}) as server:
        book = delivered(mailer(server), letter(0), letter(1), book=Book(begin))
        assert book.states() == {"to0@example.org": UNKNOWN, "to1@example.org": ACCEPTED}
        assert "did not answer in time" in book.reply("to0@example.org")


def test_a_run_that_is_broken_off_in_its_wait_leaves_the_letter_unknown(mailer):
    class Stopped(BaseException):
        pass

    def stop() -> None:
        raise Stopped

    with taken(signal.SIGUSR1, stop), MailServer() as server:

        def answer(server):
            os.kill(os.getpid(), signal.SIGUSR1)
            return b"250 too late\r\n"

        server.answers[DOT] = [lambda server: (answer(server), server.stopped.wait(30))[0]]
        book, sender = Book(), mailer(server)
        with pytest.raises(Stopped):
            sender.deliver([letter(0), letter(1)], book)
        assert book.states() == {"to0@example.org": UNKNOWN}
        assert "broken off" in book.reply("to0@example.org")
        assert book.calls[-1] == ("flush", "")
        server.answers.clear()
        assert delivered(sender, letter(1)).states() == {"to1@example.org": ACCEPTED}


# Before the body


@pytest.mark.parametrize("extensions", BOTH)
@pytest.mark.parametrize("step", ["MAIL", "RCPT to1@example.org", "DATA"])
@pytest.mark.parametrize("answer", [HANG_UP, b"421 4.3.2 shutting down\r\n"], ids=["hang-up", "421"])
def test_a_kept_connection_that_ends_before_the_body_is_replaced(mailer, extensions, step, answer):
    """But a 421 to a recipient is the answer to that recipient."""
    answers = {step: [answer] if step.startswith("RCPT") else [None, answer]}
    with MailServer(answers, extensions) as server:
        sender = mailer(server)
        book = delivered(sender, *map(letter, range(3)))
        is_refused = answer.startswith(b"421") and step.startswith("RCPT")
        assert book.states() == {
            "to0@example.org": ACCEPTED,
            "to1@example.org": DEFERRED if is_refused else ACCEPTED,
            "to2@example.org": ACCEPTED,
        }
        assert server.connections == 2
        assert len(server.mails) == (2 if is_refused else 3)


@pytest.mark.parametrize("extensions", BOTH)
def test_a_server_that_hangs_up_at_an_address_lets_that_wait_and_the_others_go_on(mailer, extensions):
    answers = {f"RCPT to{number}@example.org": HANG_UP for number in (2, 5)}
    with MailServer(answers, extensions) as server:
        book = delivered(
            mailer(server), *map(letter, range(8)), letter(8, ["to5@example.org", "b@example.org"])
        )
        assert book.states("<8@example.org>") == {"to5@example.org": DEFERRED, "b@example.org": ACCEPTED}
        states = [book.outcomes[f"<{n}@example.org>", f"to{n}@example.org"].state for n in range(8)]
        assert states == [DEFERRED if number in (2, 5) else ACCEPTED for number in range(8)]
        assert "hung up twice at this address" in book.reply("to2@example.org")
        assert server.connections == 1 + 2 + 2 + 1  # to5 is known by then


def test_a_server_that_hangs_up_once_at_an_address_gets_the_mail(mailer):
    with MailServer({"RCPT to1@example.org": [HANG_UP]}) as server:
        book = delivered(mailer(server), *map(letter, range(3)))
        assert set(book.states().values()) == {ACCEPTED}
        assert server.connections == 2


def test_a_server_that_hangs_up_at_each_address_is_left(mailer):
    answers = {f"RCPT to{number}@example.org": HANG_UP for number in range(9)}
    with MailServer(answers) as server:
        book = Book()
        with pytest.raises(TemporaryFailure, match="hung up"):
            delivered(mailer(server), *map(letter, range(9)), book=book)
        assert book.states() == {f"to{number}@example.org": DEFERRED for number in range(MOST_ALONE)}
        assert server.connections == 2 * MOST_ALONE + 1


@pytest.mark.parametrize("extensions", BOTH)
def test_a_server_that_hangs_up_at_one_address_and_then_at_another_is_left(mailer, extensions):
    def hang_up_in_turn(number: int) -> Callable[[MailServer], bytes]:
        return lambda server: HANG_UP if server.connections % 2 == number else b"250 fine\r\n"

    answers = {f"RCPT to{number}@example.org": hang_up_in_turn(number) for number in range(2)}
    with MailServer(answers, extensions) as server:
        book = Book()
        with pytest.raises(TemporaryFailure, match="hung up"):
            delivered(mailer(server), letter(0, ["to0@example.org", "to1@example.org"]), book=book)
        assert (book.states(), server.connections) == ({}, 2)


def test_a_421_to_a_recipient_lets_its_domain_wait_and_the_others_go_on(mailer):
    everybody = ["a@one.example", "b@two.example", "c@One.example", "d@two.example"]
    with MailServer({"RCPT c@One.example": b"421 4.7.0 too many from you\r\n"}) as server:
        book = delivered(mailer(server), letter(0, everybody))
        assert book.states() == {
            "a@one.example": DEFERRED, "b@two.example": ACCEPTED,
            "c@One.example": DEFERRED, "d@two.example": ACCEPTED,
        }  # fmt: skip
        assert server.recipients == ["b@two.example", "d@two.example"]


@pytest.mark.parametrize(
    ("step", "answer", "why"),
    [
        ("greeting", SILENCE, "did not answer in time"),
        ("EHLO", SILENCE, "did not answer in time"),
        ("MAIL", SILENCE, "did not answer in time"),
        ("DATA", SILENCE, "did not answer in time"),
        ("greeting", b"220-x\r\n" * 100_000, "too long"),
        ("EHLO", b"250-" + b"x" * 1_000_000 + b"\r\n", "too long"),
        ("MAIL", b"250-x\r\n" * 100_000, "too long"),
        ("greeting", b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak SMTP"),
        ("greeting", b"\xff\x00\r\n", "does not speak SMTP"),
        ("greeting", b"421 4.3.2 too busy\r\n", "421 4.3.2 too busy"),
        ("greeting", b"554 5.7.1 go away\r\n", "554 5.7.1 go away"),
        ("greeting", HANG_UP, "hung up"),
        ("MAIL", HANG_UP, "hung up"),
        ("DATA", HANG_UP, "hung up"),
    ],
)
def test_a_server_can_neither_hold_nor_fill_a_worker(mailer, step, answer, why):
    with MailServer({step: answer}) as server:
        seconds = 1 if answer is SILENCE else 60
        sender, book = mailer(server, options=f"timeout={seconds}"), Book()
        with pytest.raises((TemporaryFailure, MailRefused), match=why) as refused:
            sender.deliver([letter(0), letter(1)], book)
        assert (refused.type is MailRefused) == (answer == b"554 5.7.1 go away\r\n")
        assert book.outcomes == {}
        assert book.calls[-1] == ("flush", "")
        assert server.mails == []
        assert str(refused.value).isprintable()


def test_a_slow_reply_has_one_deadline_for_all_its_lines(mailer):
    def drip(server):
        for _ in range(100):
            if server.stopped.wait(0.3):
                break
            server.talk.sendall(b"250-x\r\n")
        return b"250 x\r\n"

    with MailServer({"EHLO": drip}) as server:
        began = time.monotonic()
        with pytest.raises(TemporaryFailure, match="did not answer in time"):
            mailer(server, options="timeout=1").deliver([letter(0)], Book())
        server.stopped.set()
        assert time.monotonic() - began < 25  # all of it would take 30


def test_letters_that_an_iterator_does_not_give_are_not_missed(mailer):
    def letters():
        yield letter(0)
        yield letter(1)
        raise KeyError("the list has ended badly")

    with MailServer() as server:
        sender, book = mailer(server), Book()
        with pytest.raises(KeyError):
            sender.deliver(letters(), book)
        assert book.states() == {"to0@example.org": ACCEPTED}
        assert delivered(sender, letter(1)).states() == {"to1@example.org": ACCEPTED}


def test_a_server_that_hung_up_while_the_journal_was_away_has_taken_nothing(mailer, monkeypatch):
    monkeypatch.setattr(channel, "PATIENCE", -1.0)
    with MailServer() as server:

        def wait(letter):
            if letter.message_id == "<0@example.org>":
                server.talk.shutdown(socket.SHUT_RDWR)
            return True

        book = delivered(mailer(server), letter(0), letter(1), book=Book(may_begin=wait))
        assert book.states() == {"to0@example.org": DEFERRED, "to1@example.org": ACCEPTED}
        assert "before the mail was sent" in book.reply("to0@example.org")
        assert server.recipients == ["to1@example.org"]


# Connections


def test_a_connection_is_kept_for_the_next_call_and_by_each_thread(mailer):
    with MailServer() as server:
        sender = mailer(server)
        for number in range(3):
            delivered(sender, letter(number))
        assert server.connections == 1
        gate = threading.Barrier(4)
        server.answers[DOT] = lambda server: (gate.wait(60), b"250 together\r\n")[1]
        threads = [threading.Thread(target=delivered, args=(sender, letter(number))) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert server.connections == 4


@pytest.mark.parametrize(("name", "value"), [("MAX_MAILS", 2), ("MAX_AGE", -1.0), ("MAX_IDLE", -1.0)])
def test_a_connection_is_left_after_its_bound(mailer, monkeypatch, name, value):
    monkeypatch.setattr(channel, name, value)
    with MailServer() as server:
        sender = mailer(server)
        for number in range(4):
            delivered(sender, letter(number))
        assert server.connections == (2 if name == "MAX_MAILS" else 4)
        assert len(server.mails) == 4


def test_a_connection_is_left_after_many_refusals_in_a_row(mailer):
    answers = {f"RCPT to{number}@example.org": b"550 5.1.1 no\r\n" for number in range(20)}
    with MailServer(answers) as server:
        delivered(mailer(server), *map(letter, range(20)))
        assert server.connections == 3


def test_a_forked_child_opens_its_own_connection_and_leaves_that_of_its_parent(mailer):
    with MailServer() as server:
        sender = mailer(server)
        delivered(sender, letter(0))
        child = os.fork()
        if not child:
            status = 1
            try:
                delivered(sender, letter(1))
                sender.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        delivered(sender, letter(2))
        assert server.connections == 2
        assert [mail.connection for mail in server.mails] == [1, 2, 1]


# Several servers


@pytest.fixture
def long_rest(monkeypatch):
    """A server that failed rests for longer than any test takes."""
    monkeypatch.setattr(route, "FIRST_REST", 60.0)


@pytest.mark.usefixtures("long_rest")
@pytest.mark.parametrize(
    ("step", "answer"), [("greeting", b"421 busy\r\n"), ("MAIL", HANG_UP), ("DATA", b"421 busy\r\n")]
)
def test_the_next_server_gets_what_the_first_does_not_take(mailer, step, answer):
    with MailServer({step: answer}) as first, MailServer() as second:
        book = delivered(mailer(first, second), *map(letter, range(5)))
        assert set(book.states().values()) == {ACCEPTED}
        assert len(second.mails) == 5
        assert first.mails == []
        assert first.connections == 1, "a server that failed rests"


def test_no_second_server_gets_a_mail_that_the_first_may_have(mailer):
    with MailServer({DOT: HANG_UP}) as first, MailServer() as second:
        book = delivered(mailer(first, second), letter(0))
        assert book.states() == {"to0@example.org": UNKNOWN}
        assert second.mails == []


def test_a_server_that_failed_is_asked_again_after_its_rest(mailer, monkeypatch):
    monkeypatch.setattr(route, "FIRST_REST", 0.01)
    with MailServer({"greeting": [b"421 busy\r\n"]}) as first, MailServer() as second:
        sender = mailer(first, second)
        delivered(sender, letter(0))
        time.sleep(0.02)
        sender.close()  # what is kept to the second
        delivered(sender, letter(1))
        assert (first.recipients, second.recipients) == (["to1@example.org"], ["to0@example.org"])


@pytest.mark.usefixtures("long_rest")
def test_while_all_servers_rest_an_error_says_so_until_when(mailer):
    with MailServer({"greeting": b"421 busy\r\n"}) as first, MailServer({"greeting": HANG_UP}) as second:
        sender = mailer(first, second)
        for _ in range(3):
            with pytest.raises(TemporaryFailure, match=r"421 busy \(and 1 more failed\)") as refused:
                sender.deliver([letter(0)], Book())
            assert 0 <= refused.value.retry_at - time.time() <= route.FIRST_REST
        assert (first.connections, second.connections) == (1, 1)


# TLS and logins


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A server's TLS with a self-signed certificate of 127.0.0.1, and the file of that."""
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=mail"
    )
    options = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*command.split(), *options], cwd=folder, check=True, capture_output=True)
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return made, folder / "cert.pem"


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_mails_travel_under_tls_from_the_start_or_after_starttls(mailer, tls, is_wrapped):
    with MailServer(tls=tls[0], is_wrapped=is_wrapped) as server:
        book = delivered(
            mailer(server, options=f"ca={tls[1]}&tls=required"),
            letter(0, content=b"x\r\n" * 1_000_000),
            *map(letter, range(1, 20)),
        )
        assert set(book.states().values()) == {ACCEPTED}
        assert all(mail.is_encrypted for mail in server.mails)
        assert server.mails[0].content == b"x\r\n" * 1_000_000


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_certificate_that_is_not_trusted_gets_no_mail(mailer, tls, is_wrapped):
    with MailServer(tls=tls[0], is_wrapped=is_wrapped) as server:
        with pytest.raises(InsecureServer, match=r"certificate of 127.0.0.1:.* is not trusted"):
            mailer(server, options="timeout=60").deliver([letter(0)], Book())
        assert server.mails == []
        assert not any(command.startswith("MAIL") for command in server.commands)


def test_what_was_injected_before_tls_is_refused(mailer, tls):
    with MailServer({"STARTTLS": b"220 go on\r\n250 2.1.0 injected\r\n"}, tls=tls[0]) as server:
        with pytest.raises(TemporaryFailure, match="before TLS"):
            mailer(server, options=f"ca={tls[1]}").deliver([letter(0)], Book())
        assert server.mails == []


def test_what_a_server_offered_before_tls_counts_no_more(mailer, tls):
    offers = [b"250-mail.test\r\n250-STARTTLS\r\n250 PIPELINING\r\n", b"250 mail.test\r\n"]
    with MailServer({"EHLO": offers}, tls=tls[0]) as server:
        delivered(mailer(server, options=f"ca={tls[1]}"), letter(0))
        assert [command.split()[0] for command in server.commands] == [
            "EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT", "DATA"
        ]  # fmt: skip


@pytest.mark.parametrize("answer", [b"rubbish", HANG_UP, SILENCE])
def test_a_server_that_fails_at_tls_is_a_temporary_failure(mailer, answer):
    """It says that it begins TLS, and does not."""
    answers = {
        "EHLO": b"250-mail.test\r\n250 STARTTLS\r\n",
        "STARTTLS": lambda server: server.cut(b"220 go on\r\n", answer),
    }
    with MailServer(answers) as server:
        with pytest.raises(TemporaryFailure, match="can't reach the mail server"):
            mailer(server, options="timeout=1").deliver([letter(0)], Book())
        assert server.mails == []


def test_tls_that_is_required_is_never_done_without(mailer):
    with MailServer() as server, pytest.raises(InsecureServer, match="offers no TLS"):
        mailer(server, options="tls=required").deliver([letter(0)], Book())


LOGINS = {
    "PLAIN": {"AUTH": b"235 2.7.0 welcome\r\n"},
    "LOGIN": {
        "AUTH": b"334 VXNlcm5hbWU6\r\n",
        "bcO8bGU=": b"334 UGFzc3dvcmQ6\r\n",  # müle
        "czNjcmV0LXBhc3M=": b"235 2.7.0 welcome\r\n",
    },
    "XOAUTH2": {"AUTH": b"235 2.7.0 welcome\r\n"},
}


@pytest.mark.parametrize("way", LOGINS)
def test_a_user_logs_in_as_the_server_offers(way):
    offer = f"250-mail.test\r\n250 AUTH {way}\r\n".encode()
    with MailServer({"EHLO": offer, **LOGINS[way]}) as server:
        options = "?auth=xoauth2" if way == "XOAUTH2" else ""
        sender = Mailer(f"smtp://m%C3%BCle:{PASSWORD}@127.0.0.1:{server.port}{options}", "mule@example.org")
        assert delivered(sender, letter(0)).states() == {"to0@example.org": ACCEPTED}
        sender.close()
        assert server.commands[1].startswith(f"AUTH {way}")


@pytest.mark.parametrize(
    ("reply", "kind"), [(b"535 5.7.8 no\r\n", MailRefused), (b"454 4.7.0 later\r\n", TemporaryFailure)]
)
def test_a_login_that_is_refused_shows_no_password_in_any_form(reply, kind):
    blob = "AG11bGUAczNjcmV0LXBhc3M="
    said = reply.replace(b"no", f"no: AUTH PLAIN {blob} {PASSWORD}".encode())
    with MailServer({"EHLO": b"250-x\r\n250 AUTH PLAIN\r\n", "AUTH": said}) as server:
        sender = Mailer(f"smtp://mule:{PASSWORD}@127.0.0.1:{server.port}", "mule@example.org")
        with pytest.raises(kind, match="does not let mule log in") as refused:
            sender.deliver([letter(0)], Book())
        assert server.commands[1] == f"AUTH PLAIN {blob}"
    assert PASSWORD not in str(refused.value)
    assert blob not in str(refused.value)


@pytest.mark.parametrize("words", [b"\x1b[31mred\x07\xff <script>", b"x" * 5000, "Größe\u2028".encode()])
def test_the_words_of_a_server_are_one_printable_bounded_line(mailer, words):
    with MailServer({"RCPT to0@example.org": b"550 5.7.1 " + words + b"\r\n"}) as server:
        said = delivered(mailer(server), letter(0)).reply("to0@example.org")
        assert said.isprintable()
        assert len(said) < 600


# Servers that say what makes no sense


@pytest.mark.usefixtures("long_rest")
@pytest.mark.parametrize("extensions", BOTH)
@pytest.mark.parametrize(
    ("step", "answer"), [("DATA", b"250 fine\r\n"), ("RCPT to0@example.org", b"354 go on\r\n")]
)
def test_an_answer_that_does_not_fit_its_command_takes_no_mail(mailer, extensions, step, answer):
    with MailServer({step: [answer]}, extensions) as server, MailServer() as second:
        book = delivered(mailer(server, second), letter(0), letter(1))
        assert book.states() == {"to0@example.org": ACCEPTED, "to1@example.org": ACCEPTED}
        assert (server.recipients, len(second.recipients)) == ([], 2)


@pytest.mark.usefixtures("long_rest")
@pytest.mark.parametrize("extensions", BOTH)
def test_an_answer_before_the_body_confirms_no_mail(mailer, extensions):
    answers = {"DATA": [b"354 go on\r\n250 2.0.0 queued\r\n"], DOT: [b"554 5.7.1 no\r\n"]}
    with MailServer(answers, extensions) as server, MailServer() as second:
        book = delivered(mailer(server, second), letter(0), letter(1))
        assert book.states() == {"to0@example.org": ACCEPTED, "to1@example.org": ACCEPTED}
        assert (server.recipients, len(second.recipients)) == ([], 2)


@pytest.mark.parametrize("extensions", BOTH)
def test_a_body_begins_for_those_alone_who_get_it_in_this_transaction(mailer, extensions):
    answers = {"RCPT b@example.org": [b"452 4.5.3 enough\r\n"], "RCPT c@example.org": [b"550 5.1.1 who?\r\n"]}
    with MailServer(answers, extensions) as server:
        book = delivered(mailer(server), letter(0, ["a@example.org", "b@example.org", "c@example.org"]))
        assert book.begun == [("a@example.org",), ("b@example.org",)]
