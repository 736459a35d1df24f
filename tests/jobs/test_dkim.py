"""DKIM: what we sign is verified by another library, also after real mail servers, and no more than that."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import dkim
import pytest

from packmule.jobs import context
from packmule.jobs.email import Ledger, Mailer
from packmule.jobs.email.bulk.send import send_bulk
from packmule.jobs.email.crypto import NoCryptography
from packmule.jobs.email.dkim import keys as reading
from packmule.jobs.email.dkim.keys import InvalidDkim, read_key
from packmule.jobs.email.dkim.signing import signer_of
from packmule.jobs.email.letter import Attachment, Content, Letter
from packmule.jobs.email.message.compose import compose
from packmule.tests.command_line import CommandLine, environment_in, until
from packmule.tests.jobs.mail_server import MailServer
from packmule.tests.jobs.test_email import Listening
from packmule.tests.jobs.test_postfix import DAEMONS, MAIN, MASTER, POSTFIX
from packmule.tests.jobs.test_postfix import pytestmark as needs_postfix
from packmule.worker import Worker

RSA, ED25519 = "s1._domainkey.example.org", "s2._domainkey.example.org"
UNSUBSCRIBE = ["https://example.org/u/1", "mailto:u@example.org"]


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> list[str]:
    """An RSA key and an Ed25519 key of example.org, as the setting names them."""
    folder = tmp_path_factory.mktemp("dkim")
    return [f"{RSA}={made(folder / 'rsa.pem', 2048)}", f"{ED25519}={made(folder / 'ed.pem')}"]


def made(path: Path, bits: int = 0, password: bytes = b"") -> Path:
    """A new key's file: RSA if it has bits."""
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = rsa.generate_private_key(65537, bits) if bits else ed25519.Ed25519PrivateKey.generate()
    sealed = BestAvailableEncryption(password) if password else NoEncryption()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed))
    return path


def records(named: list[str]) -> Callable[..., bytes | None]:
    """The DNS that has these keys' records."""
    known = {f"{key.name}.".encode(): "".join(key.strings).encode() for key in map(read_key, named)}
    return lambda name, timeout=5: known.get(name)


def verified(content: bytes, named: list[str]) -> list[bool]:
    """Whether each signature of a mail is good, the first one first."""
    count = (b"\n" + content.partition(b"\r\n\r\n")[0]).count(b"\nDKIM-Signature:")
    checked = dkim.DKIM(content)
    found = []
    for number in range(count):
        try:
            found.append(checked.verify(number, dnsfunc=records(named)))
        except dkim.DKIMException:
            found.append(False)
    return found


def mail(text: str | None = "Soon more.", html: str | None = None, **fields) -> Letter:
    fields = {"subject": "Hello", "sender": "Mule <mule@example.org>", "to": ["ada@example.net"]} | fields
    return compose(Content(text, html), **fields)


LETTERS = {
    "plain": mail(),
    "unsubscribe": mail(unsubscribe=UNSUBSCRIBE, headers={"List-Id": "<news.example.org>", "X-A": "b"}),
    "dots and blank lines": mail("\n..\n.\n  a  b \t\n\n\n \n\n"),
    "empty": mail(""),
    "blank": mail("\n\n \n"),
    "long lines": mail("x" * 990 + "\n" + "y" * 5_000),
    "other letters": mail("Grüße " * 200, "<p>ß</p>", subject="Grüße " * 40, sender="Ädä <a@example.org>"),
    "many": mail(to=[f"a{number}@example.net" for number in range(100)], reply_to=["b@example.net"]),
    "files": mail(attachments=[Attachment("f.bin", bytes(range(256)) * 200)]),
    "below": mail(sender="mule@news.example.org"),
}


def raw(body: bytes, more: bytes = b"") -> Letter:
    head = b"From:  mule@example.org\r\nSubject:  a\tb \r\n\tc\r\nTo:\r\n ada@example.net\r\n" + more
    return Letter("<1@example.org>", "mule@example.org", ("ada@example.net",), head + b"\r\n" + body, False)


RAW = {
    "8-bit": raw("Grüße\r\n\r\n".encode()), "spaces": raw(b" a \t b\t\r\n\t\r\n"), "no end": raw(b"a\r\nb"),
    "nothing": raw(b""), "two headers": raw(b"x\r\n", b"To: bob@example.net\r\nX: y\r\n"),
    "large": raw(b"x" * 70 + b"\r\n" + b"0123456789\r\n" * 100_000),
}  # fmt: skip


@pytest.mark.parametrize("name", [*LETTERS, *RAW])
def test_both_signatures_are_verified_by_another_library(named, name):
    letter = (LETTERS | RAW)[name]
    content = signer_of(named).signed(letter).content
    assert content.endswith(letter.content)
    assert verified(content, named) == [True, True]
    head = content.partition(b"\r\n\r\n")[0]
    assert max(map(len, head.split(b"\r\n"))) <= 998
    assert all(len(line) <= 100 for line in head.split(b"From:")[0].split(b"\r\n"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Soon", b"Late"), (b"Subject: Hello", b"Subject: Hell"), (b"Date: ", b"Date: x"),
        (b"From: ", b"From: eve@example.com\r\nFrom: "), (b"Subject: ", b"Subject: Win\r\nSubject: "),
        (b"To: ", b"Reply-To: eve@example.com\r\nTo: "), (b"/u/1", b"/u/2"), (b"ada@", b"eve@"),
        (b"List-Unsubscribe-Post: ", b"X-Gone: "),
    ],
)  # fmt: skip
def test_nobody_changes_or_adds_what_a_reader_sees(named, before, after):
    content = signer_of(named).signed(mail(unsubscribe=UNSUBSCRIBE)).content
    assert before in content
    assert verified(content.replace(before, after, 1), named) == [False, False]


def test_what_relays_change_on_the_way_keeps_the_signatures(named):
    content = signer_of(named).signed(mail("a  b\n", subject="Hello " * 30)).content
    folded = content.replace(b"Subject: ", b"subject:\r\n   ", 1).replace(b"a  b\r\n", b"a b  \r\n\r\n")
    assert verified(b"Received: from a by b\r\nX-Spam: no\r\n" + folded, named) == [True, True]


def test_only_mails_of_a_domain_with_a_key_are_signed(named):
    signer = signer_of(named)
    for sender in ("mule@example.com", "mule@anexample.org", "mule@org", "mule@localhost"):
        letter = mail(sender=sender)
        assert signer.signed(letter) is letter
    alone = signer_of([f"x._domainkey.news.example.org={named[0].partition('=')[2]}"])
    assert b" d=news.example.org; s=x;" in alone.signed(mail(sender="a@news.example.org")).content
    assert alone.signed(LETTERS["plain"]) is LETTERS["plain"]


@pytest.mark.usefixtures("produce")
def test_each_mail_of_a_bulk_send_is_signed_for_itself_and_staging_before(client, named, monkeypatch):
    monkeypatch.setattr(context, "resources", {})
    with MailServer() as server:
        for to in ("", "staging@example.org"):
            mailer = Mailer(server.url, "mule@example.org", dkim=named, to=to)
            context.provide(mailer, Ledger(client))
            rows = [{"email": f"a{number}@example.net", "name": f"N{number}"} for number in range(5)]
            send_bulk(rows, "Hello {{ name }}", "Soon more.", key=f"spring {to}")
            Worker(["low"], connection=client).work(burst=True)
            mailer.close()
    assert len(server.mails) == 10
    assert all(verified(each.content, named) == [True, True] for each in server.mails)
    assert sum(b"X-Packmule-Recipient" in each.content for each in server.mails) == 5


# Real servers


class Keeping:
    """What a server of Python's does with mails: it keeps them."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802  aiosmtpd calls it
        self.contents.append(envelope.original_content)
        return "250 OK"


@contextmanager
def aiosmtpd_server() -> Iterator[tuple[int, Keeping]]:
    handler = Keeping()
    controller = Listening(handler, "127.0.0.1", 0, ready_timeout=60)
    controller.start()
    try:
        yield controller.port, handler
    finally:
        controller.stop()


@contextmanager
def postfix_to(port: int) -> Iterator[int]:
    """A Postfix that relays to a port; its own port."""
    with TemporaryDirectory(prefix="postfix-") as name, socket.create_server(("127.0.0.1", 0)) as probe:
        folder, own = Path(name), probe.getsockname()[1]
        probe.close()
        folder.chmod(0o755)
        for each in ("spool", "data"):
            (folder / each).mkdir()
        shutil.chown(folder / "data", "postfix")
        main = MAIN.format(folder=folder, daemons=DAEMONS)
        relay = f"default_transport = smtp\nrelayhost = [127.0.0.1]:{port}\ndisable_dns_lookups = yes"
        (folder / "main.cf").write_text(main.replace("default_transport = discard", relay))
        (folder / "master.cf").write_text(MASTER.format(port=own) + "smtp unix - - n - - smtp\n")
        if subprocess.run([POSTFIX, "-c", folder, "start"], capture_output=True, check=False).returncode:
            pytest.skip("Postfix does not start here")
        try:
            yield own
        finally:
            subprocess.run([POSTFIX, "-c", folder, "stop"], capture_output=True, check=False)


def sent_to(port: int, named: list[str]) -> None:
    mailer = Mailer(f"smtp://127.0.0.1:{port}", "mule@example.org", dkim=named)
    try:
        for letter in LETTERS.values():
            mailer.send(letter)
    finally:
        mailer.close()


def test_signatures_hold_after_a_server_has_undone_the_stuffing_of_dots(named):
    with aiosmtpd_server() as (port, handler):
        sent_to(port, named)
    assert len(handler.contents) == len(LETTERS)
    assert all(verified(each, named) == [True, True] for each in handler.contents)


@needs_postfix
def test_signatures_hold_behind_postfix(named):
    with aiosmtpd_server() as (behind, handler), postfix_to(behind) as port:
        sent_to(port, named)
        until(lambda: len(handler.contents) >= len(LETTERS), "Postfix has relayed all")
    assert all(b"Received: " in each for each in handler.contents)
    assert all(verified(each, named) == [True, True] for each in handler.contents)


# Keys


def test_keys_that_cannot_sign_are_refused_in_a_line_that_names_them(tmp_path, monkeypatch):
    (tmp_path / "garbage.pem").write_bytes(b"\xff\x00")
    (tmp_path / "folder.pem").mkdir()
    made(tmp_path / "sealed.pem", 2048, b"s3cret")
    made(tmp_path / "weak.pem", 1024)
    monkeypatch.setattr(reading, "FEWEST_BITS", 1025)
    for file, words in {
        "nothing.pem": "can't be read: No such file", "folder.pem": "can't be read: Is a directory",
        "garbage.pem": "not a private key in PEM", "sealed.pem": "without a password",
        "weak.pem": "it has 1024 bits",
    }.items():  # fmt: skip
        with pytest.raises(InvalidDkim, match=words) as refused:
            read_key(f"{RSA}={tmp_path / file}")
        assert str(refused.value).startswith(f"PACKMULE_DKIM: {tmp_path / file}, the key of {RSA}: it ")
    for text in ("s1.pem", "a.org=s1.pem", f"{RSA}=", "._domainkey.a.org=x", "a\n._domainkey.b=x", "="):
        with pytest.raises(InvalidDkim, match="is not the name of a record and the path") as refused:
            read_key(text)
        assert "\n" not in str(refused.value)
    monkeypatch.setattr("packmule.jobs.email.crypto.find_spec", lambda name: None)
    with pytest.raises(NoCryptography, match=r"DKIM needs .* pip install 'packmule\[crypto\]'"):
        read_key(f"{RSA}=x")


def test_the_commands_print_records_and_say_what_is_wrong(server, tmp_path, named):
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url, PACKMULE_DKIM=", ".join(named)))
    said = packmule.output("email", "dkim")
    assert f'{RSA}. IN TXT (\n    "v=DKIM1; k=rsa; p=MII' in said
    assert all(len(line) <= 265 for line in said.splitlines())
    assert f'{ED25519}. IN TXT (\n    "v=DKIM1; k=ed25519; p=' in said
    assert packmule.output("email", "dkim", "example.org") == said
    assert '"bits":2048' in packmule.output("email", "dkim", "--json")
    assert f"signs by {RSA}, {ED25519}" in packmule.output("check")
    none = packmule.run("email", "dkim", "example.com")
    assert (none.returncode, none.stderr) == (
        2, "packmule: no key is for example.com: there are keys for example.org\n"
    )  # fmt: skip
    weak = packmule.run("check", PACKMULE_DKIM=f"{RSA}={made(tmp_path / 'weak.pem', 1024)}")
    assert f"give {RSA} a key of 2048 bits" in weak.stdout
    lost = packmule.run("check", PACKMULE_DKIM=f"{RSA}={tmp_path / 'nothing.pem'}")
    assert lost.returncode != 0
    assert "nothing.pem" in lost.stdout + lost.stderr
    assert packmule.run("email", "dkim", PACKMULE_DKIM="").returncode == 2
    worker = packmule.run("worker", "--burst", PACKMULE_DKIM=f"{RSA}={tmp_path / 'nothing.pem'}")
    assert (worker.returncode, "can't be read" in worker.stderr) == (2, True), "it would send unsigned mails"
    assert "Traceback" not in worker.stderr
