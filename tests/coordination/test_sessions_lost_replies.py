"""Replies that are lost behind the server's work: the call that is sent again does nothing twice."""

from __future__ import annotations

import pytest

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.scripts import Script
from packmule.coordination.sessions.one_time import OneTime
from packmule.coordination.sessions.refresh import RefreshTokens
from packmule.coordination.sessions.sessions import Sessions
from packmule.coordination.sessions.tokens import Tokens
from packmule.dashboard.users.store import Users
from packmule.dashboard.users.user import User
from packmule.dashboard.viewer import Role
from packmule.tests.command_line import ROOT
from packmule.tests.losing_proxy import LosingProxy


@pytest.fixture
def proxy(server, client, tmp_path):
    for package in (
        "coordination.sessions",
        "dashboard.users",
    ):  # or the lost reply would be that it isn't known
        for path in (ROOT / package.replace(".", "/") / "lua").glob("*.lua"):
            client.script_load(Script(package, path.stem).source)
    made = LosingProxy(tmp_path / "proxy.sock", server.socket_path)
    yield made
    made.close()


@pytest.fixture
def lossy(proxy, tmp_path):
    with connect(proxy.url, tmp_path) as connected:
        yield connected


def losing(proxy, act):
    """What `act()` returns although the reply to its first script is lost."""
    lost = proxy.lost
    proxy.to_lose = 1
    found = act()
    assert proxy.lost == lost + 1
    return found


def test_sessions_start_rotate_and_end_once(proxy, lossy):
    sessions = Sessions(lossy, "site")
    id = losing(proxy, lambda: sessions.start("ada"))
    assert len(sessions.list("ada")) == 1
    assert losing(proxy, lambda: sessions.read(id)).user == "ada"
    new = losing(proxy, lambda: sessions.rotate(id))
    assert sessions.read(new)
    assert sessions.read(id) is None
    losing(proxy, lambda: sessions.end_all("ada"))
    assert sessions.read(new) is None
    assert sessions.read(sessions.start("ada"))


def test_a_one_time_secret_gets_to_its_caller_and_to_no_other(proxy, lossy):
    links = OneTime(lossy, "links")
    secret = losing(proxy, lambda: links.make("ada", {"x": 1}))
    assert losing(proxy, lambda: links.use(secret)) == {"x": 1}
    assert links.use(secret) is None


def test_a_refresh_token_is_followed_by_one_and_the_client_stays_logged_in(proxy, lossy):
    tokens = RefreshTokens(lossy, "site")
    token = losing(proxy, lambda: tokens.begin("ada"))
    for _ in range(3):
        token = losing(proxy, lambda given=token: tokens.use(given)).token
    assert tokens.use(token)


def test_a_named_token_is_made_once_and_works(proxy, lossy):
    tokens = Tokens(lossy, "api")
    shown = losing(proxy, lambda: tokens.add("deploy", ["read"]))
    assert tokens.read(shown).name == "deploy"
    assert len(tokens.all()) == 1


def test_users_are_added_changed_and_removed_once(proxy, lossy):
    users = Users(lossy)
    users.add(User("root", Role.ADMIN))
    losing(proxy, lambda: users.add(User("ada", Role.VIEWER)))
    assert losing(proxy, lambda: users.change("ada", payloads=True)).payloads
    losing(proxy, lambda: users.remove("ada"))
    assert [user.name for user in users.all()] == ["root"]
