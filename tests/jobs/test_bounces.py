"""Bounces and complaints: what they do to mails of ours, and that forged and hostile ones do nothing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis

from packmule.jobs.email import received
from packmule.jobs.email.ledger import Send, names
from packmule.jobs.email.outcome import State
from packmule.jobs.email.received import UnreadableMail
from packmule.jobs.email.suppression import visit
from packmule.jobs.email.suppression.bounces import Kind, reports, take
from packmule.jobs.email.suppression.intake import Intake
from packmule.jobs.email.suppression.store import SOFT_BOUNCES, Suppressions
from packmule.tests.command_line import CommandLine, environment_in
from packmule.tests.jobs.test_mail_ledger import ADA, BOB, LOST, SEND, YES, known, run_of, sent


def message_id(to: str) -> str:
    return f"<{names.mail_id(SEND.name, to)}@example.org>"


def bounce(to: str = ADA, status: str = "5.1.1", action: str = "failed", id: str = "", n: int = 0) -> bytes:
    """A report as Postfix writes it."""
    return f"""\
From: MAILER-DAEMON@mx.example.org
To: <bounces+{to.replace("@", "=")}@example.org>
Subject: Undelivered Mail Returned to Sender
X-Number: {n}
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

This is the mail system.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.org
Arrival-Date: Mon, 30 Nov 2026 12:00:00 +0000

Final-Recipient: rfc822; {to}
Original-Recipient: rfc822;{to}
Action: {action}
Status: {status}
Diagnostic-Code: smtp; 550 {status} <b>no</b> such user

--b
Content-Type: text/rfc822-headers

From: mule@example.org
To: {to}
Message-ID: {id or message_id(to)}

--b--
""".replace("\n", "\r\n").encode()


def complaint(to: str = ADA, type: str = "abuse") -> bytes:
    return f"""\
From: fbl@provider.example
Content-Type: multipart/report; report-type=feedback-report; boundary="b"

--b
Content-Type: text/plain

A complaint.
--b
Content-Type: message/feedback-report

Feedback-Type: {type}
User-Agent: SomeProvider/1.0
Version: 1
Original-Rcpt-To: <{to}>

--b
Content-Type: message/rfc822

From: mule@example.org
To: {to}
Message-ID: {message_id(to)}

Hello
--b--
""".replace("\n", "\r\n").encode()


@pytest.fixture
def mailed(client: Redis) -> Redis:
    """The ledger has sent to Ada and Bob."""
    for number, to in enumerate((ADA, BOB)):
        run = run_of(client, f"j{number}")
        run.reserve([to])
        assert sent(run, YES, to)
    return client


def suppressed(client: Redis) -> dict[str, str]:
    return {each.name: each.source for each in Suppressions(client)}


def test_a_hard_bounce_suppresses_its_recipient_and_nobody_else(mailed):
    assert take(mailed, bounce()).suppressed == [ADA]
    assert suppressed(mailed) == {ADA: "bounce"}
    assert Suppressions(mailed).find(ADA).reason == "5.1.1 550 5.1.1 <b>no</b> such user"
    assert take(mailed, bounce()).suppressed == []


def another_mail(client: Redis, number: int) -> str:
    """The Message-ID of one more mail to Ada."""
    send = Send(names.send_of_key(f"more {number}"), "")
    run = run_of(client, f"more{number}", send=send)
    run.reserve([ADA])
    assert sent(run, YES, ADA)
    return f"<{names.mail_id(send.name, ADA)}@example.org>"


def test_soft_bounces_count_once_for_each_mail_and_suppress_past_a_bound(mailed):
    for number in range(SOFT_BOUNCES - 1):
        id = another_mail(mailed, number)
        for copy in range(3):
            assert take(mailed, bounce(status="5.2.2", n=copy, id=id)).known == [Kind.SOFT]
    assert suppressed(mailed) == {}
    last = bounce(status="4.4.1", id=another_mail(mailed, 99))
    assert take(mailed, last).suppressed == [ADA]
    Suppressions(mailed).remove(ADA)
    assert take(mailed, last).suppressed == [], "a report that was taken suppresses nobody again"


def test_a_bounce_is_noted_and_proves_that_an_unknown_mail_was_sent(client):
    run = run_of(client)
    run.reserve([ADA, BOB])
    assert sent(run, LOST, ADA)
    assert sent(run, YES, BOB)
    take(client, bounce(ADA))
    take(client, bounce(BOB, status="5.2.2"))
    take(client, bounce(BOB, status="5.2.2"))
    assert [known(client, to).state for to in (ADA, BOB)] == [State.ACCEPTED] * 2
    assert known(client, ADA).reply == "bounced: 5.1.1 550 5.1.1 <b>no</b> such user"
    assert known(client, BOB).reply == "bounced: 5.2.2 550 5.2.2 <b>no</b> such user"
    life = client.pttl(names.mail_key(names.mail_id(SEND.name, BOB)))
    assert 0 < life <= 90_000_000, "a note keeps a mail no longer"


@pytest.mark.parametrize(
    ("status", "kind"),
    [("5.1.1", "hard"), ("5.1.10", "hard"), ("5.2.1", "hard"), ("5.1.8", "soft"), ("5.7.1", "soft"),
     ("5.2.2", "soft"), ("4.2.2", "soft"), ("nonsense", "soft"), ("5.1.1 (bad)", "hard")],
)  # fmt: skip
def test_only_addresses_that_do_not_exist_bounce_hard(status, kind):
    assert [each.kind for each in reports(bounce(status=status))] == [kind]


def test_a_delay_and_a_delivery_are_no_bounce(mailed):
    for action in ("delayed", "delivered", "relayed", "expanded", ""):
        assert take(mailed, bounce(action=action)).known == []
    assert suppressed(mailed) == {}


def test_a_complaint_suppresses_and_another_opinion_does_not(mailed):
    assert take(mailed, complaint(type="not-spam")).known == []
    assert take(mailed, complaint()).known == [Kind.COMPLAINT]
    assert suppressed(mailed) == {ADA: "complaint"}


def test_the_return_path_names_the_recipient_if_the_report_names_another(mailed):
    told = bounce().replace(b"rfc822; ada@example.org", b"rfc822; inbox@elsewhere.example")
    told = told.replace(b"rfc822;ada@example.org", b"rfc822;inbox@elsewhere.example")
    assert take(mailed, told).unknown == 1
    assert take(mailed, told, "bounces+{to}@example.org").suppressed == [ADA]


def test_forged_reports_change_nothing(mailed):
    eve = "eve@example.net"
    for forged in (
        bounce(eve), complaint(eve), bounce(BOB, id=message_id(ADA)), bounce(id="<x@example.org>"),
        bounce(id="<" + "a" * 26 + "@example.org>"),
        bounce().replace(b"multipart/report", b"multipart/mixed"), bounce().replace(b"Message-ID", b"X-Id"),
    ):  # fmt: skip
        assert take(mailed, forged).suppressed == []
    assert suppressed(mailed) == {}
    assert not list(mailed.scan_iter("pm:mail-soft:*"))


@pytest.mark.parametrize(
    "hostile",
    [
        b"", b"\x00" * 10_000, b"\xff" * 10_000, bounce().replace(b"ada@", b"\xff\xfe@"),
        b"Content-Type: multipart/report; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 1_000,
        bounce().replace(b"Action:", b"Action: failed\r\n" * 20_000 + b"Action:"),
        b"Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\n"
        + b"Content-Type: message/delivery-status\r\n\r\n"
        + b"Final-Recipient: rfc822; x@example.org\r\nAction: failed\r\n\r\n" * 50_000,
        b"Content-Type: message/rfc822\r\n\r\n" * 3_000,
        bounce().replace(b"text/plain\r\n\r\nThis", b"text/plain; charset*=utf-7''x\r\n\r\n\xff"),
    ],
    ids=range(9),
)  # fmt: skip
def test_hostile_mails_change_nothing(mailed, hostile):
    with suppress(UnreadableMail):
        take(mailed, hostile)
    assert set(suppressed(mailed)) <= {ADA}
    assert not set(suppressed(mailed)) - {ADA}


@pytest.mark.parametrize(
    "costly",
    [
        b'Content-Type: multipart/report; a="' + b";" * 2_000_000 + b"\r\n\r\nx",
        b"A: b\rcontent-disposition: a" + b";\r\n b=c" * 500_000 + b"\r\n\r\nx",
        b"".join(b"Content-Type: multipart/a; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(900))
        + b"x\r\n" * 500_000,
        b"Content-Type: message/delivery-status\r\n\r\n" + b"a: b\r\n\r\n" * 900_000,
    ],
    ids=["semicolons", "parameters", "nested", "blocks"],
)
def test_a_mail_that_would_take_minutes_is_not_taken_apart(costly):
    with pytest.raises(UnreadableMail, match="too long"):
        received.read(costly)


def test_a_mail_whose_charset_makes_no_sense_is_shown():
    mail = received.read(b"Content-Type: text/plain; charset*=utf-7''x\r\n\r\nGr\xc3\xbc\xc3\x9fe")
    assert mail.text == "Grüße"


def test_a_mail_of_a_hundred_thousand_parts_is_not_taken_apart(mailed):
    parts = b"Content-Type: multipart/report; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 100_000
    with pytest.raises(UnreadableMail, match="lines that may begin a part"):
        take(mailed, parts)


def test_each_mail_of_a_maildir_is_read_once(mailed, tmp_path: Path):
    for folder in ("new", "cur", "tmp"):
        (tmp_path / folder).mkdir()
    (tmp_path / "new" / "1.a").write_bytes(bounce())
    (tmp_path / "new" / "2.b").write_bytes(b"Subject: on holiday\r\n\r\nBack soon.")
    (tmp_path / "new" / "3.c").write_bytes(b"--\n" * 3_000)
    (tmp_path / "new" / "4.d").symlink_to("/etc/passwd")
    intake = Intake(mailed)
    intake.take_from(str(tmp_path))
    assert (intake.mails, intake.unreadable, intake.suppressed) == (3, 1, [ADA])
    assert sorted(each.name for each in (tmp_path / "cur").iterdir()) == ["1.a:2,S", "2.b:2,S", "3.c:2,S"]
    again = Intake(mailed)
    again.take_from(str(tmp_path))
    assert again.mails == 0


@pytest.mark.parametrize(
    ("bound", "most", "taken"), [("SECONDS", -1.0, 0), ("MOST_MAILS", 2, 2), ("MOST_BYTES", 1_000, 2)]
)
def test_a_visit_of_a_maildir_is_bounded_and_the_next_goes_on(
    mailed, tmp_path: Path, monkeypatch, bound, most, taken
):
    (tmp_path / "new").mkdir()
    for number in range(3):
        (tmp_path / "new" / f"{number}").write_bytes(bounce())
    monkeypatch.setattr(visit, bound, most)
    intake = Intake(mailed)
    intake.take_from(str(tmp_path))
    assert (intake.mails, intake.unfinished) == (taken, [str(tmp_path)])
    assert sorted(each.name for each in (tmp_path / "new").iterdir()) == ["0", "1", "2"][taken:]
    monkeypatch.undo()
    again = Intake(mailed)
    again.take_from(str(tmp_path))
    assert (again.mails, again.unfinished) == (3 - taken, [])


def test_a_mail_whose_reader_died_before_it_was_moved_counts_once(mailed, tmp_path: Path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(self, target):
        raise Killed

    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "1").write_bytes(bounce())
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Path, "rename", die)
        Intake(mailed).take_from(str(tmp_path))
    Suppressions(mailed).remove(ADA)
    again = Intake(mailed)
    again.take_from(str(tmp_path))
    assert (again.mails, suppressed(mailed)) == (1, {})
    assert [each.name for each in (tmp_path / "cur").iterdir()] == ["1:2,S"]


def test_a_file_that_cannot_be_read_keeps_nobody_from_the_others(mailed, tmp_path: Path, monkeypatch):
    (tmp_path / "new").mkdir()
    for name in ("1", "2"):
        (tmp_path / "new" / name).write_bytes(bounce())
    opened = Path.open

    def refuse(self, *args, **kwargs):
        if self.name == "1":
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    intake = Intake(mailed)
    intake.take_from(str(tmp_path))
    assert (intake.mails, intake.suppressed, intake.reasons) == (1, [ADA], ["1: Permission denied"])
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["1"]


def test_the_command_says_what_it_has_done(mailed, server, tmp_path: Path):
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url))
    (tmp_path / "bounce.eml").write_bytes(bounce())
    said = packmule.output("email", "intake", str(tmp_path / "bounce.eml"))
    assert said.startswith("1 mail: 1 hard and ")
    assert "1 hard and 0 soft bounces" in said
    assert "1 addresses suppressed" in said
    failed = packmule.run("email", "intake", str(tmp_path / "nothing"))
    assert failed.returncode == 2
    assert "No such file" in failed.stderr
