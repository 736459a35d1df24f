"""Bounces from a folder of a real IMAP server: each is taken once, whatever dies meanwhile."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from redis import Redis

from packmule.jobs.email.received import MOST_BYTES
from packmule.jobs.email.suppression import imap, visit
from packmule.jobs.email.suppression.bounces import take
from packmule.jobs.email.suppression.imap import Folder, InvalidMailbox, MailboxRefused, MailboxUnavailable
from packmule.jobs.email.suppression.intake import Intake
from packmule.jobs.email.suppression.store import Suppressions
from packmule.tests.coordination.test_connection import authority
from packmule.tests.jobs.imap_server import PASSWORD, ImapServer, dovecot
from packmule.tests.jobs.test_bounces import bounce, complaint, mailed
from packmule.tests.jobs.test_mail_ledger import ADA, BOB

__all__ = ["authority", "mailed"]  # fixtures


@pytest.fixture(scope="module")
def running(authority: Path) -> Iterator[ImapServer]:
    with dovecot(authority) as found:
        yield found


@pytest.fixture
def imap_server(running: ImapServer) -> ImapServer:
    """The server without mails."""
    with running.as_user() as user:
        if user.select("INBOX")[1] != [b"0"]:
            user.store("1:*", "+FLAGS", r"(\Deleted)")
            user.expunge()
    return running


@pytest.fixture(autouse=True)
def password(monkeypatch) -> None:
    monkeypatch.setenv("PACKMULE_SECRET_IMAP", PASSWORD)


def intake_of(client: Redis, url: str) -> Intake:
    found = Intake(client)
    found.take_from(url)
    return found


def suppressed(client: Redis) -> list[str]:
    return sorted(each.name for each in Suppressions(client))


def test_each_mail_is_taken_once_and_is_read_then(mailed, imap_server):
    imap_server.put(bounce(), b"Subject: on holiday\r\n\r\nBack soon.", b"--\r\n" * 3_000, complaint(BOB))
    found = intake_of(mailed, imap_server.url())
    assert (found.mails, found.unreadable, found.suppressed) == (4, 1, [ADA, BOB])
    assert found.reasons[0].startswith("bounces@example.org@127.0.0.1/INBOX ")
    assert imap_server.unread() == 0
    assert intake_of(mailed, imap_server.url()).mails == 0
    imap_server.put(bounce(BOB))
    assert intake_of(mailed, imap_server.url()).mails == 1


def test_a_mail_whose_taker_died_is_taken_again_and_counts_once(mailed, imap_server):
    imap_server.put(bounce(), bounce(BOB))

    class Killed(BaseException):
        pass

    def die(content: bytes, name: str) -> None:
        take(mailed, content)
        raise Killed

    with pytest.raises(Killed):
        Folder(imap_server.url(), lambda _: PASSWORD).take_each(die)
    assert imap_server.unread() == 2
    Suppressions(mailed).remove(ADA)
    assert intake_of(mailed, imap_server.url()).mails == 2
    assert suppressed(mailed) == [BOB]
    assert imap_server.unread() == 0


def test_two_takers_at_once_take_all(mailed, imap_server):
    imap_server.put(*(bounce(to) for to in (ADA, BOB, ADA, BOB)))
    seen = []

    def take_beside(content: bytes, name: str) -> None:
        seen.append(name)
        if len(seen) == 1:
            assert intake_of(mailed, imap_server.url()).mails == 4

    Folder(imap_server.url(), lambda _: PASSWORD).take_each(take_beside)
    assert len(seen) == 4
    assert suppressed(mailed) == [ADA, BOB]


def test_a_mail_that_was_deleted_meanwhile_is_passed_over(mailed, imap_server):
    imap_server.put(bounce(), bounce(BOB))
    seen = []

    def take_and_delete(content: bytes, name: str) -> None:
        seen.append(name)
        with imap_server.as_user() as user:
            user.select("INBOX")
            user.store("2", "+FLAGS", r"(\Deleted)")
            user.expunge()

    Folder(imap_server.url(), lambda _: PASSWORD).take_each(take_and_delete)
    assert len(seen) == 1


def test_one_visit_is_bounded_in_mails_and_a_mail_in_bytes(mailed, imap_server, monkeypatch):
    monkeypatch.setattr(visit, "MOST_MAILS", 5)
    monkeypatch.setattr(imap, "WINDOW", 3)
    monkeypatch.setattr(imap, "MOST_BYTES", 1_000)
    imap_server.put(*(b"Subject: %d\r\n\r\n%s" % (number, b"x" * 2_000) for number in range(8)))
    sizes: list[int] = []
    folder = Folder(imap_server.url(), lambda _: PASSWORD)
    assert not folder.take_each(lambda content, name: sizes.append(len(content)))
    assert sizes == [1_001] * 5
    assert folder.take_each(lambda content, name: sizes.append(len(content)))
    assert len(sizes) == 8
    assert MOST_BYTES > 1_000


def test_another_folder_has_a_name_with_signs_in_it(mailed, imap_server):
    with imap_server.as_user() as user:
        user.create(r'"Bounces \"a\" b"')
    imap_server.put(bounce(), folder=r'"Bounces \"a\" b"')
    assert intake_of(mailed, imap_server.url("Bounces%20%22a%22%20b")).suppressed == [ADA]


def test_what_a_server_refuses_is_one_line_without_the_password(mailed, imap_server, monkeypatch):
    for url, words in (
        (imap_server.url("Nowhere"), "Nowhere"),
        (imap_server.url(user="eve"), "eve@127.0.0.1"),
    ):
        with pytest.raises(MailboxRefused, match=words) as refused:
            Folder(url, lambda _: PASSWORD).check()
        assert "\n" not in str(refused.value)
        assert PASSWORD not in str(refused.value)
    Folder(imap_server.url(), lambda _: PASSWORD).check()


def test_a_server_that_is_not_trusted_or_not_there_gets_no_password(imap_server):
    for url in (imap_server.url().partition("?")[0], "imaps://ada@127.0.0.1:1/INBOX"):
        with pytest.raises(MailboxUnavailable, match=r"127.0.0.1/INBOX: .*(verify failed|refused)"):
            Folder(url, lambda _: PASSWORD).check()


@pytest.mark.parametrize(
    "url",
    [
        "imap://ada@mail.example.org/INBOX", "imaps://mail.example.org/INBOX", "imaps://ada@mail.example.org",
        "imaps://ada@/INBOX", "imaps://ada:s3cret@mail.example.org/INBOX", "imaps://ada@[::/INBOX",
        "imaps://ada@mail.example.org/INBOX?folder=x", "imaps://ada@mail.example.org/INBOX?auth=plain",
        "imaps://ada%0d%0a@mail.example.org/INBOX", "imaps://ada@mail.example.org/Gesendet-%C3%A4",
        "imaps://ada@mail.example.org:x/INBOX",
    ],
)  # fmt: skip
def test_a_wrong_url_is_refused_with_an_example(url):
    with pytest.raises(InvalidMailbox, match=imap.EXAMPLE) as refused:
        Folder(url, lambda _: "s3cret")
    assert "s3cret" not in str(refused.value)


# Servers that mean harm


@contextmanager
def scripted(authority: Path, *answers: bytes | Iterable[bytes]) -> Iterator[str]:
    """A server that greets, and gives these answers to what it is asked, with the command's tag for %t.

    An answer in pieces is sent piece by piece, with some milliseconds between them.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.crt", authority / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True) as peer:
            peer.sendall(b"* OK hello\r\n")
            lines = peer.makefile("rb")
            for answer in answers:
                tag = lines.readline().split()[:1]
                for piece in [answer] if isinstance(answer, bytes) else answer:
                    peer.sendall(piece.replace(b"%t", tag[0] if tag else b"*"))
                    time.sleep(0 if isinstance(answer, bytes) else 0.005)
            lines.read()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"imaps://ada@127.0.0.1:{listener.getsockname()[1]}/INBOX?ca={authority}/ca.crt"
    finally:
        listener.close()
        thread.join(30)


CAPABLE = b"* CAPABILITY IMAP4rev1\r\n%t OK done\r\n"
IN = (CAPABLE, b"%t OK in\r\n", b"* 1 EXISTS\r\n%t OK [READ-WRITE] done\r\n", b"* SEARCH 7\r\n%t OK done\r\n")
MANY = b"* 1 FETCH (UID 7 BODY[]<0> {10000}\r\n" + b"x" * 10_000 + b")\r\n"


@pytest.mark.parametrize(
    ("answers", "kind", "words"),
    [
        ((*IN, b"* 1 FETCH (UID 7 BODY[]<0> {99999999999}\r\n"), MailboxUnavailable, "sends 99,999,999,999"),
        ((*IN, b"* 1 FETCH (UID 7 BODY[]<0> " + b"x" * 2_000_000), MailboxRefused, "more than"),
        ((b"\xff\xfe\r\n" * 3,), MailboxUnavailable, "unexpected response"),
        ((CAPABLE, b"%t NO \x1b[31m s3cret is wrong\r\n"), MailboxRefused, r"\*\*\* is wrong"),
        ((*IN, b"* 1 FETCH (UID 7 BODY[]<0> {" + b"9" * 5000 + b"}\r\n"), MailboxRefused, "5000 digits"),
        ((*IN, MANY * 4000), MailboxUnavailable, "more than it was asked for"),
        ((*IN, b"%t NO not today\r\n"), MailboxRefused, "FETCH: not today"),
        ((CAPABLE, b"* BYE go away\r\n"), MailboxUnavailable, "go away"),
    ],
)  # fmt: skip
def test_a_hostile_server_is_a_line_and_fills_no_memory(authority, answers, kind, words):
    with scripted(authority, *answers) as url, pytest.raises(kind, match=words) as refused:
        Folder(url, lambda _: "s3cret").take_each(lambda content, name: None)
    said = str(refused.value)
    assert said.isprintable()
    assert len(said) < 400
    assert "s3cret" not in said


def test_a_server_that_says_nothing_is_given_up(authority, monkeypatch):
    monkeypatch.setattr(imap, "TIMEOUT", 0.3)
    with scripted(authority, CAPABLE) as url, pytest.raises(MailboxUnavailable, match=r"timed out"):
        Folder(url, lambda _: "s3cret").check()


def test_a_server_that_never_ends_its_answer_is_given_up_for_the_next_mailbox(authority, monkeypatch):
    """Each piece comes in time, and a server's last answer may take `TIMEOUT` longer than the visit."""
    monkeypatch.setattr(visit, "SECONDS", 0.6 - imap.TIMEOUT)
    trickle = itertools.repeat(b"* 1 EXISTS\r\n")
    with scripted(authority, *IN[:3], trickle) as url, pytest.raises(MailboxUnavailable, match="too long"):
        Folder(url, lambda _: "s3cret").take_each(lambda content, name: None)


@pytest.mark.parametrize("bound", ["SECONDS", "MOST_BYTES"])
def test_a_visit_ends_in_time_and_leaves_the_other_mails_to_the_next(imap_server, monkeypatch, bound):
    imap_server.put(b"Subject: a\r\n\r\n", b"Subject: b\r\n\r\n")
    taken, clock = [], time.monotonic

    def take_slowly(content: bytes, name: str) -> None:
        taken.append(name)
        if bound == "SECONDS":
            monkeypatch.setattr(time, "monotonic", lambda: clock() + visit.SECONDS)
        else:
            monkeypatch.setattr(visit, bound, 10)

    assert not Folder(imap_server.url(), lambda _: PASSWORD).take_each(take_slowly)
    assert (len(taken), imap_server.unread()) == (1, 1)
