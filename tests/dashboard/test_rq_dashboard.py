"""What watches: rq-dashboard as `packmule dashboard` serves it, and `rq info`, on jobs of ours."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, reader
from packmule.tests.command_line import (
    DEADLINE,
    CommandLine,
    Process,
    complaint,
    environment_in,
    free_port,
    until,
)
from packmule.tests.dashboard.links import used

OWN = {"Sec-Fetch-Site": "same-origin"}


@dataclass
class Site:
    """A served dashboard, and the commands on the same server."""

    packmule: CommandLine
    process: Process
    address: str
    opener: urllib.request.OpenerDirector

    def get(self, path: str) -> str:
        with self.opener.open(f"{self.address}{path}", timeout=DEADLINE) as answer:
            text: str = answer.read().decode(errors="replace")
            return text

    def data(self, path: str) -> Any:
        return json.loads(self.get(f"/rq/0/data/{path}.json"))


def commands_in(home: Path, url: str | None) -> CommandLine:
    return CommandLine(home, environment_in(home, url, PACKMULE_PROCESSES="1"))


@contextmanager
def served(packmule: CommandLine) -> Iterator[Site]:
    port = free_port()
    packmule.output("user", "add", "ada", "--role", "admin", "--no-password")
    with packmule.started("dashboard", "--port", str(port)) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        address = f"http://127.0.0.1:{port}"
        assert line == f"The dashboard is on {address}\n"
        opener = used(packmule.output("user", "link", "ada", "--url", address))
        yield Site(packmule, process, address, opener)


@pytest.fixture
def packmule(tmp_path: Path, server: EmbeddedServer, client: Redis) -> CommandLine:
    """Commands on the shared server, which is empty at the start."""
    return commands_in(tmp_path, server.url)


@pytest.fixture
def site(packmule: CommandLine) -> Iterator[Site]:
    with served(packmule) as served_here:
        yield served_here


def test_the_dashboard_shows_jobs_that_we_enqueued_and_finished(site: Site, client: Redis) -> None:
    finished = site.packmule.output("enqueue", "call", "shop.add", "a=40", "b=2")
    failed = site.packmule.output("enqueue", "call", "shop.boom")
    site.packmule.output("worker", "--burst")
    waiting = site.packmule.output("enqueue", "call", "shop.add", "a=1")
    later = site.packmule.output("enqueue", "call", "shop.add", "a=1", "--in", "1h")

    (queue,) = [each for each in site.data("queues")["queues"] if each["name"] == "default"]
    assert queue["count"] == 1
    places = {"finished": finished, "failed": failed, "queued": waiting, "scheduled": later}
    for registry, id in places.items():
        (job,) = site.data(f"jobs/default/{registry}/10/asc/1")["jobs"]
        assert job["id"] == id
        assert id in site.get(f"/rq/0/view/job/{id}")
    job = site.data(f"job/{finished}")
    assert (job["status"], job["result"], job["origin"]) == ("finished", 42, "default")
    assert job["description"] == "shop.add"
    assert "the shelf is empty" in site.data(f"job/{failed}")["exc_info"]
    for page in ("/rq/", "/rq/0/view/queues", "/rq/0/view/workers", "/rq/0/view/jobs"):
        needed = re.findall(r'(?:href|src)="(/rq/static/[^"]+)"', site.get(page))
        assert {path.rpartition(".")[2] for path in needed} >= {"css", "js"}
        assert all(site.get(path) for path in needed)


def test_a_failed_job_that_the_dashboard_requeues_runs_again(site: Site, client: Redis) -> None:
    id = site.packmule.output("enqueue", "call", "shop.boom")
    site.packmule.output("worker", "--burst")
    assert reader.read(client, id).status == "failed"
    first = reader.read(client, id).ended_at
    request = urllib.request.Request(f"{site.address}/rq/job/{id}/requeue", method="POST", headers=OWN)
    with site.opener.open(request, timeout=DEADLINE) as answer:
        assert json.load(answer)["status"] == "OK"
    assert reader.read(client, id).status == "queued"
    site.packmule.output("worker", "--burst")
    record = reader.read(client, id)
    assert record.status == "failed"
    assert record.ended_at != first


def test_rq_info_and_the_dashboard_show_our_workers(
    site: Site, client: Redis, server: EmbeddedServer
) -> None:
    site.packmule.output("enqueue", "call", "shop.add", "a=1", "--in", "1h")
    with site.packmule.started("worker") as worker:
        try:
            until(lambda: client.scard(keys.WORKERS), "a worker")
            done = site.packmule.output("enqueue", "call", "shop.add", "a=1")
            until(lambda: reader.read(client, done).status == "finished", "the job")
            (key,) = client.smembers(keys.WORKERS)
            until(lambda: client.hget(key, "state") == b"idle", "a heartbeat")
            name = keys.worker_name(key.decode())
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


def test_a_port_in_use_is_told_in_one_line(packmule: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = packmule.run("dashboard", "--port", str(port))
    (line,) = complaint(done, 2).splitlines()
    assert line.startswith(f"packmule: can't listen on 127.0.0.1:{port} ")
    assert "--port" in line


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_dashboard_keeps_the_embedded_server_until_it_ends(tmp_path: Path, signum: int) -> None:
    packmule = commands_in(tmp_path, None)
    embedded = EmbeddedServer(packmule.data_dir)
    try:
        with served(packmule) as site:
            site.packmule.output("enqueue", "call", "shop.add", "a=1")
            assert embedded.pid() is not None, "the command that left took the dashboard's server with it"
            (queue,) = [each for each in site.data("queues")["queues"] if each["name"] == "default"]
            assert queue["count"] == 1
            site.process.send_signal(signum)
            assert site.process.wait(DEADLINE) == 0
            assert embedded.pid() is None
    finally:
        embedded.stop()
