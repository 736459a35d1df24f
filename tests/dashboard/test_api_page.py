"""The page of the API: its programs, commands and its script do what it says, and its table is whole."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.dashboard.api.api import ENDPOINTS
from packmule.tests.command_line import DEADLINE, CommandLine, environment_in, free_port
from packmule.tests.dashboard.api_site import Api
from packmule.tests.docs.pages import blocks, modules, page, rows

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture
def home(tmp_path: Path, server: EmbeddedServer, client: Redis) -> Iterator[CommandLine]:
    """A user's folder with the files of the README and of the page, a served dashboard, and a worker."""
    port = free_port()
    packmule = CommandLine(
        tmp_path, environment_in(tmp_path, server.url, DASHBOARD=f"http://127.0.0.1:{port}")
    )
    for name, text in {**modules("README"), **modules("api")}.items():
        (tmp_path / name).write_text(text)
    scopes = [word for scope in ("enqueue", "read", "payloads", "act") for word in ("--scope", scope)]
    packmule.environment["TOKEN"] = packmule.output("token", "add", "shop", *scopes)
    with (
        packmule.started("dashboard", "--port", str(port)) as served,
        packmule.started("worker", "--processes", "1"),
    ):
        assert served.stderr
        assert any("dashboard is on" in line for line in served.stderr)
        yield packmule


def test_the_program_of_the_page_enqueues_and_waits(home: CommandLine) -> None:
    assert run(home, [sys.executable, "by_http.py"]) == "finished 1 of 2026-11\n"
    assert run(home, [sys.executable, "lend.py"]).startswith("pm_")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_commands_of_the_page_run(home: CommandLine) -> None:
    (home.cwd / "photo.jpg").write_bytes(b"not really")
    said = "\n".join(blocks("api", "console")).replace("http://127.0.0.1:9181", "$DASHBOARD")
    commands = re.findall(r"^\$ (curl (?:.*\\\n)*.*)$", said, re.MULTILINE)
    assert len(commands) == 4
    first, wait, count, upload = commands
    id = re.search(r'"id":"(\w+)"', run(home, ["sh", "-c", first]))
    assert id
    waited = run(home, ["sh", "-c", re.sub(r"jobs/\w+/wait", f"jobs/{id[1]}/wait", wait)])
    assert '"result":"1 of 2026-11"' in waited
    counted = run(home, ["sh", "-c", count])
    assert re.search(
        r'"filter":"error:TimeoutError since:2h","at":[\d.]+,"count":0,"is_partial":false', counted
    )
    assert re.match(r'\{"path":"uploads/\w+/photo.jpg","bytes":10,', run(home, ["sh", "-c", upload]))


def run(home: CommandLine, command: list[str]) -> str:
    done = subprocess.run(
        command,
        cwd=home.cwd,
        env={**os.environ, **home.environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_script_of_the_page_shows_progress_output_and_the_end(api: Api, page: Page) -> None:
    id = api.enqueue("talks", ["a", "b"])
    api.work()
    token = api.http.post(f"/jobs/{id}/read-token", json={"output": True}).json()["token"]
    page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    page.goto(f"{api.site.address}/api/v1/openapi.json")
    (script,) = blocks("api", "javascript")
    script = script.replace("https://jobs.example.com", api.site.address)
    found = page.evaluate(
        "([id, token]) => new Promise((done_) => {"
        "const bar = {}, text = {}, shown = [], show = (chunk) => shown.push(chunk);"
        "const done = (status) => done_([status, bar.value, text.textContent, shown]);"
        f"{script}}})",
        [id, token],
    )
    assert found == ["finished", 50, "half", ["a", "b"]]


def test_the_table_of_the_page_has_every_operation() -> None:
    shown = [row[:2] for row in rows(page_text()) if re.match(r"`[A-Z]+ /", row[0])]
    assert shown == [[f"`{each.method} {each.path}`", f"`{each.scope}`"] for each in ENDPOINTS]


def page_text() -> str:
    return page("api")
