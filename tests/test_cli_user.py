"""`packmule user` and `packmule token`: what an operator sees, with the mistakes that operators make."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import pytest

from packmule.coordination.sessions.tokens import Tokens
from packmule.dashboard.users import passwords
from packmule.dashboard.users.store import Users
from packmule.dashboard.viewer import Role
from packmule.tests.command_line import CommandLine, complaint, environment_in, until
from packmule.tests.dashboard.quick_passwords import quick_passwords  # noqa: F401  a fixture
from packmule.tests.fork_server import Forked

GOOD = "correct horse battery"


@pytest.fixture
def run(server, client, tmp_path, monkeypatch, capsys, quick_passwords):  # noqa: F811
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url))
    inner = packmule.in_this_process(monkeypatch, capsys)

    def run(*words, stdin="", **changes):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        return inner(*words, **changes)

    return run


@pytest.fixture
def add(run):
    def add(name, *options):
        done = run("user", "add", name, "--password-stdin", *options, stdin=GOOD + "\n")
        assert done.returncode == 0, done.stderr
        return done.stdout

    return add


def test_a_user_is_added_listed_changed_and_removed(run, add, client):
    assert add("ada", "--role", "admin") == "ada is an admin\n"
    assert add("bob") == "bob is a viewer\n"
    users = Users(client)
    assert users.get("ada").payloads
    assert not users.get("bob").payloads
    assert passwords.is_right(users.get("bob").password, GOOD)
    listed = run("user", "list").stdout
    assert re.search(r"ada +admin +yes +yes +no +20\d\d-\S+Z", listed)
    assert GOOD not in listed
    session = users.sessions.start("bob")
    said = run("user", "role", "bob", "operator", "--payloads").stdout
    assert said == "bob is an operator and can see payloads; all sessions of bob have ended\n"
    assert users.sessions.read(session) is None
    assert (users.get("bob").role, users.get("bob").payloads) == (Role.OPERATOR, True)
    run("user", "passwd", "bob", "--password-stdin", stdin="another good one\r\n")
    assert passwords.is_right(users.get("bob").password, "another good one")
    assert run("user", "remove", "bob").stdout == "bob is removed\n"
    assert [each["name"] for each in json.loads(run("user", "list", "--json").stdout)] == ["ada"]


def test_json_has_no_secret(run, add, client):
    add("ada", "--role", "admin")
    run("user", "totp", "ada", "on")
    text = run("user", "list", "--json").stdout
    (row,) = json.loads(text)
    assert (row["password"], row["totp"], row["role"]) == (True, True, "admin")
    assert "argon2" not in text
    assert Users(client).get("ada").totp not in text


def test_the_audit_has_who_and_what_and_no_password(run, add):
    add("root", "--role", "admin")
    add("ada", "--payloads")
    run("user", "role", "ada", "operator", "--no-payloads")
    run("user", "link", "ada")
    run("user", "logout", "ada")
    run("token", "add", "deploy", "--scope", "read")
    text = run("audit", "--json").stdout
    done = [json.loads(line) for line in text.splitlines()]
    assert [each["action"] for each in done] == [
        "user add", "user add", "user role", "user link", "user logout", "token add",
    ]  # fmt: skip
    assert done[1]["subject"] == {"name": "ada", "role": "viewer", "payloads": True}
    assert done[2]["subject"] == {"name": "ada", "role": "operator", "payloads": False}
    assert done[5]["subject"] == {"name": "deploy", "scopes": ["read"]}
    assert GOOD not in text
    assert "login/link" not in text


@pytest.mark.parametrize("name", ["", "a b", "x" * 300, "a\x00b", "a\nb", "<b>", "é"])
def test_an_odd_name_is_one_line(run, client, name):
    for words in (
        ["user", "add", name, "--password-stdin"],
        ["user", "passwd", name, "--password-stdin"],
        ["user", "remove", name],
        ["user", "link", name],
    ):
        assert "is not a user name" in complaint(run(*words, stdin=GOOD), 2)
    assert not client.exists("pm:users")


@pytest.mark.parametrize(
    ("password", "why"),
    [("short", "too short"), ("", "too short"), ("x" * 5000, "too long"), ("adaadaadaada", "name")],
)
def test_a_weak_password_is_one_line_without_it(run, client, password, why):
    said = complaint(run("user", "add", "adaadaadaada", "--password-stdin", stdin=password), 2)
    assert why in said
    assert not password or password not in said or password in "too short"
    assert not client.exists("pm:users")


def test_mistakes_say_the_way_out(run, add):
    assert "doesn't exist: see packmule user list" in complaint(run("user", "role", "bob", "admin"), 2)
    add("ada", "--role", "admin")
    assert "exists" in complaint(run("user", "add", "ada", "--password-stdin", stdin=GOOD), 1)
    assert "--force" in complaint(run("user", "remove", "ada"), 1)
    assert "--force" in complaint(run("user", "role", "ada", "viewer"), 1)
    assert "viewer" in complaint(run("user", "role", "ada", "boss"), 2)
    assert "--password-stdin" in complaint(run("user", "add", "eve"), 2)
    assert "not both" in complaint(run("user", "add", "eve", "--no-password", "--password-stdin"), 2)
    assert "PACKMULE_REDIS_URL" not in run("user", "list", PACKMULE_REDIS_URL="redis://localhost:1").stdout
    assert run("user", "list", PACKMULE_REDIS_URL="redis://localhost:1").returncode == 3
    assert run("user", "remove", "ada", "--force").returncode == 0
    assert run("user", "list").stdout == "no users: packmule user add NAME --role admin\n"


def test_a_password_is_never_an_argument(run):
    assert "No such option" in complaint(run("user", "add", "ada", "--password", GOOD), 2)


def test_a_password_is_asked_for_twice_and_not_echoed(server, client, tmp_path):
    """In a real terminal."""
    import contextlib
    import os
    import pty

    environment = environment_in(tmp_path, server.url)
    own, other = pty.openpty()
    with Forked(
        ["packmule", "user", "add", "ada", "--role", "admin"],
        cwd=tmp_path,
        env=environment,
        stdin=other,
        stdout=other,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        os.close(other)
        seen = b""

        def until_it_says(words):
            nonlocal seen

            def says():
                nonlocal seen
                with contextlib.suppress(OSError):
                    seen += os.read(own, 1000)
                return words in seen

            until(says, words.decode(), lambda: str(seen))

        until_it_says(b"Password:")
        os.write(own, GOOD.encode() + b"\n")
        until_it_says(b"Again:")
        os.write(own, GOOD.encode() + b"\n")
        until_it_says(b"ada is an admin")
        process.wait(timeout=60)
    os.close(own)
    assert GOOD.encode() not in seen
    assert passwords.is_right(Users(client).get("ada").password, GOOD)


def test_sessions_are_listed_and_ended(run, add, client):
    add("ada")
    assert run("user", "sessions", "ada").stdout == "ada is not logged in\n"
    sessions = Users(client).sessions
    sessions.start("ada", origin="192.0.2.7", agent="Fire\x1b[2Jfox " + "x" * 100)
    sessions.start("ada", origin="192.0.2.8")
    listed = run("user", "sessions", "ada").stdout
    assert "192.0.2.7" in listed
    assert "\x1b" not in listed
    found = json.loads(run("user", "sessions", "ada", "--json").stdout)
    assert {each["from"] for each in found} == {"192.0.2.7", "192.0.2.8"}
    assert run("user", "logout", "ada").stdout == "2 sessions of ada ended\n"
    assert sessions.list("ada") == []


def test_a_link_is_printed_for_the_address_that_the_settings_or_the_caller_name(run, add):
    add("ada")
    link = r"/login/link/[\w-]{43}\n"
    assert re.fullmatch("http://127.0.0.1:9181" + link, run("user", "link", "ada").stdout)
    said = run("user", "link", "ada", PACKMULE_HOST="0.0.0.0", PACKMULE_PORT="80", PACKMULE_PREFIX="/jobs")
    assert re.fullmatch("http://localhost:80/jobs" + link, said.stdout)
    said = run("user", "link", "ada", "--url", "https://jobs.example.com/", "--for", "1h")
    assert re.fullmatch("https://jobs.example.com" + link, said.stdout)
    assert "a day" in complaint(run("user", "link", "ada", "--for", "2d"), 2)


def test_totp_prints_a_qr_code_and_its_key(run, add, client):
    add("ada")
    shown = run("user", "totp", "ada", "on").stdout
    secret = Users(client).get("ada").totp
    assert re.fullmatch(r"[A-Z2-7]{32}", secret)
    assert secret in shown
    assert "█" in shown
    assert max(map(len, shown.splitlines()[:-1])) <= 80
    run("user", "totp", "ada", "off")
    assert Users(client).get("ada").totp == ""


def test_a_token_is_added_listed_used_and_revoked(run, client):
    done = run("token", "add", "deploy", "--scope", "read", "--scope", "enqueue", "--expires", "30d")
    shown = done.stdout.strip()
    assert re.fullmatch(r"pm_[0-9A-Za-z]{49}", shown)
    assert "only its hash is stored" in done.stderr
    assert shown not in done.stderr
    assert Tokens(client, "api").read(shown).scopes == {"read", "enqueue"}
    assert re.search(r"deploy +enqueue, read +20\d\d-\S+Z +20\d\d-\S+Z +\S+@\S+", run("token", "list").stdout)
    (row,) = json.loads(run("token", "list", "--json").stdout)
    assert (row["name"], row["scopes"]) == ("deploy", ["enqueue", "read"])
    assert run("token", "revoke", "deploy").stdout == "deploy is revoked\n"
    assert Tokens(client, "api").read(shown) is None
    assert run("token", "list").stdout == "no tokens: packmule token add NAME\n"


def test_mistakes_with_tokens_say_the_way_out(run):
    assert "'--scope'" in complaint(run("token", "add", "deploy"), 2)
    assert "enqueue" in complaint(run("token", "add", "deploy", "--scope", "all"), 2)
    assert "from 1 to" in complaint(run("token", "add", "deploy", "--scope", "read", "--expires", "900d"), 2)
    assert "not a valid name" in complaint(run("token", "add", "a b", "--scope", "read"), 2)
    run("token", "add", "deploy", "--scope", "read")
    assert "revoke it" in complaint(run("token", "add", "deploy", "--scope", "read"), 1)
    assert "packmule token list" in complaint(run("token", "revoke", "night"), 2)
