"""Refresh tokens: used once each; a thief ends the family, and a lost reply ends nothing."""

from __future__ import annotations

import pytest

from packmule.coordination.sessions.refresh import InvalidSpan, RefreshTokens, TokenReused
from packmule.coordination.sessions.sessions import Sessions
from packmule.tests.command_line import until
from packmule.tests.coordination.test_sessions import at_once


@pytest.fixture
def tokens(client):
    return RefreshTokens(client, "site")


def late(client):
    """Let the grace be over for all families."""
    for key in client.keys("pm:refresh:*"):
        client.hset(key, "used_at", "1")


def test_each_token_is_followed_by_the_next(tokens):
    token = tokens.begin("ada", {"device": 7})
    seen = {token}
    for _ in range(5):
        renewed = tokens.use(token)
        assert (renewed.user, renewed.data) == ("ada", {"device": 7})
        token = renewed.token
        seen.add(token)
    assert len(seen) == 6


def test_a_reused_token_ends_the_family_for_the_thief_and_the_owner(tokens, client):
    stolen = tokens.begin("ada")
    owner = tokens.use(stolen)
    assert tokens.is_alive(owner.family)
    late(client)
    with pytest.raises(TokenReused, match=r"'ada' was used twice.*log in again"):
        tokens.use(stolen)
    with pytest.raises(TokenReused):
        tokens.use(owner.token)
    assert not tokens.is_alive(owner.family)
    assert tokens.use(tokens.begin("ada")), "another family goes on"


def test_a_lost_reply_within_the_grace_gives_the_same_next_token(tokens, client):
    first = tokens.begin("ada")
    lost = tokens.use(first).token
    again = tokens.use(first).token
    assert again == lost
    assert tokens.use(again), "the honest client goes on"


def test_the_grace_is_over_once_the_next_token_was_used(tokens):
    first = tokens.begin("ada")
    second = tokens.use(first).token
    tokens.use(second)
    with pytest.raises(TokenReused):
        tokens.use(first)


def test_without_a_grace_each_reuse_ends_the_family(client):
    tokens = RefreshTokens(client, "site", grace=0)
    first = tokens.begin("ada")
    tokens.use(first)
    late(client)
    with pytest.raises(TokenReused):
        tokens.use(first)


def test_many_tabs_at_once_get_the_same_next_token(tokens):
    first = tokens.begin("ada")
    found = {renewed.token for renewed in at_once(20, lambda _: tokens.use(first))}
    assert len(found) == 1
    assert tokens.use(found.pop())


def test_redis_cannot_make_a_token(tokens, client):
    first = tokens.begin("ada")
    second = tokens.use(first).token
    stored = b"".join(client.dump(key) + key for key in client.keys("*"))
    for token in (first, second):
        assert all(part.encode() not in stored for part in token.split("."))


def test_a_log_out_ends_the_family_whichever_token_is_shown(tokens):
    first = tokens.begin("ada")
    second = tokens.use(first).token
    tokens.end(first)
    assert tokens.use(second) is None
    tokens.end("garbage")


def test_ending_all_of_a_user_ends_her_families(tokens, client):
    hers, his = tokens.begin("ada"), tokens.begin("bob")
    Sessions(client, "site").end_all("ada")
    assert tokens.use(hers) is None
    assert tokens.use(his)
    assert tokens.use(tokens.begin("ada"))


def test_a_family_expires(client):
    RefreshTokens(client, "site", idle=60, absolute=3600).begin("ada")
    assert all(client.ttl(key) > 0 for key in client.keys("*"))
    client.flushdb()
    tokens = RefreshTokens(client, "site", idle=1, absolute=3600)
    token = tokens.begin("ada")
    until(lambda: not client.keys("pm:refresh:*"), "the end of an idle family")
    assert tokens.use(token) is None
    tokens = RefreshTokens(client, "site", idle=3600, absolute=60)
    token = tokens.begin("ada")
    tokens.use(token)
    (key,) = client.keys("pm:refresh:*")
    assert client.pttl(key) <= 60_000


@pytest.mark.parametrize("token", ["", ".", "x.y", "x" * 10**6, None, 7, "é" * 43 + "." + "é" * 43])
def test_what_is_no_token_is_nothing(tokens, token):
    assert tokens.use(token) is None


def test_a_guess_is_nothing_and_ends_nothing_of_others(tokens):
    token = tokens.begin("ada")
    assert tokens.use("x" * 43 + "." + token.partition(".")[2]) is None
    assert tokens.use(token)


@pytest.mark.parametrize("spans", [{"grace": 61}, {"grace": -1}, {"idle": 0}, {"absolute": float("inf")}])
def test_a_span_out_of_range_is_refused(client, spans):
    with pytest.raises(InvalidSpan):
        RefreshTokens(client, "site", **spans)


def test_garbage_is_no_family(tokens, client):
    for write in (
        lambda key: client.hset(key, "data", b"\xff"),
        lambda key: client.hset(key, "ends", "never"),
        lambda key: (client.delete(key), client.set(key, "x")),
    ):
        token = tokens.begin("ada")
        (key,) = client.keys("pm:refresh:*")
        write(key)
        assert tokens.use(token) is None
        client.delete(key)
