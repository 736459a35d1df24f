"""Unsubscribing by a signed link: one click, no login, and nobody for anybody else."""

from __future__ import annotations

import json
import time

import pytest
from redis import Redis
from starlette.testclient import TestClient

from packmule.dashboard.site import Site, build
from packmule.jobs.client import Client
from packmule.jobs.email import email
from packmule.jobs.email.letter import InvalidMessage
from packmule.jobs.email.suppression import links as unsubscribing
from packmule.jobs.email.suppression.links import (
    InvalidLink,
    InvalidLinkKey,
    LinkKeys,
    UnsubscribeLinks,
    personal,
)
from packmule.jobs.email.suppression.store import Suppressions
from packmule.jobs.job_type import InvalidCall
from packmule.tests.dashboard.visits import text_of

ADA = "Ada@Example.org"
CLICK = {"List-Unsubscribe": "One-Click"}
LINK = "https://jobs.example.org/unsubscribe/{token}"


@pytest.fixture
def http(client: Redis):
    """Somebody who has not logged in, such as the servers of a mail provider."""
    site = Site(client, Client(client), ("default",), "redis://private", "production")
    with TestClient(build(site, lambda request: None), base_url="http://127.0.0.1") as found:
        yield found


@pytest.fixture
def links(client: Redis) -> UnsubscribeLinks:
    return UnsubscribeLinks(client)


def suppressed(client: Redis) -> list[str]:
    return sorted(each.name for each in Suppressions(client))


def test_a_get_asks_and_a_post_unsubscribes_once_and_again(http, client, links):
    path = f"/unsubscribe/{links.token(ADA)}"
    for _ in range(3):
        answer = http.get(path)
        assert answer.status_code == 200
        assert "ada@example.org gets mail from us" in text_of(answer.text)
        assert "set-cookie" not in answer.headers
    assert suppressed(client) == []
    assert http.post(path).status_code == 400  # not by the click
    assert suppressed(client) == []
    for headers in ({}, {"Origin": "https://mail.example.com", "Sec-Fetch-Site": "cross-site"}):
        answer = http.post(path, data=CLICK, headers=headers)
        assert (answer.status_code, answer.history) == (200, [])
        assert "You are unsubscribed" in answer.text
    assert suppressed(client) == ["ada@example.org"]
    assert Suppressions(client).find(ADA).source == "unsubscribe"
    assert http.post(path, files={"List-Unsubscribe": (None, "One-Click")}).status_code == 200


@pytest.mark.parametrize("what", ["cut", "changed", "garbage", "another", "old", "long", "no key"])
def test_a_link_that_is_not_ours_changes_nothing_and_says_so(http, client, links, what):
    token = links.token(ADA, -3 * 86_400 if what == "old" else 86_400)
    name, day, signature = token.split(".")
    eve = UnsubscribeLinks(client).token("eve@example.org").split(".")
    wrong = {
        "cut": token[:-4],
        "changed": f"{name}.{int(day, 16) + 1:x}.{signature}",
        "garbage": "%00%ff.<script>.x",
        "another": f"{eve[0]}.{day}.{signature}",
        "old": token,
        "long": "a" * 5000,
        "no key": token,
    }[what]
    if what == "no key":
        client.delete(unsubscribing.KEY)
    for answer in (http.get(f"/unsubscribe/{wrong}"), http.post(f"/unsubscribe/{wrong}", data=CLICK)):
        assert answer.status_code == 404
        assert "<script>." not in answer.text
        assert "This link doesn" in answer.text
        assert "example.org" not in text_of(answer.text)
    assert suppressed(client) == []
    assert client.exists(unsubscribing.KEY) == (what != "no key"), "a look makes no key"


def test_known_and_unknown_addresses_get_the_same_answers(http, links):
    """Who holds a link has it from a mail; whether somebody is a customer can't be asked."""
    pages = [http.get(f"/unsubscribe/{links.token(to)}").text for to in (ADA, "nobody@example.org")]
    assert len({len(page) - 2 * len(name) for page, name in zip(pages, (ADA, ADA), strict=True)}) <= 2
    assert http.get("/mails").status_code == 401


def test_links_stay_the_same_for_a_day_and_live_for_years(links, client, monkeypatch):
    token = links.token(ADA)
    assert UnsubscribeLinks(client).token("ada@example.org") == token
    assert len(token) < 150
    now = time.time()
    monkeypatch.setattr(unsubscribing.time, "time", lambda: now + unsubscribing.LIFE)
    assert links.read(token) == "ada@example.org"
    monkeypatch.setattr(unsubscribing.time, "time", lambda: now + unsubscribing.LIFE + 3 * 86_400)
    with pytest.raises(InvalidLink, match="too old"):
        links.read(token)


def test_a_key_that_is_not_whole_signs_nothing(client, links):
    client.set(unsubscribing.KEY, "short")
    with pytest.raises(InvalidLink, match="is incomplete"):
        links.token(ADA)
    with pytest.raises(InvalidLink):
        UnsubscribeLinks(client).read("YQ.ffff.YQ")


def test_a_mail_has_its_recipients_own_link(links):
    (url,) = personal([LINK], [ADA], links)
    assert links.read(url.rpartition("/")[2]) == "ada@example.org"
    assert personal("https://example.org/u", [ADA, "b@example.org"], links) == "https://example.org/u"
    with pytest.raises(InvalidMessage, match="for one recipient"):
        personal(LINK, [ADA, "b@example.org"], links)
    with pytest.raises(InvalidCall, match="for one recipient"):
        email.enqueue([ADA, "b@example.org"], "Hello", body="x", unsubscribe=LINK)
    assert json.dumps(personal(None, [ADA], links)) == "null"


def test_a_key_of_the_settings_signs_and_those_before_it_still_verify(client, links, monkeypatch):
    from packmule.jobs import context
    from packmule.jobs.email import Ledger

    of_redis = links.token(ADA)
    first, second = "a-text-nobody-guesses", "another-text-nobody-guesses"
    monkeypatch.setattr(context, "resources", {})
    context.provide(Ledger(client), LinkKeys.of(first))
    of_first = unsubscribing.links_for(client).token(ADA)
    client.delete(unsubscribing.KEY)
    assert unsubscribing.links_for(client).token(ADA) == of_first
    assert not client.exists(unsubscribing.KEY), "whoever has a key needs none of Redis"
    rotated = UnsubscribeLinks(client, LinkKeys.of(f"{second} {first}"))
    assert rotated.token(ADA) != of_first
    assert rotated.read(of_first) == rotated.read(rotated.token(ADA)) == "ada@example.org"
    for token in (of_redis, of_first):
        with pytest.raises(InvalidLink):
            UnsubscribeLinks(client, LinkKeys.of(second)).read(token)
    of_redis = UnsubscribeLinks(client).token(ADA)
    assert UnsubscribeLinks(client, LinkKeys.of(second)).read(of_redis) == "ada@example.org"


def test_a_link_of_the_settings_key_is_followed(client):
    keys = LinkKeys.of("a-text-nobody-guesses")
    site = Site(client, Client(client), ("default",), "redis://private", "production", link_keys=keys)
    with TestClient(build(site, lambda request: None), base_url="http://127.0.0.1") as http:
        token = UnsubscribeLinks(client, keys).token(ADA)
        assert http.post(f"/unsubscribe/{token}", data=CLICK).status_code == 200
    assert suppressed(client) == ["ada@example.org"]


def test_a_key_that_can_be_guessed_is_refused_by_the_name_of_its_setting():
    assert LinkKeys.of("") == ()
    with pytest.raises(InvalidLinkKey, match=r"^PACKMULE_SECRET_UNSUBSCRIBE: .* 16 characters") as refused:
        LinkKeys.of("a-text-nobody-guesses s3cret")
    assert "s3cret" not in str(refused.value)
