"""One-time secrets are used once, by one; attempts wait longer each time, and never for ever."""

from __future__ import annotations

import math

import pytest

from packmule.coordination.sessions import one_time
from packmule.coordination.sessions.attempts import Attempts, InvalidPace, Pace, TooManyAttempts
from packmule.coordination.sessions.one_time import InvalidLifetime, OneTime
from packmule.coordination.sessions.opaque import hashed
from packmule.tests.command_line import until
from packmule.tests.coordination.test_sessions import at_once


@pytest.fixture
def links(client):
    return OneTime(client, "links")


def test_a_secret_is_good_once(links):
    secret = links.make("ada", {"next": "/"})
    assert links.look(secret) == {"next": "/"}
    assert links.use(secret) == {"next": "/"}
    assert links.look(secret) is None
    assert links.use(secret) is None


def test_of_twenty_at_once_one_gets_it(links):
    secret = links.make("ada", {"x": 1})
    assert sorted(map(str, at_once(20, lambda _: links.use(secret)))) == ["None"] * 19 + ["{'x': 1}"]


def test_a_call_whose_reply_was_lost_gets_it_again(links, monkeypatch):
    monkeypatch.setattr(one_time.secrets, "token_hex", lambda _: "the same call")
    secret = links.make("ada", {"x": 1})
    assert links.use(secret) == links.use(secret) == {"x": 1}
    monkeypatch.setattr(one_time.secrets, "token_hex", lambda _: "another")
    assert links.use(secret) is None


def test_a_subject_has_one_secret_at_a_time(links):
    first, other = links.make("ada", {"n": 1}), links.make("bob", {"n": 2})
    second = links.make("ada", {"n": 3})
    assert links.use(first) is None
    assert links.use(second) == {"n": 3}
    links.end("bob")
    assert links.use(other) is None


def test_secrets_are_stored_hashed_and_expire(links, client):
    secret = links.make("ada", {"x": 1}, lifetime=60)
    links.use(links.make("bob", {}, lifetime=60))
    stored = b"".join(client.dump(key) + key for key in client.keys("*"))
    assert secret.encode() not in stored
    assert all(0 < client.pttl(key) <= 60_000 for key in client.keys("*"))
    short = links.make("ada", {}, lifetime=1)
    until(lambda: links.look(short) is None, "the end of the secret")
    assert links.use(short) is None


def test_a_used_secret_is_gone_before_its_mark(links, client):
    secret = links.make("ada", {"x": 1})
    links.use(secret)
    assert client.pttl(f"pm:once:links:{hashed(secret)}") < client.pttl(
        f"pm:once-used:links:{hashed(secret)}"
    )


@pytest.mark.parametrize("secret", ["", "x" * 43, "x" * 10**6, None, "é" * 43])
def test_what_is_no_secret_is_nothing(links, secret):
    assert links.look(secret) is None
    assert links.use(secret) is None


@pytest.mark.parametrize("lifetime", [0, 86_401, float("nan"), True, None])
def test_a_lifetime_has_bounds(links, lifetime):
    with pytest.raises(InvalidLifetime):
        links.make("ada", {}, lifetime=lifetime)


def test_garbage_is_no_secret(links, client):
    secret = links.make("ada", {"x": 1})
    client.set(f"pm:once:links:{hashed(secret)}", b"\xff")
    assert links.look(secret) is None
    assert links.use(secret) is None
    client.delete("pm:once-of:links:ada")
    client.lpush("pm:once-of:links:ada", "x")
    secret = links.make("ada", {"x": 2})
    client.delete(f"pm:once:links:{hashed(secret)}")
    client.lpush(f"pm:once:links:{hashed(secret)}", "x")
    assert links.look(secret) is None
    assert links.use(secret) is None


PACES = {
    "ip": Pace(free=20, first=1, longest=60),
    "user": Pace(free=3, first=20, longest=100, forgotten=1000),
}
"""Waits of whole tens of seconds, of which a busy machine spends a few."""


def tens(waits):
    """Waits in tens of seconds, as they were when they began."""
    return [math.ceil(wait / 10) for wait in waits]


@pytest.fixture
def attempts(client):
    return Attempts(client, "logins", PACES)


def pass_time(client, seconds):
    """As if so many seconds had gone by."""
    for key in client.keys("pm:attempts:*"):
        client.hset(key, "until", f"{float(client.hget(key, 'until')) - seconds:.3f}")


def test_some_attempts_are_free_and_then_the_wait_grows_to_its_bound(attempts, client):
    for _ in range(3):
        attempts.begin(user="ada")
    waits = []
    for _ in range(6):
        with pytest.raises(TooManyAttempts, match="try again in") as refused:
            attempts.begin(user="ada")
        waits.append(refused.value.retry_after)
        pass_time(client, 101)
        attempts.begin(user="ada")
    assert tens(waits) == [2, 4, 8, 10, 10, 10]


def test_a_refused_attempt_counts_nothing(attempts):
    for _ in range(3):
        attempts.begin(user="ada")
    waits = []
    for _ in range(30):
        with pytest.raises(TooManyAttempts) as refused:
            attempts.begin(user="ada")
        waits.append(refused.value.retry_after)
    assert waits == sorted(waits, reverse=True)
    assert waits[0] <= 20


def test_an_attempt_counts_under_all_keys_or_none(attempts, client):
    for _ in range(3):
        attempts.begin(ip="10.0.0.1", user="ada")
    for _ in range(10):
        with pytest.raises(TooManyAttempts):
            attempts.begin(ip="10.0.0.1", user="ada")
    assert client.hget("pm:attempts:logins:ip:10.0.0.1", "n") == b"3"
    attempts.begin(ip="10.0.0.1", user="bob")
    assert client.hget("pm:attempts:logins:ip:10.0.0.1", "n") == b"4"


def test_of_fifty_at_once_no_more_than_the_free_ones_pass(attempts):
    def act(_):
        try:
            attempts.begin(user="ada")
        except TooManyAttempts:
            return 0
        return 1

    assert sum(at_once(50, act)) == 3


def test_who_has_come_in_is_forgiven(attempts, client):
    for _ in range(3):
        attempts.begin(ip="10.0.0.1", user="ada")
    attempts.forgive(user="ada")
    attempts.begin(ip="10.0.0.1", user="ada")
    assert client.hget("pm:attempts:logins:ip:10.0.0.1", "n") == b"4", "of the address nothing is forgotten"


def test_an_attempt_that_was_right_is_given_back_and_what_was_wrong_stays(attempts, client):
    key = "pm:attempts:logins:user:office"
    for _ in range(2):
        attempts.begin(user="office")
    for _ in range(10):
        attempts.begin(user="office")
        attempts.give_back(user="office")
    assert client.hget(key, "n") == b"2"
    attempts.begin(user="office")
    waits = []
    for _ in range(3):
        with pytest.raises(TooManyAttempts) as refused:
            attempts.begin(user="office")
        waits.append(refused.value.retry_after)
        pass_time(client, 101)
        attempts.begin(user="office")
        attempts.give_back(user="office")
        attempts.begin(user="office")
    assert tens(waits) == [2, 4, 8], "whoever comes in between guesses gains nothing"
    assert client.ttl(key) > 0
    attempts.give_back(user="nobody")
    assert not client.exists("pm:attempts:logins:user:nobody")


def test_everything_counted_expires(attempts, client):
    for number in range(20):
        attempts.begin(ip="10.0.0.1", user=f"u{number}")
    assert all(0 < client.ttl(key) <= 3700 for key in client.keys("*"))


@pytest.mark.parametrize("key", ["", "ü" * 300, "\x00\r\n", "\ud800", "x" * 10**6, "~"])
def test_any_text_can_be_a_key(attempts, key):
    for _ in range(3):
        attempts.begin(user=key)
    with pytest.raises(TooManyAttempts):
        attempts.begin(user=key)


def test_garbage_and_a_clock_that_stepped_back_lock_nobody_out_for_long(attempts, client):
    key = "pm:attempts:logins:user:ada"
    for fields in ({"n": "x", "until": "y"}, {"n": "1e300"}, {"n": "nan"}, {"n": "-7"}, {b"\xff": b"\xff"}):
        client.hset(key, mapping=fields)
        attempts.begin(user="ada")
        client.delete(key)
    client.hset(key, "until", "9e15")
    with pytest.raises(TooManyAttempts) as refused:
        attempts.begin(user="ada")
    assert refused.value.retry_after == 100
    client.delete(key)
    client.set(key, "x")
    attempts.begin(user="ada")
    assert client.type(key) == b"hash"


@pytest.mark.parametrize("pace", [{"free": 0}, {"first": 0}, {"longest": 10**9}, {"forgotten": float("nan")}])
def test_a_pace_has_bounds(pace):
    with pytest.raises(InvalidPace):
        Pace(**pace)
