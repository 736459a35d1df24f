"""The pytest plugin, in a project of its own that knows nothing of this checkout."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from packmule.tests.docs.pages import modules

PROJECT = """
import json
import os
import subprocess
import sys

import pytest

from shop import close_the_month, report


def test_inline(packmule_inline):
    assert report.enqueue("2026-11").result() == "1 of 2026-11"


def test_queue(packmule_queue):
    close_the_month("2026-11")
    packmule_queue.assert_enqueued(report, "2026-11", queue="low")
    packmule_queue.refute_enqueued(report, "2026-12")
    assert [handle.result() for handle in packmule_queue.drain()] == ["2 of 2026-11"]


@pytest.mark.parametrize("time", [1, 2])
def test_server(packmule_server, time):
    assert packmule_server.redis.dbsize() == 0
    handle = report.enqueue("2026-11")
    assert handle.status == "queued"
    command = [sys.executable, "-m", "packmule", "worker", "--burst", "-q", "low"]
    subprocess.run(command, check=True, timeout=120)
    assert handle.result(timeout=60) == "1 of 2026-11"


def test_after():
    assert "PACKMULE_REDIS_URL" not in os.environ
"""

SHOP = """
from packmule import job


@job(queue="low")
def report(month: str, copies: int = 1) -> str:
    return f"{copies} of {month}"


def close_the_month(month: str) -> None:
    report.enqueue(month, copies=2)
"""


@pytest.mark.parametrize(
    ("files", "passed"),
    [
        ({"test_shop.py": PROJECT, "shop.py": SHOP}, 5),
        (modules("testing"), 3),
        (modules("projects"), 1),  # an application that makes a client of its own
    ],
)
def test_the_fixtures_work_in_a_project_of_its_own(files, passed, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PACKMULE_")}
    environment |= {"PACKMULE_MODULES": "shop", "PYTHONPATH": str(tmp_path)}
    environment.pop("REDIS_URL", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert f"{passed} passed" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / ".packmule").exists()


def test_the_pages_program_without_pytest_runs(tmp_path):
    for name, text in modules("testing").items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "without_pytest.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=True)
    assert done.stdout == "1 of 2026-11\n"
