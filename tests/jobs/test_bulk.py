"""Bulk sends: each recipient gets one mail, whatever is paused, canceled, stopped, killed or repeated."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import control, keys, reader
from packmule.jobs.batch_state import NoSuchBatch
from packmule.jobs.client import Client
from packmule.jobs.email.bulk import counts, plan
from packmule.jobs.email.bulk.between import deliver
from packmule.jobs.email.bulk.chunk import email_chunk
from packmule.jobs.email.bulk.counts import NoSuchSend
from packmule.jobs.email.bulk.recipients import TooManyBad
from packmule.jobs.email.bulk.results import chunk_id
from packmule.jobs.email.bulk.send import BulkSend, preview_bulk, send_bulk
from packmule.jobs.email.ledger.names import InvalidKey
from packmule.jobs.email.ledger.run import MOST_AT_ONCE
from packmule.jobs.email.letter import InvalidMessage
from packmule.jobs.email.templating.rendering import InvalidTemplate
from packmule.jobs.job_type import InvalidCall
from packmule.jobs.masking import MASK, masked_call
from packmule.jobs.options import InvalidOption, Options
from packmule.tests.alarm import taken
from packmule.tests.command_line import DEADLINE, CommandLine, complaint, environment_in, until
from packmule.tests.jobs.mail_server import DOT, HANG_UP, MailServer
from packmule.tests.worker.pools import children_of

TEMPLATE = "<p>Hello {{ name }}, this is {{ greeting }}.</p>"


@pytest.fixture
def jobs(client: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """What enqueues in this process, with a template called hello."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "hello.html").write_text(TEMPLATE)
    monkeypatch.setenv("PACKMULE_TEMPLATES", str(tmp_path / "templates"))
    return Client(client).make_default()


@pytest.fixture
def packmule(jobs: Client, server: EmbeddedServer, tmp_path: Path) -> CommandLine:
    """Commands with the same template."""
    changes = {"PACKMULE_TEMPLATES": str(tmp_path / "templates"), "PACKMULE_PROCESSES": "1"}
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, **changes))


@pytest.fixture
def working(packmule: CommandLine) -> Callable[..., object]:
    """Runs a worker that sends to a mail server, as a context; it yields the pool's process."""

    @contextmanager
    def started(mail: MailServer, *words: str, **changes: str) -> Iterator[object]:
        with (
            (packmule.cwd / "worker.log").open("a") as log,
            packmule.started("worker", *words, stderr=log, PACKMULE_MAIL_URL=mail.url, **changes) as process,
        ):
            yield process

    return started


def people(count: int, start: int = 0) -> list[dict[str, object]]:
    return [{"email": f"user{n}@example.org", "name": f"N{n}"} for n in range(start, start + count)]


def sent_to(found: BulkSend, timeout: float = DEADLINE) -> counts.Progress:
    return found.wait(timeout)


@pytest.mark.parametrize("words", [(), ("--threads", "3")])
def test_each_recipient_gets_a_mail_of_its_own(working, jobs, words) -> None:
    with MailServer() as mail, working(mail, *words):
        found = send_bulk(people(120), "For {{ name }}", template="hello", variables={"greeting": "spring"})
        ended = sent_to(found)
    assert (ended.sent, ended.total, ended.waiting, ended.state) == (120, 120, 0, "ended")
    assert Counter(mail.recipients) == Counter(f"user{n}@example.org" for n in range(120))
    by_recipient = {each.recipients[0]: each.content.decode() for each in mail.mails}
    assert "Subject: For N7\r\n" in by_recipient["user7@example.org"]
    assert "Hello N7, this is spring." in by_recipient["user7@example.org"]
    assert (
        len({line for each in by_recipient.values() for line in each.split("\r\n") if "Message-ID" in line})
        == 120
    )
    assert mail.connections <= 3  # one for each process that has sent
    assert found.batch.state().counts.done == 3  # 50 to a chunk


def test_the_results_are_in_the_order_of_the_list(working, jobs, packmule) -> None:
    answers = {
        "RCPT user3@example.org": b"550 5.7.1 not you\r\n",
        "RCPT user61@example.org": b"550 5.1.1 nobody there\r\n",
    }
    with MailServer(answers) as mail, working(mail):
        found = send_bulk(people(70), "Hi", "Soon more.")
        ended = sent_to(found)
    assert (ended.sent, ended.refused, ended.unknown) == (68, 2, 0)
    printed = packmule.output("email", "results", found.id)
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [each["recipient"] for each in rows] == [f"user{n}@example.org" for n in range(70)]
    assert [(n, each["state"]) for n, each in enumerate(rows) if each["state"] != "accepted"] == [
        (3, "refused"),
        (61, "refused"),
    ]
    assert "nobody there" in rows[61]["reply"]
    lines = [
        json.loads(line) for line in packmule.output("email", "results", found.id, "--json").splitlines()
    ]
    assert [each["state"] for each in lines] == [each["state"] for each in rows]
    shown = json.loads(packmule.output("email", "bulk", found.id, "--json"))
    assert (shown["sent"], shown["refused"], shown["id"]) == (68, 2, found.id)
    assert found.id in packmule.output("email", "bulk")


def test_no_spreadsheet_takes_a_result_for_a_formula(working, jobs, packmule) -> None:
    odd = ["=cmd|x@example.org", "+1@example.org", "-2@example.org", "plain@example.org"]
    with MailServer() as mail, working(mail):
        found = send_bulk([{"email": to} for to in odd], "Hi", "Soon more.")
        assert sent_to(found).sent == 4
    rows = list(csv.DictReader(io.StringIO(packmule.output("email", "results", found.id))))
    assert [each["recipient"] for each in rows] == [*(f"'{to}" for to in odd[:3]), odd[3]]
    lines = packmule.output("email", "results", found.id, "--json").splitlines()
    assert [json.loads(line)["recipient"] for line in lines] == odd
    assert mail.recipients == odd


def test_the_same_list_and_mail_is_sent_once(working, jobs, packmule) -> None:
    with MailServer() as mail, working(mail):
        sent_to(send_bulk(people(60), "Hi", "Soon more."))
        again = send_bulk(people(60), "Hi", "Soon more.")
        assert again.report.before.sent == 60
        assert again.report.to_send == 0
        ended = sent_to(again)
        assert (ended.sent, ended.total, len(mail.mails)) == (60, 60, 60)
        more = sent_to(send_bulk(people(80), "Other words", "Soon more.", key=again.report.key))
        assert (more.sent, more.total, len(mail.mails)) == (80, 80, 80)
        assert [each.state for each in again.results()] == ["accepted"] * 60
        sent_to(send_bulk(people(60), "Hi", "Soon more.", key="another"))
    assert Counter(mail.recipients) == Counter(
        {f"user{n}@example.org": 2 if n < 60 else 1 for n in range(80)}
    )


def test_a_list_that_is_sent_meanwhile_is_counted_once(jobs, client, monkeypatch) -> None:
    def look(client, send, recipients):
        before = plan_look(client, send, recipients)
        client.hset(f"pm:mail-counts:{send}", "a", 7)  # another send goes on
        return before

    plan_look = plan.look
    monkeypatch.setattr(plan, "look", look)
    found = send_bulk(people(10), "Hi", "Soon more.").progress()
    assert (found.total, found.sent, found.waiting) == (10, 7, 3)


def test_a_recipient_whose_mail_cant_be_made_is_refused_and_the_others_go_on(working, jobs) -> None:
    some = people(10)
    del some[4]["name"]
    some[7]["name"] = "two\r\nlines"
    with MailServer() as mail, working(mail):
        found = send_bulk(some, "For {{ name }}", template="hello", variables={"greeting": "x"})
        assert [each.error is None for each in found.report.samples] == [True, True, True]
        ended = sent_to(found)
    assert (ended.sent, ended.refused) == (8, 2)
    replies = {each.recipient: each.reply for each in found.results() if each.state == "refused"}
    assert "'name' is not given" in replies["user4@example.org"]
    assert "user7@example.org" in replies


def test_a_worker_without_the_template_refuses_nobody(working, jobs, client, tmp_path) -> None:
    with MailServer() as mail:
        with working(mail, PACKMULE_TEMPLATES=str(tmp_path)):
            found = send_bulk(people(3), "Hi", template="hello", variables={"greeting": "x"})
            ended = sent_to(found)
        assert (ended.refused, ended.waiting) == (0, 3)
        id = chunk_id(found.id, 0)
        assert "there is no hello.html" in (reader.read(client, id).reason or "")
        with working(mail):
            control.retry(client, id)
            assert sent_to(found).sent == 3


def test_what_no_mail_can_come_of_is_refused_before_anything_is_enqueued(jobs, client) -> None:
    for raises, subject, fields in (
        (InvalidTemplate, "Hi", {"template": "nothere"}),
        (InvalidTemplate, "For {{ surname }}", {"template": "hello"}),
        (InvalidMessage, "Hi", {}),
        (InvalidMessage, "Hi", {"body": "Dear {{name}}"}),
        (InvalidMessage, "{{ name }}", {"html": "<p>Dear {{ name | upper }}</p>"}),
        (InvalidMessage, "Hi", {"body": "x", "variables": {"greeting": "x"}}),
        (InvalidMessage, "a\r\nBcc: b@example.org", {"body": "x"}),
        (InvalidMessage, "Hi", {"body": "x", "template": "hello"}),
        (InvalidCall, "Hi", {"body": "x", "headers": 7}),
        (InvalidCall, "Hi", {"body": "x", "nonsense": 7}),
        (InvalidKey, "Hi", {"body": "x", "key": ""}),
        (InvalidOption, "Hi", {"body": "x", "options": Options(job_id="a")}),
        (TooManyBad, "Hi", {"body": "x", "recipients": [*people(3), {"email": "nobody"}]}),
    ):
        with pytest.raises(raises):
            send_bulk(fields.pop("recipients", people(3)), subject, **fields)
    assert client.keys("rq:job:*") == []


def test_a_preview_sends_nothing_and_knows_who_is_suppressed(jobs, client, packmule) -> None:
    from packmule.jobs.email.suppression.store import Suppressions

    Suppressions(client).add("user1@example.org", "asked by phone")
    Suppressions(client).add("example.com", "closed")
    listed = [
        *people(3),
        {"email": "ada@example.com", "name": "Ada"},
        *people(1),
        {"email": "x", "name": "X"},
    ]
    report = preview_bulk(
        listed, "For {{ name }}", template="hello", variables={"greeting": "x"}, max_bad=0.5
    )
    assert (report.checked.recipients, report.checked.duplicates, report.checked.bad) == (4, 1, 1)
    assert (report.before.suppressed, report.to_send) == (2, 2)
    assert [each.subject for each in report.samples] == ["For N0", "For N2", "For Ada"]
    assert report.samples[0].html == "<p>Hello N0, this is x.</p>"
    assert client.keys("rq:job:*") == []


def test_suppressed_recipients_get_nothing(working, jobs, client) -> None:
    from packmule.jobs.email.suppression.store import Suppressions

    Suppressions(client).add("user1@example.org", "asked by phone")
    with MailServer() as mail, working(mail):
        ended = sent_to(send_bulk(people(5), "Hi", "Soon more."))
    assert (ended.sent, ended.suppressed) == (4, 1)
    assert "user1@example.org" not in mail.recipients


def test_who_is_refused_for_now_is_tried_again_and_the_others_not(working, jobs, client) -> None:
    with MailServer({"RCPT user2@example.org": [b"450 later\r\n"]}) as mail, working(mail):
        found = send_bulk(people(4), "Hi", "Soon more.")
        until(lambda: found.progress().deferred == 1, "the one that was refused")
        id = chunk_id(found.id, 0)
        until(lambda: reader.read(client, id).status == "scheduled", "the chunk's retry")
        assert found.progress().sent == 3
        assert found.progress().state == "running"
        control.run_now(client, id)
        ended = sent_to(found)
    assert (ended.sent, ended.deferred) == (4, 0)
    assert Counter(mail.recipients) == Counter(f"user{n}@example.org" for n in range(4))


def slowly(server: MailServer) -> bytes:
    """The answer of a server that takes its time."""
    server.stopped.wait(0.2)
    return b"250 2.0.0 queued\r\n"


def test_a_cancel_lets_the_mail_under_way_end_and_no_other_begin(working, jobs, packmule) -> None:
    with MailServer({DOT: slowly}) as mail, working(mail):
        found = send_bulk(people(100), "Hi", "Soon more.")
        until(lambda: mail.mails, "the first mail")
        found.cancel()
        until(lambda: found.progress().state == "ended", "the end")
        ended = found.progress()
        states = Counter(each.state for each in found.results())
    shown = packmule.output("email", "bulk", found.id)
    assert "not sent " in shown
    assert "waiting" not in shown
    assert (ended.sent, ended.unknown, ended.sending) == (len(mail.mails), 0, 0)
    assert ended.sent < 50
    assert states == {"accepted": ended.sent, "waiting": 100 - ended.sent}


class Interruption(BaseException):
    """What a cancel raises in a job's thread."""


class Carrying:
    """A mailer and a journal: it carries the letters, and hangs in the third."""

    def __init__(self) -> None:
        self.carried: list[str] = []
        self.is_hanging, self.goes_on = threading.Event(), threading.Event()

    def deliver(self, letters, journal) -> None:
        coming = iter(letters)
        letter = next(coming, None)
        while letter is not None:
            ahead = next(coming, None)  # as the real one does
            if journal.begin(letter):
                self.carried.append(letter)
                if len(self.carried) == 3:
                    self.is_hanging.set()
                    assert self.goes_on.wait(DEADLINE)
            letter = ahead

    def begin(self, letter) -> bool:
        return True


def test_an_interruption_bites_within_one_mail() -> None:
    carrying, letters = Carrying(), [f"letter {n}" for n in range(9)]

    def interrupt() -> None:
        carrying.goes_on.set()
        raise Interruption

    def strike() -> None:
        assert carrying.is_hanging.wait(DEADLINE)
        os.kill(os.getpid(), signal.SIGUSR1)

    striking = threading.Thread(target=strike)
    with taken(signal.SIGUSR1, interrupt):
        striking.start()
        with pytest.raises(Interruption):
            deliver(carrying, carrying, letters, lambda: False)
        striking.join()
    assert carrying.carried == letters[:3]


def test_letters_end_where_it_leaves_off() -> None:
    carrying, letters = Carrying(), [f"letter {n}" for n in range(9)]
    asked = iter([False, False, True])
    assert not deliver(carrying, carrying, letters, lambda: next(asked))
    assert carrying.carried == letters[:2]


def test_a_pause_lets_the_mail_under_way_end_and_a_resume_goes_on(working, jobs) -> None:
    with MailServer({DOT: slowly}) as mail, working(mail):
        found = send_bulk(people(100), "Hi", "Soon more.")
        until(lambda: mail.mails, "the first mail")
        assert found.pause()
        until(lambda: not (now := found.progress()).sending and now.state == "paused", "the chunk's return")
        paused = found.progress()
        assert (paused.unknown, paused.sent) == (0, len(mail.mails))
        assert paused.sent < 50  # the chunk did not go on to its end
        mail.answers.clear()
        assert found.resume()
        ended = sent_to(found)
    assert ended.sent == 100
    assert Counter(mail.recipients) == Counter(f"user{n}@example.org" for n in range(100))


def test_a_worker_that_stops_leaves_the_rest_to_the_next(working, jobs) -> None:
    with MailServer({DOT: slowly}) as mail:
        with working(mail) as process:
            found = send_bulk(people(100), "Hi", "Soon more.")
            until(lambda: mail.mails, "the first mail")
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
        left = found.progress()
        assert (left.unknown, left.sent) == (0, len(mail.mails))
        assert left.sent < 100
        mail.answers.clear()
        with working(mail):
            ended = sent_to(found)
    assert ended.sent == 100
    assert Counter(mail.recipients) == Counter(f"user{n}@example.org" for n in range(100))


def test_a_killed_worker_leaves_one_mail_unknown_at_most(working, jobs) -> None:
    with MailServer({DOT: slowly}) as mail, working(mail) as process:
        found = send_bulk(people(100), "Hi", "Soon more.")
        until(lambda: len(mail.mails) > 10, "some mails")
        for child in children_of(process.pid):
            os.kill(child, signal.SIGKILL)
        mail.answers.clear()
        ended = sent_to(found)
    assert ended.unknown <= 1
    assert ended.sent + ended.unknown == 100
    assert max(Counter(mail.recipients).values()) == 1
    assert {each.recipient for each in found.results() if each.state == "accepted"} <= set(mail.recipients)


def test_a_killed_worker_of_a_quick_server_leaves_few_mails_unknown(working, jobs) -> None:
    with MailServer() as mail, working(mail) as process:
        found = send_bulk(people(2_000), "Hi", "Soon more.")
        until(lambda: len(mail.mails) > 200, "some mails")
        for child in children_of(process.pid):
            os.kill(child, signal.SIGKILL)
        ended = sent_to(found)
    assert ended.unknown <= MOST_AT_ONCE
    assert ended.sent + ended.unknown == 2_000
    assert max(Counter(mail.recipients).values()) == 1
    assert {each.recipient for each in found.results() if each.state == "accepted"} <= set(mail.recipients)


def test_a_server_that_is_away_is_tried_again(working, jobs, client) -> None:
    with MailServer({"greeting": [b"421 not now\r\n"] * 2}) as mail, working(mail):
        found = send_bulk(people(3), "Hi", "Soon more.")
        ended = sent_to(found)
    assert ended.sent == 3
    assert Counter(mail.recipients).total() == 3


def test_a_chunk_that_somebody_else_wrote_fails_in_words(working, jobs, client) -> None:
    call = {"key": "k", "mail": {"subject": "Hi", "body": "x"}}
    with MailServer() as mail, working(mail):
        ids = [
            jobs.enqueue(email_chunk, **call, rows=[{"name": "Ada"}]),
            jobs.enqueue(email_chunk, **call, rows=[{"email": 7}]),
            jobs.enqueue(email_chunk, **call, rows=[]),
        ]
        ended = [reader.wait(client, id, DEADLINE) for id in ids]
    assert [each.status for each in ended] == ["failed", "failed", "finished"]
    assert "no address in 'email'" in ended[0].reason
    assert mail.mails == []


def test_secrets_in_variables_are_masked_where_jobs_are_shown(jobs, client) -> None:
    found = send_bulk([{"email": "a@example.org", "reset_token": "s3cret"}], "Hi", "Soon more.")
    info = reader.read(client, chunk_id(found.id, 0))
    _, shown = masked_call(info.name, info.args, info.kwargs)
    assert shown["rows"] == [{"email": "a@example.org", "reset_token": MASK}]


def test_a_list_is_cut_where_jobs_would_be_too_large(jobs, client) -> None:
    wide = [{**each, "text": f"{n}" * 30_000} for n, each in enumerate(people(9))]
    found = send_bulk(wide, "Hi", "Soon more.")
    rows = [
        len(reader.read(client, chunk_id(found.id, number)).kwargs["rows"])
        for number in range(found.batch.state().counts.total)
    ]
    assert sum(rows) == 9
    assert max(rows) <= 6
    assert [each.recipient for each in found.results()] == [f"user{n}@example.org" for n in range(9)]
    assert {each.state for each in found.results()} == {"waiting"}


def test_an_enqueue_that_breaks_off_leaves_nothing_that_is_sent(jobs, client, monkeypatch) -> None:
    calls = iter(range(2))
    sending = Client.send

    def broken(self, *args, **kwargs):
        if next(calls, None) is None:
            raise OSError("gone")
        return sending(self, *args, **kwargs)

    monkeypatch.setattr(Client, "send", broken)
    with pytest.raises(OSError, match="gone"):
        send_bulk(people(200), "Hi", "Soon more.")
    (found,) = counts.latest(client)
    assert found.state == "ended"
    jobs_made = [info for n in range(9) if (info := reader.read_if_there(client, chunk_id(found.id, n)))]
    assert [info.status for info in jobs_made] == ["canceled", "canceled"]


def test_what_is_no_bulk_send_is_refused_in_words(jobs, client, packmule) -> None:
    with pytest.raises(NoSuchSend, match="no bulk send has the id x"):
        counts.progress_of(client, "x")
    client.hset(keys.batch_key("y"), mapping={"created": "1", "mails": b"\xff{"})
    with pytest.raises(NoSuchSend):
        counts.progress_of(client, "y")
    client.set(keys.batch_key("z"), "a string")
    with pytest.raises((NoSuchSend, NoSuchBatch)):
        counts.progress_of(client, "z")
    client.zadd(keys.BATCHES, {"x": 1, "y": 2, "z": 3})
    assert counts.latest(client) == []
    for words in (("bulk", "x"), ("results", "x"), ("bulk", "x", "--wait")):
        assert "no bulk send has the id x" in complaint(packmule.run("email", *words), 2)


def test_a_corrupt_chunk_or_count_stops_no_reader(jobs, client) -> None:
    found = send_bulk(people(120), "Hi", "Soon more.")
    client.hset(keys.job_key(chunk_id(found.id, 0)), "data", b"nonsense")
    client.delete(keys.job_key(chunk_id(found.id, 1)))
    client.hset(f"pm:mail-counts:{counts.facts_of(client, found.id).send}", mapping={"a": "x", "u": "-5"})
    assert len(list(found.results())) == 20
    assert found.progress().sent == 0


def test_a_dry_run_shows_what_would_be_sent(packmule, client, tmp_path) -> None:
    (tmp_path / "list.csv").write_text("E-Mail;name\nada@example.org;Ada\nbad;B\nbob@example.org;Bob\n")
    words = (
        "enqueue",
        "email",
        "--recipients",
        "list.csv",
        "--subject",
        "For {{ name }}",
        "--template",
        "hello",
    )
    more = ("--var", "greeting=spring", "--max-bad", "50%")
    printed = packmule.output(*words, *more, "--dry-run")
    for said in (
        "For Ada",
        "Hello Bob, this is spring.",
        "to send       2",
        "\n\nline",
        "3  ",
        "Nothing was sent",
    ):
        assert said in printed, printed
    report = json.loads(packmule.output(*words, *more, "--dry-run", "--json"))
    assert report["checked"]["bad_rows"][0]["line"] == 3
    assert client.keys("rq:job:*") == []


def test_mistakes_on_the_command_line_are_one_line(packmule, tmp_path) -> None:
    (tmp_path / "list.csv").write_text("email,name\nada@example.org,Ada\nbad,B\n")
    (tmp_path / "latin.csv").write_bytes("email,name\nada@example.org,Ren\xe9\n".encode("latin-1"))
    mail, listed = ("--subject", "Hi", "--body", "x"), ("--recipients", "list.csv")
    any_bad = (*listed, "--max-bad", "1", "--subject", "Hi")
    for words, said in (
        (("--recipients", "gone.csv", *mail), "can't read gone.csv: No such file"),
        ((*listed, *mail), "1 of 2 rows are bad (50 %, and 5 % are allowed): line 3, column email"),
        ((*listed, "--column", "mail", *mail), "has no column 'mail': it has email, name"),
        (("--recipients", "latin.csv", "--encoding", "utf-8", *mail), "latin.csv is not utf-8"),
        (any_bad, "give either a template, or a body"),
        ((*any_bad, "--template", "no"), "there is no no.html"),
        ((*any_bad, "--template", "hello"), "'greeting' is not given; "),
        ((*any_bad, "--template", "hello"), "--var greeting=...); list.csv gives email, name"),
        ((*any_bad, "--body", "Dear {{ name }}"), "are sent as they are, with {{ name }} in them"),
        ((*listed, "--max-bad", "7", *mail), "'7' is not a share: write 5% or 0.05"),
        ((*listed, "--to", "a@example.org", *mail), "give --to, or --recipients without --cc"),
        (("--dry-run", "--to", "a@example.org", *mail), "are for a list: give --recipients"),
        (mail, "give --to, or --recipients without --cc"),
    ):
        done = packmule.run("enqueue", "email", *words)
        assert done.returncode == 2, done
        assert said in done.stderr, (words, done.stderr)
        assert done.stderr.count("\n") == 1, done.stderr


def test_a_list_is_sent_and_followed_from_the_command_line(packmule, working, tmp_path) -> None:
    (tmp_path / "list.csv").write_text(
        "email,name\n" + "".join(f"u{n}@example.org,N\n" for n in range(30)) + "bad,B\n"
    )
    words = (
        "enqueue",
        "email",
        "--recipients",
        "list.csv",
        "--subject",
        "Hi",
        "--body",
        "x",
        "--key",
        "spring",
    )
    with MailServer() as mail, working(mail):
        done = packmule.run(*words, "--wait", "--bad-rows", "bad.jsonl")
        assert (done.returncode, done.stdout) == (0, "30 sent of 30\n"), done
        assert "1 of 31 rows are bad and skipped: line 32, column email" in done.stderr
        assert json.loads((tmp_path / "bad.jsonl").read_text())["line"] == 32
        again = packmule.run(*words, "--wait")
        assert "30 of 30 recipients already got this mail under the key spring" in again.stderr
    assert len(mail.mails) == 30


def test_unknown_mails_are_resolved_and_their_chunk_goes_on(packmule, working, jobs, client) -> None:
    with MailServer({DOT: [None, HANG_UP]}) as mail, working(mail):
        found = send_bulk(people(4), "Hi", "Soon more.")
        ended = sent_to(found)
        assert (ended.sent, ended.unknown) == (3, 1)
        done = packmule.run("email", "bulk", found.id, "--wait")
        assert done.returncode == 1
        assert "nobody knows whether 1 mails arrived" in done.stderr
        packmule.output("email", "resolve", "--batch", found.id, "--not-sent", "--yes")
        ended = sent_to(found)
    assert (ended.sent, ended.unknown) == (4, 0)
    assert packmule.run("email", "bulk", found.id, "--wait").returncode == 0
