"""The check: what it finds out about servers and settings, and that nobody waits for what doesn't answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest
from redis import Redis

from packmule.config import Settings
from packmule.coordination.redis.connection import connect
from packmule.jobs import keys, sealing
from packmule.observe.check import reached, server
from packmule.observe.check.checks import Checks, found
from packmule.tests.command_line import until


def checks(client: Redis, **probes: Callable[[], str]) -> Checks:
    made = type("Few", (Checks,), {"probes": probes} if probes else {})
    return made(Settings(), lambda: client, lambda: None)


def test_a_probe_that_does_not_answer_holds_nobody_and_is_not_started_twice(client):
    gate, started = threading.Event(), []

    def stuck() -> str:
        started.append(1)
        gate.wait()
        return "ok, at last"

    one = checks(client, stuck=stuck, quick=lambda: "ok")
    findings = {}

    def quick_is_ok() -> bool:
        findings.update(one.at_once(0.05))
        return findings["quick"].ok

    for _ in range(3):
        until(quick_is_ok, "the quick one")
        assert not findings["stuck"].ok
        assert "no answer within" in findings["stuck"].text
    until(lambda: started, "the stuck one's start")
    assert started == [1]
    gate.set()
    until(lambda: one.at_once(0.05)["stuck"].ok, "the answer")


def test_a_fault_shows_no_password():
    def probe() -> str:
        raise ValueError("smtp://ada:s3cret@h is away")

    assert found(probe).text == "FAULT: smtp://ada:***@h is away"
    assert found(probe).words == "smtp://ada:***@h is away"


def test_a_user_without_a_right_is_told_which_it_lacks(spare_server):
    with connect(None, spare_server().data_dir) as client:
        client.execute_command(
            "ACL", "SETUSER", "jobs", "on", ">pw", "~rq:*", "~pm:*", "&*", "+@all", "-publish"
        )
        client.execute_command("AUTH", "jobs", "pw")
        with pytest.raises(server.RightsLacking, match="the user jobs may not use PUBLISH on rq:"):
            server.rights(client)
        client.execute_command("ACL", "SETUSER", "jobs", "+publish", "resetkeys", "~rq:*")
        with pytest.raises(server.RightsLacking, match=r"EVALSHA on pm:\*, EVAL on pm:\*"):
            server.rights(client)
        client.execute_command("ACL", "SETUSER", "jobs", "~pm:*", "-acl|dryrun")
        assert "as jobs; the server doesn't say what this user may do" in server.rights(client)


def test_a_full_server_and_one_that_evicts_say_so(spare_server):
    with connect(None, spare_server().data_dir) as client:
        assert "used, without a limit" in server.memory(client, "")
        with pytest.raises(server.MemoryFull, match="nothing can be enqueued until"):
            server.memory(client, "1000")
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert "it deletes jobs when its memory is full" in server.memory(client, "")


class Ahead:
    """A server whose clock is `seconds` ahead."""

    def __init__(self, client: Redis, seconds: int) -> None:
        self.client = client
        self.seconds = seconds

    def time(self) -> tuple[int, int]:
        seconds, rest = self.client.time()
        return seconds + self.seconds, rest


@pytest.mark.parametrize(("seconds", "words"), [(600, "ahead of"), (-600, "behind")])
def test_a_clock_that_is_wrong_is_a_fault(client, seconds, words):
    with pytest.raises(server.ClocksApart, match=rf"the server's clock is 10 min {words} this machine's"):
        server.clock(Ahead(client, seconds))
    assert server.clock(client).startswith("ok, the server's clock is within")


def test_a_server_that_is_away_is_asked_once(tmp_path):
    asked = []

    def connected() -> Redis:
        asked.append(1)
        raise ConnectionError("it is away")

    settings = Settings(redis_url=f"unix://{tmp_path}/nowhere", data_dir=tmp_path)
    findings = Checks(settings, connected, lambda: None).one_by_one()
    assert asked == [1]
    assert {name for name, each in findings.items() if each.text == "FAULT: it is away"} == {
        "redis", "durability", "memory", "rights", "clock", "hosts",
    }  # fmt: skip


def test_who_keeps_the_network_is_said(tmp_path, monkeypatch):
    local, remote = Settings(storage=str(tmp_path)), Settings(storage="memory://files")
    assert reached.isolation(remote).endswith("which they reach the storage by")
    for is_possible, words in ((True, "have no network here"), (False, "the kernel denies them namespaces")):
        monkeypatch.setattr(sealing, "is_possible", lambda is_possible=is_possible: is_possible)
        assert reached.isolation(local).endswith(words)


def test_a_folder_that_workers_on_other_hosts_must_share_is_named(client, tmp_path):
    local, remote = Settings(storage=str(tmp_path)), Settings(storage="memory://files")
    assert reached.hosts(local, client) == "ok, no workers on other hosts"
    for host in ("b", "c", "d", "e", socket.gethostname()):
        client.hset(keys.worker_key(host), mapping={"hostname": host, "birth": "2026-12-01T00:00:00.000000Z"})
        client.sadd(keys.WORKERS, keys.worker_key(host))
    assert reached.hosts(local, client).startswith(
        "ok, but workers run on b, c, d, ..., too: they and this host must share the folder"
    )
    assert reached.hosts(remote, client) == "ok, workers run on b, c, d, ..., too"
