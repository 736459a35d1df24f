"""What `pip install packmule` leaves out: producers do without it, and the rest says how to get it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from packmule.extras import EXTRA_OF, complete, how_to_install
from packmule.tests.test_layers import modules

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

WITHOUT = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in LEFT_OUT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nothing())
import importlib.util
known = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in LEFT_OUT else known(name, package)
"""
LEFT_OUT = sorted(set(EXTRA_OF) - {"click"})
"""RQ brings click."""


def imported() -> Iterator[tuple[str, str]]:
    """The packages that our modules import, each with the module that does."""
    for room, path in modules():
        if room in ("contrib", "testing"):
            continue  # for projects that have what these import
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            for name in names:
                yield name.partition(".")[0], path.name


def needed(*extras: str) -> set[str]:
    """The distributions that extras ask for, and those of ours that they name."""
    found: set[str] = set()
    for extra in extras:
        for each in map(Requirement, EXTRAS[extra]):
            found |= needed(*each.extras) if each.name == "packmule" else {canonicalize_name(each.name)}
    return found


def test_each_package_that_is_imported_is_a_dependency_or_brought_by_an_extra():
    always = {canonicalize_name(Requirement(each).name) for each in PROJECT["dependencies"]}
    of = metadata.packages_distributions()
    parts = {"anyio", "flask", "markupsafe", "werkzeug"}  # of starlette, rq-dashboard and jinja2
    parts.add("compression")  # which Python 3.14 brings
    for name, where in set(imported()):
        if name in sys.stdlib_module_names or name in {"packmule", *parts} or name.startswith("_"):
            continue
        found = {canonicalize_name(each) for each in of.get(name, ())}
        if name in EXTRA_OF:
            assert found & needed(EXTRA_OF[name]) or not found, f"{where}: {name}"
        else:
            assert found & (always | needed("dashboard", "fast")), f"{where}: {name} is in no extra"


def test_all_extras_together_are_what_the_ready_made_jobs_and_pages_need():
    assert needed("all") == needed("dashboard", "email", "files", "image", "worker")


def run(
    program: str, url: str, *words: str, home: Path, without: Sequence[str] = LEFT_OUT
) -> subprocess.CompletedProcess[str]:
    (home / "program.py").write_text(f"LEFT_OUT = {without!r}{WITHOUT}{textwrap.dedent(program)}")
    ours = {"PACKMULE_REDIS_URL": url, "PACKMULE_DATA_DIR": str(home / "data"), "PACKMULE_MODULES": ""}
    return subprocess.run(
        [sys.executable, "program.py", *words],
        cwd=home,
        env={**os.environ, **ours},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


SHOP = """
from packmule import current, job

@job(retries=3, cron="0 4 * * *")
def report(month: str = "2026-11") -> str:
    return f"one of {month}"
"""


def test_a_producer_needs_no_extra(server, client, tmp_path):
    (tmp_path / "shop.py").write_text(SHOP)
    program = """
        from packmule import Batch, Client, Flow, JobFilter
        from shop import report
        from packmule.jobs.email import email
        from packmule.jobs.files import file

        handle = report.enqueue("2026-11")
        print(handle.status, handle.cancel(), handle.progress)
        handle.retry()
        with Batch.create() as batch:
            report.options(batch=batch.id).enqueue("2026-12")
        print(len(Client.default().search(JobFilter(status="queued")).jobs))
        email.enqueue(to="ada@example.org", subject="Hello", body="Soon more.")
        file.enqueue("uploads/a.csv", to="parquet")
    """
    done = run(program, server.url, home=tmp_path)
    assert (done.stderr, done.stdout) == ("", "queued canceled None\n2\n")


def test_without_a_url_it_is_told_to_give_one_or_to_install_a_server(tmp_path):
    (tmp_path / "shop.py").write_text(SHOP)
    done = run("from shop import report\nreport.enqueue()\n", "", home=tmp_path)
    last = done.stderr.splitlines()[-1]
    assert "set PACKMULE_REDIS_URL, or pip install 'packmule[worker]'" in last


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["status"], "worker"),
        (["up"], "worker"),
        (["demo"], "all"),
        (["dashboard"], "dashboard"),
        (["mcp"], "mcp"),
        (["enqueue", "image", "photo.jpg", "--size", "100"], "image"),
        (["email", "list"], "worker"),
    ],
)
def test_a_command_that_lacks_an_extra_names_it_in_a_line(words, extra, server, client, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"no photograph")
    done = run("from packmule.cli import main\nmain()\n", server.url, *words, home=tmp_path)
    assert re.fullmatch(rf"packmule: .*pip install 'packmule\[{extra}\]'.*\n", done.stderr), done.stderr
    assert done.returncode == 2


def test_the_check_needs_the_extra_of_workers_alone(server, client, tmp_path):
    others = [name for name, extra in EXTRA_OF.items() if extra != "worker"]
    done = run("from packmule.cli import main\nmain()\n", server.url, "check", home=tmp_path, without=others)
    assert "is not installed" not in done.stderr + done.stdout
    assert "PACKMULE_MAIL_URL is not set: e-mail jobs will fail" in done.stdout  # nothing catches mails
    assert done.returncode == 0, done.stdout


def test_the_help_needs_no_extra(tmp_path):
    done = run("from packmule.cli import main\nmain()\n", "", "--help", home=tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)


def test_an_error_of_a_job_says_what_to_install():
    error = ModuleNotFoundError("No module named 'duckdb'", name="duckdb")
    complete(error)
    assert str(error) == "duckdb is not installed: pip install 'packmule[files]'"
    for other in (ModuleNotFoundError("No module named 'shop'", name="shop"), ValueError("PIL")):
        complete(other)
        assert how_to_install(other) is None
        assert "pip install" not in str(other)
