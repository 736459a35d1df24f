"""Attacks on the login: guesses from many places, floods, enormous and odd fields, Redis gone meanwhile."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from packmule.coordination.redis import scripts
from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.connection_kinds import Unreachable
from packmule.coordination.sessions.attempts import TooManyAttempts
from packmule.dashboard.login import log_in, record
from packmule.dashboard.login.links import Links
from packmule.dashboard.login.log_in import LogIn, WrongLogin
from packmule.dashboard.login.record import Visit
from packmule.dashboard.users import passwords
from packmule.dashboard.viewer import Role
from packmule.observe import audit
from packmule.tests.coordination.test_sessions import at_once
from packmule.tests.coordination.test_sessions_once import pass_time
from packmule.tests.dashboard.doors import GOOD, SAME, Door
from packmule.tests.dashboard.quick_passwords import quick_passwords  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("quick_passwords")


@pytest.fixture(autouse=True)
def long_waits(monkeypatch):
    """Waits that no slow machine sits out; `pass_time` does."""
    for name, pace in log_in.PACES.items():
        monkeypatch.setitem(log_in.PACES, name, replace(pace, first=60.0))


@pytest.fixture
def door(client):
    return Door(client)


def wait_of(login, visit, name, password="wrong password"):
    """Seconds to wait before the attempt is made; 0 if it was made and was wrong."""
    try:
        login.by_password(visit, name, password)
    except TooManyAttempts as error:
        return error.retry_after
    except WrongLogin:
        return 0.0
    raise AssertionError("came in")


def test_guessing_at_a_user_from_many_addresses_is_slowed_to_one_in_five_minutes(door, client):
    door.add("ada")
    login = LogIn(client)
    waits = [wait_of(login, Visit(f"10.1.{n // 250}.{n % 250}"), "ada") for n in range(5)]
    assert waits == [0.0] * 5
    longest = 0.0
    for number in range(12):
        longest = max(longest, wait_of(login, Visit(f"10.2.0.{number}"), "ada"))
        pass_time(client, 301)
        assert wait_of(login, Visit(f"10.3.0.{number}"), "ada") == 0.0
    assert 290 < longest <= 300


def test_guessing_at_many_users_from_one_address_is_slowed(door, client):
    login = LogIn(client)
    waits = [wait_of(login, Visit("192.0.2.7"), f"user{number}") for number in range(25)]
    assert waits[:20] == [0.0] * 20
    assert all(wait > 0 for wait in waits[20:])
    assert wait_of(login, Visit("192.0.2.8"), "user1") == 0.0


def test_an_office_that_logs_in_from_one_address_does_not_wait(door, client):
    for number in range(30):
        door.add(f"user{number}")
        assert door.visitor().log_in(f"user{number}").status_code == 303


def test_an_address_of_ipv6_counts_with_its_network(door, client):
    login = LogIn(client)
    waits = [wait_of(login, Visit(f"2001:db8::{number:x}"), f"user{number}") for number in range(21)]
    assert waits[20] > 0
    assert wait_of(login, Visit("2001:db8:0:1::1"), "other") == 0.0


def test_nobody_can_lock_a_user_out_of_a_browser_that_she_knows_or_of_a_link(door, client):
    door.add("ada", Role.ADMIN)
    own = door.visitor()
    own.log_in()
    own.post("/logout")
    login = LogIn(client)
    for number in range(30):
        wait_of(login, Visit("192.0.2.7"), "ada")
        wait_of(login, Visit(f"10.0.0.{number}"), "ada")
    assert wait_of(login, Visit("203.0.113.1"), "ada") > 0
    assert own.log_in().status_code == 303, "from the address of the attacker, even"
    new = door.visitor("203.0.113.1")
    assert new.log_in().status_code == 429
    assert new.post(f"/login/link/{Links(login).make('ada')}").status_code == 303


def test_the_cookie_of_a_browser_helps_its_own_user_only_and_has_a_limit_too(door, client):
    door.add("ada")
    door.add("eve")
    thief = door.visitor()
    thief.log_in("eve")
    browser = thief.cookie("browser")
    login = LogIn(client)
    visit = Visit("192.0.2.9", "", browser)
    assert [wait_of(login, Visit(f"10.0.0.{number}"), "ada") for number in range(5)] == [0.0] * 5
    assert wait_of(login, visit, "ada") > 0, "it is eve's, and counts for nothing with ada"
    waits = [wait_of(login, visit, "eve") for _ in range(6)]
    assert waits[5] > 0


def test_a_hundred_guesses_at_once_are_no_more_than_one_after_another(door, client, monkeypatch):
    door.add("ada")
    checked = []
    is_right = passwords.is_right
    monkeypatch.setattr(passwords, "is_right", lambda *args: checked.append(1) or is_right(*args))
    login = LogIn(client)
    at_once(40, lambda number: wait_of(login, Visit(f"10.0.0.{number}"), "ada"))
    assert len(checked) == 5


def test_a_refusal_says_when_to_come_back_and_the_right_password_then_comes_in(door, client):
    door.add("ada")
    visitor = door.visitor()
    statuses = [visitor.log_in(password="wrong password").status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]
    refused = visitor.log_in()
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "Too many attempts: try again in" in refused.text
    pass_time(client, 61)
    assert visitor.log_in().status_code == 303
    assert client.keys("pm:attempts:login:user:*") == []


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "ada", "password": "x" * 900_000},
        {"user": "x" * 900_000, "password": "x"},
        {"user": "ada\r\nSet-Cookie: a=b", "password": "x"},
        {"user": "ada\x00", "password": "\x00"},
        {"user": "<script>alert(1)</script>", "password": '"><img src=x onerror=alert(1)>'},
        {"user": "\u202eada", "password": "\ud800".encode(errors="surrogatepass")},
        {"user": ["ada", "eve"], "password": ["a", "b"]},
        {},
        {f"field{number}": "x" for number in range(300)},
    ],
    ids=range(9),
)
def test_odd_and_enormous_fields_are_a_wrong_login_or_a_bad_request(door, client, fields):
    door.add("ada")
    answer = door.visitor().post("/login", data=fields)
    assert answer.status_code in (400, 401)
    assert "<script>alert" not in answer.text
    assert "onerror=" not in answer.text
    assert "a=b" not in str(answer.headers)
    assert len(answer.text) < 5_000
    assert all(len(key) < 300 for key in client.keys("*"))


def test_a_body_that_is_no_form_is_a_bad_request_or_a_wrong_login(door):
    for body, kind in (
        (b"\xff\xfe%%%", "application/x-www-form-urlencoded"),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x"),
        (b"{}", "application/json"),
    ):
        answer = door.visitor().post("/login", content=body, headers={"Content-Type": kind})
        assert answer.status_code in (400, 401)
    assert (
        door.visitor()
        .post(
            "/login", content=b"x" * 2_000_000, headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
        .status_code
        == 413
    )


def test_another_site_cannot_log_a_visitor_in_or_out(door):
    door.add("ada")
    visitor = door.visitor()
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    assert visitor.post("/login", data={"user": "ada", "password": GOOD}, headers=foreign).status_code == 403
    visitor.log_in()
    for path in ("/logout", "/account/sessions/end-others", "/account/password"):
        assert visitor.post(path, headers=foreign).status_code == 403
    assert visitor.is_in


def test_an_attacker_cannot_flood_the_audit_and_what_is_left_out_is_counted(door, client, monkeypatch):
    monkeypatch.setattr(record, "FAILURES", "3/h")
    door.add("ada")
    audit.record(client, "queue pause", {"names": ["low"]}, "root")
    for number in range(50):
        record.record_failure(client, Visit(f"10.0.0.{number}"), "", "password")
    assert [each.action for each in audit.read(client)] == ["queue pause"] + ["login failed"] * 3
    client.delete(*client.keys("pm:rate:login-failures:*"))
    record.record_failure(client, Visit("10.0.0.1"), "ada", "password")
    last = list(audit.read(client))[-1]
    assert (last.who, last.where) == ("ada", "10.0.0.1")
    assert last.subject == {"user": "ada", "wrong": "password", "unrecorded": 47}
    for key in (record.UNRECORDED, "pm:rate:login-failures:all"):
        client.delete(key)
        client.lpush(key, "garbage")
        record.record_failure(client, Visit("10.0.0.1"), "ada", "password")


def test_the_audit_has_names_of_users_only_and_no_secret(door, client, caplog):
    """People type their password in the place of their name."""
    door.add("ada")
    visitor = door.visitor()
    with caplog.at_level(logging.DEBUG):
        visitor.log_in("my-secret-password", "ada")
        visitor.log_in("ada", "my-secret-password")
        visitor.log_in()
        visitor.post(f"/login/link/{Links(LogIn(client)).make('ada')}")
    stored = client.dump("pm:audit")
    assert b"my-secret-password" not in stored
    assert GOOD.encode() not in stored
    assert "my-secret-password" not in caplog.text
    assert visitor.cookie() not in caplog.text
    assert next((each.who, each.where) for each in audit.read(client)) == ("(unknown)", "192.0.2.7")


def test_everything_that_attempts_leave_expires(door, client):
    for number in range(30):
        door.visitor(f"10.0.0.{number}").log_in(f"user{number}", "wrong password")
    assert all(client.ttl(key) > 0 for key in client.keys("*") if key not in (b"pm:users", b"pm:audit"))


def test_the_wait_of_a_garbage_counter_is_bounded(door, client):
    door.add("ada")
    client.hset("pm:attempts:login:user:ada", mapping={"n": "9e99", "until": "9e99"})
    assert door.visitor().log_in().headers["retry-after"] == "300"
    client.delete("pm:attempts:login:user:ada")
    client.set("pm:attempts:login:user:ada", "garbage")
    assert door.visitor().log_in().status_code == 303


def test_when_redis_is_full_the_login_says_so_and_who_is_in_stays_in(spare_server):
    with connect(None, spare_server().data_dir) as client:
        door = Door(client)
        door.add("ada")
        visitor = door.visitor()
        visitor.log_in()
        client.config_set("maxmemory", "1mb")
        full = door.visitor().log_in()
        assert full.status_code == 503
        assert "Redis is full" in full.text
        assert visitor.is_in
        client.config_set("maxmemory", "0")
        assert door.visitor().log_in().status_code == 303


def test_when_redis_goes_away_during_a_login_it_says_so_and_recovers(door, monkeypatch):
    door.add("ada")
    visitor = door.visitor()
    is_right = passwords.is_right

    def away(*args):
        raise Unreachable("localhost:6379: connection refused")

    def goes_away(*args):
        monkeypatch.setattr(scripts, "_exchange", away)
        return is_right(*args)

    with monkeypatch.context() as patch:
        patch.setattr(passwords, "is_right", goes_away)
        answer = visitor.log_in()
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "connection refused" in answer.text
    monkeypatch.undo()
    assert door.users.sessions.list("ada") == []


def test_too_many_who_wait_are_told_at_once(door, monkeypatch):
    from packmule.dashboard.login import routes

    door.add("ada")
    monkeypatch.setattr(routes, "MOST_WAITING", 0)
    answer = door.visitor().log_in()
    assert answer.status_code == 503
    assert "Too many people are logging in" in answer.text


def test_the_account_is_nobodys_business_but_ones_own(door):
    door.add("ada")
    door.add("eve")
    ada, eve = door.visitor(), door.visitor()
    ada.log_in()
    eve.log_in("eve")
    ref = door.users.sessions.list("ada")[0].ref
    assert eve.post(f"/account/sessions/{ref}/end").status_code == 404
    assert ada.is_in
    assert ref not in eve.get("/account").text
    for odd in ("x" * 300, "*", "%00", "..%2f"):
        assert eve.post(f"/account/sessions/{odd}/end").status_code == 404


def test_sessions_are_ended_one_by_one_and_all_others(door, client):
    door.add("ada")
    visitors = [door.visitor() for _ in range(4)]
    for visitor in visitors:
        visitor.log_in()
    this = door.users.sessions.read(visitors[0].cookie()).ref
    other = door.users.sessions.read(visitors[1].cookie()).ref
    assert visitors[0].post(f"/account/sessions/{other}/end").headers["location"] == "/account"
    assert not visitors[1].is_in
    done = visitors[0].post("/account/sessions/end-others")
    assert "2 other sessions have ended." in visitors[0].get(done.headers["location"]).text
    assert [visitor.is_in for visitor in visitors] == [True, False, False, False]
    assert visitors[0].post(f"/account/sessions/{this}/end").headers["location"] == "/login"
    assert not visitors[0].is_in


def change(visitor, current=GOOD, password="another good one", again=None):
    fields = {"current": current, "password": password, "again": password if again is None else again}
    return visitor.post("/account/password", data=fields)


def test_a_change_of_password_ends_other_sessions_and_rotates_this_one(door, client):
    door.add("ada")
    here, elsewhere = door.visitor(), door.visitor()
    here.log_in()
    elsewhere.log_in()
    before = here.cookie()
    for answer, why in (
        (change(here, current="wrong password"), "The password is wrong."),
        (change(here, password="short"), "too short"),
        (change(here, again="differs"), "differ"),
        (change(here, password="ada"), "too short"),
    ):
        assert (answer.status_code, why in answer.text) == (422, True)
    assert elsewhere.is_in
    assert change(here).headers["location"] == "/account"
    assert here.is_in
    assert here.cookie() != before
    assert not elsewhere.is_in
    assert door.users.sessions.read(before) is None
    assert door.visitor().log_in().status_code == 401
    assert door.visitor().log_in(password="another good one").status_code == 303
    assert "user passwd" in [each.action for each in audit.read(client)]


def test_the_present_password_cannot_be_guessed_by_somebody_who_took_the_session(door, client):
    door.add("ada")
    thief = door.visitor()
    thief.log_in()
    statuses = [change(thief, current=f"wrong password {number}") for number in range(7)]
    assert "Too many attempts" in statuses[-1].text


def test_codes_are_turned_on_after_the_app_showed_one_and_off_by_the_password(door):
    import re

    import pyotp

    door.add("ada")
    visitor = door.visitor()
    visitor.log_in()
    assert "The password is wrong." in visitor.post("/account/code/begin", data={"current": "wrong"}).text
    page = visitor.post("/account/code/begin", data={"current": GOOD}).text
    assert "<svg" in page
    secret = re.search(r"<code>([A-Z2-7]{32})</code>", page)[1]
    setup = re.search(r'name="setup" value="([\w-]{43})"', page)[1]
    wrong = visitor.post("/account/code/confirm", data={"setup": setup, "code": "000000"})
    assert wrong.status_code == 422
    assert door.users.get("ada").totp == "", "not before the app showed a code"
    code = pyotp.TOTP(secret).now()
    assert visitor.post("/account/code/confirm", data={"setup": setup, "code": code}).status_code == 303
    assert door.users.get("ada").totp == secret
    assert visitor.is_in
    again = visitor.post("/account/code/confirm", data={"setup": setup, "code": code})
    assert "It took too long" in visitor.get(again.headers["location"]).text
    assert 'autocomplete="one-time-code"' in door.visitor().log_in().text
    assert visitor.post("/account/code/off", data={"current": "wrong"}).status_code == 422
    assert visitor.post("/account/code/off", data={"current": GOOD}).status_code == 303
    assert door.visitor().log_in().status_code == 303


def test_a_viewer_may_change_her_own_account_and_a_stranger_nothing(door):
    stranger = door.visitor()
    for path in ("/account", "/account/password", "/account/code"):
        assert stranger.get(path).status_code == 303
    for path in (
        "/account/password",
        "/account/code/begin",
        "/account/code/confirm",
        "/account/code/off",
        "/logout",
    ):
        answer = stranger.post(path)
        assert answer.status_code == 401, path


def test_all_texts_that_a_user_can_bring_are_shown_plain(door):
    door.add("ada")
    visitor = door.visitor()
    evil = '"><script>alert(1)</script>'
    visitor.post(
        "/login",
        data={"user": "ada", "password": GOOD},
        headers=SAME | {"User-Agent": evil + "\x1b[2J".replace("\x1b", "")},
    )
    assert "<script>alert" not in visitor.get("/account").text


def test_paces_are_those_that_the_page_says():
    from packmule.tests.docs.pages import page

    assert set(log_in.PACES) == {"address", "user", "browser", "code"}
    text = page("login")
    assert f"| {log_in.PACES['address'].free} | 1 s, 2 s, 4 s ... up to a minute" in text
    assert f"| {log_in.PACES['user'].free} | 2 s, 4 s, 8 s ... up to 5 minutes" in text
    assert log_in.PACES["browser"] == log_in.PACES["code"] == log_in.PACES["user"]


def test_codes_cannot_be_turned_on_by_what_the_password_of_another_has_begun(door):
    """Else whoever took a session for a moment could put an app of their own in the user's place."""
    import re

    import pyotp

    door.add("ada")
    door.add("eve")
    eve, ada = door.visitor(), door.visitor()
    eve.log_in("eve")
    ada.log_in("ada")
    page = eve.post("/account/code/begin", data={"current": GOOD}).text
    secret = re.search(r"<code>([A-Z2-7]{32})</code>", page)[1]
    setup = re.search(r'name="setup" value="([\w-]{43})"', page)[1]
    given = {"setup": setup, "code": pyotp.TOTP(secret).now()}
    refused = ada.post("/account/code/confirm", data=given)
    assert "start again" in ada.get(refused.headers["location"]).text
    assert door.users.get("ada").totp == ""
    assert eve.post("/account/code/confirm", data=given).status_code == 303
    assert door.users.get("eve").totp == secret
