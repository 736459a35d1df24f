"""The e-mail job in workers: what is sent once, what waits, what fails, and what resolves unknown mails."""

from __future__ import annotations

import re
import time
from email import message_from_bytes

import pytest
from rq import Queue, Repeat
from rq.serializers import JSONSerializer

from packmule import Batch, job
from packmule.jobs import context, control, reader
from packmule.jobs.client import Client
from packmule.jobs.email import Ledger, Mailer, email
from packmule.jobs.email.bulk.send import send_bulk
from packmule.jobs.email.calls import mails_of_job
from packmule.jobs.email.ledger import Entry, names, run
from packmule.jobs.email.ledger.acts import resolve
from packmule.jobs.email.ledger.channel import Channel
from packmule.jobs.email.ledger.reader import MailFilter, of_message, of_send, search
from packmule.jobs.email.outcome import State
from packmule.jobs.email.suppression.store import Suppressions
from packmule.jobs.handle import JobRaised
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import Storage
from packmule.tests.command_line import free_port
from packmule.tests.jobs.mail_server import DOT, HANG_UP, MailServer
from packmule.tests.jobs.test_mail_providers import FINE, Server, at
from packmule.tests.worker.mail_faults import jobs_of
from packmule.worker import Worker

ADA, BOB, EVE = "ada@example.org", "bob@example.org", "eve@example.org"

pytestmark = pytest.mark.usefixtures("produce")


@job(isolate=True)
def isolated_mail(to: str) -> dict:
    return email(to, "s", "isolated")


@pytest.fixture
def post(client, monkeypatch):
    """A mail server, and what this process's workers need to send to it."""
    monkeypatch.setattr(context, "resources", {})
    with MailServer() as server:
        mailer = Mailer(server.url, "mule@example.org")
        context.provide(mailer, Ledger(client))
        yield server
        mailer.close()


@pytest.fixture
def work(client):
    """Performs what is queued: `work()`."""
    return lambda: Worker(["high", "default", "low"], connection=client).work(burst=True)


def failure(handle) -> str:
    with pytest.raises(JobRaised) as raised:
        handle.result(timeout=0)
    return str(raised.value)


def test_a_key_sends_once_whoever_enqueues_it_again(post, work):
    first = email.enqueue([ADA, BOB], "s", "t", key="order-7")
    work()
    second = email.enqueue([ADA, EVE], "s", "other words", key="order-7")
    third = email.enqueue(ADA, "s", "t", key="order-7")
    work()
    assert post.recipients == [ADA, BOB, EVE]
    assert first.result()["accepted"] == [ADA, BOB]
    assert second.result()["accepted"] == [ADA, EVE]
    assert third.result() == first.result() | {"accepted": [ADA], "bytes": 0}


def test_without_a_key_each_job_sends_and_a_batch_sends_the_same_content_once(post, work):
    for _ in range(2):
        email.enqueue(ADA, "s", "t")
    work()
    assert post.recipients == [ADA, ADA]
    with Batch.create() as batch:
        for to in (BOB, BOB, EVE):
            email.options(batch=batch.id).enqueue(to, "s", "t")
        email.options(batch=batch.id).enqueue(BOB, "s", "other words")
    work()
    assert post.recipients[2:] == [BOB, EVE, BOB]
    assert batch.wait(timeout=0).counts.done == 4


def test_a_later_job_with_the_same_id_sends_anew_and_has_another_message_id(post, work, client):
    ids = []
    for _ in range(2):
        daily = email.options(job_id="daily-report").enqueue(ADA, "s", "t")
        work()
        ids.append(daily.result()["message_id"])
        control.delete(client, daily)
    assert post.recipients == [ADA, ADA]
    assert ids[0] != ids[1]


def test_a_job_that_repeats_sends_each_time(post, work, client):
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    queue.enqueue("packmule.jobs.email.email", ADA, "s", "t", repeat=Repeat(times=2, interval=0))
    work()
    assert post.recipients == [ADA, ADA, ADA]


def test_recipients_that_are_refused_for_now_are_tried_again_and_the_others_are_not(post, work, client):
    post.answers = {
        f"RCPT {BOB}": [b"450 4.2.0 greylisted\r\n", b"451 4.3.0 still\r\n"],
        f"RCPT {EVE}": [b"550 5.7.1 go away\r\n"],
    }
    mail = email.enqueue([ADA, BOB, EVE], "s", "t")
    work()
    info = reader.read(client, mail)
    assert (info.status, info.retries_left) == ("scheduled", 5)
    assert "waiting: 1 of 3 recipients (bob@example.org: 450 4.2.0 greylisted)" in info.error
    assert re.search(r"tried again in (5|4\.\d+) min", info.error)
    assert {entry.recipient: str(entry.state) for entry in mails_of_job(client, mail)} == {
        ADA: "accepted",
        BOB: "deferred",
        EVE: "refused",
    }
    control.run_now(client, mail)
    work()
    assert re.search(r"again in (15|14\.\d) min", reader.read(client, mail).error)
    control.run_now(client, mail)
    work()
    assert post.recipients == [ADA, BOB]
    assert mail.result()["accepted"] == [ADA, BOB]
    assert list(mail.result()["refused"]) == [EVE]
    assert reader.read(client, mail).retries_left == 5


def test_a_server_that_is_away_for_a_moment_is_tried_soon(post, work, client):
    context.provide(Mailer("smtp://127.0.0.1:1", "mule@example.org"))
    mail = email.enqueue(ADA, "s", "t")
    work()
    info = reader.read(client, mail)
    assert (info.status, info.retries_left) == ("scheduled", 5)
    assert "can't reach" in info.error
    assert search(client, MailFilter([State.DEFERRED])).mails[0].recipient == ADA


def test_a_mail_that_is_refused_for_all_fails_and_can_be_tried_again(post, work, client):
    post.answers = {f"RCPT {ADA}": [b"554 5.7.1 relay access denied\r\n"]}
    mail = email.enqueue(ADA, "s", "t")
    work()
    assert "MailRefused" in failure(mail)
    assert "554 5.7.1 relay access denied" in failure(mail)
    control.retry(client, mail)
    work()
    assert mail.result()["accepted"] == [ADA]


def test_suppressed_recipients_get_nothing_and_the_job_says_why(post, work, client):
    Suppressions(client).add(BOB, "unsubscribed", "unsubscribe")
    mail, alone = email.enqueue([ADA, BOB], "s", "t"), email.enqueue(BOB, "s", "t")
    work()
    assert post.recipients == [ADA]
    assert mail.result()["suppressed"] == alone.result()["suppressed"] == {BOB: "unsubscribed"}


def test_an_address_that_does_not_exist_gets_no_other_mail(post, work, client):
    post.answers = {f"RCPT {ADA}": [b"550 5.1.1 no such user\r\n"]}
    email.enqueue(ADA, "s", "t")
    work()
    later = email.enqueue(ADA, "s", "t")
    work()
    assert "5.1.1" in later.result()["suppressed"][ADA]
    assert post.recipients == []


# Unknown mails


def test_a_lost_answer_fails_the_job_with_words_that_say_what_to_do(post, work, client):
    post.answers = {DOT: [HANG_UP]}
    mail = email.enqueue([ADA, BOB], "s", "t")
    work()
    said = failure(mail)
    assert "the mail server's answer is lost for 2 of 2 recipients (ada@example.org: " in said
    assert f"packmule email resolve {mail} --sent, or --not-sent" in said
    control.retry(client, mail)
    work()
    assert "MailUnknown" in failure(mail)
    assert post.recipients == []


@pytest.mark.parametrize("was_sent", [True, False])
def test_a_resolved_mail_lets_its_job_finish(post, work, client, was_sent):
    post.answers = {DOT: [HANG_UP]}
    mail = email.enqueue([ADA, BOB], "s", "t")
    work()
    found = search(client, MailFilter([State.UNKNOWN], job=str(mail))).mails
    done = resolve(client, found, was_sent=was_sent)
    assert (done.done, done.jobs, done.left) == (2, [str(mail)], [])
    work()
    assert mail.result()["accepted"] == [ADA, BOB]
    assert post.recipients == ([] if was_sent else [ADA, BOB])


def test_a_mail_may_be_sent_again_if_its_answer_is_lost(post, work, client):
    post.answers = {DOT: [HANG_UP]}
    mail = email.enqueue(ADA, "s", "t", on_unknown="resend")
    work()
    assert reader.read(client, mail).status == "scheduled"
    control.run_now(client, mail)
    work()
    assert mail.result()["accepted"] == [ADA]
    assert post.recipients == [ADA]


def test_a_message_id_leads_back_to_the_mail(post, work, client):
    single = email.enqueue([ADA, BOB], "s", "t")
    bulk = send_bulk([{"email": EVE}], "s", "t", key="sale")
    work()
    bulk.wait(timeout=0)
    for mail, to in zip(post.mails, (ADA, EVE), strict=True):
        sent = message_from_bytes(mail.content)["message-id"]
        found = of_message(client, sent, to)
        assert (found.recipient, found.state) == (to, State.ACCEPTED)
        for other in ("<x@y>", "", sent.replace("<", "<a")):
            assert of_message(client, other, to) is None
        assert of_message(client, sent, "stranger@example.org") is None
    assert single.result()["accepted"] == [ADA, BOB]


@pytest.fixture
def provider(client, monkeypatch):
    """Resend, whose answers are lost until it is told another one, and what sends to it."""
    monkeypatch.setattr(context, "resources", {})
    with Server(None).running() as server:
        mailer = Mailer(at("resend", server), "mule@example.org")
        context.provide(mailer, Ledger(client))
        yield server
        mailer.close()


def single_in_doubt() -> str:
    return str(email.enqueue([ADA, BOB], "s", "t", key="k"))


def bulk_in_doubt() -> str:
    return next(iter(jobs_of(Client.default().redis, send_bulk([{"email": ADA}], "s", "t", key="k").id)))


def mails_of_key(client) -> list[Entry]:
    return [each for each in of_send(client, names.send_of_key("k"), [ADA, BOB]) if each]


@pytest.mark.parametrize("enqueue", [single_in_doubt, bulk_in_doubt])
@pytest.mark.parametrize("becomes", ["accepted", "unreachable", "suppressed", "another way", "resolved"])
def test_a_mail_in_doubt_is_asked_for_by_the_same_request_or_stays_unknown(
    provider, work, client, enqueue, becomes
):
    mail = enqueue()
    work()
    asked = len(provider.asked)
    assert reader.read(client, mail).status == "scheduled"
    found = mails_of_key(client)
    assert {each.state for each in found} == {State.UNKNOWN}
    assert all(time.time() + 60 < each.due for each in found)
    provider.answers = [FINE["resend"]]
    with MailServer() as other:
        if becomes == "suppressed":
            Suppressions(client).add(found[-1].recipient, "asked by phone")
        elif becomes == "another way":
            context.provide(Mailer(other.url, "mule@example.org"))
        elif becomes == "unreachable":
            context.provide(Mailer(f"resend://KEY?api=http://127.0.0.1:{free_port()}", "mule@example.org"))
        elif becomes == "resolved":
            resolve(client, search(client, MailFilter([State.UNKNOWN])).mails, was_sent=True)
        control.run_now(client, mail)
        work()
        assert other.mails == []
    states = {str(each.state) for each in mails_of_key(client)}
    is_single = enqueue is single_in_doubt
    status, expected = {
        "accepted": ("finished", ["accepted"]),
        "resolved": ("finished", ["accepted"]),
        "unreachable": ("scheduled", ["unknown"]),
        "another way": ("failed", ["unknown"]),
        "suppressed": ("failed", ["suppressed", "unknown"]) if is_single else ("finished", ["suppressed"]),
    }[becomes]
    assert (reader.read(client, mail).status, sorted(states)) == (status, expected)
    assert len(provider.asked) == asked + (becomes == "accepted")


@pytest.mark.parametrize(
    ("options", "calls"), [({}, 2), ({"key": "order-7"}, 2), ({"attachments": ["a"]}, 3)]
)
def test_a_single_mail_takes_two_calls_of_the_ledger(post, work, monkeypatch, tmp_path, options, calls):
    """One reserves and marks it, one records its end; a mail with files is reserved before it's built.

    So is the first mail of a connection, before that opens.
    """
    monkeypatch.setattr(run, "FRESH", 60.0)  # an old mark would be made again
    (tmp_path / "a").write_text("file")
    context.provide(Storage(str(tmp_path)), InputLimits(1, 1000, 1))
    scripts = []
    send = Channel.send
    monkeypatch.setattr(Channel, "send", lambda self, *call: (scripts.append(call[0]), send(self, *call)))
    mails = [email.enqueue(to, "s", "t", **options) for to in (BOB, ADA)]
    work()
    assert [each.result()["accepted"] for each in mails] == [[BOB], [ADA]]
    assert len(scripts) == 3 + calls
    assert post.connections == 1


# Wherever it runs


def test_an_isolated_job_and_one_of_stock_rq_send_once_too(post, work, client):
    mail = isolated_mail.enqueue(ADA)
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    stock = queue.enqueue("packmule.jobs.email.email", BOB, "s", "t", key="k")
    again = queue.enqueue("packmule.jobs.email.email", BOB, "s", "t", key="k")
    work()
    assert mail.result()["accepted"] == [ADA]
    for each in (stock, again):
        assert reader.read(client, each.id).result["accepted"] == [BOB]
    assert sorted(post.recipients) == [ADA, BOB]


@pytest.mark.parametrize("is_bulk", [False, True])
def test_bounces_go_to_the_return_path_of_the_settings_unless_a_mail_names_one(post, work, client, is_bulk):
    mailer = Mailer(post.url, "mule@example.org", return_path="bounces+{to}@example.org")
    context.provide(mailer)
    for number, path in enumerate((None, "other@example.org")):
        if is_bulk:
            send_bulk([{"email": ADA}], "s", "t", key=f"k{number}", return_path=path)
        else:
            email.enqueue(ADA, "s", "t", return_path=path)
    work()
    mailer.close()
    assert sorted(mail.sender for mail in post.mails) == [
        "bounces+ada=example.org@example.org", "other@example.org"
    ]  # fmt: skip


def test_a_return_path_that_is_no_address_is_named_with_its_setting():
    with pytest.raises(ValueError, match=r"^PACKMULE_MAIL_RETURN_PATH: "):
        Mailer("memory://", "mule@example.org", return_path="bounces+{to}")
