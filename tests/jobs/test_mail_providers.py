"""Mail providers: what each is sent, what its answers mean, and which of its events are believed."""

from __future__ import annotations

import hmac
import json
import socket
import time
from base64 import b64decode, b64encode
from contextlib import contextmanager, suppress
from dataclasses import replace
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest

from packmule.jobs.email import Mailer, TemporaryFailure
from packmule.jobs.email.delivery.http import client as http_client
from packmule.jobs.email.delivery.http import sns
from packmule.jobs.email.delivery.http.client import Answer
from packmule.jobs.email.delivery.http.events import InvalidEvents, Kind, events, told
from packmule.jobs.email.delivery.http.signatures import BadKey, BadSignature, check_key
from packmule.jobs.email.delivery.http.signing import signed
from packmule.jobs.email.delivery.ways import InvalidServer, way_of
from packmule.jobs.email.letter import Attachment, Content, Letter
from packmule.jobs.email.message.compose import compose
from packmule.jobs.email.outcome import State
from packmule.tests.jobs.mail_journal import Book
from packmule.tests.jobs.mail_server import MailServer
from packmule.units import DAY

ACCEPTED, REFUSED, DEFERRED, UNKNOWN = State.ACCEPTED, State.REFUSED, State.DEFERRED, State.UNKNOWN
KEY = "k3y-s3cret"
URLS = {
    "ses": f"ses://AKIA:{KEY}@eu-west-1",
    "postmark": f"postmark://{KEY}",
    "mailgun": f"mailgun://{KEY}@mg.example.org",
    "sendgrid": f"sendgrid://{KEY}",
    "resend": f"resend://{KEY}",
}
FINE = {
    "ses": (200, {}, {"MessageId": "m-1"}),
    "postmark": (200, {}, {"ErrorCode": 0, "Message": "OK", "MessageID": "m-1"}),
    "mailgun": (200, {}, {"id": "m-1", "message": "Queued. Thank you."}),
    "sendgrid": (202, {"X-Message-Id": "m-1"}, None),
    "resend": (200, {}, {"id": "m-1"}),
}


class Server:
    """An API that answers as told, and keeps what it was asked: path, headers, body."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.asked.append((self.path, dict(self.headers), body))
                answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, said = answer
                data = said if isinstance(said, bytes) else b"" if said is None else json.dumps(said).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(data)

            def log_message(self, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Any:
        thread = Thread(target=self._server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join(60)
            self._server.server_close()


def mail(number: int = 0, image: str = "", **fields: Any) -> Letter:
    fields = {"to": ["Ada Müller <ada@example.org>", "bob@example.org"], **fields}
    return compose(
        Content("Grüße", "<p>Grüße</p>" + image),
        subject="Über alles",
        sender='"Mule, Pack" <mule@example.org>',
        key=f"order-{number}",
        **fields,
    )


def delivered(url: str | list[str], *letters: Letter, book: Book | None = None) -> Book:
    mailer, book = Mailer(url, "mule@example.org"), book or Book()
    try:
        mailer.deliver(letters, book)
    finally:
        mailer.close()
    return book


def at(name: str, server: Server) -> str:
    return f"{URLS[name]}?api={server.url}"


@pytest.mark.parametrize("name", URLS)
def test_a_provider_gets_a_mail_and_its_recipients_in_its_own_shape(name):
    with Server(FINE[name]).running() as server:
        letter = mail(
            image='<img src="cid:logo">',
            cc=["Carol <carol@example.org>"],
            bcc=["dave@example.org"],
            reply_to=["r@example.org"],
            attachments=[Attachment("Übersicht.csv", b"a;b"), Attachment("logo.png", b"png", "logo")],
            headers={"X-Shop": "7"},
            tags=["welcome"],
            metadata={"order": "7"},
        )
        book = delivered(at(name, server), letter)
    assert set(book.states().values()) == {ACCEPTED}
    assert len(book.outcomes) == 4
    assert book.reply("ada@example.org") == f"{name}: {FINE[name][0]} m-1"
    path, headers, body = server.asked[0]
    read = {
        "ses": read_raw_json, "mailgun": read_form, "postmark": json.loads, "sendgrid": json.loads,
        "resend": json.loads,
    }[name](body)  # fmt: skip
    CHECKS[name](path, headers, read, letter)


def read_raw_json(body: bytes) -> Any:
    said = json.loads(body)
    said["Content"]["Raw"]["Data"] = b64decode(said["Content"]["Raw"]["Data"])
    return said


def read_form(body: bytes) -> Any:
    boundary = body.split(b"\r\n", 1)[0][2:]
    form = message_from_bytes(
        b'Content-Type: multipart/form-data; boundary="' + boundary + b'"\r\n\r\n' + body, policy=policy.HTTP
    )
    found: dict[str, list[bytes]] = {}
    for part in form.iter_parts():
        name = part.get_param("name", header="content-disposition")
        found.setdefault(str(name), []).append(part.get_payload(decode=True))
    return found


def check_ses(path, headers, said, letter):
    assert path == "/v2/email/outbound-emails"
    assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIA/")
    assert "/eu-west-1/ses/aws4_request, SignedHeaders=" in headers["Authorization"]
    assert said["Content"]["Raw"]["Data"] == letter.content
    assert said["Destination"] == {"ToAddresses": list(letter.recipients)}
    assert said["FromEmailAddress"] == "mule@example.org"
    assert said["EmailTags"][0]["Value"] == letter.message_id[1:].partition("@")[0]


def check_mailgun(path, headers, said, letter):
    assert path == "/v3/mg.example.org/messages.mime"
    assert headers["Authorization"] == "Basic " + b64encode(f"api:{KEY}".encode()).decode()
    assert [each.decode() for each in said["to"]] == list(letter.recipients)
    assert said["message"] == [letter.content] or said["message"] == [letter.content.rstrip(b"\r\n")]
    assert said["o:tag"] == [b"welcome"]
    assert said["v:packmule"][0].decode() == letter.message_id[1:].partition("@")[0]


def check_postmark(path, headers, said, letter):
    assert (path, headers["X-Postmark-Server-Token"]) == ("/email", KEY)
    assert said["From"] == '"Mule, Pack" <mule@example.org>'
    assert said["To"] == '"Ada Müller" <ada@example.org>, bob@example.org'
    assert (said["Cc"], said["Bcc"], said["ReplyTo"]) == (
        '"Carol" <carol@example.org>', "dave@example.org", "r@example.org",
    )  # fmt: skip
    assert (said["Subject"], said["TextBody"], said["HtmlBody"]) == (
        "Über alles",
        "Grüße",
        '<p>Grüße</p><img src="cid:logo">',
    )
    assert {"Name": "X-Shop", "Value": "7"} in said["Headers"]
    assert [(each["Name"], each["ContentType"]) for each in said["Attachments"]] == [
        ("Übersicht.csv", "text/csv"), ("logo.png", "image/png"),
    ]  # fmt: skip
    assert said["Attachments"][1]["ContentID"] == "cid:logo"
    assert (said["Tag"], said["Metadata"]["order"]) == ("welcome", "7")


def check_sendgrid(path, headers, said, letter):
    assert (path, headers["Authorization"]) == ("/v3/mail/send", f"Bearer {KEY}")
    (person,) = said["personalizations"]
    assert person["to"] == [{"email": "ada@example.org", "name": "Ada Müller"}, {"email": "bob@example.org"}]
    assert person["cc"] == [{"email": "carol@example.org", "name": "Carol"}]
    assert person["bcc"] == [{"email": "dave@example.org"}]
    assert said["from"] == {"email": "mule@example.org", "name": "Mule, Pack"}
    assert said["reply_to_list"] == [{"email": "r@example.org"}]
    assert [each["type"] for each in said["content"]] == ["text/plain", "text/html"]
    assert b64decode(said["attachments"][0]["content"]) == b"a;b"
    assert (said["attachments"][1]["disposition"], said["attachments"][1]["content_id"]) == ("inline", "logo")
    assert said["headers"]["X-Shop"] == "7"
    assert (said["categories"], said["custom_args"]["order"]) == (["welcome"], "7")


def check_resend(path, headers, said, letter):
    assert (path, headers["Authorization"]) == ("/emails", f"Bearer {KEY}")
    assert headers["Idempotency-Key"].startswith("packmule-")
    assert said["from"] == '"Mule, Pack" <mule@example.org>'
    assert said["to"] == ['"Ada Müller" <ada@example.org>', "bob@example.org"]
    assert (said["cc"], said["bcc"]) == (['"Carol" <carol@example.org>'], ["dave@example.org"])
    assert said["attachments"][1] == {
        "filename": "logo.png", "content": b64encode(b"png").decode(), "content_id": "logo",
    }  # fmt: skip
    assert said["headers"]["X-Shop"] == "7"


CHECKS = {
    "ses": check_ses,
    "mailgun": check_mailgun,
    "postmark": check_postmark,
    "sendgrid": check_sendgrid,
    "resend": check_resend,
}


@pytest.mark.parametrize("name", ["postmark", "sendgrid", "resend"])
def test_recipients_that_have_the_mail_already_are_in_no_field(name):
    with Server(FINE[name]).running() as server:
        letter = replace(mail(cc=["carol@example.org"]), recipients=("carol@example.org",))
        delivered(at(name, server), letter)
    text = server.asked[0][2].decode()
    assert "carol@example.org" in text
    assert "ada@example.org" not in text
    assert "bob@example.org" not in text


@pytest.mark.parametrize("name", URLS)
def test_a_connection_is_kept_for_many_letters(name):
    with Server(FINE[name]).running() as server:
        book = delivered(at(name, server), *(mail(number) for number in range(10)))
    assert set(book.states().values()) == {ACCEPTED}
    assert (len(server.asked), server.connections) == (10, 1)


def test_a_letter_with_more_recipients_than_a_request_may_have_takes_several():
    with Server(FINE["ses"]).running() as server:
        book = delivered(at("ses", server), mail(to=[f"a{number}@example.org" for number in range(120)]))
    assert set(book.states().values()) == {ACCEPTED}
    sizes = [len(json.loads(body)["Destination"]["ToAddresses"]) for _, _, body in server.asked]
    assert sizes == [50, 50, 20]
    assert [len(recipients) for recipients in book.begun] == sizes


@pytest.mark.parametrize(
    ("name", "answer", "state"),
    [
        ("ses", (400, {"x-amzn-ErrorType": "MessageRejected"}, {"message": "no"}), REFUSED),
        ("ses", (400, {"x-amzn-ErrorType": "SendingPausedException:http://x"}, {"message": "no"}), DEFERRED),
        ("ses", (429, {"x-amzn-ErrorType": "TooManyRequestsException"}, {"message": "no"}), DEFERRED),
        ("ses", (403, {}, {"message": "The security token is invalid"}), DEFERRED),
        ("postmark", (422, {}, {"ErrorCode": 300, "Message": "Invalid email request"}), REFUSED),
        ("postmark", (422, {}, {"ErrorCode": 406, "Message": "Inactive recipient"}), REFUSED),
        ("postmark", (422, {}, {"ErrorCode": 405, "Message": "Not allowed to send"}), DEFERRED),
        ("postmark", (200, {}, {"ErrorCode": 300, "Message": "odd"}), UNKNOWN),
        ("mailgun", (400, {}, {"message": "to parameter is not a valid address"}), REFUSED),
        ("mailgun", (401, {}, b"Forbidden"), DEFERRED),
        ("sendgrid", (400, {}, {"errors": [{"message": "no", "field": "from"}]}), REFUSED),
        ("sendgrid", (429, {"Retry-After": "30"}, {"errors": [{"message": "slow"}]}), DEFERRED),
        ("resend", (422, {}, {"name": "validation_error", "message": "no"}), REFUSED),
        ("resend", (429, {}, {"name": "daily_quota_exceeded", "message": "no"}), DEFERRED),
        ("resend", (409, {}, {"name": "concurrent_idempotent_requests", "message": "no"}), UNKNOWN),
        ("resend", (409, {}, {"name": "invalid_idempotent_request", "message": "no"}), UNKNOWN),
        *((name, (503, {}, b"later"), DEFERRED) for name in URLS),
        *((name, (500, {}, b"oops"), UNKNOWN) for name in URLS),
        *((name, (302, {"Location": "http://evil"}, b""), UNKNOWN) for name in URLS),
        *((name, (200, {}, b"<p>Log in"), UNKNOWN) for name in ("ses", "postmark", "mailgun", "resend")),
    ],
)  # fmt: skip
def test_what_an_answer_says_of_a_mail(name, answer, state):
    began = time.time()
    with Server(answer).running() as server:
        book = delivered(at(name, server), mail())
    assert set(book.states().values()) == {state}
    outcome = next(iter(book.outcomes.values()))
    assert outcome.reply.startswith(f"{name}: {answer[0]}")
    assert outcome.is_bad_address == (isinstance(answer[2], dict) and answer[2].get("ErrorCode") == 406)
    if "Retry-After" in answer[1]:
        assert began + 29 < outcome.retry_at < time.time() + 31


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 100_000,
        b"{" + b" " * 1_000_000,
        b'{"message": ["\\ud800"], "id": {}}',
    ],
    ids=["nothing", "no UTF-8", "a list", "null", "nested", "long", "odd"],
)
def test_any_answer_is_one_bounded_printable_line(name, said):
    for status in (400, 200):
        with Server((status, {}, said)).running() as server:
            book = delivered(at(name, server), mail())
        # Where the API says that each mail it takes gets an id, nothing else is an acceptance.
        odd = {"sendgrid": ACCEPTED}.get(name, UNKNOWN)
        assert set(book.states().values()) == {REFUSED if status == 400 else odd}
        assert all(o.reply.isprintable() and len(o.reply) <= 500 for o in book.outcomes.values())


@pytest.mark.parametrize("name", URLS)
def test_a_key_that_an_answer_repeats_is_masked(name):
    with Server((400, {}, {"message": f"the key {KEY} is wrong"})).running() as server:
        book = delivered(at(name, server), mail())
    assert KEY not in book.reply("ada@example.org")
    sent = (
        KEY if name == "ses" else server.asked[0][1].get("Authorization", KEY)
    )  # ses sends a signature alone
    encoded = sent.rpartition(" ")[2]
    for said in ({"message": f"you sent {sent}"}, *(b" " * long + KEY.encode() for long in (491, 495))):
        with Server((400, {}, said)).running() as server:
            reply = delivered(at(name, server), mail()).reply("ada@example.org")
        assert encoded not in reply
        assert KEY[:5] not in reply


@pytest.mark.parametrize("name", URLS)
def test_after_a_lost_answer_only_a_provider_that_knows_the_request_again_is_asked_again(name):
    with Server(None, FINE[name]).running() as server:
        book = delivered(at(name, server), mail())
    if name == "resend":
        assert set(book.states().values()) == {ACCEPTED}
        keys = {headers["Idempotency-Key"] for _, headers, _ in server.asked}
        assert (len(server.asked), len(keys)) == (2, 1)
    else:
        assert set(book.states().values()) == {UNKNOWN}
        assert len(server.asked) == 1


def test_a_request_is_not_repeated_once_another_run_has_the_mail():
    with Server(None, FINE["resend"]).running() as server:
        book = delivered(at("resend", server), mail(), book=Book(may_end=lambda letter: False))
    assert set(book.states().values()) == {UNKNOWN}
    assert len(server.asked) == 1


def test_a_mail_whose_answer_is_lost_is_unknown_if_another_server_could_get_it_next():
    with Server(None).running() as server, MailServer() as other:
        urls = [at("resend", server), other.url]
        book = delivered(urls, mail())
        assert set(book.states().values()) == {UNKNOWN}
        assert (len(server.asked), other.mails) == (2, [])
        assert requests(book) == {""}


def requests(book: Book) -> set[str]:
    return {outcome.request for outcome in book.outcomes.values()}


@pytest.mark.parametrize("name", URLS)
def test_after_a_lost_answer_only_the_same_request_may_ask_and_only_a_provider_that_knows_it(name):
    with Server(None).running() as server, MailServer() as other:
        url = at(name, server)
        (request,) = requests(delivered(url, mail()))
        assert bool(request) == (name == "resend")
        asked, same = len(server.asked), replace(mail(), request=request or "a request")
        changed = [
            (url, replace(same, recipients=same.recipients[:1])),
            (url, replace(mail(image="<p>new</p>"), request=same.request)),
            (url.replace(KEY, "another"), same),
            (other.url, same),
            ("memory://", same),
        ]
        for place, letter in changed:
            book = delivered(place, letter)
            assert (set(book.states().values()), requests(book)) == ({UNKNOWN}, {""})
            assert "can't be asked for again" in book.reply("ada@example.org")
        assert (len(server.asked), other.mails) == (asked, [])
        server.answers = [FINE[name]]
        assert set(delivered(url, same).states().values()) == {ACCEPTED if request else UNKNOWN}


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}, b"oops"),
        (503, {}, b"later"),
        (429, {}, {"name": "rate_limit_exceeded"}),
        (409, {}, {"name": "concurrent_idempotent_requests"}),
        (200, {}, b"<p>Log in"),
        None,
    ],
)
def test_a_mail_in_doubt_stays_that_until_the_provider_knows_better_or_has_forgotten_it(answer, monkeypatch):
    with Server(None, answer).running() as server:
        url = at("resend", server)
        book = delivered(url, mail())
        (request,) = requests(book)
        assert (set(book.states().values()), bool(request), len(server.asked)) == ({UNKNOWN}, True, 2)
        book = delivered(url, replace(mail(), request=request))
        assert (set(book.states().values()), requests(book)) == ({UNKNOWN}, {request})
        asked, now = len(server.asked), time.time()

        def wait_for_a_day(letter: Letter) -> bool:  # Redis is away when the mail is to begin
            monkeypatch.setattr(time, "time", lambda: now + DAY)
            return True

        for _ in range(2):
            book = delivered(url, replace(mail(), request=request), book=Book(wait_for_a_day))
            assert (set(book.states().values()), requests(book)) == ({UNKNOWN}, {""})
        assert len(server.asked) == asked


def test_a_key_is_that_of_the_letter_and_its_recipients():
    with Server(FINE["resend"]).running() as server:
        for letter in (mail(), mail(), mail(1), replace(mail(), recipients=("bob@example.org",))):
            delivered(at("resend", server), letter)
    keys = [headers["Idempotency-Key"] for _, headers, _ in server.asked]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert all(len(key) <= 256 for key in keys)


def test_an_answer_that_never_comes_is_given_up(monkeypatch):
    monkeypatch.setattr(http_client, "ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"{URLS['postmark']}?api=http://127.0.0.1:{listener.getsockname()[1]}"
        book = delivered(url, mail())
    assert set(book.states().values()) == {UNKNOWN}


def test_an_answer_that_drips_is_given_up(monkeypatch):
    """Each piece of it is in time, but not all of them together."""
    monkeypatch.setattr(http_client, "ANSWER_SECONDS", 1.0)
    over = Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(1)
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not over.wait(0.05):
                    connection.sendall(b"x")

        thread = Thread(target=drip)
        thread.start()
        try:
            url = f"{URLS['postmark']}?api=http://127.0.0.1:{listener.getsockname()[1]}"
            assert set(delivered(url, mail()).states().values()) == {UNKNOWN}
        finally:
            over.set()
            thread.join(60)


def test_a_provider_that_cannot_be_reached_has_taken_nothing():
    with Server(FINE["resend"]).running() as server:
        url = at("resend", server)
    with pytest.raises(TemporaryFailure, match=r"can't reach 127.0.0.1"):
        delivered(url, mail())


def test_a_connection_that_the_provider_has_closed_is_replaced_before_the_mail():
    with Server((200, {"Connection": "close"}, {"ErrorCode": 0, "MessageID": "m"})).running() as server:
        book = delivered(at("postmark", server), *(mail(number) for number in range(3)))
    assert set(book.states().values()) == {ACCEPTED}
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "url",
    [
        "resend://", "resend://KEY@host", "postmark://KEY/path", "mailgun://KEY", "mailgun://KEY@a/b",
        "mailgun://KEY@mg.example.org?region=moon", "ses://AKIA@eu-west-1", "ses://AKIA:SECRET", "sendgrid://KEY?x=1",
        "ses://AKIA:SECRET@eu/../evil", "resend://KEY?api=ftp://x", "resend://K%0AEY", "resend://KEY#x",
        "ses://AKIA:SECRET@evil.com%23",
    ],
)  # fmt: skip
def test_a_wrong_url_is_refused_without_its_key(url):
    with pytest.raises(InvalidServer, match=r"write |api=") as refused:
        way_of(url)
    assert "SECRET" not in str(refused.value).replace("SECRET_ACCESS_KEY", "")


def test_urls_lead_to_the_providers():
    regions = {"mailgun": "?region=eu", "sendgrid": "?region=eu"}
    assert [way_of(url + regions.get(name, "")).url for name, url in URLS.items()] == [
        "https://email.eu-west-1.amazonaws.com",
        "https://api.postmarkapp.com",
        "https://api.eu.mailgun.net",
        "https://api.eu.sendgrid.com",
        "https://api.resend.com",
    ]


def test_a_request_to_aws_is_signed_as_its_own_example():
    """The signing key of the documentation's example, over our request, by its four steps."""
    headers = signed(
        "AKIDEXAMPLE",
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        "us-east-1",
        "iam",
        "h",
        "/",
        b"{}",
        1440938160.0,
    )
    key = b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    for part in ("20150830", "us-east-1", "iam", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    assert key.hex() == "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
    assert headers["X-Amz-Date"] == "20150830T123600Z"
    assert "Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request" in headers["Authorization"]


# Events


def postmark_request(said, key=KEY):
    return json.dumps(said).encode(), {"AUTHORIZATION": "Basic " + b64encode(f"hook:{key}".encode()).decode()}


def mailgun_request(said, key=KEY, at=None):
    at = str(int(at or time.time()))
    signature = hmac.new(key.encode(), f"{at}token".encode(), "sha256").hexdigest()
    signed = {"timestamp": at, "token": "token", "signature": signature}
    return json.dumps({"signature": signed, "event-data": said}).encode(), {}


def resend_request(said, key=KEY, at=None):
    at, body = str(int(at or time.time())), json.dumps(said).encode()
    made = hmac.digest(key.encode(), f"id.{at}.".encode() + body, "sha256")
    signature = "v1,bm9wZQ== v1," + b64encode(made).decode()
    return body, {"Svix-Id": "id", "Svix-Timestamp": at, "Svix-Signature": signature}


RESEND_KEY = "whsec_" + b64encode(KEY.encode()).decode()


@pytest.fixture(scope="module")
def keys():
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    return ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)


def sendgrid_request(said, private, at=None):
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    at, body = str(int(at or time.time())), json.dumps(said).encode()
    name = "X-Twilio-Email-Event-Webhook-"
    signature = b64encode(private.sign(at.encode() + body, ECDSA(SHA256()))).decode()
    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return body, {f"{name}Signature": signature, f"{name}Timestamp": at}, b64encode(der).decode()


TOPIC = "arn:aws:sns:eu-west-1:123456789012:mail"


def ses_request(said, private, monkeypatch, more=None, age=0, **changes):
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, private.public_key(), 7, now, now + timedelta(days=1))
    pem = builder.sign(private, SHA256()).public_bytes(Encoding.PEM)
    monkeypatch.setattr(sns, "_pems", {})
    monkeypatch.setattr(sns.Api, "get", lambda self, path: Answer(200, {}, pem))
    at = (now - timedelta(seconds=age)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields = {
        "Message": said if isinstance(said, str) else json.dumps(said), "MessageId": "1", "Timestamp": at,
        "TopicArn": TOPIC, "Type": "Notification", **(more or {}),
    }  # fmt: skip
    text = "".join(f"{name}\n{value}\n" for name, value in sorted(fields.items())).encode()
    fields["Signature"] = b64encode(private.sign(text, PKCS1v15(), SHA256())).decode()
    fields["SignatureVersion"] = "2"
    fields["SigningCertURL"] = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"
    return json.dumps({**fields, **changes}).encode()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {
                "RecordType": "Bounce", "Type": "HardBounce", "Email": "a@x.example",
                "Details": "smtp;550", "Metadata": {"packmule": "m.1"},
            },
            (Kind.HARD_BOUNCE, "a@x.example", "smtp;550", "m.1"),
        ),
        (
            {"RecordType": "Bounce", "Type": "SoftBounce", "Email": "a@x.example"},
            (Kind.SOFT_BOUNCE, "a@x.example", "", ""),
        ),
        ({"RecordType": "Bounce", "Type": "Transient", "Email": "a@x.example"}, None),
        ({"RecordType": "Bounce", "Type": "AutoResponder", "Email": "a@x.example"}, None),
        ({"RecordType": "Bounce", "Type": ["HardBounce"], "Email": "a@x.example"}, None),
        ({"RecordType": "SpamComplaint", "Email": "a@x.example"}, (Kind.COMPLAINT, "a@x.example", "", "")),
        (
            {"RecordType": "Delivery", "Recipient": "a@x.example", "Details": "ok"},
            (Kind.DELIVERED, "a@x.example", "ok", ""),
        ),
        (
            {"RecordType": "SubscriptionChange", "Recipient": "a@x.example", "SuppressSending": True},
            (Kind.UNSUBSCRIBED, "a@x.example", "", ""),
        ),
        ({"RecordType": "Open", "Recipient": "a@x.example"}, None),
    ],
)  # fmt: skip
def test_events_of_postmark(said, expected):
    assert events("postmark", *postmark_request(said), KEY) == ([expected] if expected else [])
    with pytest.raises(BadSignature):
        events("postmark", *postmark_request(said, "wrong"), KEY)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"event": "failed", "severity": "permanent"}, Kind.HARD_BOUNCE),
        ({"event": "failed", "severity": "permanent", "reason": "old"}, Kind.SOFT_BOUNCE),
        ({"event": "failed", "severity": "temporary"}, None),
        ({"event": "complained"}, Kind.COMPLAINT),
        ({"event": "unsubscribed"}, Kind.UNSUBSCRIBED),
        ({"event": "delivered"}, Kind.DELIVERED),
    ],
)
def test_events_of_mailgun(said, kind):
    said = {
        **said, "recipient": "a@x.example", "user-variables": {"packmule": "m.1"},
        "delivery-status": {"message": "5.1.1 no\nsuch"},
    }  # fmt: skip
    expected = [(kind, "a@x.example", "5.1.1 no such", "m.1")] if kind else []
    assert events("mailgun", *mailgun_request(said), KEY) == expected
    for request in (mailgun_request(said, "wrong"), mailgun_request(said, at=time.time() - 90_000)):
        with pytest.raises(BadSignature):
            events("mailgun", *request, KEY)


@pytest.mark.parametrize(
    ("type", "data", "kind"),
    [
        ("email.bounced", {"bounce": {"type": "Permanent", "message": "gone"}}, Kind.HARD_BOUNCE),
        ("email.bounced", {"bounce": {"type": "Transient", "message": "gone"}}, Kind.SOFT_BOUNCE),
        ("email.complained", {}, Kind.COMPLAINT),
        ("email.delivered", {}, Kind.DELIVERED),
        ("email.opened", {}, None),
    ],
)
def test_events_of_resend(type, data, kind):
    said = {
        "type": type,
        "data": {**data, "to": ["a@x.example"], "tags": [{"name": "packmule", "value": "m_1"}]},
    }
    found = events("resend", *resend_request(said), RESEND_KEY)
    assert found == (
        [(kind, "a@x.example", data.get("bounce", {}).get("message", ""), "m_1")] if kind else []
    )
    body, headers = resend_request(said)
    for request in ((body + b" ", headers), resend_request(said, "wrong"), resend_request(said, at=1)):
        with pytest.raises(BadSignature):
            events("resend", *request, RESEND_KEY)


def test_events_of_sendgrid(keys):
    said = [
        {"event": "bounce", "type": "bounce", "email": "a@x.example", "reason": "550", "packmule": "m.1"},
        {"event": "bounce", "type": "blocked", "email": "b@x.example"},
        {"event": "spamreport", "email": "c@x.example"},
        {"event": "open", "email": "d@x.example"},
        "garbage",
    ]
    body, headers, key = sendgrid_request(said, keys[0])
    assert [(each.kind, each.recipient[0]) for each in events("sendgrid", body, headers, key)] == [
        (Kind.HARD_BOUNCE, "a"), (Kind.SOFT_BOUNCE, "b"), (Kind.COMPLAINT, "c"),
    ]  # fmt: skip
    for request in ((body + b" ", headers), sendgrid_request(said, keys[0], at=1)[:2], (body, {})):
        with pytest.raises(BadSignature):
            events("sendgrid", *request, key)
    with pytest.raises(BadSignature):
        events("sendgrid", body, headers, "bm8ga2V5")


def test_events_of_ses(keys, monkeypatch):
    said = {
        "notificationType": "Bounce",
        "mail": {"tags": {"packmule": ["m.1"]}},
        "bounce": {
            "bounceType": "Permanent",
            "bouncedRecipients": [{"emailAddress": "a@x.example", "diagnosticCode": "smtp; 550"}],
        },
    }
    body = ses_request(said, keys[1], monkeypatch)
    assert events("ses", body, {}, TOPIC) == [(Kind.HARD_BOUNCE, "a@x.example", "smtp; 550", "m.1")]
    for changes in (
        {"Message": "{}"}, {"TopicArn": "arn:aws:sns:eu-west-1:1:other"}, {"SignatureVersion": "1"},
        {"SigningCertURL": "https://sns.evil.com/x.pem"}, {"Signature": "bm9wZQ=="},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com@evil.com/x.pem"},
        {"SigningCertURL": "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"},
        {"SigningCertURL": "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem"},
        {"SigningCertURL": "https://sns.s3.amazonaws.com/SimpleNotificationService-1.pem"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com/other.pem"},
        {"Type": "UnsubscribeConfirmation"}, {"Type": ["Notification"]}, {"Timestamp": 7},
    ):  # fmt: skip
        with pytest.raises(BadSignature):
            events("ses", ses_request(said, keys[1], monkeypatch, **changes), {}, TOPIC)
    with pytest.raises(BadSignature):
        events("ses", ses_request(said, keys[1], monkeypatch, age=4000), {}, TOPIC)
    other = {"TopicArn": TOPIC.replace("mail", "theirs")}
    with pytest.raises(BadSignature):  # which AWS has signed, but for somebody else
        events("ses", ses_request(said, keys[1], monkeypatch, other), {}, TOPIC)
    two = f"arn:aws:sns:us-east-1:123456789012:other {TOPIC}"
    assert len(events("ses", ses_request(said, keys[1], monkeypatch), {}, two)) == 1


@pytest.mark.parametrize(
    "said", [None, 1, "x", [], {}, [[]], {"RecordType": []}, {"type": ["email.bounced"]}, {"data": 7}]
)
def test_garbage_that_is_signed_has_no_events(keys, monkeypatch, said):
    body, headers, key = sendgrid_request(said, keys[0])
    assert events("sendgrid", body, headers, key) == []
    assert events("postmark", *postmark_request(said), KEY) == []
    assert events("mailgun", *mailgun_request(said), KEY) == []
    assert events("resend", *resend_request(said), RESEND_KEY) == []
    assert events("ses", ses_request(said, keys[1], monkeypatch), {}, TOPIC) == []


@pytest.mark.parametrize("name", URLS)
def test_what_is_no_request_of_a_provider_is_refused(name):
    for body, kind in (
        (b"\xff", InvalidEvents), (b"[" * 100_000, InvalidEvents), (b" " * 5_000_000, InvalidEvents),
        (b"{}", BadSignature), (b"[]", BadSignature), (b"null", BadSignature),
    ):  # fmt: skip
        with pytest.raises(kind):
            events(name, body, {}, KEY)
    with pytest.raises(BadSignature, match="there is no key"):
        events(name, b"{}", {}, "")
    with pytest.raises(InvalidEvents, match="there is no provider"):
        events("nobody", b"{}", {}, KEY)


@pytest.mark.parametrize("recipient", [None, 7, "", "nobody", "a" * 400 + "@x", ["a@x.example"]])
def test_an_event_without_an_address_is_left_out(recipient):
    said = {"RecordType": "Delivery", "Recipient": recipient}
    assert events("postmark", *postmark_request(said), KEY) == []


def test_a_key_that_can_verify_nothing_is_refused_before_the_first_event(keys):
    check_key("ses", f"{TOPIC} arn:aws-cn:sns:cn-north-1:123456789012:mail")
    check_key("sendgrid", sendgrid_request([], keys[0])[2])
    check_key("resend", RESEND_KEY)
    for name, key in (
        ("ses", "mail"), ("ses", TOPIC.replace("eu-west-1", "s3")), ("sendgrid", "bm9wZQ=="), ("resend", "é"),
        ("ses", f"{TOPIC} mail"),
    ):  # fmt: skip
        with pytest.raises((BadKey, sns.InvalidTopic), match="give the"):
            check_key(name, key)


def test_a_subscription_is_confirmed_at_the_host_of_the_topic_and_nowhere_else(keys, monkeypatch):
    more = {"Type": "SubscriptionConfirmation", "Token": "a b&c", "SubscribeURL": "https://evil.example/"}
    body = ses_request("You have chosen to subscribe", keys[1], monkeypatch, more)
    invites = told("ses", body, {}, TOPIC).invites
    assert invites == (TOPIC, "a b&c")
    asked = []

    def get(api, path, status=200):
        asked.append((api._host, path))
        return Answer(status, {}, b"")

    monkeypatch.setattr(sns.Api, "get", get)
    sns.confirm(*invites)
    (host, path) = asked[0]
    assert host == "sns.eu-west-1.amazonaws.com"
    assert path.startswith("/?Action=ConfirmSubscription&TopicArn=arn%3Aaws%3Asns%3A")
    assert path.endswith("&Token=a%20b%26c")
    monkeypatch.setattr(sns.Api, "get", lambda api, path: get(api, path, 403))
    with pytest.raises(sns.NotConfirmed, match="403"):
        sns.confirm(*invites)
