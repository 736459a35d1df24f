"""API tokens: shown once, stored hashed, refused unread if mistyped, bound and ended as they were made."""

from __future__ import annotations

import threading

import pytest

from packmule.coordination.keys import InvalidName
from packmule.coordination.sessions import tokens as room
from packmule.coordination.sessions.tokens import (
    Grant,
    InvalidToken,
    NoSuchToken,
    TokenExists,
    Tokens,
    is_token,
)


@pytest.fixture
def tokens(client):
    return Tokens(client, "api")


def test_a_token_grants_its_scopes_until_it_is_revoked(tokens):
    shown = tokens.add("deploy", ["read", "jobs:enqueue"], lifetime=3600, made_by="ada")
    grant = tokens.read(shown)
    assert (grant.name, grant.scopes, grant.bound_to, grant.made_by) == (
        "deploy", {"read", "jobs:enqueue"}, None, "ada",
    )  # fmt: skip
    assert grant.allows("read")
    assert grant.allows("read", "job:7")
    assert not grant.allows("admin")
    tokens.revoke("deploy")
    assert tokens.read(shown) is None
    assert tokens.all() == []
    with pytest.raises(NoSuchToken, match="'deploy'"):
        tokens.revoke("deploy")


def test_redis_never_sees_a_token(tokens, client):
    shown = tokens.add("deploy", ["read"])
    stored = b"".join(client.dump(key) + key for key in client.keys("*"))
    assert shown.encode() not in stored
    assert shown.removeprefix("pm_").encode() not in stored


def test_everything_stored_expires(tokens, client):
    tokens.add("deploy", ["read"], lifetime=3600)
    tokens.add("night", ["read"], lifetime=60)
    tokens.lend("job:7")
    assert client.keys("*")
    assert all(0 < client.ttl(key) <= 3600 for key in client.keys("*"))
    assert client.ttl("pm:tokens:api") > 3500, "the list lives as long as the last token"


def test_a_token_ends(tokens, client):
    shown = tokens.add("deploy", ["read"], lifetime=3600)
    (key,) = client.keys("pm:token:*")
    client.persist(key)
    client.hset(key, "ends", "1")
    assert tokens.read(shown) is None, "its end counts, not its TTL alone"
    client.delete(key)
    assert tokens.read(shown) is None
    again = tokens.add("deploy", ["read"])
    assert tokens.read(again).name == "deploy", "a name is free when its token is gone"


def test_a_lent_token_is_good_for_one_thing_and_is_not_listed(tokens):
    grant = tokens.read(tokens.lend("job:7", lifetime=60))
    assert grant.bound_to == "job:7"
    assert grant.allows("read", "job:7")
    assert not grant.allows("read")
    assert not grant.allows("read", "job:70")
    assert not grant.allows("enqueue", "job:7")
    assert tokens.all() == []


def test_tokens_of_one_realm_are_nothing_in_another(tokens, client):
    assert Tokens(client, "shop").read(tokens.add("deploy", ["read"])) is None


@pytest.mark.parametrize(
    "text",
    ["", "pm_", "pm_" + "a" * 49, "x" * 10**6, "pm_" + "é" * 49, None, b"pm_", 7, "pm_" + "a" * 49 + "\n"],
    ids=lambda text: repr(text)[:12],
)
def test_what_is_no_token_asks_redis_nothing(text, client, monkeypatch):
    monkeypatch.setattr(room, "_read", None)
    assert Tokens(client, "api").read(text) is None


def test_one_wrong_character_is_refused_by_the_checksum(tokens):
    shown = tokens.add("deploy", ["read"])
    assert is_token(shown)
    for at in range(3, len(shown)):
        other = "0" if shown[at] != "0" else "1"
        assert not is_token(shown[:at] + other + shown[at + 1 :])


def test_a_name_is_taken_once_even_by_twenty_at_once(tokens):
    made, refused = [], []

    def add():
        try:
            made.append(tokens.add("deploy", ["read"]))
        except TokenExists as error:
            refused.append(str(error))

    threads = [threading.Thread(target=add) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 19)
    assert "revoke it" in refused[0]


def test_there_are_only_so_many_names_and_ended_ones_make_room(tokens, client, monkeypatch):
    monkeypatch.setattr(room, "MOST_NAMED", 3)
    for number in range(3):
        tokens.add(f"t{number}", ["read"])
    with pytest.raises(TokenExists, match="3 tokens"):
        tokens.add("one-more", ["read"])
    client.delete(client.keys("pm:token:*")[0])
    assert tokens.read(tokens.add("one-more", ["read"])).name == "one-more"


def test_its_use_is_noted_once_a_minute(tokens, client):
    shown = tokens.add("deploy", ["read"])
    assert tokens.read(shown).used_at is None
    first = tokens.read(shown).used_at
    assert tokens.read(shown).used_at == first > 0
    (key,) = client.keys("pm:token:*")
    client.hset(key, "used", f"{first - 61:.3f}")
    tokens.read(shown)
    assert tokens.all()[0].used_at >= first


@pytest.mark.parametrize(
    "scopes",
    [[], [""], ["READ"], ["a b"], ["read\n"], [7], ["a" * 31], ["r"] + [f"s{'x' * n}" for n in range(20)]],
)
def test_a_scope_that_is_none_is_refused(tokens, client, scopes):
    with pytest.raises(InvalidToken):
        tokens.add("deploy", scopes)
    assert not client.keys("*")


@pytest.mark.parametrize("lifetime", [0, -1, 10**12, float("nan"), float("inf"), True, "90d", None])
def test_a_lifetime_without_a_bound_is_refused(tokens, client, lifetime):
    with pytest.raises(InvalidToken, match="lifetime"):
        tokens.add("deploy", ["read"], lifetime=lifetime)
    with pytest.raises(InvalidToken, match="lifetime"):
        tokens.lend("job:7", lifetime=lifetime)
    assert not client.keys("*")


@pytest.mark.parametrize("name", ["", "a b", "x" * 101, "a\n", "é", 7])
def test_an_odd_name_is_refused(tokens, name):
    with pytest.raises(InvalidName):
        tokens.add(name, ["read"])
    with pytest.raises(InvalidName):
        tokens.revoke(name)


@pytest.mark.parametrize("bound", ["", "x" * 401, None, 7])
def test_a_bound_has_a_length(tokens, bound):
    with pytest.raises(InvalidToken, match="bound"):
        tokens.lend(bound)


def test_any_text_can_be_a_bound(tokens):
    for bound in ("job:" + "ü" * 300, "batch:<b>\r\n\x00", "\u202e"):
        assert tokens.read(tokens.lend(bound)).bound_to == bound


def test_keys_of_other_types_and_garbage_are_no_tokens_and_harm_no_other(tokens, client):
    good, spoilt, odd = (tokens.add(name, ["read"]) for name in ("good", "spoilt", "odd"))
    keys = {
        tokens.all()[n].name: client.hget("pm:tokens:api", tokens.all()[n].name).decode() for n in range(3)
    }
    client.hset(
        "pm:token:api:" + keys["spoilt"], mapping={"about": b"\xff{", "ends": "soon", "used": b"\xfe"}
    )
    client.delete("pm:token:api:" + keys["odd"])
    client.lpush("pm:token:api:" + keys["odd"], "x")
    client.hset("pm:tokens:api", mapping={b"\xff\x00": b"\xff", "<b>": "x" * 300})
    assert tokens.read(spoilt) is None
    assert tokens.read(odd) is None
    assert tokens.read(good).name == "good"
    assert [grant.name for grant in tokens.all()] == ["good"]
    tokens.revoke("spoilt")
    assert tokens.read(tokens.add("spoilt", ["read"])).name == "spoilt"


def test_a_list_of_another_type_is_replaced(tokens, client):
    client.set("pm:tokens:api", "garbage")
    assert tokens.all() == []
    tokens.add("deploy", ["read"])
    assert [grant.name for grant in tokens.all()] == ["deploy"]


def test_a_full_memory_lets_tokens_be_read(spare_server):
    from packmule.coordination.redis.connection import connect

    with connect(None, spare_server().data_dir) as client:
        tokens = Tokens(client, "api")
        shown = tokens.add("deploy", ["read"])
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1mb")
        assert tokens.read(shown) == Grant("deploy", frozenset(["read"]), None, tokens.read(shown).expires_at)
