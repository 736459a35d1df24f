"""`packmule email list`, `show` and `resolve`, and `packmule suppression`, as people and scripts use them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import context
from packmule.jobs.email import Ledger, Mailer, email
from packmule.tests.command_line import CommandLine, environment_in
from packmule.tests.jobs.mail_server import DOT, HANG_UP, MailServer
from packmule.worker import Worker

ADA, BOB, EVE = "ada@example.org", "bob@example.org", "eve@example.net"


@pytest.fixture
def packmule(server: EmbeddedServer, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url))


@pytest.fixture
def post(client: Redis, produce: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(context, "resources", {})
    with MailServer() as server:
        mailer = Mailer(server.url, "mule@example.org")
        context.provide(mailer, Ledger(client))
        yield server
        mailer.close()


def work(client: Redis) -> None:
    Worker(["high"], connection=client).work(burst=True)


def test_an_unknown_mail_is_listed_shown_and_resolved(packmule, post, client):
    post.answers = {DOT: [HANG_UP, HANG_UP], f"RCPT {EVE}": [b"450 4.2.0 \x1b[31mlater\r\n"]}
    first, second = email.enqueue(ADA, "s", "t"), email.enqueue(BOB, "s", "t")
    waiting = email.enqueue(EVE, "s", "t")
    work(client)
    listed = json.loads(packmule.output("email", "list", "--state", "unknown", "--json"))
    assert {each["recipient"]: each["job"] for each in listed} == {ADA: str(first), BOB: str(second)}
    shown = packmule.output("email", "list")
    assert "450 4.2.0" in shown
    assert "\x1b" not in shown
    assert "in 5 min" in packmule.output("email", "show", waiting)
    assert "1 mail would be resolved: ada@example.org" in packmule.output(
        "email", "resolve", "--address", ADA, "--not-sent", "--dry-run"
    )
    assert "1 mail resolved, 1 jobs run again" in packmule.output("email", "resolve", first, "--not-sent")
    said = packmule.output("email", "resolve", "--domain", "example.org", "--sent", "--yes")
    assert "1 mail resolved" in said
    work(client)
    assert post.recipients == [ADA]
    assert (first.status, second.status) == ("finished", "finished")
    assert packmule.output("email", "list", "--state", "unknown") == "no such mails"
    assert "accepted" in packmule.output("email", "show", second)
    assert "resolved by" in packmule.output("email", "show", second)
    actions = [json.loads(line) for line in packmule.output("audit", "--json").splitlines()]
    assert [each["subject"].get("sent") for each in actions] == [False, True]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("resolve", "x"), "--sent or --not-sent"),
        (("resolve", "--sent"), "name the jobs, or filter the mails, or say --all"),
        (("resolve", "x", "--domain", "y.org", "--sent"), "name the jobs, or filter the mails"),
        (("list", "--state", "accepted"), "'accepted' is not one of"),
        (("list", "--address", "nobody"), "it has no @"),
        (("list", "--after", "1-x"), "cursor"),
        (("show", "nojob"), "no job has the id nojob"),
    ],
)
def test_a_mistake_is_one_line_with_the_way_out(packmule, client, words, said):
    done = packmule.run("email", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_addresses_and_domains_are_suppressed_and_let_go(packmule, client):
    said = packmule.output("suppression", "add", "Ada@Example.org", "spam.example", "--reason", "a trap")
    assert said.splitlines() == ["ada@example.org gets no mail", "spam.example gets no mail"]
    assert "was suppressed already" in packmule.output("suppression", "add", ADA, "--for", "1d")
    assert "a trap" in packmule.output("suppression", "list", "someone@spam.example")
    (one,) = json.loads(packmule.output("suppression", "list", "--domain", "example.org", "--json"))
    assert (one["name"], one["reason"], one["source"], one["until"]) == (ADA, "a trap", "operator", None)
    assert packmule.output("suppression", "list", BOB) == "nobody is suppressed"
    packmule.output("suppression", "remove", ADA)
    done = packmule.run("suppression", "remove", ADA, "x@spam.example")
    assert done.returncode == 2
    assert "its domain is: packmule suppression remove spam.example" in done.stderr


def test_a_list_comes_in_and_goes_out_as_csv(packmule, client, tmp_path):
    given = tmp_path / "given.csv"
    given.write_text(
        "Name,Email,Reason,Until\n"
        'Ada,ada@example.org,"=cmd(""x"")",\n'
        "Bob,not an address,,\n"
        "Eve,eve@example.net,bounced,2199-01-01T00:00:00+00:00\n"
        "Old,old@example.net,over,2001-01-01\n"
        "Bad,bad@example.net,,soon\n"
    )
    done = packmule.run("suppression", "import", str(given))
    assert done.returncode == 1
    assert done.stdout == "2 added, 0 were suppressed already, 1 were over\n"
    assert "line 3: " in done.stderr
    assert "line 6: until 'soon'" in done.stderr
    out = tmp_path / "out.csv"
    packmule.output("suppression", "export", str(out))
    lines = out.read_text().splitlines()
    assert lines[0] == "address,reason,source,since,until"
    assert any(line.startswith("""ada@example.org,"'=cmd(""x"")",import,""") for line in lines)
    client.delete("pm:mail-suppressed")
    assert packmule.output("suppression", "import", str(out)) == "2 added, 0 were suppressed already"
    (ada,) = json.loads(packmule.output("suppression", "list", ADA, "--json"))
    assert ada["reason"] == '=cmd("x")'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"name,city\nx,y\n", "no column of the file is address or email: it has 'name', 'city'"),
        ("Jörg,jörg@example.org\n".encode("latin1"), "the file is not UTF-8"),
        (b"a" * 20_000, "a line has over 10,000 characters"),
        (None, "there is no file"),
    ],
)
def test_a_file_that_is_no_list_is_refused_in_one_line(packmule, client, tmp_path, content, said):
    file = tmp_path / "file.csv"
    if content is not None:
        file.write_bytes(content)
    done = packmule.run("suppression", "import", str(file))
    assert done.returncode == 2
    assert said in done.stderr
    assert client.exists("pm:mail-suppressed") == 0
