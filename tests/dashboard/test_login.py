"""The login as a visitor meets it: forms, cookies, codes, links, and the way back."""

from __future__ import annotations

import base64
import re
import time

import pyotp
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from packmule.dashboard import messages
from packmule.dashboard.login import cookies
from packmule.dashboard.login.links import Links
from packmule.dashboard.login.log_in import LogIn
from packmule.dashboard.login.next_page import own_path
from packmule.dashboard.users import passwords, totp
from packmule.dashboard.viewer import Role
from packmule.observe import audit
from packmule.tests.coordination.test_sessions import at_once
from packmule.tests.dashboard.doors import GOOD, Door
from packmule.tests.dashboard.quick_passwords import quick_passwords  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("quick_passwords")


@pytest.fixture
def door(client):
    return Door(client)


def actions(client):
    return [each.action for each in audit.read(client)]


def test_a_visitor_is_asked_to_log_in_and_comes_back_to_the_page_she_wanted(door):
    door.add("ada", Role.OPERATOR, payloads=True)
    visitor = door.visitor()
    asked = visitor.get("/?cursor=7")
    assert asked.status_code == 303
    assert asked.headers["location"] == "/login?next=%2F%3Fcursor%3D7"
    form = visitor.get(asked.headers["location"])
    assert form.status_code == 200
    assert 'name="next" value="/?cursor=7"' in form.text
    entered = visitor.log_in(next="/?cursor=7")
    assert (entered.status_code, entered.headers["location"]) == (303, "/?cursor=7")
    page = visitor.get("/")
    assert page.status_code == 200
    assert re.search(r"ada<br><small>operator<", page.text)


def test_a_program_gets_401_and_no_redirect(door):
    answer = door.visitor().get("/", headers={"Accept": "application/json"})
    assert answer.status_code == 401


def test_the_form_is_what_password_managers_expect_and_needs_no_script(door):
    text = door.visitor().get("/login").text
    assert re.search(r'<input id="user" name="user" [^>]*autocomplete="username"', text)
    assert re.search(r'type="password" autocomplete="current-password"', text)
    assert '<form method="post" action="/login">' in text
    assert 'label for="user"' in text
    assert "style=" not in text
    assert "onclick" not in text


def test_a_wrong_name_and_a_wrong_password_get_the_same_answer(door):
    door.add("ada")
    answers = [
        door.visitor(f"192.0.2.{number}").log_in(name, password)
        for number, (name, password) in enumerate(
            [("ada", "wrong password"), ("bob", GOOD), ("a b\x00", GOOD), ("", "")]
        )
    ]
    assert {answer.status_code for answer in answers} == {401}
    shown = {re.sub(r'value="[^"]*"|nonce="[^"]*"| autofocus', "", answer.text) for answer in answers}
    assert len(shown) == 1
    assert all("The name or the password is wrong." in answer.text for answer in answers)
    assert all("set-cookie" not in answer.headers for answer in answers)


@pytest.mark.parametrize("name", ["ada", "bob", "x" * 300, "<script>", "\u202e", "a\r\nb", "nopassword"])
def test_every_attempt_checks_exactly_one_hash_whoever_it_names(door, monkeypatch, name):
    """A stopwatch then sees no difference; `benchmarks/login.py` holds one."""
    door.add("ada")
    door.add("nopassword", password="")
    checked = []
    is_right = passwords.hasher.verify

    class Counting:
        def verify(self, stored, password):
            checked.append(stored)
            return is_right(stored, password)

        def check_needs_rehash(self, stored):
            return False

    monkeypatch.setattr(passwords, "hasher", Counting())
    assert door.visitor().log_in(name, "wrong password").status_code == 401
    assert [stored[:9] for stored in checked] == ["$argon2id"]


def test_the_session_cookie_is_as_strict_as_the_way_allows(door):
    door.add("ada")
    plain = door.visitor().log_in().headers.get_list("set-cookie")
    assert all(
        re.fullmatch(r"packmule-9181(-browser)?=[\w-]{43}; HttpOnly; Max-Age=\d+; Path=/; SameSite=lax", each)
        for each in plain
    )
    secure = door.visitor(url="https://localhost").log_in().headers.get_list("set-cookie")
    assert all(
        re.fullmatch(
            r"__Host-packmule(-browser)?=[\w-]{43}; HttpOnly; Max-Age=\d+; Path=/; SameSite=lax; Secure", each
        )
        for each in secure
    )
    below = door.visitor(url="https://localhost", root_path="/jobs")
    cookies = below.post("/jobs/login", data={"user": "ada", "password": GOOD}).headers.get_list("set-cookie")
    assert all(
        re.fullmatch(
            r"__Secure-packmule(-browser)?=[\w-]{43}; HttpOnly; .*; Path=/jobs; SameSite=lax; Secure",
            each,
        )
        for each in cookies
    )


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://localhost:9181", ""),
        ("https://localhost", ""),
        ("https://localhost", "/jobs"),
        ("http://localhost:9181", "/jobs"),
    ],
)
def test_it_works_on_plain_loopback_behind_tls_and_below_a_prefix(door, url, root):
    door.add("ada")
    visitor = door.visitor(url=url, root_path=root)
    asked = visitor.get(f"{root}/account")
    assert asked.headers["location"] == f"{root}/login?next={root.replace('/', '%2F')}%2Faccount"
    entered = visitor.post(f"{root}/login", data={"user": "ada", "password": GOOD, "next": f"{root}/account"})
    assert entered.headers["location"] == f"{root}/account"
    page = visitor.get(f"{root}/account")
    assert page.status_code == 200
    assert f'action="{root}/logout"' in page.text
    assert visitor.post(f"{root}/logout").headers["location"] == f"{root}/login"
    assert visitor.get(f"{root}/account").status_code == 303


@pytest.mark.parametrize(
    "evil",
    [
        *("//evil.example", "/\\evil.example", "\\\\evil.example", "///evil.example", "/../..//evil.example"),
        *("https://evil.example", "http:evil.example", "javascript:alert(1)", "@evil.example", ".evil"),
        *("/\t/evil.example", "/\r\nSet-Cookie: a=b", "/%0d%0aX: y\n", " //evil.example", "/a b", "/é", ""),
        *("/login?next=//evil.example", "/logout", "/x" * 2000),
    ],
)  # fmt: skip
def test_no_login_leads_to_another_site(door, evil):
    door.add("ada")
    visitor = door.visitor()
    assert visitor.log_in(next=evil).headers["location"] == "/"
    again = visitor.get("/login", params={"next": evil})
    assert again.headers["location"] == "/"


def test_own_paths_are_kept_with_their_query_and_stay_below_the_prefix():
    assert own_path("/jobs?q=a%20b&c=%2F%2Fevil") == "/jobs?q=a%20b&c=%2F%2Fevil"
    assert own_path("/jobs/login?x=1", "/jobs") == "/jobs/login?x=1"
    assert own_path("/other", "/jobs") is None
    assert own_path("/jobsx", "/jobs") is None
    assert own_path("/x", "") == "/x"


def test_a_log_out_ends_the_session_on_the_server(door, client):
    door.add("ada")
    visitor, thief = door.visitor(), door.visitor()
    visitor.log_in()
    thief.cookies = visitor.cookies
    assert thief.is_in
    answer = visitor.post("/logout")
    assert answer.headers["location"] == "/login"
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert "You are logged out." in visitor.get("/login").text
    assert not thief.is_in
    assert actions(client) == ["login", "logout"]
    assert visitor.get("/logout").status_code in (303, 405)


def test_a_session_id_that_a_visitor_brings_is_never_adopted(door):
    """Session fixation: the attacker's id is nothing after the victim's login, and ends if it was real."""
    door.add("ada")
    door.add("eve")
    attacker, victim = door.visitor(), door.visitor()
    attacker.log_in("eve")
    planted = attacker.cookie()
    victim.cookies.set("packmule-9181", planted, domain="localhost.local", path="/")
    victim.log_in("ada")
    assert victim.cookie() not in ("", planted)
    assert not attacker.is_in
    chosen = door.visitor()
    chosen.cookies.set("packmule-9181", "x" * 43, domain="localhost.local", path="/")
    chosen.log_in("ada")
    assert door.users.sessions.read("x" * 43) is None


def test_two_logins_at_once_are_two_sessions(door):
    door.add("ada")
    visitors = [door.visitor() for _ in range(2)]
    at_once(2, lambda number: visitors[number].log_in())
    assert all(visitor.is_in for visitor in visitors)
    assert len(door.users.sessions.list("ada")) == 2


def test_a_user_who_is_changed_or_removed_is_out_at_once(door):
    door.add("root", Role.ADMIN)
    door.add("ada")
    for change in (
        lambda: door.users.change("ada", role=Role.OPERATOR),
        lambda: door.users.sessions.end_all("ada"),
        lambda: door.users.change("ada", password=passwords.hash_of("another good one")),
    ):
        visitor = door.visitor()
        visitor.log_in(password=GOOD)
        assert visitor.is_in
        change()
        assert not visitor.is_in
    door.users.remove("ada")
    assert door.visitor().log_in(password="another good one").status_code == 401


def test_a_login_that_is_overtaken_by_a_change_does_not_come_in(door, monkeypatch):
    door.add("root", Role.ADMIN)
    door.add("ada")
    is_right = passwords.is_right

    def slow(stored, password):
        door.users.change("ada", password=passwords.hash_of("another good one"))
        return is_right(stored, password)

    monkeypatch.setattr(passwords, "is_right", slow)
    visitor = door.visitor()
    answer = visitor.log_in()
    assert (answer.status_code, "log in again" in answer.text) == (409, True)
    assert not visitor.is_in
    assert door.users.sessions.list("ada") == []


def test_a_hash_of_old_parameters_is_made_again_at_the_login(door, client):
    from argon2 import PasswordHasher

    door.add("ada")
    old = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1).hash(GOOD)
    door.users.note("ada", lambda user: type(user)(user.name, user.role, password=old))
    assert door.visitor().log_in().status_code == 303
    stored = door.users.get("ada").password
    assert stored != old
    assert not passwords.is_outdated(stored)
    assert door.visitor().log_in().status_code == 303


def enable_codes(door, name="ada"):
    secret = totp.new_secret()
    door.users.change(name, totp=secret, force=True)
    return pyotp.TOTP(secret)


def step_in(answer):
    return re.search(r'name="step" value="([\w-]{43})"', answer.text)[1]


def test_a_user_with_codes_needs_one_after_the_password(door, client):
    door.add("ada")
    codes = enable_codes(door)
    visitor = door.visitor()
    asked = visitor.log_in(next="/account")
    assert asked.status_code == 200
    assert 'autocomplete="one-time-code"' in asked.text
    assert "set-cookie" not in asked.headers
    assert not visitor.is_in
    wrong = visitor.post("/login/code", data={"step": step_in(asked), "code": "000000", "next": "/account"})
    assert wrong.status_code == 401
    assert "The code is wrong" in wrong.text
    right = visitor.post(
        "/login/code", data={"step": step_in(wrong), "code": codes.now(), "next": "/account"}
    )
    assert right.headers["location"] == "/account"
    assert visitor.is_in
    assert actions(client) == ["login failed", "login"]


def test_a_code_is_never_accepted_twice(door):
    door.add("ada")
    codes = enable_codes(door)
    first, thief = door.visitor(), door.visitor()
    steps = [step_in(first.log_in()), step_in(thief.log_in())]
    code = codes.now()
    assert first.post("/login/code", data={"step": steps[0], "code": code}).status_code == 303
    assert thief.post("/login/code", data={"step": steps[1], "code": code}).status_code == 401
    assert (
        thief.post("/login/code", data={"step": steps[0], "code": codes.at(time.time() + 30)}).status_code
        == 409
    )


def test_of_ten_that_show_the_same_code_at_once_one_comes_in(door, monkeypatch):
    from packmule.coordination.sessions.attempts import Pace
    from packmule.dashboard.login import log_in

    monkeypatch.setitem(log_in.PACES, "code", Pace(free=100))
    door.add("ada")
    codes = enable_codes(door)
    visitors = [door.visitor() for _ in range(10)]
    steps = [step_in(visitor.log_in()) for visitor in visitors[:1]] * 10
    code = codes.now()
    answers = at_once(
        10, lambda number: visitors[number].post("/login/code", data={"step": steps[number], "code": code})
    )
    assert sorted(answer.status_code for answer in answers)[0] == 303
    assert sum(visitor.is_in for visitor in visitors) == 1


def test_codes_cannot_be_guessed_and_waiting_is_bounded(door):
    door.add("ada")
    enable_codes(door)
    visitor = door.visitor()
    step = step_in(visitor.log_in())
    statuses = [
        visitor.post("/login/code", data={"step": step, "code": f"{number:06}"}).status_code
        for number in range(8)
    ]
    assert statuses[:5] == [401] * 5
    assert 429 in statuses[5:]


@pytest.mark.parametrize("step", ["", "x" * 43, "x" * 10_000, "é"])
def test_a_step_that_is_none_begins_again(door, step):
    answer = door.visitor().post("/login/code", data={"step": step, "code": "123456"})
    assert answer.status_code == 409
    assert "log in again" in answer.text


def test_a_link_lets_in_once_and_opening_it_uses_nothing_up(door, client):
    door.add("ada", password="")
    secret = Links(LogIn(client)).make("ada")
    visitor = door.visitor()
    for _ in range(3):
        page = visitor.get(f"/login/link/{secret}")
        assert "Log in as ada" in page.text
    assert visitor.post(f"/login/link/{secret}").headers["location"] == "/"
    assert visitor.is_in
    late = door.visitor().post(f"/login/link/{secret}")
    assert late.status_code == 410
    assert "used before" in late.text
    assert actions(client) == ["login"]
    assert next(iter(audit.read(client))).subject["by"] == "link"


def test_of_twenty_that_use_a_link_at_once_one_comes_in(door, client):
    door.add("ada")
    secret = Links(LogIn(client)).make("ada")
    visitors = [door.visitor() for _ in range(20)]
    answers = at_once(20, lambda number: visitors[number].post(f"/login/link/{secret}").status_code)
    assert sorted(answers) == [303] + [410] * 19
    assert sum(visitor.is_in for visitor in visitors) == 1


def test_a_link_ends_with_the_users_sessions_and_with_the_user(door, client):
    door.add("root", Role.ADMIN)
    door.add("ada")
    links = Links(LogIn(client))
    first, second = links.make("ada"), links.make("ada")
    assert door.visitor().post(f"/login/link/{first}").status_code == 410, "a newer one took its place"
    door.users.change("ada", payloads=True)
    assert door.visitor().post(f"/login/link/{second}").status_code == 410
    third = links.make("ada")
    door.users.remove("ada")
    door.add("ada")
    assert door.visitor().post(f"/login/link/{third}").status_code == 410


@pytest.mark.parametrize("secret", ["x", "x" * 43, "%00", "é", "x" * 2000, "*"])
def test_a_link_that_is_none_says_so(door, secret):
    for path in (f"/login/link/{secret}", f"/login/setup/{secret}"):
        assert door.visitor().get(path).status_code == 410
        assert (
            door.visitor().post(path, data={"user": "ada", "password": GOOD, "again": GOOD}).status_code
            == 410
        )


def test_the_first_admin_is_made_by_a_link_and_only_the_first(door, client):
    links = Links(LogIn(client))
    older, secret = links.make_setup(), links.make_setup()
    assert door.visitor().get(f"/login/setup/{older}").status_code == 410, "only the newest lives"
    visitor = door.visitor()
    assert "The first admin" in visitor.get(f"/login/setup/{secret}").text
    for fields, why in (
        ({"user": "ada", "password": "short", "again": "short"}, "too short"),
        ({"user": "a b", "password": GOOD, "again": GOOD}, "is not a user name"),
        ({"user": "ada", "password": GOOD, "again": GOOD + "x"}, "The two passwords differ."),
        ({}, "is not a user name"),
    ):
        answer = visitor.post(f"/login/setup/{secret}", data=fields)
        assert (answer.status_code, why in answer.text) == (422, True), answer.text
        assert GOOD not in answer.text
    assert (
        visitor.post(
            f"/login/setup/{secret}", data={"user": "ada", "password": GOOD, "again": GOOD}
        ).status_code
        == 303
    )
    assert visitor.is_in
    user = door.users.get("ada")
    assert (user.role, user.payloads) == (Role.ADMIN, True)
    assert links.make_setup() is None
    assert actions(client) == ["user add", "login"]
    assert door.visitor().get(f"/login/setup/{secret}").status_code == 410


def test_a_setup_link_is_nothing_once_there_are_users(door, client):
    secret = Links(LogIn(client)).make_setup()
    door.add("ada", Role.ADMIN)
    answer = door.visitor().post(
        f"/login/setup/{secret}", data={"user": "eve", "password": GOOD, "again": GOOD}
    )
    assert answer.status_code == 410
    assert door.users.find("eve") is None


def test_of_many_that_set_up_at_once_one_becomes_admin(door, client):
    secret = Links(LogIn(client)).make_setup()
    visitors = [door.visitor() for _ in range(10)]
    answers = at_once(
        10,
        lambda n: (
            visitors[n]
            .post(f"/login/setup/{secret}", data={"user": f"u{n}", "password": GOOD, "again": GOOD})
            .status_code
        ),
    )
    assert sorted(answers) == [303] + [410] * 9
    assert len(door.users.all()) == 1


def proxied(client):
    from packmule.dashboard.guarding.rules import Rules

    rules = Rules(proxies=("10.0.0.0/8",), user_header="X-Forwarded-User")
    return Door(client, rules)


def test_a_trusted_proxy_names_existing_users_exactly(client):
    door = proxied(client)
    door.add("ada", Role.OPERATOR, password="")
    proxy, other = door.visitor("10.0.0.5"), door.visitor("192.0.2.7")
    page = proxy.get("/account", headers={"X-Forwarded-User": "ada"})
    assert page.status_code == 200
    assert "a proxy has logged you in" in page.text
    assert other.get("/account", headers={"X-Forwarded-User": "ada"}).status_code == 303
    for name in ("Ada", "ada ", "ada,root", "eve", "", "*", "x" * 300, "ad"):
        assert (
            proxy.get(
                "/account", headers={"X-Forwarded-User": name.strip() + ("?" if name != name.strip() else "")}
            ).status_code
            == 303
        )
    twice = proxy.get(
        "/account",
        headers=[("X-Forwarded-User", "ada"), ("X-Forwarded-User", "eve"), ("Accept", "text/html")],
    )
    assert twice.status_code == 303
    assert (
        other.get("/account", headers={"X-Forwarded-User": "ada", "X-Forwarded-For": "10.0.0.5"}).status_code
        == 303
    )


def test_who_is_named_by_a_proxy_and_unknown_is_nobody_even_with_a_session(client):
    door = proxied(client)
    door.add("ada")
    visitor = door.visitor("10.0.0.5")
    visitor.log_in()
    assert visitor.is_in
    assert visitor.get("/account", headers={"X-Forwarded-User": "eve"}).status_code == 303


@pytest.mark.parametrize(("prefix", "kind"), [("", "__Host-packmule"), ("/jobs", "__Secure-packmule")])
def test_a_part_of_the_site_knows_the_same_cookie_as_its_pages(prefix, kind):
    """A stream of the API looks at its session again and again, from below `/api/v1`."""

    def asked(request):
        return PlainTextResponse(cookies.session_name(request))

    site = Starlette(routes=[Route("/page", asked), Mount("/part", routes=[Route("/page", asked)])])
    browser = TestClient(site, base_url="https://localhost", root_path=prefix)
    assert [browser.get(f"{prefix}{path}").text for path in ("/page", "/part/page")] == [kind, kind]


def test_a_message_that_rq_dashboards_page_comes_with_is_shown_once(door):
    door.add("ada", Role.OPERATOR)
    visitor = door.visitor()
    visitor.log_in()
    visitor.cookies.set(
        messages.COOKIE, base64.b64encode(b"Paused.").decode(), domain="localhost.local", path="/"
    )
    answer = visitor.get("/rq/")
    assert answer.status_code == 200
    (forgotten,) = answer.headers.get_list("set-cookie")
    assert forgotten.startswith(f"{messages.COOKIE}=;")
    assert "Path=/;" in forgotten
