"""The email job against real SMTP servers: what arrives, what is refused, and how connections are kept."""

import base64
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.utils import getaddresses
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from packmule.jobs import context, current, registry
from packmule.jobs.email import (
    InsecureServer,
    InvalidAddress,
    InvalidMessage,
    InvalidServer,
    InvalidTemplate,
    Mailer,
    MailRefused,
    TemporaryFailure,
    address,
    email,
)
from packmule.jobs.email.message.plaintext import plaintext
from packmule.jobs.email.templating.allowance import MAX_OUTPUT
from packmule.jobs.email.templating.rendering import Renderer
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job_type import InvalidCall
from packmule.jobs.storage import Storage
from packmule.tests.jobs.mail_server import MailServer
from packmule.tests.worker.pools import until

PASSWORD = "s3cret-pass"


class Post:
    """A handler that keeps what arrives and replies as configured."""

    def __init__(self, **replies):
        self.replies = replies
        self.mails = []
        self.peers = []
        self.transports = []
        self.encrypted = []

    @property
    def parsed(self):
        return [
            message_from_bytes(content.replace(b"\r\n", b"\n"), policy=policy.default)
            for _, _, content in self.mails
        ]

    async def handle_EHLO(self, server, session, envelope, hostname, responses):  # noqa: N802
        session.host_name = hostname
        self.transports.append(server.transport)
        return responses

    async def handle_MAIL(self, server, session, envelope, sender, options):  # noqa: N802
        if reply := self.replies.get("MAIL"):
            return reply
        envelope.mail_from = sender
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, recipient, options):  # noqa: N802
        if reply := self.replies.get(recipient):
            return reply
        envelope.rcpt_tos.append(recipient)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        if reply := self.replies.get("DATA"):
            return reply
        self.mails.append((envelope.mail_from, list(envelope.rcpt_tos), envelope.original_content))
        self.peers.append(session.peer)
        self.encrypted.append(session.ssl is not None)
        return "250 OK"


class Listening(Controller):
    """A server on a free port."""

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()

    def hang_up(self, last_words=b""):
        """Close every connection, as a server does with idle ones; returns when that is done."""
        done = threading.Event()

        def close():
            for transport in self.handler.transports:
                transport.write(last_words)
                transport.close()
            self.loop.call_soon(done.set)

        self.loop.call_soon_threadsafe(close)
        assert done.wait(60)


@pytest.fixture
def listen():
    """Starts servers: `listen(Post(), **options of aiosmtpd)` returns one with a `port`."""
    servers = []

    def start(post, hostname="127.0.0.1", **options):
        server = Listening(post, hostname, 0, ready_timeout=60, **options)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def worker(monkeypatch, tmp_path):
    """Acts as a worker: `worker(url)` provides its resources and returns the mailer."""
    monkeypatch.setattr(context, "resources", {})
    mailers = []

    def lend(url, templates=None, attachment_bytes=1_000_000):
        mailer = Mailer(url, "Packmule <mule@example.org>", str(templates) if templates else None)
        context.provide(mailer, Storage(str(tmp_path / "files")), InputLimits(1, attachment_bytes, 1))
        mailers.append(mailer)
        return mailer

    yield lend
    for mailer in mailers:
        mailer.close()


@pytest.fixture
def post(listen, worker):
    """A plain server that accepts everything, and a worker that sends to it."""
    handler = Post()
    server = listen(handler)
    handler.server = server
    handler.mailer = worker(f"smtp://127.0.0.1:{server.port}")
    return handler


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate of 127.0.0.1: (certificate, key)."""
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=mail"
    )
    subprocess.run(
        [
            *command.split(),
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def tls(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


def performed(job_id, *args, **kwargs):
    """Run the email job as a worker does: (result, progress reports)."""
    reports = []
    with context.Running(job_id, 1, lambda *report: reports.append(report)):
        return email(*args, **kwargs), reports


# What arrives


def test_a_mail_arrives_with_text_html_and_attachments_unchanged(post, tmp_path):
    storage = current.resource(Storage)
    files = {"uploads/Übersicht.csv": b"a;b\r\n1;2\n\r.\r\n", "uploads/blob.bin": bytes(range(256)) * 300}
    for path, content in files.items():
        storage.write_bytes(path, content)
    result = email(
        "Jörg Müller <joerg@example.org>",
        "Grüße, zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich – und zurück 🐫",
        "Guten Tag\n.\n..\nÄrger\n",
        html="<p>Ärger</p>",
        attachments=list(files),
    )
    (sender, recipients, content), mail = post.mails[0], post.parsed[0]
    assert (sender, recipients) == ("mule@example.org", ["joerg@example.org"])
    assert (
        mail["subject"]
        == "Grüße, zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich – und zurück 🐫"
    )
    assert mail["to"].addresses[0].display_name == "Jörg Müller"
    assert mail["from"] == "Packmule <mule@example.org>"
    assert mail["date"].datetime.tzinfo is not None
    assert mail.get_body(("plain",)).get_content() == "Guten Tag\n.\n..\nÄrger\n"
    assert mail.get_body(("html",)).get_content() == "<p>Ärger</p>\n"
    got = {part.get_filename(): part.get_payload(decode=True) for part in mail.iter_attachments()}
    assert got == {Path(path).name: content for path, content in files.items()}
    assert [part.get_content_type() for part in mail.iter_attachments()] == [
        "text/csv",
        "application/octet-stream",
    ]
    assert content.isascii()
    assert result == {
        "message_id": mail["message-id"],
        "accepted": ["joerg@example.org"],
        "refused": {},
        "suppressed": {},
        "bytes": len(content),
    }


def test_blind_copies_are_sent_and_not_shown(post):
    email(
        ["a@example.org", "b@example.org"],
        "s",
        "t",
        cc="c@example.org",
        bcc="blind@example.org",
        reply_to="r@example.org",
    )
    assert post.mails[0][1] == [f"{name}@example.org" for name in ("a", "b", "c", "blind")]
    mail = post.parsed[0]
    assert (mail["to"], mail["cc"], mail["reply-to"]) == (
        "a@example.org, b@example.org",
        "c@example.org",
        "r@example.org",
    )
    assert b"blind@example.org" not in post.mails[0][2]


@pytest.mark.parametrize(
    "name",
    [
        "Geschäftsführung, Abteilung für außerordentlich lange Bezeichnungen (Überprüfung), Zürich",
        "Müller, Ada",
        'A very long "quoted" name, evil@example.org, that goes beyond the seventy-eighth column of its line',
        "短い名前、とても長い名前のために折り返される必要がある表示名です、はい",
        "=?utf-8?q?not_encoded?=",
        "a" * 300,
    ],
)
def test_any_display_name_stays_one_name_of_one_address(post, name):
    escaped = name.replace('"', '\\"')
    email(
        [f'"{escaped}" <ada@example.org>', "bob@example.org"],
        "s",
        "t",
        sender=f'"{escaped}" <mule@example.org>',
    )
    raw = message_from_bytes(post.mails[0][2])
    for header, others in (("To", ["bob@example.org"]), ("From", [])):
        # Addresses are separated before encoded words are decoded, as any mail reader must do.
        ((encoded, spec), *rest) = getaddresses([raw[header].replace("\r\n", "")])
        assert str(make_header(decode_header(encoded))) == name
        assert spec in {"ada@example.org", "mule@example.org"}
        assert [other for _, other in rest] == others


@pytest.mark.parametrize(
    "name", ['a"b;c=d, e.txt', "long; with = signs, commas " * 5 + ".csv", "ü" * 80 + ".csv", "=??Q??="]
)
def test_any_attachment_name_arrives(post, name):
    current.resource(Storage).write_bytes(name, b"x")
    email("a@example.org", "s", "t", attachments=[name])
    assert [part.get_filename() for part in post.parsed[0].iter_attachments()] == [name]


def test_a_non_ascii_domain_is_sent_as_idna(post):
    email("ada@bücher.example", "s", "t")
    assert post.mails[0][1] == ["ada@xn--bcher-kva.example"]


def test_a_non_ascii_local_part_is_sent_if_the_server_offers_smtputf8(post):
    email("jörg@example.org", "s", "t")
    assert post.mails[0][1] == ["jörg@example.org"]
    assert "jörg@example.org".encode() in post.mails[0][2]
    email("ada@example.org", "s", "t")
    assert post.mails[1][2].isascii()


def test_a_non_ascii_local_part_is_refused_if_the_server_does_not(listen, worker):
    server = listen(Post(), enable_SMTPUTF8=False)
    worker(f"smtp://127.0.0.1:{server.port}")
    with pytest.raises(MailRefused, match="only ASCII before the @"):
        email("jörg@example.org", "s", "t")
    assert server.handler.mails == []


def test_a_rerun_keeps_the_message_id_and_another_mail_has_another(post):
    ids = [performed(job, "a@example.org", "s", body)[0]["message_id"] for job, body in
           [("j1", "t"), ("j1", "t"), ("j2", "t"), ("j1", "u")]]  # fmt: skip
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert email("a@example.org", "s", "t")["message_id"] != email("a@example.org", "s", "t")["message_id"]
    assert all(sent.endswith("@example.org>") for sent in ids)


@pytest.mark.usefixtures("unhurried")
def test_a_mail_that_is_sent_at_once_reports_no_progress(post):
    _, reports = performed("j1", "a@example.org", "s", "t")
    assert reports == []


def test_progress_counts_to_three_while_a_mail_takes_its_time(worker):
    reports: list[tuple] = []

    def think(server: MailServer) -> bytes:
        until(lambda: reports)
        return b"220 mail.test ESMTP\r\n"

    with MailServer({"greeting": think}) as slow:
        worker(slow.url)
        with context.Running("j1", 1, lambda *report: reports.append(report)):
            email("a@example.org", "s", "t")
    assert (reports[0][0] < 3, reports[0][1]) == (True, 3)
    assert reports[-1] == (3, 3, "sent")


def test_the_job_is_registered_under_its_dotted_name_and_checks_its_call():
    job_type = registry.find("packmule.jobs.email.email")
    assert (job_type.options.queue, job_type.options.timeout, job_type.options.retries) == ("high", 60, 5)
    job_type.validate(["a@example.org", "s"], {"template": "welcome", "variables": {"name": "Ada"}})
    with pytest.raises(InvalidCall, match="to"):
        job_type.validate([7, "s"], {})


# What is refused before anything is sent


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ada@example.org", "ada@example.org"),
        ("  Ada <ada@Example.ORG> ", "Ada <ada@example.org>"),
        ('"Doe, Ada" <ada@example.org>', '"Doe, Ada" <ada@example.org>'),
        ("packmule@localhost", "packmule@localhost"),
        ("first.last+tag@sub.example.org", "first.last+tag@sub.example.org"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
    ],
)
def test_a_valid_address_is_accepted(text, shown):
    assert address(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "nobody", "", "@", "a@", "@b", "a b@example.org", "a@b@example.org", ".a@example.org",
        "a..b@example.org", "a@exa mple.org", "a@-example.org", "a@example..org", "a@example.org.",
        "a@[127.0.0.1]", "<a@example.org", "a@example.org, b@example.org", "Doe, Ada <ada@example.org>",
        "x@example.org, Bob <b@example.org>", "a@example.org\nBcc: b@example.org",
        "Ada\r\nBcc: b@example.org <a@example.org>", "a\x00@example.org", "Ada\u2028<a@example.org>",
        "\ud800@example.org", "a" * 65 + "@example.org", "a@" + "b" * 100_000,
        "a@" + ".".join(["b" * 60] * 5), "a" * 501 + " <a@example.org>",
    ],
)  # fmt: skip
def test_an_invalid_address_is_refused_in_one_line(text):
    with pytest.raises(InvalidAddress, match="is not an email address: ") as refused:
        address(text)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nobody", "it has no @; write name@example.org"),
        ("ada@", "after the @ it needs a domain such as example.org"),
        ("a@example.org,b@example.org", "it has more than one @; give one address at a time"),
        ("A <a@example.org>; B <b@example.org>", "it has more than one @; give one address at a time"),
    ],
)
def test_the_refusal_of_an_address_says_why(text, why):
    with pytest.raises(InvalidAddress) as refused:
        address(text)
    assert str(refused.value) == f"{text!r} is not an email address: {why}"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\x00"])
def test_a_header_cannot_be_injected(post, end):
    injected = f"Hello{end}Bcc: evil@example.org"
    for kwargs in (
        {"to": "a@example.org", "subject": injected},
        {"to": "a@example.org", "subject": "{{ x }}", "variables": {"x": injected}},
        {"to": f"a@example.org{end}", "subject": "s"},
        {"to": "a@example.org", "subject": "s", "sender": f"{injected} <a@example.org>"},
        {"to": "a@example.org", "subject": "s", "reply_to": f"{injected} <a@example.org>"},
    ):
        with pytest.raises((InvalidMessage, InvalidAddress)):
            email(**kwargs, body="t")
    assert post.mails == []


def test_a_lone_surrogate_is_refused(post):
    for kwargs in ({"body": "a\n\n\ud800b"}, {"html": "\ud800"}):
        with pytest.raises(
            InvalidMessage, match=r"'\\ud800', a lone surrogate, which is half of a character"
        ):
            email("a@example.org", "s", **kwargs)


def test_a_mail_takes_its_content_from_one_source(post):
    for kwargs in ({}, {"body": "t", "template": "welcome"}, {"html": "t", "template": "welcome"}):
        with pytest.raises(InvalidMessage, match="either a template, or a body"):
            email("a@example.org", "s", **kwargs)
    with pytest.raises(InvalidMessage, match="sent as they are"):
        email("a@example.org", "s", "Hello {{ name }}", variables={"name": "Ada"})


def test_a_mail_to_nobody_is_refused(post):
    with pytest.raises(InvalidMessage, match="at least one address"):
        email([], "s", "t")


def test_attachments_over_the_limit_in_total_are_refused(post, worker):
    worker(f"smtp://127.0.0.1:{post.server.port}", attachment_bytes=100)
    for name in "ab":
        current.resource(Storage).write_bytes(f"{name}.txt", b"x" * 60)
    with pytest.raises(
        InvalidMessage, match=r"120 bytes in total, over the limit of 100.*PACKMULE_MAX_ATTACHMENT_BYTES"
    ):
        email("a@example.org", "s", "t", attachments=["a.txt", "b.txt"])
    email("a@example.org", "s", "t", attachments=["a.txt"])
    assert len(post.mails) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"body": None}, "give either a template, or a body"),
        ({"template": "welcome"}, "give either a template, or a body"),
        ({"variables": {"name": "Ada"}}, "variables need a template"),
        ({"to": "nobody"}, "'nobody' is not an email address"),
        ({"to": []}, "at least one address"),
        ({"to": [f"{n}@example.org" for n in range(10_000)]}, "10,000 addresses, over the limit of 500"),
        ({"cc": "a@example.org\nBcc: b@example.org"}, "is not an email address"),
        ({"sender": "x"}, "'x' is not an email address"),
        ({"subject": "a\r\nBcc: b@example.org"}, "a header is one line"),
        ({"body": None, "template": "../secret"}, "give the name of a file"),
        ({"headers": {"Bcc": "b@example.org"}}, "the header 'Bcc' can't be set"),
        ({"headers": {"X-A": "a\r\nBcc: b"}}, "a header is one line"),
        ({"unsubscribe": "http://example.org/u"}, "unsubscribe="),
        ({"return_path": "nobody"}, "is not an email address"),
        ({"images": {"logo": "logo.png"}}, "shown by the HTML"),
        ({"html": "<img src=cid:a>", "images": {"a b": "logo.png"}}, "the image's name 'a b'"),
        ({"tags": ["a"] * 11}, "at most 10 tags"),
    ],
)
def test_a_call_that_no_mail_can_come_of_fails_at_enqueue(change, said):
    call = {"to": "a@example.org", "subject": "s", "body": "t"} | change
    with pytest.raises(InvalidCall, match="^packmule.jobs.email.email: .*" + re.escape(said)) as refused:
        email.job.validate((), call)
    assert "\n" not in str(refused.value)


# Templates


def test_the_shipped_template_is_rendered_with_html_escaped_and_text_not(post):
    email("a@example.org", "For {{ name }}", template="welcome", variables={"name": "<b>Ada & Co</b>"})
    mail = post.parsed[0]
    assert mail["subject"] == "For <b>Ada & Co</b>"
    assert "Welcome, &lt;b&gt;Ada &amp; Co&lt;/b&gt;!" in mail.get_body(("html",)).get_content()
    assert "Welcome, <b>Ada & Co</b>!" in mail.get_body(("plain",)).get_content()


def test_the_users_folder_comes_first_and_is_not_mixed_with_the_shipped_one(post, worker, tmp_path):
    (tmp_path / "welcome.html").write_text("<p>Mine, {{ name }}</p>")
    worker(f"smtp://127.0.0.1:{post.server.port}", templates=tmp_path)
    email("a@example.org", "s", template="welcome", variables={"name": "Ada"})
    mail = post.parsed[0]
    assert mail.get_body(("html",)).get_content() == "<p>Mine, Ada</p>\n"
    assert mail.get_body(("plain",)).get_content() == "Mine, Ada\n"


def test_a_text_only_template_makes_a_text_only_mail(post, worker, tmp_path):
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders/shipped.txt").write_text("{{ n }} parcels")
    worker(f"smtp://127.0.0.1:{post.server.port}", templates=tmp_path)
    email("a@example.org", "s", template="orders/shipped", variables={"n": 2})
    assert post.parsed[0].get_content_type() == "text/plain"
    assert post.parsed[0].get_content() == "2 parcels\n"


def test_a_changed_template_is_seen_by_a_running_worker(tmp_path):
    renderer = Renderer(str(tmp_path))
    for said, mtime in (("one", 1_000), ("two", 2_000)):
        (tmp_path / "t.txt").write_text(said)
        os.utime(tmp_path / "t.txt", (mtime, mtime))
        assert renderer.content("t", {}).text == said


def test_a_missing_variable_is_named_in_one_line(post):
    with pytest.raises(InvalidTemplate) as refused:
        email("a@example.org", "s", template="welcome")
    assert str(refused.value).startswith(
        "template welcome.txt, line 1: 'name' is not given; pass it in variables"
    )
    with pytest.raises(InvalidTemplate, match=r"subject: 'name' is not given; .* --var name="):
        email("a@example.org", "Dear {{ name }}", "t", variables={"nam": "Ada"})
    assert post.mails == []


def test_a_subject_without_template_or_variables_is_text(post):
    email("a@example.org", "Dear {{ name }}, {% this is text", "t")
    assert post.parsed[0]["subject"] == "Dear {{ name }}, {% this is text"


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/../../secret", "welcome.html", "..", "", "a\\b", "a\0"]
)
def test_a_template_name_cannot_leave_the_folder(tmp_path, name):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "own/a").mkdir(parents=True)
    with pytest.raises(InvalidTemplate, match="give the name of a file in the templates folder"):
        Renderer(str(tmp_path / "own")).content(name, {})


def test_an_unknown_template_is_reported_with_the_folders_searched(tmp_path):
    with pytest.raises(InvalidTemplate, match=rf"in {tmp_path} or .*PACKMULE_TEMPLATES"):
        Renderer(str(tmp_path)).content("nosuch", {})


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ x.__init__.__globals__ }}",
        "{{ ''['__class__'] }}",
        "{{ ('' | attr('__class__')) }}",
        "{{ '{0.__class__}'.format(x) }}",
        "{% include '../secret.txt' %}",
        "{% include '/etc/hostname' %}",
        "{{ x.append(1) }}",
        "{{ range(10000000) }}",
        "{{ x.missing }}",
        "{{ 1 / 0 }}",
        "{{ x + 1 }}",
        "{{ broken",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_a_hostile_or_broken_template_fails_in_one_line(tmp_path, source):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/t.txt").write_text(source)
    with pytest.raises(InvalidTemplate, match=r"^template t.txt[:,]") as refused:
        Renderer(str(tmp_path / "own")).content("t", {"x": [1]})
    assert "\n" not in str(refused.value)


def test_an_endless_template_stops_at_the_output_limit(tmp_path):
    (tmp_path / "t.txt").write_text(
        "{% for i in range(99999) %}{% for j in range(99999) %}spam {% endfor %}{% endfor %}"
    )
    with pytest.raises(InvalidTemplate, match=f"more than {MAX_OUTPUT:,} characters"):
        Renderer(str(tmp_path)).content("t", {})


CALM = """
import resource
from packmule.jobs.email import InvalidMessage, InvalidTemplate
from packmule.jobs.email.templating.allowance import MAX_OUTPUT
from packmule.jobs.email.message.plaintext import plaintext
from packmule.jobs.email.templating.rendering import Renderer

resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
"""
"""What a child begins with that is killed when it computes for long: a tenth of this does for sound code."""


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 20000000 }}",
        "{{ 'a' * 9**10 }}",
        "{{ 20000000 * 'a' }}",
        "{{ [x] * 20000000 }}",
        "{{ 9**(9**9) }}",
        "{{ x ** (x ** x) }}",
        "{{ '%99999999d' % 1 }}",
        "{{ '%*d' % (99999999, 1) }}",
        "{{ '%.99999999f'|format(1) }}",
        "{{ 'a'|center(99999999) }}",
        "{{ 'a'|indent(99999999) }}",
        "{{ [1]|slice(99999999)|list }}",
        "{{ 1|round(99999999, 'ceil') }}",
        "{{ ['a', 'a']|map('center', 99999999)|join }}",
        "{{ 'a'.ljust(99999999) }}",
        "{{ range(99999)|join }}",
        "{% for i in '%1000d'|format(1) %}{{ i }}{% endfor %}",
        "{% set a = 'a' %}{{ a }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ big }}" * 12,
        "{{ big ~ big ~ big ~ big ~ big ~ big ~ big ~ big ~ big ~ big ~ big }}",
        "{{ big + big + big + big + big + big + big + big + big + big + big }}",
        "{{ big|join(big) }}",
        "{{ big|replace('b', big) }}",
        "{{ x" + " + 1" * 400 + " }}",
        "{{ " + "(" * 480 + "x" + ")" * 480 + " }}",
        "{{ x }}".ljust(1001),
        "{{ x|tojson" + "|tojson" * 40 + " }}",
    ],
)
def test_a_subject_takes_neither_memory_nor_time(source):
    body = f"""
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    Renderer().subject({source!r}, {{"x": 9, "big": "b" * 100_000}})
except InvalidTemplate as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""
    done = subprocess.run([sys.executable, "-c", CALM + body], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
    kilobytes, _, said = done.stdout.partition(" ")
    assert int(kilobytes) < 15_000
    assert said.startswith("subject")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "subject"),
    [
        ("Order {{ order.id }} of {{ name|upper }}", "Order 7 of ADA"),
        (
            "{% if order.lines|length > 1 %}Several{% else %}One{% endif %} of {{ order.id * 2 + 1 }}",
            "Several of 15",
        ),
        ("{{ '%.2f'|format(total) }} EUR, {{ '%d %%' % 3 }}", "12.50 EUR, 3 %"),
        ("{{ order['lines']|map('title')|join(' & ') ~ '!' }}", "Tea & Milk!"),
        (
            "{{ 'big' if total > 10 else 'small' }} {{ missing|default('-') }} {{ total|round(1) }}",
            "big - 12.5",
        ),
        ("{{ '-' * 3 }}{{ 2 ** 3 }}{{ name[:2]|replace('d', 't') }}", "---8At"),
    ],
)
def test_a_subject_has_variables_filters_and_conditions(source, subject):
    variables = {"name": "Ada", "total": 12.5, "order": {"id": 7, "lines": ["tea", "milk"]}}
    assert Renderer().subject(source, variables) == subject


def test_a_template_of_the_users_multiplies_within_bounds(tmp_path):
    (tmp_path / "t.txt").write_text("{{ '-' * width }}")
    assert Renderer(str(tmp_path)).content("t", {"width": 3}).text == "---"
    with pytest.raises(InvalidTemplate, match="it would make a text or list of more than 1,000,000"):
        Renderer(str(tmp_path)).content("t", {"width": 9**10})


def test_text_is_made_from_any_html_in_little_time():
    body = """
for piece in (
    "<!--", "<", "<a ", "<![CDATA[", "<!", "<?", "&", "<a b=\\"", "</a ", "</", "<script>", "<script></",
    "&#",     "<title>", "<pre> ", "<a href=x>", "<li>", "<!-->", "<a\\tb='", "<x/", "&#9", "-->", "<br>",
):
    plaintext(piece * 60_000)
plaintext("<pre>" + " " * 300_000 + "x")
plaintext("&#" + "9" * 300_000)
"""
    done = subprocess.run([sys.executable, "-c", CALM + body], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("a<![x]>b", "ab"),
        ("<![if mso]>a<![endif]>b", "ab"),
        ("<!--[if mso]>a<![endif]-->b", "b"),
        ("a<!-->b<!--->c<!-- > -->d<!-- x --!>e", "abcde"),
        ("a < b <3 <> </> <?php x?>c", "a < b <3 <> c"),
        ("a<b", "a"),
        ("a<b c='d>e", "a"),
        ("<A HREF='https://x.org/?a=1&amp;b=2' title=\"a>b\">x</A>", "x (https://x.org/?a=1&b=2)"),
        ("<a href = y.org >x</a>", "x (y.org)"),
        ("<script>if (a < b) '</p>'</script>c<STYLE>p</Style >d<script>e", "cd"),
        ("<img alt='A &lt; B' src=x><img>", "A < B"),
        ("&#" + "9" * 5000 + ";&#x1F600;&eacute;&nosuch;", "\ufffd\U0001f600\xe9&nosuch;"),
        ("<br/>a<br / >b", "a\nb"),
    ],
)
def test_text_is_made_from_odd_html_as_browsers_do(html, text):
    assert plaintext(html) == f"{text}\n"


def test_text_is_made_from_html():
    html = """<html><head><title>T</title><style>p { color: red }</style></head><body>
      <h1>Your   order</h1><p>Thanks,<br>it is <b>on</b>
      its way &amp; well. <a href="https://example.org/x?a=1&amp;b=2">Track it</a></p><script>evil()</script>
      <ul><li>one</li><li><p>two</p></li></ul><table><tr><th>A</th><td>B</td></tr><tr><td>C</td><td>D</td></tr>
      </table>
      <a href="mailto:a@example.org">a@example.org</a> <a href="#top">up</a> <img src="x" alt="A mule">
      <pre>  x\n    y</pre><!-- unseen --></body></html>"""
    assert plaintext(html) == (
        "Your order\n\nThanks,\nit is on its way & well. Track it (https://example.org/x?a=1&b=2)\n\n"
        "- one\n- two\n\nA B\nC D\n\na@example.org up A mule\n\n  x\n    y\n"
    )


# Servers


def test_two_mails_share_one_connection(post):
    for _ in range(2):
        email("a@example.org", "s", "t")
    assert post.peers[0] == post.peers[1]


@pytest.mark.parametrize("last_words", [b"", b"421 4.4.2 idle for too long\r\n"])
def test_a_connection_that_the_server_dropped_is_replaced(post, last_words):
    email("a@example.org", "s", "one")
    post.server.hang_up(last_words)
    email("a@example.org", "s", "two")
    assert [mail.get_content() for mail in post.parsed] == ["one\n", "two\n"]
    assert post.peers[0] != post.peers[1]


def test_a_connection_idle_for_too_long_is_replaced(post, monkeypatch):
    email("a@example.org", "s", "one")
    monkeypatch.setattr("packmule.jobs.email.delivery.smtp.channel.MAX_IDLE", -1.0)
    email("a@example.org", "s", "two")
    assert post.peers[0] != post.peers[1]


def test_threads_that_send_at_once_use_separate_connections(listen, worker):
    meeting = threading.Barrier(2, timeout=60)

    class Slow(Post):
        async def handle_DATA(self, server, session, envelope):  # noqa: N802
            await server.loop.run_in_executor(None, meeting.wait)
            return await super().handle_DATA(server, session, envelope)

    server = listen(Slow())
    worker(f"smtp://127.0.0.1:{server.port}")
    threads = [threading.Thread(target=email, args=(f"{n}@example.org", "s", "t")) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(server.handler.peers)) == 2


def test_a_forked_child_opens_its_own_connection_and_leaves_its_parents_alone(post):
    email("a@example.org", "s", "parent")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            email("a@example.org", "s", "child")
            post.mailer.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    email("a@example.org", "s", "parent again")
    assert [mail.get_content().strip() for mail in post.parsed] == ["parent", "child", "parent again"]
    assert post.peers[0] == post.peers[2] != post.peers[1]


def test_a_refused_recipient_is_listed_and_the_others_get_the_mail(listen, worker):
    server = listen(Post(**{"b@example.org": "550 5.1.1 no such user"}))
    worker(f"smtp://127.0.0.1:{server.port}")
    result = email(["a@example.org", "b@example.org"], "s", "t")
    assert result["accepted"] == ["a@example.org"]
    assert result["refused"] == {"b@example.org": "550 5.1.1 no such user"}
    assert server.handler.mails[0][1] == ["a@example.org"]


@pytest.mark.parametrize("step", ["MAIL", "a@example.org", "DATA"])
def test_permanent_and_temporary_refusals_are_distinguished(listen, worker, step):
    for reply, kind in (
        ("550 5.7.1 we don't want\x1b[31m it", MailRefused),
        ("451 4.7.1 later, please", TemporaryFailure),
    ):
        server = listen(Post(**{step: reply}))
        worker(f"smtp://127.0.0.1:{server.port}")
        with pytest.raises(kind, match=rf"^the mail was refused for a@example.org: .*{reply[:9]}") as refused:
            email("a@example.org", "s", "t")
        assert str(refused.value).isprintable()
        server.handler.replies.clear()
        email("a@example.org", "s", "t")
        assert len(server.handler.mails) == 1


def test_if_all_recipients_are_refused_one_temporary_refusal_allows_a_retry(listen, worker):
    server = listen(Post(**{"a@example.org": "550 no", "b@example.org": "450 greylisted"}))
    worker(f"smtp://127.0.0.1:{server.port}")
    with pytest.raises(TemporaryFailure, match=r"b@example.org and 1 more: 450 greylisted"):
        email(["a@example.org", "b@example.org"], "s", "t")


def test_a_server_that_hangs_up_during_the_mail_is_a_temporary_failure(listen, worker):
    class Rude(Post):
        async def handle_DATA(self, server, session, envelope):  # noqa: N802
            server.transport.abort()
            return "250 never heard"

    server = listen(Rude())
    worker(f"smtp://127.0.0.1:{server.port}")
    with pytest.raises(TemporaryFailure, match="may have accepted it"):
        email("a@example.org", "s", "t")


def test_an_unreachable_server_is_a_temporary_failure(worker):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    worker(f"smtp://127.0.0.1:{port}")
    with pytest.raises(
        TemporaryFailure, match=f"can't reach the mail server 127.0.0.1:{port}: Connection refused"
    ):
        email("a@example.org", "s", "t")


def test_a_mail_that_is_too_large_is_refused_before_it_is_sent(listen, worker):
    server = listen(Post(), data_size_limit=1000)
    worker(f"smtp://127.0.0.1:{server.port}")
    with pytest.raises(MailRefused, match=r"refused the sender .*: 552"):
        email("a@example.org", "s", "long " * 1000)


def test_without_a_server_the_setting_is_named(worker):
    worker(None)
    with pytest.raises(InvalidServer, match="PACKMULE_MAIL_URL"):
        email("a@example.org", "s", "t")


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_tls_is_used_if_offered_and_the_certificate_checked(listen, worker, certificate, tls, scheme):
    options = {"ssl_context": tls} if scheme == "smtps" else {"tls_context": tls, "require_starttls": True}
    server = listen(Post(), **options)
    worker(f"{scheme}://127.0.0.1:{server.port}")
    with pytest.raises(
        InsecureServer, match=r"not trusted \(self-signed certificate\): .*\?ca=.*\?verify=no"
    ):
        email("a@example.org", "s", "t")
    for choice in (f"ca={certificate[0]}&tls=required", "verify=no"):
        worker(f"{scheme}://127.0.0.1:{server.port}?{choice}")
        email("a@example.org", "s", "t")
        email("a@example.org", "s", "t")
    assert len(server.handler.mails) == 4
    assert scheme == "smtps" or server.handler.encrypted == [True] * 4
    assert len(set(server.handler.peers)) == 2


def test_a_certificate_of_another_host_is_not_trusted(listen, worker, certificate, tls):
    server = listen(Post(), tls_context=tls)
    worker(f"smtp://localhost:{server.port}?ca={certificate[0]}")
    with pytest.raises(InsecureServer, match="not trusted"):
        email("a@example.org", "s", "t")


def test_tls_required_is_enforced(post, worker):
    worker(f"smtp://127.0.0.1:{post.server.port}?tls=required")
    with pytest.raises(InsecureServer, match="offers no TLS"):
        email("a@example.org", "s", "t")
    assert post.mails == []


def test_a_missing_ca_file_is_named(listen, worker, tls):
    server = listen(Post(), tls_context=tls)
    worker(f"smtp://127.0.0.1:{server.port}?ca=/nowhere/ca.pem")
    with pytest.raises(InvalidServer, match=r"\?ca=/nowhere/ca.pem .*: No such file"):
        email("a@example.org", "s", "t")


class Door:
    """An authenticator that accepts `mule` with the password, and repeats a wrong one in its reply."""

    def __init__(self):
        self.tries = 0

    def __call__(self, server, session, envelope, mechanism, data):
        self.tries += 1
        if (data.login, data.password) == (b"mule@example.org", PASSWORD.encode()):
            return AuthResult(success=True)
        return AuthResult(
            success=False, handled=False, message=f"535 5.7.8 {data.password.decode()} is wrong"
        )


def test_a_login_over_tls_lets_the_mail_through(listen, worker, tls, certificate):
    server = listen(Post(), tls_context=tls, auth_required=True, authenticator=Door())
    worker(f"smtp://mule%40example.org:{PASSWORD}@127.0.0.1:{server.port}?ca={certificate[0]}")
    email("a@example.org", "s", "t")
    assert server.handler.encrypted == [True]


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_a_refused_login_is_reported_without_the_password(listen, worker):
    server = listen(Post(), auth_required=True, auth_require_tls=False, authenticator=Door())
    worker(f"smtp://mule:wrong-{PASSWORD}@127.0.0.1:{server.port}")
    with pytest.raises(MailRefused, match=r"does not let mule log in: 535") as refused:
        email("a@example.org", "s", "t")
    chain, error = [], refused.value
    while error is not None:
        chain.append(str(error))
        error = None if error.__suppress_context__ else error.__context__
    for hidden in (PASSWORD, base64.b64encode(f"\0mule\0wrong-{PASSWORD}".encode()).decode()):
        assert hidden not in " ".join(chain)


def test_a_server_without_logins_is_reported(post, worker):
    worker(f"smtp://mule:{PASSWORD}@127.0.0.1:{post.server.port}")
    with pytest.raises(MailRefused, match="can't log mule in") as refused:
        email("a@example.org", "s", "t")
    assert PASSWORD not in str(refused.value)


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_no_password_is_sent_unencrypted_to_another_machine(listen, worker):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        own = probe.getsockname()[0]
    door = Door()
    server = listen(
        Post(), hostname="0.0.0.0", auth_required=True, auth_require_tls=False, authenticator=door
    )
    worker(f"smtp://mule%40example.org:{PASSWORD}@127.0.0.1:{server.port}")
    email("a@example.org", "s", "t")
    worker(f"smtp://mule%40example.org:{PASSWORD}@{own}:{server.port}")
    with pytest.raises(InsecureServer, match="password was not sent"):
        email("a@example.org", "s", "t")
    assert door.tries == 1


@pytest.mark.parametrize(
    "url",
    [
        f"http://mule:{PASSWORD}@host",
        f"smtp://mule:{PASSWORD}@",
        f"smtp://mule:{PASSWORD}@host:99999",
        f"smtp://mule:{PASSWORD}@host/path",
        f"smtp://mule:{PASSWORD}@host?tls=maybe",
        f"smtp://mule:{PASSWORD}@host?colour=red",
        f"smtp://mule:{PASSWORD}@[::1",
        f"smtp://mule:25/{PASSWORD}@host",
        f"smtp://mule:25?{PASSWORD}@host",
        f"smtp://mule:25#{PASSWORD}@host",
        f"smtp://mule:{PASSWORD}?x@host",
        "localhost:25",
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url):
    with pytest.raises(InvalidServer) as refused:
        Mailer(url, "mule@example.org")
    assert PASSWORD not in str(refused.value)
