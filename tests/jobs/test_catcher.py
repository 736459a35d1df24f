"""The mail catcher: what it stores, when it acknowledges, and what a kill leaves behind."""

import smtplib
import subprocess
import sys
from email import message_from_bytes, policy
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from packmule.coordination.readable import readable
from packmule.jobs.email import Mailer, TemporaryFailure
from packmule.jobs.email.catcher import MAX_MAIL, Catcher, CatcherFailed
from packmule.jobs.email.letter import Attachment, Content
from packmule.jobs.email.message.compose import compose
from packmule.jobs.storage import Storage


@pytest.fixture
def storage(tmp_path):
    return Storage(str(tmp_path / "files"))


def letter(text="t", to=("ada@example.org",), **kwargs):
    return compose(Content(text, None), subject="Grüße", sender="mule@example.org", to=list(to), **kwargs)


def connect(url):
    parts = urlsplit(url)
    return smtplib.SMTP(parts.hostname, parts.port, timeout=60)


def test_a_mail_is_stored_byte_for_byte_after_its_envelope(storage):
    with Catcher(storage) as url:
        mailer = Mailer(url, "mule@example.org")
        sent = letter(
            "Ärger\n.\n", attachments=[Attachment("a.bin", bytes(range(256)))], bcc=["bob@example.org"]
        )
        assert mailer.send(sent) == {}
        mailer.close()
        (name,) = storage.names("mail/")
    head, _, mail = storage.read_bytes(name).partition(
        b"\r\nX-Envelope-To: ada@example.org, bob@example.org\r\n"
    )
    assert head == b"X-Envelope-From: mule@example.org"
    assert mail == sent.content
    parsed = message_from_bytes(storage.read_bytes(name), policy=policy.default)
    assert (parsed["subject"], parsed["x-envelope-from"]) == ("Grüße", "mule@example.org")
    assert next(parsed.iter_attachments()).get_content() == bytes(range(256))
    assert name.endswith(".eml")


def test_two_mails_at_the_same_moment_are_two_files(storage):
    with Catcher(storage, folder="caught/here") as url:
        mailer = Mailer(url, "mule@example.org")
        for _ in range(20):
            mailer.send(letter())
        mailer.close()
    assert len(storage.names("caught/here/")) == 20


def test_a_mail_to_a_non_ascii_address_is_caught(storage):
    with Catcher(storage) as url:
        mailer = Mailer(url, "mule@example.org")
        mailer.send(letter(to=["jörg@example.org"]))
        mailer.close()
    content = storage.read_bytes(storage.names("mail/")[0])
    assert "X-Envelope-To: jörg@example.org\r\n".encode() in content


def test_a_mail_that_cannot_be_stored_is_not_acknowledged(storage):
    storage.write_bytes("mail", b"a file where the folder should be")
    with Catcher(storage) as url:
        mailer = Mailer(url, "mule@example.org")
        with pytest.raises(TemporaryFailure, match=r"refused for ada@example.org: 451 not stored"):
            mailer.send(letter())
        mailer.close()
    assert storage.names() == ["mail"]


def test_a_mail_that_is_too_large_is_refused(storage):
    with Catcher(storage) as url, connect(url) as client:
        client.ehlo()
        assert client.mail("a@example.org", [f"size={MAX_MAIL + 1}"])[0] == 552
        assert client.mail("a@example.org", [f"size={MAX_MAIL}"])[0] == 250


def test_a_port_in_use_is_reported_in_one_line(storage):
    with Catcher(storage) as url:
        port = urlsplit(url).port
        with pytest.raises(CatcherFailed, match=rf"can't listen on 127.0.0.1:{port}: Address already in use"):
            Catcher(storage, port=port).start()


def test_it_stops_with_a_client_connected_and_frees_its_port(storage):
    catcher = Catcher(storage)
    client = connect(catcher.start())
    port = client.sock.getpeername()[1]
    catcher.stop()
    assert client.sock.recv(1) == b""
    client.close()
    with Catcher(storage, port=port) as url:
        assert urlsplit(url).port == port


CATCH = """
import sys, time
from packmule.jobs.email.catcher import Catcher
from packmule.jobs.storage import Storage
print(Catcher(Storage(sys.argv[1])).start(), flush=True)
time.sleep(600)
"""


def test_a_kill_leaves_every_acknowledged_mail_whole_and_nothing_else(storage, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", CATCH, str(tmp_path / "files")],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert readable([process.stdout], 60)
        url = process.stdout.readline().strip()
        mailer = Mailer(url, "mule@example.org")
        acknowledged = [letter(f"{n} " + "x" * 50_000, key=f"job-{n}") for n in range(10)]
        for sent in acknowledged:
            mailer.send(sent)
        # Three clients are sending a mail when the kill comes: within its text, and at its very end.
        halves = [connect(url) for _ in range(3)]
        for client in halves:
            client.ehlo()
            client.mail("a@example.org")
            client.rcpt("b@example.org")
            client.docmd("DATA")
            client.send(b"Subject: half\r\n\r\nonly half\r\n")
        halves[0].send(b".\r\n")
        process.kill()
        process.wait(60)
        with pytest.raises(TemporaryFailure):
            mailer.send(letter())
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()
    for client in halves:
        client.close()
    filed = {}
    for name in storage.names("mail/"):
        content = storage.read_bytes(name)
        filed[message_from_bytes(content)["message-id"]] = content.split(b"\r\n", 2)[2]
    # The mail whose last line was sent may be there, whole; of the two others there is nothing.
    whole = filed.pop(None, None)
    assert whole in {None, b"Subject: half\r\n\r\nonly half\r\n"}
    assert filed == {sent.message_id: sent.content for sent in acknowledged}
