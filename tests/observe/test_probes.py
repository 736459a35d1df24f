"""Probes of workers, schedulers and webhooks, the command that asks them, and what systemd is told."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from packmule.coordination.redis.waiting import ANSWER_SECONDS
from packmule.observe.scale import scales
from packmule.observe.vitals import SILENCE, Vitals
from packmule.testing import private_server
from packmule.tests.command_line import CommandLine, Process, complaint, environment_in, until
from packmule.tests.network import server_frozen
from packmule.tests.worker import pool_jobs

NAP = """
import time

@job
def nap() -> None:
    time.sleep(99)
"""


@pytest.fixture
def packmule(server, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, NAP))


def asked(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextmanager
def probed(packmule: CommandLine, *words: str, **changes: str) -> Iterator[tuple[Process, str]]:
    """A command that answers probes, and the address on which it does."""
    with packmule.started(*words, "--health", "127.0.0.1:0", **changes) as process:
        (address,) = re.findall(r"http://(\S+)/readyz", process.stderr.readline())
        yield process, address


def is_ready(address: str) -> bool:
    return asked(address, "/readyz")[0] == 200


def test_a_pool_is_ready_once_its_processes_are_registered_and_not_while_it_drains(packmule):
    with probed(packmule, "worker", "--processes", "1", "--no-scheduler", "--grace", "99") as (pool, address):
        until(lambda: is_ready(address), "the pool")
        assert asked(address, "/healthz") == (200, "ok\n")
        assert packmule.output("health", address) == "ok"
        assert json.loads(packmule.output("health", address, "--json")) == {"ok": True, "reasons": []}
        assert b"packmule_workers 1" in asked(address, "/metrics")[1].encode()
        assert asked(address, "/nothing")[0] == 404
        assert asked(address, "/metrics/x")[0] == 404
        packmule.output("enqueue", "call", "shop.add", "a=1", "--wait")
        sleeper = packmule.output("enqueue", "call", "shop.nap").strip()
        until(lambda: packmule.output("job", "show", sleeper).find("started") > 0, "the job")
        pool.send_signal(signal.SIGTERM)
        until(lambda: not is_ready(address), "the drain")
        assert asked(address, "/readyz") == (503, "it drains\n")
        assert asked(address, "/healthz")[0] == 200
        assert "it drains" in complaint(packmule.run("health", address), 1)
        assert packmule.output("health", address, "--alive") == "ok"
        pool.send_signal(signal.SIGTERM)
        pool.wait(60)
    with pytest.raises(OSError):
        asked(address, "/healthz")
    assert "does not answer" in complaint(packmule.run("health", address), 1)


def test_a_pool_is_alive_but_not_ready_while_redis_is_away_or_frozen(packmule, tmp_path):
    with private_server() as server:
        away = {"PACKMULE_REDIS_URL": server.url}
        with probed(packmule, "worker", "--processes", "1", **away) as (_, address):
            until(lambda: is_ready(address), "the pool")
            with server_frozen(server):
                assert "Redis does not answer" in asked(address, "/readyz")[1]
                assert asked(address, "/healthz")[0] == 200
                assert asked(address, "/metrics")[0] == 503
            until(lambda: is_ready(address), "the server")
            server.stop()
            assert "Redis does not answer" in asked(address, "/readyz")[1]
            assert asked(address, "/healthz")[0] == 200


def test_a_pool_that_waits_for_redis_is_alive(packmule, tmp_path):
    nowhere = {"PACKMULE_REDIS_URL": "redis://127.0.0.1:1"}
    with probed(packmule, "worker", **nowhere) as (_, address):
        assert asked(address, "/healthz")[0] == 200
        code, reasons = asked(address, "/readyz")
        assert (code, reasons.splitlines()[0]) == (503, "it starts")


def test_what_answers_dies_with_its_pool(packmule):
    with probed(packmule, "worker", "--processes", "1") as (pool, address):
        until(lambda: is_ready(address), "the pool")
        pool.kill()
        pool.wait(30)

        def is_silent() -> bool:
            try:
                asked(address, "/healthz")
            except OSError:
                return True
            return False

        until(is_silent, "the end of what answers")


def test_schedulers_and_webhooks_answer_too(packmule, tmp_path):
    (tmp_path / "hooks.toml").write_text(
        '[billing]\nurl = "https://example.org/hook"\nsecret = "BILLING"\ntypes = ["failed"]\n'
    )
    for words in (["scheduler"], ["webhooks", "--file", "hooks.toml"]):
        with probed(packmule, *words, PACKMULE_SECRET_BILLING="0123456789abcdef") as (process, address):
            until(lambda: is_ready(address), " ".join(words))
            process.terminate()
            process.wait(30)


def test_addresses_that_can_not_be_meant_are_refused_in_a_line(packmule):
    assert "'9465' is not an address: use an address such as 127.0.0.1:9465" in complaint(
        packmule.run("health", "9465"), 2
    )
    assert "is not an address" in complaint(packmule.run("worker", "--health", "localhost"), 2)
    assert "PACKMULE_HEALTH" in complaint(packmule.run("scheduler", PACKMULE_HEALTH="x:y"), 2)
    assert "set PACKMULE_HEALTH" in complaint(packmule.run("health"), 2)
    assert "is not an http URL" in complaint(packmule.run("health", "ftp://localhost"), 2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = complaint(packmule.run("worker", "--health", f"127.0.0.1:{port}"), 2)
    assert f"can't answer probes on 127.0.0.1:{port}" in said
    assert "an address of its own" in said


def test_systemd_is_told_that_the_pool_is_ready_and_that_it_stops(packmule, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"{tmp_path}/notify")
        systemd.settimeout(60)
        with packmule.started("worker", "--processes", "1", NOTIFY_SOCKET=f"{tmp_path}/notify") as pool:
            assert systemd.recv(1000) == f"READY=1\nMAINPID={pool.pid}\n".encode()
            pool.terminate()
            assert systemd.recv(1000).startswith(b"STOPPING=1\n")
            pool.wait(60)


def test_vitals_tell_a_loop_that_is_stuck(monkeypatch):
    vitals = Vitals()
    assert (vitals.why_not_alive(), vitals.why_not_ready()) == ([], ["it starts"])
    vitals.show(registered=0, wanted=2)
    assert vitals.why_not_ready() == ["none of its 2 processes is registered"]
    vitals.show(registered=1, wanted=2)
    assert (vitals.why_not_alive(), vitals.why_not_ready()) == ([], [])
    later = time.monotonic() + SILENCE + 10
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert vitals.why_not_alive() == ["its loop has not turned for 40 s"]
    vitals.show(loops=False)
    monkeypatch.setattr(time, "monotonic", lambda: later + 10_000)
    assert vitals.why_not_alive() == []


def test_scale_wants_processes_by_what_runs_waits_and_how_long_it_takes(client, produce):
    pool_jobs.add.enqueue_many([(n,) for n in range(25)])
    found = scales(client, ["default", "high"])
    assert (found.backlog, found.waiting, found.processes) == (25, 25, 3), "1 s a job while none has ended"
    assert found.queues["high"].processes == 0
    client.hset(
        f"pm:stats:minute:{int(time.time()) // 60}",
        mapping={"default\x1fx\x1fk1": 10, "default\x1fx\x1fus": 80_000_000},
    )
    assert scales(client, ["default"]).processes == 20, "25 jobs of 8 s within 10 s"
    client.sadd("pm:paused", "default")
    assert (ANSWER_SECONDS, scales(client, ["default"]).waiting) == (0.6, 0)
