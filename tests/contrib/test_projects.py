"""The guides of `docs/projects.md` in fresh environments: a web server, a worker, and what a browser gets."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from packmule.testing import private_server
from packmule.tests import wheels
from packmule.tests.command_line import UNSET, free_port, until
from packmule.tests.docs.pages import modules

pytestmark = pytest.mark.xdist_group("install")

SERVERS = {"FastAPI": ("uvicorn", "main:app", "--port"), "Flask": ("flask", "run", "--port")}


@pytest.fixture(scope="module")
def bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = wheels.source(tmp_path_factory.mktemp("source"))
    folder = tmp_path_factory.mktemp("venv")
    return wheels.environment(folder, [str(wheels.built(source))], source)


@contextmanager
def running(bin: Path, home: Path, url: str, *words: str, **changes: str) -> Iterator[None]:
    given = {**os.environ, **UNSET, "PACKMULE_REDIS_URL": url, "PYTHONPATH": str(home), **changes}
    environment = {name: value for name, value in given.items() if value is not None}
    process = subprocess.Popen([bin / "python", "-m", *words], cwd=home, env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def ordered_by_a_program(bin: Path, home: Path, url: str) -> tuple[str, str]:
    """The id and the result of a job that needs the application's context."""
    program = "import invoices; id = invoices.invoice.enqueue(7); print(id, id.result(60), sep=',')"
    environment = {**os.environ, "PACKMULE_REDIS_URL": url}
    done = subprocess.run(
        [bin / "python", "-c", program], cwd=home, env=environment, capture_output=True, text=True, check=True
    )
    id, said = done.stdout.strip().split(",")
    return id, said


@pytest.mark.parametrize("framework", SERVERS)
def test_the_guide_enqueues_shows_progress_and_the_result(framework: str, bin: Path, tmp_path: Path):
    for name, text in modules("projects").items():
        (tmp_path / name).write_text(text)
    port = str(free_port())

    def is_up() -> bool:
        try:
            return page.get("/reports/none").status_code == 404
        except httpx.TransportError:
            return False

    web = SERVERS[framework]
    with (
        private_server() as server,
        running(bin, tmp_path, server.url, *web, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as page,
    ):
        until(is_up, "the web server")
        if framework == "FastAPI":
            ordered = page.post("/reports", params={"month": "2026-11", "copies": 20})
        else:
            ordered = page.post("/reports", data={"month": "2026-11", "copies": 20})
        assert ordered.status_code == 202
        address = f"/reports/{ordered.json()['id']}"
        assert page.get(address).json() == {"status": "queued", "percent": None, "report": None}
        looks: list[dict[str, Any]] = []

        def is_over() -> bool:
            looks.append(page.get(address).json())
            return looks[-1]["status"] == "finished"

        with running(bin, tmp_path, server.url, "packmule", "worker", PACKMULE_MODULES="shop,invoices"):
            until(is_over, "the end of the report")
            id, said = ordered_by_a_program(bin, tmp_path, server.url)
        assert page.get(f"/reports/{id}").status_code == 404, "it is a job, but no report"
        server.stop()
        away = page.post("/reports", params={"month": "2026-11"}, data={"month": "2026-11"})
    assert looks[-1] == {"status": "finished", "percent": 100.0, "report": "20 of 2026-11"}
    assert {look["percent"] for look in looks} - {None, 100.0}, "progress was seen on the way"
    assert said == "app sends invoice 7"
    assert (away.status_code, away.headers["Retry-After"]) == (503, "5")
