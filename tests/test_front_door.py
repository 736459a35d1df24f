"""The front door: what `packmule` exports, what importing it loads, and what type checkers make of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import packmule
from packmule.jobs.job_type import JobSettings, Traits
from packmule.jobs.options import JobOptions, Options

ROOT = Path(__file__).parents[1]

SLOW = {
    *(
        "redis",
        "rq",
        "asyncio",
        "opentelemetry",
        "duckdb",
        "PIL",
        "flask",
        "jinja2",
        "fsspec",
        "click",
        "rich",
    ),
    *("packmule.worker", "packmule.scheduler", "packmule.terminal", "packmule.observe", "packmule.testing"),
}


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh process has loaded after `statement`."""
    program = f"{statement}; import json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
    return set(json.loads(done.stdout))


def test_importing_packmule_and_declaring_jobs_loads_nothing_slow():
    assert SLOW & loaded_by("from packmule import job, current, Retry, JobHandle, Error") == set()


def test_the_pytest_plugin_loads_nothing_slow_before_a_fixture_is_used():
    assert (SLOW - {"packmule.testing"}) & (loaded_by("import packmule.testing.plugin")) <= {"asyncio"}


def test_a_worker_loads_nothing_that_only_some_jobs_need():
    ready = "from packmule.config import Settings; from packmule.terminal.app import App"
    loads = "App(Settings()).load_jobs(); import packmule.worker.pool.pool, packmule.jobs.email"
    needless = {"PIL", "jinja2", "idna", "html", "duckdb", "fsspec", "flask", "click", "rich"}
    assert needless & loaded_by(f"{ready}; {loads}") == set()


def test_every_exported_name_is_there_and_no_other():
    for name in packmule.__all__:
        assert getattr(packmule, name) is not None
    assert len(set(packmule.__all__)) == len(packmule.__all__)
    with pytest.raises(AttributeError, match="no attribute 'enqueue'"):
        packmule.enqueue  # noqa: B018


def test_python_m_packmule_is_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "packmule", "--version"], capture_output=True, check=True, timeout=60
    )
    assert done.stdout.startswith(b"packmule, version ")


def test_the_typed_fields_are_those_that_are_checked():
    options = {field.name for field in fields(Options)}
    assert set(JobOptions.__annotations__) == options
    assert set(JobSettings.__annotations__) == options | {field.name for field in fields(Traits)}


@pytest.mark.parametrize("kind", [JobOptions, JobSettings])
def test_every_typed_field_is_documented(kind):
    folder = "options" if kind is JobOptions else "job_type"
    source = (ROOT / "jobs" / f"{folder}.py").read_text()
    body = re.search(rf"^class {kind.__name__}\(.*?(?=^@dataclass)", source, re.M | re.S)[0]
    named = re.findall(r"^    (\w+): [^\n]*\n    \"\"\"", body, re.M)
    inherited = set(JobOptions.__annotations__) if kind is JobSettings else set()
    assert set(named) == set(kind.__annotations__) - inherited


USE = """
from datetime import timedelta

from packmule import Client, JobHandle, job


@job(queue="low", timeout=timedelta(minutes=10), retries=3, singleton_policy="skip", singleton=True)
def report(month: str, copies: int = 1) -> str:
    return month * copies


@job
async def mail(to: str) -> None: ...


async def right(client: Client) -> list[JobHandle]:
    text: str = report("2026-11", copies=2)
    handle: JobHandle = report.options(delay="1m", timeout=60, unique="{month}").enqueue("2026-11", copies=2)
    await mail("ada@example.com")
    return [
        handle,
        await mail.aenqueue("ada@example.com"),
        client.enqueue(report, text),
        client.enqueue(report.options(queue="high"), "2026-12"),
        *report.enqueue_many([("2026-11",), {"month": handle}]),
    ]


report(11)  # a wrong argument of a call
report.enqueue(11)  # a wrong argument of an enqueue
report.enqueue("2026-11", copy=2)  # a misspelt argument
report.options(quue="low")  # a misspelt option
report.options(timeout=[600])  # an option of a wrong type
report.options(retries=1).enqueue()  # a missing argument
Client().enqueue(report, month=11)  # a wrong argument by a client
job(isolated=True)  # a misspelt trait
job(singleton_policy="drop")  # a trait of a wrong value
"""


def test_mypy_accepts_right_uses_and_marks_each_wrong_one(tmp_path):
    program = tmp_path / "use.py"
    program.write_text(USE)
    (tmp_path / "packmule").symlink_to(ROOT)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--follow-imports=silent"]
    done = subprocess.run(
        [*command, "--config-file=", f"--cache-dir={tmp_path}/cache", "use.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    marked = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error: " in line}
    wrong = {number for number, line in enumerate(USE.splitlines(), 1) if ")  # a" in line}
    assert marked == wrong, done.stdout + done.stderr
