"""`packmule locks`: who holds what on real lock nodes, and locks released by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from packmule.coordination.locks.redlock import Redlock
from packmule.coordination.locks.state import LockNotReleased, lock_state, release
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.tests.command_line import CommandLine, Done, Run, complaint, environment_in

SETTLE = """
@job(singleton="{account}")
def settle(account: int) -> None: ...
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EmbeddedServer]]:
    servers = [EmbeddedServer(tmp_path_factory.mktemp("lock")) for _ in range(3)]
    for server in servers:
        server.ensure()
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def clients(nodes: list[EmbeddedServer]) -> Iterator[list[Redis]]:
    made = [Redis.from_url(node.url, socket_timeout=2) for node in nodes]
    for each in made:
        each.flushall()
    yield made
    for each in made:
        each.close()


@pytest.fixture
def redlock(clients: list[Redis]) -> Iterator[Redlock]:
    made = Redlock(clients, longest_ttl=600, timeout=2.0)
    yield made
    made.close()


@pytest.fixture
def packmule(
    server: EmbeddedServer,
    nodes: list[EmbeddedServer],
    client: Redis,
    tmp_path_factory: pytest.TempPathFactory,
) -> CommandLine:
    home = tmp_path_factory.mktemp("shop")
    urls = ",".join(node.url for node in nodes)
    return CommandLine(home, environment_in(home, server.url, SETTLE, PACKMULE_LOCK_URLS=urls))


@pytest.fixture
def here(packmule: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return packmule.in_this_process(monkeypatch, capsys)


def output(done: Done) -> str:
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_without_locks_it_says_so(here: Run, clients: list[Redis]) -> None:
    assert output(here("locks")) == "no lock is held\n"


def test_a_lock_is_shown_with_its_holder_its_end_and_its_token(
    packmule: CommandLine, redlock: Redlock, nodes: list[EmbeddedServer]
) -> None:
    with redlock.acquire("réport 7", ttl=20) as lock:
        header, row = output(packmule.run("locks")).splitlines()
        found = json.loads(output(packmule.run("locks", "--json")))
    assert " ".join(header.split()) == "lock holder nodes ends in fence jobs waiting"
    assert row.startswith("réport 7  ")
    holder, *rest = row.split()[2:]
    assert holder.endswith(f":{os.getpid()}")
    assert rest == ["3", "of", "3", rest[3], "s", str(lock.fence), "-"]
    (shown,) = found["locks"]
    assert (shown["name"], shown["process"], shown["nodes"], shown["of"]) == ("réport 7", os.getpid(), 3, 3)
    assert 0 < shown["seconds"] <= 20
    assert shown["fence"] == lock.fence
    assert "value" not in shown
    assert found["nodes"] == [str(node.socket_path) for node in nodes]
    assert found["faults"] == {}


def test_a_singletons_lock_tells_how_many_jobs_wait(
    packmule: CommandLine, here: Run, redlock: Redlock, client: Redis
) -> None:
    for _ in range(3):
        packmule.output("enqueue", "call", "shop.settle", "account=7")
    with redlock.acquire("singleton shop.settle:7"):
        (shown,) = json.loads(output(here("locks", "--json")))["locks"]
    assert shown["waiting"] == 3


def test_what_a_minority_has_and_a_node_that_is_silent_are_told(
    here: Run, redlock: Redlock, clients: list[Redis], nodes: list[EmbeddedServer]
) -> None:
    clients[0].set("pm:lock:left", "stranger", px=60_000)
    pid = nodes[2].pid()
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with redlock.acquire("held", ttl=60):
            shown = output(here("locks"))
            found = json.loads(output(here("locks", "--json")))
    finally:
        os.kill(pid, signal.SIGCONT)
    by_name = {lock["name"]: lock for lock in found["locks"]}
    assert by_name["held"]["nodes"] == 2
    assert (by_name["left"]["host"], by_name["left"]["process"]) == ("stranger", 0)
    assert "1 of 3, no majority" in shown
    assert list(found["faults"]) == [str(nodes[2].socket_path)]


def test_a_released_lock_is_free_and_the_next_holder_has_a_higher_token(
    packmule: CommandLine, here: Run, redlock: Redlock
) -> None:
    lock = redlock.acquire("report", renew=False, ttl=600)
    assert packmule.run("locks", "release", "report").returncode == 130  # nobody there who could answer
    assert redlock_holds(here, "report")
    said = output(packmule.run("locks", "release", "report", "--yes"))
    assert f"held by process {os.getpid()} on " in said
    assert "report released on 3 of 3 nodes" in said
    assert f"only fence checks refuse its writes with {lock.fence}" in said
    assert not redlock_holds(here, "report")
    with redlock.acquire("report", wait=0) as other:
        assert other.fence > lock.fence


def redlock_holds(here: Run, name: str) -> bool:
    return any(lock["name"] == name for lock in json.loads(output(here("locks", "--json")))["locks"])


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, False), ("n\n", 1, True)])
def test_it_asks_before_it_releases(
    packmule: CommandLine, here: Run, redlock: Redlock, answer: str, code: int, left: bool
) -> None:
    redlock.acquire("asked", renew=False, ttl=600)
    done = subprocess.run(
        [sys.executable, "-m", "packmule", "locks", "release", "asked"],
        cwd=packmule.cwd,
        env=packmule.environment,
        input=answer,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, "Release it?" in done.stdout) == (code, True), done
    assert redlock_holds(here, "asked") is left


def test_a_lock_that_passed_on_meanwhile_is_left_alone(redlock: Redlock, clients: list[Redis]) -> None:
    first = redlock.acquire("quick", renew=False, ttl=600)
    (shown,) = lock_state(clients, "quick").locks
    first.release()
    second = redlock.acquire("quick", renew=False, ttl=600)
    with pytest.raises(LockNotReleased, match="passed to another holder"):
        release(clients, shown)
    assert second.extend() > 0


def test_mistakes_are_one_line(here: Run, clients: list[Redis], nodes: list[EmbeddedServer]) -> None:
    assert "no lock is called 'gone'" in complaint(here("locks", "release", "gone", "--yes"), 1)
    assert "'NAME'" in complaint(here("locks", "release"), 2)
    twice = ",".join([nodes[0].url, nodes[0].url + "?db=1", nodes[1].url])
    assert "are the same server" in complaint(here("locks", PACKMULE_LOCK_URLS=twice), 2)
    assert "PACKMULE_LOCK_URLS" in complaint(here("locks", PACKMULE_LOCK_URLS="redis://a:b:c"), 2)


def test_the_job_server_alone_is_searched_among_its_other_keys(here: Run, client: Redis) -> None:
    client.mset({f"other:{number}": "x" for number in range(20_000)})
    with Redlock([client], timeout=2.0).acquire("alone"):
        (shown,) = json.loads(output(here("locks", "--json", PACKMULE_LOCK_URLS="")))["locks"]
    assert (shown["name"], shown["nodes"], shown["of"]) == ("alone", 1, 1)


def test_a_node_that_forgot_is_named_with_its_reason(
    here: Run, spare_server: Callable[[], EmbeddedServer], clients: list[Redis]
) -> None:
    server = spare_server()
    with Redis.from_url(server.url) as spare:
        spare.config_set("appendonly", "no")
    faults = json.loads(output(here("locks", "--json", PACKMULE_LOCK_URLS=server.url)))["faults"]
    assert "votes in" in faults[str(server.socket_path)]
