"""The pages of users and tokens: for admins alone, with the mistakes that admins make."""

from __future__ import annotations

import re

import pytest

from packmule.coordination.sessions.tokens import Tokens
from packmule.dashboard.viewer import Role
from packmule.observe import audit
from packmule.tests.dashboard.doors import GOOD, Door
from packmule.tests.dashboard.quick_passwords import quick_passwords  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("quick_passwords")


@pytest.fixture
def door(client):
    made = Door(client)
    made.add("root", Role.ADMIN)
    return made


@pytest.fixture
def admin(door):
    visitor = door.visitor()
    visitor.log_in("root")
    return visitor


def link_in(answer):
    return re.search(r"http://localhost:9181(/login/link/[\w-]{43})", answer.text)[1]


def test_an_admin_adds_a_user_who_comes_in_by_the_link_and_chooses_a_password(door, admin, client):
    answer = admin.post("/users", data={"name": "ada", "role": "operator", "payloads": "on"})
    assert answer.status_code == 200
    ada = door.visitor()
    assert ada.post(link_in(answer)).status_code == 303
    assert "Password now" not in ada.get("/account/password").text
    chosen = ada.post("/account/password", data={"password": GOOD, "again": GOOD})
    assert chosen.headers["location"] == "/account"
    assert "Password now" in ada.get("/account/password").text, "now there is one to know"
    assert door.visitor().log_in("ada").status_code == 303
    user = door.users.get("ada")
    assert (user.role, user.payloads) == (Role.OPERATOR, True)
    done = [(each.who, each.action) for each in audit.read(client)]
    assert done[1:] == [
        *[("root", "user add"), ("root", "user link"), ("ada", "login")],
        *[("ada", "user passwd"), ("ada", "login")],
    ]


def test_a_session_that_a_link_began_long_ago_needs_the_password(door, client):
    from packmule.coordination.sessions.opaque import hashed
    from packmule.dashboard.login.links import Links
    from packmule.dashboard.login.log_in import LogIn

    door.add("ada")
    visitor = door.visitor()
    visitor.post(f"/login/link/{Links(LogIn(client)).make('ada')}")
    key = "pm:session:dashboard:" + hashed(visitor.cookie())
    client.hset(key, "begun", f"{float(client.hget(key, 'begun')) - 901:.3f}")
    answer = visitor.post(
        "/account/password", data={"password": "another good one", "again": "another good one"}
    )
    assert (answer.status_code, "The password is wrong." in answer.text) == (422, True)


def test_an_admin_changes_a_role_ends_sessions_and_codes_and_removes(door, admin):
    door.add("ada")
    for path, fields in (("role", {"role": "operator"}), ("logout", {}), ("no-codes", {}), ("remove", {})):
        ada = door.visitor()
        assert ada.log_in().status_code == 303
        assert admin.post(f"/users/ada/{path}", data=fields).headers["location"] == "/users"
        assert not ada.is_in, path
    assert door.users.find("ada") is None
    assert "root" in admin.get("/users").text


def test_the_last_admin_stays(door, admin):
    for path, fields in (("role", {"role": "viewer"}), ("remove", {})):
        answer = admin.post(f"/users/root/{path}", data=fields)
        assert answer.status_code == 409
        assert "last admin" in answer.text
    assert admin.is_in


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_nobody_but_an_admin_sees_or_does_any_of_it(door, client, role):
    door.add("eve", role)
    Tokens(client, "api").add("deploy", ["read"])
    eve = door.visitor()
    eve.log_in("eve")
    assert eve.get("/users").status_code == 403
    assert eve.get("/tokens").status_code == 403
    posts = [
        ("/users", {"name": "x", "role": "admin"}),
        ("/tokens", {"name": "x", "scope": "read", "days": "1"}),
        ("/tokens/deploy/revoke", {}),
    ]
    posts += [
        (f"/users/eve/{path}", {"role": "admin"}) for path in ("role", "link", "logout", "no-codes", "remove")
    ]
    for path, fields in posts:
        answer = eve.post(path, data=fields)
        assert answer.status_code == 403, path
        assert "this needs an admin" in answer.text
    assert door.users.get("eve").role is role
    assert [each.name for each in Tokens(client, "api").all()] == ["deploy"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"name": "root", "role": "viewer"}, "root already exists."),
        ({"name": "a b", "role": "viewer"}, "is not a user name"),
        ({"name": "<script>alert(1)</script>", "role": "viewer"}, "is not a user name"),
        ({"name": "x" * 3000, "role": "viewer"}, "is not a user name"),
        ({"role": "viewer"}, "is not a user name"),
    ],
)
def test_a_user_that_cannot_be_added_is_said_above_the_form(door, admin, fields, why):
    answer = admin.post("/users", data=fields)
    assert (answer.status_code, why in answer.text) == (422, True)
    assert "<script>alert" not in answer.text
    assert [user.name for user in door.users.all()] == ["root"]


def test_a_role_or_user_that_is_none_is_said(door, admin):
    assert admin.post("/users", data={"name": "ada", "role": "god"}).status_code == 400
    assert admin.post("/users/root/role", data={}).status_code == 400
    for path in ("role", "link", "logout", "no-codes", "remove"):
        assert admin.post(f"/users/nobody/{path}", data={"role": "viewer"}).status_code == 404, path
        assert admin.post(f"/users/%3Cb%3E/{path}", data={"role": "viewer"}).status_code == 400, path


def test_a_token_is_shown_once_used_and_revoked(door, admin, client):
    answer = admin.post("/tokens", data={"name": "deploy", "scope": ["read", "enqueue"], "days": "30"})
    token = re.search(r"pm_[0-9A-Za-z]{49}", answer.text)[0]
    grant = Tokens(client, "api").read(token)
    assert (grant.scopes, grant.made_by) == ({"read", "enqueue"}, "root")
    page = admin.get("/tokens").text
    assert "enqueue, read" in page
    assert token not in page
    assert admin.post("/tokens/deploy/revoke").headers["location"] == "/tokens"
    assert Tokens(client, "api").read(token) is None
    assert admin.post("/tokens/deploy/revoke").status_code == 404
    stored = client.dump("pm:audit")
    assert token.encode() not in stored


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"name": "a b", "scope": "read", "days": "30"}, "is not a valid name"),
        ({"name": "deploy", "days": "30"}, "1 to 20 scopes"),
        ({"name": "deploy", "scope": "god", "days": "30"}, "1 to 20 scopes"),
        ({"name": "deploy", "scope": "read", "days": "9" * 300}, "not a whole number"),
        ({"name": "deploy", "scope": "read", "days": "-1"}, "not a whole number"),
        ({"name": "deploy", "scope": "read", "days": "nan"}, "not a whole number"),
        ({"name": "deploy", "scope": "read", "days": "0"}, "from 1 to"),
        ({"name": "deploy", "scope": "read", "days": "9999"}, "from 1 to"),
        ({}, "not a whole number"),
        ({"name": "<img src=x>", "scope": "read", "days": "1"}, "is not a valid name"),
    ],
)
def test_a_token_that_cannot_be_made_is_said_above_the_form(door, admin, client, fields, why):
    answer = admin.post("/tokens", data=fields)
    assert (answer.status_code, why in answer.text) == (422, True)
    assert "<img" not in answer.text
    assert Tokens(client, "api").all() == []


def test_garbage_in_redis_stops_neither_page(door, admin, client):
    client.hset("pm:users", mapping={b"\xff": b"\xff", "bad": "{", "<b>": '{"name":"<b>","role":"viewer"}'})
    client.hset("pm:tokens:api", mapping={b"\xff": b"\xff", "x": "y"})
    assert admin.get("/users").status_code == 200
    assert "<b>" not in admin.get("/users").text.partition("<tbody>")[2]
    assert admin.get("/tokens").status_code == 200
    client.delete("pm:tokens:api")
    client.set("pm:tokens:api", "garbage")
    assert "No program may use" in admin.get("/tokens").text
