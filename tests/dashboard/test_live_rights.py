"""Streams end with the right to them, whoever takes it away: at once, by what the scripts publish.

The intervals after which rights are looked at again anyway are longer here than the tests' deadline.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from packmule.coordination.sessions.sessions import ENDED_CHANNEL
from packmule.coordination.sessions.tokens import Tokens
from packmule.dashboard.api import sse
from packmule.dashboard.guarding import endings, streams
from packmule.dashboard.users.store import Users
from packmule.dashboard.viewer import Role
from packmule.jobs.read_tokens import REALM
from packmule.tests.command_line import DEADLINE, until
from packmule.tests.dashboard.doors import GOOD, SAME, Door, served_door
from packmule.tests.dashboard.quick_passwords import quick_passwords  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("quick_passwords")


@pytest.fixture(autouse=True)
def no_looks(monkeypatch):
    monkeypatch.setattr(streams, "LOOK_INTERVAL", 10 * DEADLINE)
    monkeypatch.setattr(sse, "CHECK_SECONDS", 10 * DEADLINE)


@pytest.fixture
def door(client) -> Door:
    made = Door(client)
    made.add("root", Role.ADMIN)
    made.add("ada", Role.ADMIN)
    made.add("bob", Role.OPERATOR)
    return made


@pytest.fixture
def site(door) -> Iterator[str]:
    with served_door(door) as address:
        yield address


class Following:
    """A user's live pages, each with a session of its own."""

    def __init__(self, site: str, door: Door, kept: ExitStack) -> None:
        self.site, self.door, self.kept = site, door, kept
        self.lines: list[Iterator[str]] = []
        """All of them, for a stream that nobody reads any more is closed."""

    def by(self, name: str) -> Iterator[str]:
        """The lines of a stream, from its first event on."""
        browser = self.kept.enter_context(httpx.Client(base_url=self.site, headers=SAME, timeout=DEADLINE))
        assert browser.post("/login", data={"user": name, "password": GOOD}).status_code == 303
        lines = self.kept.enter_context(browser.stream("GET", "/live?on=jobs")).iter_lines()
        assert next(lines) == "retry: 2000"
        self.lines.append(lines)
        return lines

    def open_now(self, name: str) -> int:
        found = self.door.app.streams.by_viewer
        return sum(number for key, number in found.items() if key.startswith(f"{name} "))


@pytest.fixture
def following(site, door) -> Iterator[Following]:
    with ExitStack() as kept:
        yield Following(site, door, kept)


def remove(users: Users) -> None:
    users.remove("ada")


def lower(users: Users) -> None:
    users.change("ada", role=Role.VIEWER)


def revoke_all(users: Users) -> None:
    assert users.sessions.end_all("ada") == 2


def revoke_each(users: Users) -> None:
    for each in users.sessions.list("ada"):
        assert users.sessions.end_one("ada", each.ref)


@pytest.mark.parametrize("act", [remove, lower, revoke_all, revoke_each])
def test_streams_end_when_another_process_takes_the_right_away(following, client, act):
    both = [following.by("ada"), following.by("ada")]
    following.by("bob")
    until(lambda: (following.open_now("ada"), following.open_now("bob")) == (2, 1), "the streams")
    act(Users(client))
    for lines in both:
        list(lines)
    until(lambda: following.open_now("ada") == 0, "their ends")
    assert following.open_now("bob") == 1


def test_only_the_sessions_that_were_ended_lose_their_streams(following, client):
    first = following.by("ada")
    (ref,) = [each.ref for each in Users(client).sessions.list("ada")]
    following.by("ada")
    until(lambda: following.open_now("ada") == 2, "the streams")
    Users(client).sessions.end_one("ada", ref)
    list(first)
    until(lambda: following.open_now("ada") == 1, "its end")


def test_what_ended_before_anybody_listened_is_noticed(following, client, monkeypatch):
    """Between a stream's first look at its session and the subscription."""
    first_look = streams.Streams.open

    def late(self, right, running):
        Users(client).remove("ada")
        return first_look(self, right, running)

    monkeypatch.setattr(streams.Streams, "open", late)
    list(following.by("ada"))
    until(lambda: following.open_now("ada") == 0, "its end")


def test_what_ended_while_the_subscription_was_lost_is_noticed(following, client, monkeypatch):
    lines = following.by("ada")
    until(lambda: client.pubsub_numsub(ENDED_CHANNEL)[0][1] == 1, "the subscription")
    users = Users(client)
    with client.pipeline(transaction=True) as pipeline:  # as if the message were lost on its way
        pipeline.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        pipeline.delete(users.sessions.index_key("ada"))
        for each in users.sessions.list("ada"):
            pipeline.delete(users.sessions.prefix + each.ref)
        pipeline.execute()
    list(lines)
    until(lambda: following.open_now("ada") == 0, "its end")


@pytest.mark.parametrize(
    "garbage", [b"\xff\x00", b"[]", b"7", b'""', b'"' + b"a" * 20_000 + b'"', b'"pm:token:api:"']
)
def test_garbage_in_the_channel_ends_nothing(following, client, garbage):
    lines = following.by("ada")
    until(lambda: client.pubsub_numsub(ENDED_CHANNEL)[0][1] == 1, "the subscription")
    client.publish(ENDED_CHANNEL, garbage)
    Users(client).remove("bob")
    assert following.open_now("ada") == 1
    Users(client).remove("ada")
    list(lines)


def test_one_subscription_serves_all_streams_and_ends_with_them(following, client, monkeypatch):
    monkeypatch.setattr(endings, "LINGER", 0.0)
    monkeypatch.setattr(endings, "LOOK_INTERVAL", 0.05)
    for _ in range(5):
        following.by("ada")
        following.by("bob")
    until(lambda: client.pubsub_numsub(ENDED_CHANNEL)[0][1] == 1, "the subscription")
    following.kept.close()
    until(lambda: client.pubsub_numsub(ENDED_CHANNEL)[0][1] == 0, "its end")
    lines = following.by("ada")
    until(lambda: client.pubsub_numsub(ENDED_CHANNEL)[0][1] == 1, "the subscription again")
    Users(client).remove("ada")
    list(lines)


def test_a_users_removal_succeeds_where_nobody_may_publish(client):
    users = Users(client)
    users.add(_user("ada"))
    users.add(_user("bob"))
    client.execute_command("ACL", "SETUSER", "mute", "on", ">mute", "~*", "+@all", "resetchannels")
    try:
        mute = Users(_as(client, "mute"))
        mute.remove("ada")
        assert mute.find("ada") is None
    finally:
        client.execute_command("ACL", "DELUSER", "mute")


def _user(name):
    from packmule.dashboard.users.user import User

    return User(name, Role.VIEWER)


def _as(client, name):
    from redis import Redis

    options = client.connection_pool.connection_kwargs
    path = options["server"].socket_path
    return Redis(unix_socket_path=str(path), username=name, password=name)


def test_an_api_stream_ends_when_its_token_is_revoked(api):
    id = api.enqueue("talks", [])
    with (
        api.as_("read") as http,
        http.stream("GET", f"/jobs/{id}/stream") as answer,
        api.http.stream("GET", f"/jobs/{id}/stream") as other,
    ):
        lines, others = answer.iter_lines(), other.iter_lines()
        next(lines)
        next(others)
        Tokens(api.redis, REALM).revoke("read")
        list(lines)
        until(lambda: api.site.app.streams.by_viewer.total() == 1, "its end")
