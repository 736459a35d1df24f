"""Ten thousand want to be kept up to date: as many as may be are, the others are told, and pages go on."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from packmule.dashboard.guarding.streams import MOST, MOST_EACH
from packmule.dashboard.users.store import Users
from packmule.dashboard.users.user import User
from packmule.dashboard.viewer import Role
from packmule.tests.command_line import DEADLINE, CommandLine, environment_in, free_port, until
from packmule.tests.dashboard.asking import run

WANTED = 10_000
AT_ONCE = 250
"""Connections that are being opened at the same moment."""

SPARE = 500
"""Files that the test needs besides."""

LARGEST_REFUSAL = 1_500
"""Bytes, with the head."""

PATIENCE = 10 * DEADLINE
USERS = [f"u{number}" for number in range(2 * MOST // MOST_EACH)]


@pytest.fixture
def room() -> Iterator[int]:
    """How many connections this process may have open, after asking for as many as it may."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    yield WANTED if most == resource.RLIM_INFINITY else max(0, min(WANTED, most - SPARE))
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


class Crowd:
    """Connections to the dashboard, all of which stay open on this side."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.statuses: Counter[int] = Counter()
        self.kept: list[asyncio.StreamWriter] = []
        self.turns = asyncio.Semaphore(AT_ONCE)

    async def follow(self, user: str) -> None:
        """Ask for a stream; what is refused is read to its end."""
        async with self.turns:
            status, reading = await self._asked(f"/live?on=jobs HTTP/1.1\r\nX-User: {user}")
            self.statuses[status] += 1
            if status != 200:
                refusal = await reading.read()
                assert len(refusal) < LARGEST_REFUSAL
                assert b"retry-after: 10" in refusal.lower()

    async def get(self, path: str) -> None:
        """A page answers, on a connection of its own; on a busy machine it may ask to come again before."""
        while True:
            status, reading = await self._asked(f"{path} HTTP/1.1\r\nX-User: {USERS[0]}\r\nConnection: close")
            answer = (await reading.read()).decode()
            if status == 200:
                return
            assert status == 503, answer
            assert "Redis gave no answer within" in answer
            await asyncio.sleep(0.1)

    async def _asked(self, request: str) -> tuple[int, asyncio.StreamReader]:
        reading, writing = await asyncio.open_connection("127.0.0.1", self.port)
        self.kept.append(writing)
        with contextlib.suppress(ConnectionError):  # it was refused before it was read
            writing.write(f"GET {request}\r\nHost: 127.0.0.1:{self.port}\r\nAccept: */*\r\n\r\n".encode())
            await writing.drain()
        return int((await reading.readline()).split()[1]), reading

    async def leave(self) -> None:
        for each in self.kept:
            each.close()
        for each in self.kept:
            with contextlib.suppress(ConnectionError):
                await each.wait_closed()


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.timeout(2 * PATIENCE)
def test_of_ten_thousand_streams_those_past_the_bound_are_refused_and_pages_go_on(
    server, client, tmp_path, room
):
    users = Users(client)
    for name in USERS:
        users.add(User(name, Role.VIEWER))
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url))
    port = free_port()
    environment = {"PACKMULE_TRUSTED_PROXY": "127.0.0.1", "PACKMULE_USER_HEADER": "X-User"}
    log = tmp_path / "log"
    with (
        log.open("w") as err,
        packmule.started("dashboard", "--port", str(port), stderr=err, **environment) as process,
    ):
        until(log.read_text, "the dashboard")
        before = open_files(process.pid)

        async def scenario() -> None:
            crowd = Crowd(port)
            async with asyncio.timeout(PATIENCE):
                asking = [
                    asyncio.create_task(crowd.follow(USERS[n % len(USERS)]))
                    for n in range(max(room, MOST + 1))
                ]
                while not all(each.done() for each in asking):
                    await crowd.get("/health")
                    await crowd.get("/jobs")
                await asyncio.gather(*asking)
                assert crowd.statuses == {200: MOST, 503: len(asking) - MOST}
                # Those who were refused hold nothing of the server, though they hold on to their ends.
                while open_files(process.pid) > before + MOST + 100:
                    await asyncio.sleep(0.05)
                await crowd.leave()
                late = Crowd(port)
                while 200 not in late.statuses:
                    await late.follow(USERS[0])
                await late.leave()

        run(scenario())
        process.terminate()
        assert process.wait(DEADLINE) == 0
    # A busy machine may also say that Redis was away, and is back.
    said = [line for line in log.read_text().splitlines() if "Redis" not in line]
    assert len(said) == 1, "refusals fill no log"
