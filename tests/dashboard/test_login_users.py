"""The store of users: exact names, hashed passwords, and changes that end sessions in the same step."""

from __future__ import annotations

import threading

import msgspec
import pyotp
import pytest

from packmule.coordination.redis.connection import connect
from packmule.coordination.sessions.sessions import SessionsEnded
from packmule.dashboard.login.agents import in_words
from packmule.dashboard.users import passwords, store, totp
from packmule.dashboard.users.store import LastAdmin, NoSuchUser, UserExists, Users
from packmule.dashboard.users.user import InvalidUser, User, checked_name, checked_password
from packmule.dashboard.viewer import Role
from packmule.tests.coordination.test_sessions import at_once
from packmule.tests.dashboard.quick_passwords import QUICK, quick_passwords  # noqa: F401  a fixture

GOOD = "correct horse battery"


@pytest.fixture
def users(client):
    return Users(client)


def add(users, name, role=Role.VIEWER, **fields):
    users.add(User(name, role, **fields))


def test_a_user_is_found_by_the_exact_name(users):
    add(users, "ada", Role.ADMIN, payloads=True)
    found = users.find("ada")
    assert (found.name, found.role, found.payloads) == ("ada", Role.ADMIN, True)
    for other in ("Ada", "ada ", "ad", "", "*", "ada\x00", "\ud800", "x" * 300):
        assert users.find(other) is None
    with pytest.raises(NoSuchUser, match="'bob' doesn't exist"):
        users.get("bob")


def test_a_name_is_taken_once_even_by_twenty_at_once(users):
    def act(_):
        try:
            add(users, "ada")
        except UserExists:
            return 0
        return 1

    assert sum(at_once(20, act)) == 1
    with pytest.raises(UserExists, match="'ada' exists"):
        add(users, "ada", Role.ADMIN)
    assert users.get("ada").role is Role.VIEWER


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ada",
        "a b",
        "a/b",
        "é",
        "x" * 65,
        "x" * 300,
        "a\nb",
        "a\x00",
        "-a",
        ".a",
        "<b>",
        "a\u202eb",
        "a,b",
    ],
)
def test_a_name_with_odd_characters_is_refused_in_one_line(users, client, name):
    with pytest.raises(InvalidUser, match="is not a user name: use up to 64") as refused:
        add(users, name)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250
    assert not client.keys("*")


@pytest.mark.parametrize("name", ["a", "ada@example.com", "a.b-c_d+e", "7", "x" * 64])
def test_usual_names_are_fine(name):
    assert checked_name(name) == name


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("hunter2", "too short"),
        ("x" * 1001, "too long"),
        ("ada@example", "user's name"),
        ("ADA@Example", "user's name"),
        ("a" * 12, "single repeated character"),
    ],
)
def test_a_weak_password_is_refused_and_not_quoted(password, why):
    with pytest.raises(InvalidUser, match=why) as refused:
        checked_password("ada@example", password)
    assert password[:9] not in str(refused.value)


def test_each_change_of_rights_ends_the_sessions_in_the_same_step(users):
    add(users, "root", Role.ADMIN)
    add(users, "ada", Role.ADMIN)
    for fields in ({"role": Role.VIEWER}, {"password": "x"}, {"payloads": True}, {"totp": "ABC"}):
        id = users.sessions.start("ada")
        mark = users.sessions.ending("ada")
        users.change("ada", **fields)
        assert users.sessions.read(id) is None
        with pytest.raises(SessionsEnded):
            users.sessions.start("ada", ending=mark)
    id, mark = users.sessions.start("ada"), users.sessions.ending("ada")
    users.remove("ada")
    assert users.sessions.read(id) is None
    assert users.find("ada") is None
    with pytest.raises(SessionsEnded):
        users.sessions.start("ada", ending=mark)


def test_a_change_can_keep_one_session(users):
    add(users, "ada")
    kept, other = users.sessions.start("ada"), users.sessions.start("ada")
    users.change("ada", password="x", keep=users.sessions.read(kept).ref)
    assert users.sessions.read(kept)
    assert users.sessions.read(other) is None


def test_changes_at_once_are_all_made(users):
    add(users, "root", Role.ADMIN)
    add(users, "ada")
    fields = [{"payloads": True}, {"totp": "ABC"}, {"password": "x"}]
    at_once(3, lambda number: users.change("ada", **fields[number]))
    found = users.get("ada")
    assert (found.payloads, found.totp, found.password) == (True, "ABC", "x")


def test_the_last_admin_stays_unless_forced(users):
    add(users, "ada", Role.ADMIN)
    add(users, "bob", Role.OPERATOR)
    for change in (lambda: users.remove("ada"), lambda: users.change("ada", role=Role.VIEWER)):
        with pytest.raises(LastAdmin, match="'ada' is the last admin"):
            change()
    users.change("ada", payloads=True)
    add(users, "eve", Role.ADMIN)
    users.remove("ada")
    users.remove("eve", force=True)
    assert [user.name for user in users.all()] == ["bob"]


def test_of_two_last_admins_that_are_removed_at_once_one_stays(users):
    for _ in range(10):
        add(users, "ada", Role.ADMIN)
        add(users, "eve", Role.ADMIN)

        def remove(number):
            try:
                users.remove(["ada", "eve"][number])
            except LastAdmin:
                return 0
            return 1

        assert sum(at_once(2, remove)) == 1
        for user in users.all():
            users.remove(user.name, force=True)


def test_only_one_first_user_is_made(users):
    def act(number):
        try:
            users.add(User(f"u{number}", Role.ADMIN), is_first=True)
        except UserExists:
            return 0
        return 1

    assert sum(at_once(10, act)) == 1
    assert len(users.all()) == 1


def test_there_are_only_so_many_users(users, monkeypatch):
    monkeypatch.setattr(store, "MOST_USERS", 2)
    add(users, "a")
    add(users, "b")
    with pytest.raises(UserExists, match="2 users"):
        add(users, "c")


def test_garbage_is_no_user_and_can_be_removed(users, client):
    add(users, "root", Role.ADMIN)
    client.hset(
        "pm:users",
        mapping={
            "bad": b"\xff{",
            "odd": '{"name":"root","role":"admin"}',
            b"\xff": "{}",
            "deep": "[" * 100_000,
        },
    )
    client.hset("pm:users", "evil", '{"name":"evil","role":"god"}')
    assert [user.name for user in users.all()] == ["root"]
    for name in ("bad", "odd", "evil", "deep"):
        assert users.find(name) is None
        with pytest.raises(NoSuchUser, match="can't be read: remove it"):
            users.get(name)
        with pytest.raises(UserExists):
            add(users, name)
        users.remove(name)
        add(users, name)
    with pytest.raises(LastAdmin):
        users.remove("root")


def test_a_key_of_another_type_has_no_users_and_is_replaced(users, client):
    client.set("pm:users", "garbage")
    assert users.all() == []
    assert not users.any()
    assert users.find("ada") is None
    add(users, "ada")
    assert users.find("ada")


def test_a_repeated_change_is_done_once(users, client, monkeypatch):
    """As when the connection was lost after the script ran."""
    calls = []
    script = store._change

    def twice(*args):
        calls.append(script(*args))
        return script(*args)

    monkeypatch.setattr(store, "_change", twice)
    add(users, "root", Role.ADMIN)
    add(users, "ada")
    users.change("ada", payloads=True)
    users.remove("ada")
    assert calls == [b"done"] * 4
    assert [user.name for user in users.all()] == ["root"]


@pytest.mark.usefixtures("quick_passwords")
def test_a_password_is_right_or_wrong_and_its_hash_is_not_the_password():
    stored = passwords.hash_of(GOOD)
    assert stored.startswith("$argon2id$")
    assert GOOD not in stored
    assert passwords.is_right(stored, GOOD)
    for wrong in ("", GOOD + " ", GOOD.upper(), "x" * 1_000_000, "\ud800", "\x00"):
        assert not passwords.is_right(stored, wrong)
    assert passwords.is_right(passwords.hash_of("pa\u0308sswort-lang"), "p\u00e4sswort-lang"), (
        "composed otherwise"
    )


@pytest.mark.usefixtures("quick_passwords")
@pytest.mark.parametrize("stored", ["", "garbage", "$argon2id$v=19$m=8,t=1,p=1$x$y", "\x00", "$2b$12$abc"])
def test_no_password_is_right_for_a_user_without_one_or_with_garbage(stored):
    for password in ("", "nobody's", GOOD):
        assert not passwords.is_right(stored, password)


def test_nobodys_hash_costs_what_others_cost():
    assert not passwords.hasher.check_needs_rehash(passwords.NOBODYS)


def test_hashes_of_other_parameters_are_outdated():
    assert passwords.is_outdated(QUICK.hash("x"))
    assert passwords.is_outdated("garbage")


def test_only_two_hashes_are_computed_at_a_time(monkeypatch):
    running, most, lock, go = 0, [], threading.Lock(), threading.Event()

    class Counting:
        def verify(self, stored, password):
            nonlocal running
            with lock:
                running += 1
                most.append(running)
            go.wait(30)
            with lock:
                running -= 1
            return True

    monkeypatch.setattr(passwords, "hasher", Counting())
    threads = [threading.Thread(target=passwords.is_right, args=("x", "y")) for _ in range(8)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert len(most) == 8
    assert max(most) <= passwords.AT_ONCE


def test_who_waits_too_long_for_a_turn_is_told(monkeypatch):
    monkeypatch.setattr(passwords, "_turns", threading.BoundedSemaphore(1))
    monkeypatch.setattr(passwords, "LONGEST_WAIT", 0.01)
    with passwords._turn(), pytest.raises(passwords.TooBusy, match="try again"):
        passwords.is_right("x", "y")


def test_a_code_is_accepted_once_and_no_older_one_after_it():
    secret = totp.new_secret()
    made = pyotp.TOTP(secret)
    now = 1_800_000_000.0
    step = totp.step_of(secret, made.at(now), 0, now)
    assert step == now // 30
    assert totp.step_of(secret, made.at(now), step, now) is None, "a replay"
    assert totp.step_of(secret, made.at(now - 30), step, now) is None, "an older one"
    assert totp.step_of(secret, made.at(now + 30), step, now) == step + 1, "a clock ahead"
    assert totp.step_of(secret, made.at(now + 90), 0, now) is None
    shown = made.at(now)
    assert totp.step_of(secret, f"{shown[:3]} {shown[3:]}", 0, now) == step


@pytest.mark.parametrize("code", ["", "12345", "1234567", "abcdef", "１２３４５６", "x" * 10**6, "12345\x00"])
def test_what_is_no_code_is_not_accepted(code):
    assert totp.step_of(totp.new_secret(), code, 0) is None


def test_even_a_full_memory_lets_a_user_be_removed(spare_server):
    with connect(None, spare_server().data_dir) as client:
        users = Users(client)
        add(users, "root", Role.ADMIN)
        add(users, "ada")
        id = users.sessions.start("ada")
        client.config_set("maxmemory", "1mb")
        users.remove("ada")
        assert users.find("ada") is None
        assert users.sessions.read(id) is None


def test_a_user_is_stored_as_json(users, client):
    add(users, "ada", totp="ABC")
    assert msgspec.json.decode(client.hget("pm:users", "ada"))["totp"] == "ABC"


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36", "Chrome on Linux"),
        (
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1",
            "Safari on iPhone",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Firefox on macOS",
        ),
        ("curl/8.5.0", "curl"),
        ("", "unknown browser"),
        ("x" * 300, "x" * 60 + "…"),
    ],
)
def test_a_browser_is_named_in_words_that_its_user_knows(agent, words):
    assert in_words(agent) == words
