"""What watches: rq-dashboard as `packmule dashboard` serves it, and `rq info`, on jobs of ours."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from config import VARIABLES, child_environment
from coordination.server import EmbeddedServer
from jobs import records, wire

ROOT = Path(__file__).resolve().parent.parent
UNSET = dict.fromkeys([variable for variable, _ in VARIABLES.values()] + ["REDIS_URL", "PORT"])
DEADLINE = 30.0

SHOP = """
from jobs import job


@job
def add(a: int, b: int = 1) -> int:
    return a + b


@job
def boom() -> None:
    raise ValueError("the shelf is empty")
"""


class Site:
    """A served dashboard, and the environment to run commands on the same server."""

    def __init__(self, environment: dict[str, str], process: subprocess.Popen[str], address: str) -> None:
        self.environment = environment
        self.process = process
        self.address = address

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.address}{path}", timeout=DEADLINE) as answer:
            text: str = answer.read().decode(errors="replace")
            return text

    def data(self, path: str) -> Any:
        return json.loads(self.get(f"/0/data/{path}.json"))

    def packmule(self, *words: str) -> str:
        command = [sys.executable, "-m", "cli", *words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@contextmanager
def served(environment: dict[str, str]) -> Iterator[Site]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-m", "cli", "dashboard", "--port", str(port)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            address = f"http://127.0.0.1:{port}"
            assert line == f"The dashboard is on {address}\n"
            yield Site(environment, process, address)
        finally:
            process.kill()


def environment_in(home: Path, url: str | None) -> dict[str, str]:
    (home / "shop.py").write_text(SHOP)
    ours = {
        "PACKMULE_REDIS_URL": url,
        "PACKMULE_DATA_DIR": str(home / "data"),
        "PACKMULE_MODULES": "shop",
        "PACKMULE_PROCESSES": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(home)]),
    }
    return child_environment(**{**UNSET, **ours})


@pytest.fixture
def environment(tmp_path: Path, server: EmbeddedServer, client: Redis) -> dict[str, str]:
    """That of commands on the shared server, which is empty at the start."""
    return environment_in(tmp_path, server.url)


@pytest.fixture
def site(environment: dict[str, str]) -> Iterator[Site]:
    with served(environment) as served_here:
        yield served_here


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def test_the_dashboard_shows_jobs_that_we_enqueued_and_finished(site: Site, client: Redis) -> None:
    finished = site.packmule("enqueue", "call", "shop.add", "a=40", "b=2")
    failed = site.packmule("enqueue", "call", "shop.boom")
    site.packmule("worker", "--burst")
    waiting = site.packmule("enqueue", "call", "shop.add", "a=1")
    later = site.packmule("enqueue", "call", "shop.add", "a=1", "--in", "1h")

    (queue,) = [each for each in site.data("queues")["queues"] if each["name"] == "default"]
    assert queue["count"] == 1
    places = {"finished": finished, "failed": failed, "queued": waiting, "scheduled": later}
    for registry, id in places.items():
        (job,) = site.data(f"jobs/default/{registry}/10/asc/1")["jobs"]
        assert job["id"] == id
        assert id in site.get(f"/0/view/job/{id}")
    job = site.data(f"job/{finished}")
    assert (job["status"], job["result"], job["origin"]) == ("finished", 42, "default")
    assert job["description"] == "shop.add"
    assert "the shelf is empty" in site.data(f"job/{failed}")["exc_info"]
    for page in ("/", "/0/view/queues", "/0/view/workers", "/0/view/jobs"):
        needed = re.findall(r'(?:href|src)="(/static/[^"]+)"', site.get(page))
        assert {path.rpartition(".")[2] for path in needed} >= {"css", "js"}
        assert all(site.get(path) for path in needed)


def test_a_failed_job_that_the_dashboard_requeues_runs_again(site: Site, client: Redis) -> None:
    id = site.packmule("enqueue", "call", "shop.boom")
    site.packmule("worker", "--burst")
    assert records.read(client, id).status == "failed"
    first = records.read(client, id).ended_at
    request = urllib.request.Request(f"{site.address}/job/{id}/requeue", method="POST")
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
        assert json.load(answer)["status"] == "OK"
    assert records.read(client, id).status == "queued"
    site.packmule("worker", "--burst")
    record = records.read(client, id)
    assert record.status == "failed"
    assert record.ended_at != first


def test_rq_info_and_the_dashboard_show_our_workers(
    site: Site, client: Redis, server: EmbeddedServer
) -> None:
    site.packmule("enqueue", "call", "shop.add", "a=1", "--in", "1h")
    with subprocess.Popen(
        [sys.executable, "-m", "cli", "worker"], env=site.environment, stderr=subprocess.PIPE, text=True
    ) as worker:
        try:
            until(lambda: client.scard(wire.WORKERS), "a worker")
            done = site.packmule("enqueue", "call", "shop.add", "a=1")
            until(lambda: records.read(client, done).status == "finished", "the job")
            (key,) = client.smembers(wire.WORKERS)
            until(lambda: client.hget(key, "state") == b"idle", "a heartbeat")
            name = wire.worker_name(key.decode())
            info = subprocess.check_output(
                [sys.executable, "-m", "rq.cli", "info", "--raw", "--url", server.url], text=True
            )
            shown = {each["name"]: each for each in site.data("workers")["workers"]}
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.communicate(timeout=DEADLINE)
    assert worker.returncode == 0
    assert re.search(r"^queue default 0", info, re.MULTILINE), info
    assert f"worker {name} (" in info
    assert ") idle high, default, low. jobs: 1 finished, 0 failed" in info
    assert shown[name]["state"] == "idle"
    assert shown[name]["queues"] == ["high", "default", "low"]


def test_a_port_in_use_is_told_in_one_line(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "cli", "dashboard", "--port", str(port)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"packmule: can't listen on 127.0.0.1:{port} ")
    assert "--port" in line


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_dashboard_keeps_the_embedded_server_until_it_ends(tmp_path: Path, signum: int) -> None:
    environment = environment_in(tmp_path, None)
    embedded = EmbeddedServer(tmp_path / "data")
    try:
        with served(environment) as site:
            site.packmule("enqueue", "call", "shop.add", "a=1")
            assert embedded.pid() is not None, "the command that left took the dashboard's server with it"
            (queue,) = [each for each in site.data("queues")["queues"] if each["name"] == "default"]
            assert queue["count"] == 1
            site.process.send_signal(signum)
            assert site.process.wait(DEADLINE) == 0
            assert embedded.pid() is None
    finally:
        embedded.stop()
