"""`packmule email list`, `show` and `resolve`, and `packmule suppression`, as people and scripts use them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from redis import Redis
from rich.console import Console

from packmule.cli import cli
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import context
from packmule.jobs.email import Ledger, Mailer, email
from packmule.jobs.email.received import read as received_mail
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import Storage
from packmule.terminal import show
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


def printed(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """What a command prints on a terminal of 80 columns."""
    screen = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, markup=False)
    monkeypatch.setattr(show, "out", screen)
    monkeypatch.setenv("PACKMULE_REDIS_URL", server.url)
    cli.main([*words], prog_name="packmule", standalone_mode=False)
    return screen.file.getvalue()  # type: ignore[attr-defined]


def test_lists_of_mails_fit_into_80_columns_and_name_jobs_by_what_finds_them(
    server, packmule, post, client, monkeypatch
):
    post.answers = {DOT: [HANG_UP]}
    mail = str(email.enqueue("robert.oppenheimer@mail.department.example.org", "s", "t"))
    work(client)
    client.hset("pm:mail-suppressed", "a" * 5000, b"garbage")
    beginning = mail[:8]
    for words in (["list"], ["show", beginning], ["list", "--job", beginning]):
        shown = printed(server, monkeypatch, "email", *words)
        assert max(map(len, shown.splitlines())) <= 80
        assert f" {beginning}… " in shown
    (listed,) = json.loads(packmule.output("email", "show", beginning, "--json"))
    assert listed["job"] == mail
    assert "1 mail resolved" in packmule.output("email", "resolve", beginning, "--sent")
    assert len(printed(server, monkeypatch, "suppression", "list").splitlines()) < 6


def test_a_folder_of_templates_that_is_not_there_is_named_with_its_setting(packmule, tmp_path):
    for words in (("preview", "order"), ("lint", "order")):
        done = packmule.run("email", *words, PACKMULE_TEMPLATES=str(tmp_path / "gone"))
        assert (done.returncode, done.stderr) == (
            2, f"packmule: template 'order': PACKMULE_TEMPLATES={tmp_path / 'gone'} is not a folder\n"
        )  # fmt: skip


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
    (due,) = json.loads(packmule.output("email", "show", waiting, "--json"))
    assert due["changed"] + 290 < due["due"] < due["changed"] + 310
    assert "1 mail would be resolved: ada@example.org" in packmule.output(
        "email", "resolve", "--address", ADA, "--not-sent", "--dry-run"
    )
    assert "1 mail resolved, 1 job runs again" in packmule.output("email", "resolve", first, "--not-sent")
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
    left = packmule.run("email", "resolve", first, "--sent")
    assert (left.returncode, left.stdout) == (1, "none of these mails is unknown\n")


def test_a_mail_is_shown_by_its_key_or_its_message_id_when_its_job_is_gone(packmule, post, client):
    handle = email.enqueue([ADA, BOB], "s", "t", key="order-7")
    work(client)
    id = handle.result()["message_id"]
    client.delete(f"rq:job:{handle}")
    shown = packmule.output("email", "show", "--key", "order-7", "--to", ADA, "--to", EVE)
    assert (ADA in shown, "accepted" in shown, BOB in shown, EVE in shown) == (True, True, False, False)
    (found,) = json.loads(packmule.output("email", "show", "--message-id", id, "--to", BOB, "--json"))
    assert (found["recipient"], found["state"]) == (BOB, "accepted")
    assert packmule.output("email", "show", "--key", "other", "--to", ADA) == "the ledger has no such mail"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show",), "name a job; or a --key or --message-id"),
        (("show", "--key", "x"), "--to for each recipient"),
        (("show", "x", "--to", "ada@example.org"), "name a job; or a --key"),
        (("show", "--key", "x", "--to", "ada"), "it has no @"),
        (("resolve", "x"), "--sent or --not-sent"),
        (("resolve", "x", "--sent", "--not-sent"), "--sent or --not-sent"),
        (("resolve", "--sent"), "name the jobs, filter the mails, or give --all"),
        (("resolve", "x", "--domain", "y.org", "--sent"), "name the jobs, filter the mails"),
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
    assert "was already suppressed" in packmule.output("suppression", "add", ADA, "--for", "1d")
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
    assert done.stdout == "2 added, 0 were already suppressed, 1 had expired\n"
    assert "line 3: " in done.stderr
    assert "line 6: until 'soon'" in done.stderr
    out = tmp_path / "out.csv"
    packmule.output("suppression", "export", str(out))
    lines = out.read_text().splitlines()
    assert lines[0] == "address,reason,source,since,until"
    assert any(line.startswith("""ada@example.org,"'=cmd(""x"")",import,""") for line in lines)
    client.delete("pm:mail-suppressed")
    assert packmule.output("suppression", "import", str(out)) == "2 added, 0 were already suppressed"
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


def test_a_mail_has_all_that_the_options_say(packmule, post, client, tmp_path):
    (tmp_path / "logo.png").write_bytes(b"a picture")
    (tmp_path / "terms.txt").write_text("terms")
    id = packmule.output(
        "enqueue", "email", "--to", ADA, "--cc", BOB, "--subject", "s", "--reply-to", BOB, "--reply-to", EVE,
        "--html", '<img src="cid:logo">', "--image", f"logo={tmp_path / 'logo.png'}",
        "--attach", str(tmp_path / "terms.txt"), "--header", "X-Campaign=spring=27",
        "--tag", "a", "--tag", "b",
        "--metadata", "order=7", "--unsubscribe", "https://example.org/u", "--unsubscribe", f"mailto:{EVE}",
        "--return-path", "bounces@example.org", "--give-up-after", "1h", "--key", "order-7",
    )  # fmt: skip
    call = json.loads(packmule.output("job", "show", id, "--json"))["kwargs"]
    assert call | {"images": 0, "attachments": 0} == {
        "to": [ADA], "cc": [BOB], "subject": "s", "reply_to": [BOB, EVE], "html": '<img src="cid:logo">',
        "headers": {"X-Campaign": "spring=27"}, "tags": ["a", "b"], "metadata": {"order": "7"},
        "key": "order-7",
        "unsubscribe": ["https://example.org/u", f"mailto:{EVE}"], "return_path": "bounces@example.org",
        "give_up_after": 3_600.0, "images": 0, "attachments": 0,
    }  # fmt: skip
    context.provide(Storage(str(packmule.data_dir / "files")), InputLimits(1_000, 1_000, 1_000))
    work(client)
    (mail,) = post.mails
    assert (mail.sender, mail.recipients) == ("bounces@example.org", [ADA, BOB])
    received = received_mail(mail.content)
    assert received.header("X-Campaign") == "spring=27"
    assert received.header("Reply-To") == f"{BOB}, {EVE}"
    assert [(part.cid, part.content) for part in received.parts] == [("logo", b"a picture"), ("", b"terms")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--header", "X-Campaign: spring"), "--header: 'X-Campaign: spring' is not NAME=VALUE"),
        (("--header", "Bcc=eve@example.net"), "Bcc"),
        (("--header", "X-A=b\nBcc: eve@example.net"), "a header is one line of text"),
        (("--image", "logo"), "--image: 'logo' is not NAME=VALUE"),
        (("--image", "logo=/nowhere"), "images are shown by the HTML of a mail"),
        (("--html", "x", "--image", "logo=/nowhere"), "there is no file /nowhere; store:PATH names one"),
        (("--html", "x", "--image", "lo go=/nowhere"), "the image's name 'lo go' may have only letters"),
        (("--unsubscribe", "http://example.org"), "give https://... (readers post to it) or mailto:..."),
        (("--return-path", "nobody"), "nobody"),
        (("--reply-to", "nobody"), "'nobody' is not an email address: it has no @"),
        (("--tag", ""), "has 1 to 100 characters"),
        (("--metadata", "=x"), "--metadata: '=x' is not NAME=VALUE"),
        (("--give-up-after", "soon"), "'soon' is not"),
        (("--give-up-after", "31d"), "give seconds from 0 to 2,592,000"),
        (("--key", ""), "key"),
    ],
)
def test_a_wrong_option_of_a_mail_is_one_line_and_enqueues_nothing(packmule, client, tmp_path, words, said):
    done = packmule.run("enqueue", "email", "--to", ADA, "--subject", "s", "--body", "t", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not client.exists("rq:queue:high")


def test_a_list_gets_headers_and_images_too(packmule, client, tmp_path):
    (tmp_path / "list.csv").write_text("email\nada@example.org\nbob@example.org\n")
    (tmp_path / "logo.png").write_bytes(b"a picture")
    id = packmule.output(
        "enqueue", "email", "--recipients", str(tmp_path / "list.csv"), "--subject", "s",
        "--html", '<img src="cid:logo">', "--image", f"logo={tmp_path / 'logo.png'}", "--header", "X-A=b",
    ).splitlines()[-1]  # fmt: skip
    chunk = json.loads(packmule.output("job", "list", "--json", "--limit", "1"))[0]
    assert id
    mail = json.loads(packmule.output("job", "show", chunk["id"], "--json"))
    assert "X-A" in json.dumps(mail)
    assert "logo" in json.dumps(mail)
