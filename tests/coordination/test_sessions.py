"""Sessions: over when they are idle, old, rotated or ended, whatever happens at once or lies in Redis."""

from __future__ import annotations

import threading
import time

import pytest

from packmule.coordination.redis.connection import connect
from packmule.coordination.sessions import sessions as room
from packmule.coordination.sessions.opaque import hashed, is_id, new_id
from packmule.coordination.sessions.sessions import InvalidSession, Sessions, SessionsEnded
from packmule.tests.command_line import until


@pytest.fixture
def sessions(client):
    return Sessions(client, "site")


def at_once(count, act):
    """What `act(number)` returns in as many threads that begin together."""
    begin = threading.Barrier(count)
    found = [None] * count

    def run(number):
        begin.wait()
        found[number] = act(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_a_session_is_read_until_it_is_ended(sessions):
    id = sessions.start("ada", {"role": "admin"}, origin="10.0.0.1", agent="Firefox")
    found = sessions.read(id)
    assert (found.user, found.origin, found.agent, found.data) == (
        "ada", "10.0.0.1", "Firefox", {"role": "admin"},
    )  # fmt: skip
    assert found.begun_at == found.seen_at
    assert found.ends_at - found.begun_at == pytest.approx(7 * 86_400)
    assert sessions.end(id)
    assert sessions.read(id) is None
    assert not sessions.end(id)
    assert sessions.list("ada") == []


def test_redis_never_sees_an_id_and_everything_expires(sessions, client):
    id = sessions.start("ada")
    again = sessions.rotate(sessions.start("ada"))
    sessions.end_all("bob")
    assert client.keys("*")
    stored = b"".join(client.dump(key) + key for key in client.keys("*"))
    assert id.encode() not in stored
    assert again.encode() not in stored
    assert all(client.ttl(key) > 0 for key in client.keys("*"))


def test_an_idle_session_ends_and_one_in_use_goes_on(client):
    sessions = Sessions(client, "site", idle=4, absolute=3600)
    used, idle = sessions.start("ada"), sessions.start("ada")
    begun = time.monotonic()
    while sessions.read(used) and time.monotonic() < begun + 6:
        time.sleep(0.05)
    assert sessions.read(used), "it was used all the time"
    assert sessions.read(idle) is None
    until(lambda: sessions.list("ada") == [], "the end of a session that nobody uses")


def test_no_use_lets_a_session_live_longer_than_its_absolute_end(client):
    sessions = Sessions(client, "site", idle=3600, absolute=1)
    id = sessions.start("ada")
    assert client.pttl("pm:session:site:" + hashed(id)) <= 1001  # its end is rounded to milliseconds
    until(lambda: sessions.read(id) is None, "the absolute end")


def test_the_absolute_end_counts_even_if_the_key_lost_its_ttl(sessions, client):
    id = sessions.start("ada")
    key = "pm:session:site:" + hashed(id)
    client.hset(key, "ends", "1700000000")
    client.persist(key)
    assert sessions.read(id) is None


def test_a_use_is_written_once_a_minute_at_most(sessions, client):
    id = sessions.start("ada")
    key = "pm:session:site:" + hashed(id)
    before = client.info("commandstats")["cmdstat_hset"]["calls"]
    first = sessions.read(id).seen_at
    for _ in range(20):
        assert sessions.read(id).seen_at == first
    assert client.info("commandstats")["cmdstat_hset"]["calls"] == before
    client.hset(key, "seen", f"{first - 61:.3f}")
    client.pexpire(key, 100_000)
    sessions.read(id)
    assert sessions.read(id).seen_at >= first
    assert client.pttl(key) > 12 * 3600 * 1000


def test_reading_takes_one_round_trip(sessions, client):
    id = sessions.start("ada")
    sessions.read(id)
    calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    sessions.read(id)
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == calls + 1


def test_a_rotated_id_is_dead_and_the_new_one_has_the_rest(sessions):
    old = sessions.start("ada", {"role": "viewer"}, origin="10.0.0.1")
    first = sessions.read(old)
    new = sessions.rotate(old, {"role": "admin"})
    assert sessions.read(old) is None
    found = sessions.read(new)
    assert (found.user, found.origin, found.data) == ("ada", "10.0.0.1", {"role": "admin"})
    assert (found.begun_at, found.ends_at) == (first.begun_at, first.ends_at)
    assert sessions.read(sessions.rotate(new)).data == {"role": "admin"}
    assert len(sessions.list("ada")) == 1
    assert sessions.rotate(old) is None
    assert sessions.rotate("garbage") is None


def test_of_many_rotations_at_once_one_wins(sessions):
    old = sessions.start("ada")
    won = [id for id in at_once(20, lambda _: sessions.rotate(old)) if id]
    assert len(won) == 1
    assert sessions.read(won[0]).user == "ada"
    assert len(sessions.list("ada")) == 1


def test_a_rotation_whose_reply_was_lost_is_found_again(sessions, client, monkeypatch):
    old, new = sessions.start("ada"), new_id()
    monkeypatch.setattr(room, "new_id", lambda: new)
    assert sessions.rotate(old) == new
    assert sessions.rotate(old) == new, "the same call again"
    assert sessions.read(new)


def test_all_sessions_of_a_user_end_but_the_one_to_keep(sessions):
    ids = [sessions.start("ada") for _ in range(5)]
    other = sessions.start("bob")
    kept = sessions.read(ids[2]).ref
    assert sessions.end_all("ada", but=kept) == 4
    assert [sessions.read(id) is not None for id in ids] == [False, False, True, False, False]
    assert [each.ref for each in sessions.list("ada")] == [kept]
    assert sessions.read(other)
    assert sessions.end_all("ada") == 1
    assert sessions.read(ids[2]) is None
    assert sessions.read(sessions.start("ada")), "a new login comes in"


def test_ended_sessions_are_over_even_if_nothing_lists_them(sessions, client):
    id = sessions.start("ada")
    client.delete("pm:sessions:site:ada")
    assert sessions.read(id)
    assert sessions.end_all("ada") == 0
    assert sessions.read(id) is None


def test_a_login_that_began_before_the_end_of_all_starts_nothing(sessions):
    mark = sessions.ending("ada")
    assert sessions.read(sessions.start("ada", ending=mark))
    sessions.end_all("ada")
    with pytest.raises(SessionsEnded, match="ada"):
        sessions.start("ada", ending=mark)
    assert sessions.list("ada") == []
    assert sessions.read(sessions.start("ada", ending=sessions.ending("ada")))


def test_sessions_that_start_while_all_end_are_either_ended_or_later(sessions):
    def act(number):
        if number == 7:
            return sessions.end_all("ada")
        return sessions.start("ada")

    ids = at_once(15, act)
    alive = [id for number, id in enumerate(ids) if number != 7 and sessions.read(id)]
    assert len(alive) + ids[7] == 14
    assert len(sessions.list("ada")) == len(alive)


def test_a_user_ends_her_own_sessions_only(sessions):
    mine, hers = sessions.start("ada"), sessions.start("bob")
    assert not sessions.end_one("ada", sessions.read(hers).ref)
    assert sessions.read(hers)
    assert sessions.end_one("ada", sessions.read(mine).ref)
    assert sessions.read(mine) is None
    for ref in ("", "*", "x" * 300, "\x00", "../site:x", None):
        assert not sessions.end_one("ada", ref)


def test_a_ref_lets_nobody_in(sessions):
    id = sessions.start("ada")
    assert sessions.read(sessions.read(id).ref) is None


def test_a_user_has_so_many_sessions_and_the_oldest_makes_room(sessions, client, monkeypatch):
    monkeypatch.setattr(room, "MOST_SESSIONS", 3)
    ids = []
    for _ in range(5):
        ids.append(sessions.start("ada"))
        time.sleep(0.002)  # so that their ends differ
    assert [sessions.read(id) is not None for id in ids] == [False, False, True, True, True]
    assert client.zcard("pm:sessions:site:ada") == 3


def test_a_session_of_one_site_is_nothing_in_another(sessions, client):
    assert Sessions(client, "shop").read(sessions.start("ada")) is None


@pytest.mark.parametrize("id", ["", "x", "x" * 44, "é" * 43, "x" * 10**6, None, b"x" * 43, "x" * 42 + "\n"])
def test_what_is_no_id_asks_redis_nothing(sessions, monkeypatch, id):
    monkeypatch.setattr(room, "_read", None)
    assert sessions.read(id) is None
    assert not sessions.end(id)


@pytest.mark.parametrize("user", ["ü" * 300, "a:b", "<b>", "a\r\nb", "\x00", "~", "*", "\u202e"])
def test_any_name_can_be_a_user(sessions, user):
    id = sessions.start(user)
    assert sessions.read(id).user == user
    assert sessions.end_all(user) == 1


@pytest.mark.parametrize("user", ["", "x" * 301, None, 7, "\ud800"])
def test_what_is_no_name_is_refused(sessions, client, user):
    with pytest.raises(InvalidSession, match="is not a user"):
        sessions.start(user)
    assert not client.keys("*")


@pytest.mark.parametrize("data", [{"x": "y" * 5000}, {"x": object()}, {1j: 2}])
def test_data_are_a_small_json_object(sessions, client, data):
    with pytest.raises(InvalidSession, match="data"):
        sessions.start("ada", data)
    assert not client.keys("*")


def test_long_and_odd_descriptions_are_cut(sessions):
    found = sessions.read(sessions.start("ada", origin="x" * 5000, agent="\ud800" + "é" * 5000))
    assert len(found.origin) == 100
    assert found.agent == "?" + "é" * 199


@pytest.mark.parametrize("spans", [{"idle": 0}, {"idle": float("nan")}, {"absolute": 10**12}, {"idle": True}])
def test_a_span_out_of_range_is_refused(client, spans):
    with pytest.raises(InvalidSession, match="a number of seconds"):
        Sessions(client, "site", **spans)


def test_garbage_is_no_session_and_harms_no_other(sessions, client):
    good = sessions.start("ada")
    for number, write in enumerate(
        [
            lambda key: client.lpush(key, "x"),
            lambda key: client.hset(key, "user", b"\xff"),
            lambda key: client.hset(key, "data", b"[1]"),
            lambda key: client.hset(key, "ends", "soon"),
            lambda key: client.hset(key, "begun", "nan"),
            lambda key: client.hset(key, "after", ""),
            lambda key: client.set(key, ""),
        ]
    ):
        id = sessions.start("ada")
        key = "pm:session:site:" + hashed(id)
        if number in (0, 6):
            client.delete(key)
        write(key)
        found = sessions.read(id)
        assert found is None or number == 4
    client.zadd("pm:sessions:site:ada", {b"\xff\x00": 1e300, "x" * 300: -1})
    assert sessions.read(good)
    assert sessions.read(good).ref in [each.ref for each in sessions.list("ada")]
    assert sessions.end_all("ada") >= 1
    assert sessions.read(good) is None


def test_keys_of_another_type_in_the_place_of_lists_and_marks_let_work_go_on(sessions, client):
    client.set("pm:sessions:site:ada", "garbage")
    assert sessions.list("ada") == []
    id = sessions.start("ada")
    assert len(sessions.list("ada")) == 1
    client.delete("pm:ended:site:ada")
    client.lpush("pm:ended:site:ada", "garbage")
    assert sessions.read(id) is None, "who knows what it said"
    id = sessions.start("ada", ending=sessions.ending("ada"))
    assert sessions.read(id)
    client.set("pm:ended:site:ada", "9" * 300)
    assert sessions.read(id) is None
    assert sessions.read(sessions.start("ada", ending=sessions.ending("ada")))
    client.set("pm:sessions:site:ada", "garbage")
    assert sessions.end_all("ada") == 0
    assert sessions.read(sessions.start("ada"))


def test_a_full_memory_or_a_replica_lets_sessions_be_read(spare_server):
    with connect(None, spare_server().data_dir) as client:
        sessions = Sessions(client, "site")
        id = sessions.start("ada")
        client.hset("pm:session:site:" + hashed(id), "seen", "1")
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1mb")
        assert sessions.read(id).user == "ada"


def test_even_a_full_memory_lets_sessions_be_ended(spare_server):
    with connect(None, spare_server().data_dir) as client:
        sessions = Sessions(client, "site")
        ids = [sessions.start("ada") for _ in range(3)]
        unlisted = sessions.start("bob")
        client.delete("pm:sessions:site:bob")
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1mb")
        assert sessions.end(ids[0])
        assert sessions.end_all("ada") == 2
        assert sessions.end_all("bob") == 0
        assert [sessions.read(id) for id in (*ids, unlisted)] == [None] * 4


def test_ids_have_256_bits():
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(is_id(id) for id in ids)
