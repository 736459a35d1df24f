"""Events of mail providers over the served dashboard, and reports that mail servers hand in by the API."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest
from redis import Redis

from packmule.config import SettingsError
from packmule.coordination.redis.connection import connect
from packmule.dashboard import guard, mail_events
from packmule.dashboard.mail_events import event_keys
from packmule.dashboard.site import Site, build
from packmule.jobs.client import Client
from packmule.jobs.email.delivery.http import sns
from packmule.jobs.email.ledger import names
from packmule.jobs.email.outcome import State
from packmule.jobs.email.suppression import feedback
from packmule.jobs.email.suppression.store import Suppressions
from packmule.observe import audit
from packmule.tests.command_line import DEADLINE, until
from packmule.tests.dashboard.doors import served_door
from packmule.tests.jobs.test_bounces import bounce
from packmule.tests.jobs.test_mail_ledger import ADA, BOB, LOST, SEND, YES, known, run_of, sent
from packmule.tests.jobs.test_mail_providers import (
    KEY,
    RESEND_KEY,
    TOPIC,
    keys,
    mailgun_request,
    postmark_request,
    resend_request,
    sendgrid_request,
    ses_request,
)
from packmule.tests.network import server_frozen

__all__ = ["keys"]  # a fixture

MARK = names.mail_id(SEND.name, ADA)
PROVIDERS = ("postmark", "mailgun", "resend", "sendgrid", "ses")


@pytest.fixture
def http(client: Redis, keys) -> Iterator[httpx.Client]:
    """A provider's server, far away; the ledger has sent to Ada, and does not know whether to Bob."""
    run = run_of(client)
    run.reserve([ADA, BOB])
    assert sent(run, YES, ADA)
    assert sent(run, LOST, BOB)
    known_by = {"postmark": KEY, "mailgun": KEY, "resend": RESEND_KEY, "ses": TOPIC}
    known_by["sendgrid"] = sendgrid_request([], keys[0])[2]
    site = Site(client, Client(client), ("default",), "redis://private", "production", event_keys=known_by)
    app = build(site, lambda request: None)
    with served_door(SimpleNamespace(app=app)) as url, httpx.Client(base_url=url, timeout=DEADLINE) as found:  # type: ignore[arg-type]
        yield found


def a_bounce(name: str, keys, monkeypatch, to: str = ADA, mark: str = MARK) -> tuple[bytes, dict[str, str]]:
    """What a provider posts of a hard bounce, in the shape of its documentation."""
    why = "550 5.1.1 no such user"
    if name == "postmark":
        return postmark_request(
            {"RecordType": "Bounce", "Type": "HardBounce", "TypeCode": 1, "Email": to, "Details": why,
             "Metadata": {"packmule": mark}, "BouncedAt": "2026-11-30T12:00:00Z"}
        )  # fmt: skip
    if name == "mailgun":
        return mailgun_request(
            {"event": "failed", "severity": "permanent", "reason": "bounce", "recipient": to,
             "user-variables": {"packmule": mark}, "delivery-status": {"code": 550, "message": why}}
        )  # fmt: skip
    if name == "resend":
        return resend_request(
            {"type": "email.bounced", "created_at": "2026-11-30T12:00:00Z",
             "data": {"to": [to], "tags": {"packmule": mark},
                      "bounce": {"type": "Permanent", "message": why}}}
        )  # fmt: skip
    if name == "sendgrid":
        event = {"event": "bounce", "type": "bounce", "email": to, "reason": why, "packmule": mark}
        return sendgrid_request([event], keys[0])[:2]
    said = {
        "eventType": "Bounce", "mail": {"tags": {"packmule": [mark]}},
        "bounce": {"bounceType": "Permanent",
                   "bouncedRecipients": [{"emailAddress": to, "diagnosticCode": why}]},
    }  # fmt: skip
    return ses_request(said, keys[1], monkeypatch), {"x-amz-sns-message-type": "Notification"}


def post(http: httpx.Client, name: str, request: tuple[bytes, dict[str, str]]) -> httpx.Response:
    body, headers = request
    return http.post(f"/mail/events/{name}", content=body, headers=headers)


def suppressed(client: Redis) -> dict[str, str]:
    return {each.name: each.source for each in Suppressions(client)}


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_hard_bounce_suppresses_is_noted_and_does_nothing_again(
    http, client, keys, monkeypatch, caplog, name
):
    caplog.set_level(logging.INFO)
    request = a_bounce(name, keys, monkeypatch)
    answer = post(http, name, request)
    assert (answer.status_code, answer.text, answer.headers.get("set-cookie")) == (200, "taken\n", None)
    assert suppressed(client) == {ADA: "bounce"}
    assert f"events of {name}: 1 hard; 1 addresses suppressed" in caplog.text
    assert known(client, ADA).state is State.ACCEPTED
    assert known(client, ADA).reply == "bounced: 550 5.1.1 no such user"
    Suppressions(client).remove(ADA)
    with ThreadPoolExecutor(4) as pool:
        assert {each.status_code for each in pool.map(lambda _: post(http, name, request), range(4))} == {200}
    assert suppressed(client) == {}, "a replay suppresses nobody again"


@pytest.mark.parametrize("name", PROVIDERS)
def test_an_event_of_an_unknown_mail_says_that_it_was_sent(http, client, keys, monkeypatch, name):
    mark = names.mail_id(SEND.name, BOB)
    assert post(http, name, a_bounce(name, keys, monkeypatch, BOB, mark)).status_code == 200
    assert known(client, BOB).state is State.ACCEPTED
    assert suppressed(client) == {BOB: "bounce"}


def test_a_delivery_resolves_an_unknown_mail_and_changes_no_other(http, client):
    before = known(client, ADA)
    for to in (ADA, BOB, "eve@example.net"):
        said = {
            "RecordType": "Delivery",
            "Recipient": to,
            "Details": "250",
            "Metadata": {"packmule": SEND.name},
        }
        assert post(http, "postmark", postmark_request(said)).status_code == 200
    assert known(client, BOB).reply == "resolved by postmark: it was sent"
    assert known(client, ADA) == before
    assert suppressed(client) == {}


def test_a_bounce_of_a_mail_that_others_sent_counts_too(http, client, keys, monkeypatch):
    for name in PROVIDERS:
        to = f"{name}@Example.net"
        assert post(http, name, a_bounce(name, keys, monkeypatch, to, "")).status_code == 200
    assert suppressed(client) == dict.fromkeys((f"{name}@example.net" for name in PROVIDERS), "bounce")


def test_complaints_and_unsubscriptions_suppress(http, client):
    assert post(http, "postmark", postmark_request({"RecordType": "SpamComplaint", "Email": ADA})).is_success
    said = {"event": "unsubscribed", "recipient": BOB}
    assert post(http, "mailgun", mailgun_request(said)).is_success
    assert suppressed(client) == {ADA: "complaint", BOB: "unsubscribe"}


def test_one_mail_that_is_deferred_often_counts_as_one_soft_bounce(http, client):
    for detail in range(10):
        said = {"RecordType": "Bounce", "Type": "SoftBounce", "Email": ADA, "Details": f"4.2.2 {detail}",
                "Metadata": {"packmule": MARK}}  # fmt: skip
        assert post(http, "postmark", postmark_request(said)).is_success
    assert suppressed(client) == {}
    assert client.get(f"pm:mail-soft:{ADA}") == b"1"


def test_a_token_of_mailgun_is_good_for_its_own_events_alone(http, client):
    """Its signature doesn't cover the events, so whoever sees one could write others under it."""
    body, _ = mailgun_request({"event": "complained", "recipient": ADA})
    said = json.loads(body)
    assert post(http, "mailgun", (body, {})).status_code == 200
    forged = json.dumps({**said, "event-data": {"event": "complained", "recipient": BOB}}).encode()
    assert post(http, "mailgun", (forged, {})).status_code == 403
    assert post(http, "mailgun", (body, {})).status_code == 200
    assert suppressed(client) == {ADA: "complaint"}


def test_what_is_not_signed_is_refused_and_nothing_of_it_is_logged(http, client, keys, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    for name in PROVIDERS:
        body, headers = a_bounce(name, keys, monkeypatch, "s3cret@example.net")
        forged = {key: value[:-3] + "AAA" for key, value in headers.items()}
        bad = body.replace(b'"Signature"', b'"Sig"').replace(b'"signature"', b'"sig"')
        assert post(http, name, (bad, forged)).status_code == 403, name
        assert post(http, name, (b"\xff{", headers)).status_code == 400
    assert suppressed(client) == {}
    assert "s3cret" not in caplog.text


def test_an_address_that_sends_garbage_is_soon_not_read_any_more(http, client, caplog):
    answers = [post(http, "resend", (b"[" * 50_000, {})) for _ in range(25)]
    assert {each.status_code for each in answers} == {400, 429}
    assert int(answers[-1].headers["retry-after"]) > 0
    assert caplog.text.count("sends too many events that are refused") == 1
    client.delete(*client.keys("pm:rate:mail-events:*"))
    assert post(http, "postmark", postmark_request({"RecordType": "Open"})).status_code == 200


def test_bodies_are_bounded_and_other_requests_are_for_nobody(http, client):
    assert post(http, "postmark", (b" " * (1 << 21), {})).status_code == 413
    assert http.get("/mail/events/postmark").status_code == 405
    assert post(http, "nobody", (b"{}", {})).status_code == 404
    assert http.post("/mails", headers={"Accept": "text/html"}).status_code != 200


def test_while_all_turns_are_taken_a_provider_is_told_to_come_again(http, monkeypatch):
    class Taken:
        def acquire(self, blocking: bool) -> bool:
            return False

    monkeypatch.setattr(mail_events, "_turns", Taken())
    answer = post(http, "postmark", postmark_request({"RecordType": "Open"}))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def test_a_request_that_takes_too_long_is_asked_for_again_and_each_event_counts_once(
    http, client, keys, monkeypatch
):
    said = [{"event": "spamreport", "email": f"user{number}@example.org"} for number in range(600)]
    request = sendgrid_request(said, keys[0])[:2]
    monkeypatch.setattr(feedback, "MOST_SECONDS", 0.0)
    assert post(http, "sendgrid", request).status_code == 503
    monkeypatch.undo()
    assert post(http, "sendgrid", request).status_code == 200
    assert len(suppressed(client)) == 600


def test_a_subscription_of_sns_is_confirmed_or_asked_for_again(http, keys, monkeypatch, caplog):
    more = {"Type": "SubscriptionConfirmation", "Token": "t0ken", "SubscribeURL": "https://evil.example"}
    request = ses_request("You have chosen", keys[1], monkeypatch, more), {}
    confirmed = []
    monkeypatch.setattr(
        "packmule.jobs.email.suppression.feedback.sns.confirm", lambda *to: confirmed.append(to)
    )
    assert post(http, "ses", request).status_code == 200
    assert confirmed == [(TOPIC, "t0ken")]

    def refuse(*to: str) -> None:
        raise sns.NotConfirmed("SNS refused")

    monkeypatch.setattr(sns, "confirm", refuse)
    assert post(http, "ses", request).status_code == 503


def test_nothing_is_taken_without_a_key_and_a_wrong_key_is_said_at_the_start(client, monkeypatch, tmp_path):
    assert event_keys() == {}
    monkeypatch.setenv("PACKMULE_SECRET_MAIL_EVENTS_POSTMARK", KEY)
    (tmp_path / "topic").write_text(f"{TOPIC}\n")
    monkeypatch.setenv("PACKMULE_SECRET_MAIL_EVENTS_SES_FILE", str(tmp_path / "topic"))
    assert event_keys() == {"postmark": KEY, "ses": TOPIC}
    monkeypatch.setenv("PACKMULE_SECRET_MAIL_EVENTS_SES", "s3cret")
    with pytest.raises(SettingsError, match="PACKMULE_SECRET_MAIL_EVENTS_SES: give the ARN") as refused:
        event_keys()
    assert "s3cret" not in str(refused.value)


def test_while_redis_is_away_a_provider_is_told_to_come_again(spare_server, monkeypatch):
    """What it then sends again is taken, and counts once."""
    monkeypatch.setattr(guard, "SLOW", 0.2)
    monkeypatch.setattr(guard, "PATIENCE", 0.5)
    server = spare_server()
    with connect(None, server.data_dir) as redis:
        site = Site(redis, Client(redis), ("default",), "x", "production", event_keys={"postmark": KEY})
        door = SimpleNamespace(app=build(site, lambda request: None))
        request = postmark_request({"RecordType": "SpamComplaint", "Email": ADA})
        with served_door(door) as url, httpx.Client(base_url=url, timeout=DEADLINE) as http:  # type: ignore[arg-type]
            with server_frozen(server):
                assert post(http, "postmark", request).status_code == 503
            until(lambda: post(http, "postmark", request).status_code == 200, "it is taken")
        assert suppressed(redis) == {ADA: "complaint"}


# By the API


def test_a_mail_server_hands_in_a_report_by_a_token_that_is_good_for_nothing_else(api, client):
    run = run_of(client)
    run.reserve([ADA])
    assert sent(run, YES, ADA)
    with api.as_("bounces") as http:
        answer = http.post("/mail/bounces", content=bounce(), headers={"Content-Type": "message/rfc822"})
        assert (answer.status_code, answer.json()) == (
            200, {"kinds": ["hard"], "unknown": 0, "suppressed": [ADA]}
        )  # fmt: skip
        assert http.post("/mail/bounces", content=bounce(BOB)).json()["unknown"] == 1
        assert http.post("/mail/bounces", content=b"\xff\x00").json() == {
            "kinds": [], "unknown": 0, "suppressed": []
        }  # fmt: skip
        assert http.post("/mail/bounces", content=b"--\n" * 3_000).status_code == 422
        assert http.post("/mail/bounces", content=b"x" * (9 << 20)).status_code == 413
        assert http.get("/jobs").status_code == 403
    with api.as_("read", "act", "enqueue") as http:
        assert http.post("/mail/bounces", content=bounce()).status_code == 403
    assert suppressed(client) == {ADA: "bounce"}
    assert next(each for each in audit.read(client) if each.action == "email intake").who == "token bounces"


def test_the_return_path_of_a_report_names_its_recipient(api, client):
    run = run_of(client)
    run.reserve([ADA])
    assert sent(run, YES, ADA)
    told = bounce().replace(b"rfc822; ada@example.org", b"rfc822; inbox@elsewhere.example")
    told = told.replace(b"rfc822;ada@example.org", b"rfc822;inbox@elsewhere.example")
    query = {"return_path": "bounces+{to}@example.org"}
    assert api.http.post("/mail/bounces", content=told, params=query).json()["suppressed"] == [ADA]
