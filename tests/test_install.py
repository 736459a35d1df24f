"""One import name, from a wheel and an editable install, in a project with packages called like our rooms."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from packmule.testing import private_server
from packmule.tests import wheels

pytestmark = pytest.mark.xdist_group("install")

ROOT = Path(__file__).parents[1]

NAMES = ("jobs", "worker", "scheduler", "dashboard", "config", "cli", "tasks", "terminal")
"""The top-level packages of the project."""

MAIL = """
from config import SENDER

from packmule import current, job


@job(queue="low")
def greet(name: str) -> str:
    current.progress(1, 1, "greeting")
    return f"{SENDER} greets {name}"
"""

PRODUCE = """
import sys
from pathlib import Path

import cli, config, dashboard, jobs.mail, scheduler, tasks, terminal, worker
import packmule

here = Path.cwd()
for module in (cli, config, dashboard, jobs, scheduler, tasks, terminal, worker):
    assert Path(module.__file__).is_relative_to(here), module
assert not Path(packmule.__file__).is_relative_to(here)
print(jobs.mail.greet.enqueue(sys.argv[1]))
"""

READ = """
import sys
import packmule

for id in sys.argv[1:]:
    handle = packmule.Client.default().job(id)
    print(handle.result(timeout=60), handle.progress.message, sep=", ")
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    return wheels.built(source)


def project(folder: Path) -> Path:
    """A project with packages that are called like our rooms."""
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text('SENDER = "Ada"\n' if name == "config" else "")
    (folder / "jobs" / "mail.py").write_text(MAIL)
    return folder


def test_the_wheel_has_one_top_level_name_and_all_that_belongs_to_it(wheel):
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    assert {name.partition("/")[0] for name in names} == {"packmule", "packmule-0.1.0.dist-info"}
    for room in ("", "testing/", "worker/process/executors/"):
        assert f"packmule/{room}__init__.py" in names
    ours = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*/**/*.lua", "jobs/samples/*", "jobs/email/templates/*", "py.typed")
        for path in ROOT.glob(pattern)
        if path.relative_to(ROOT).parts[0] not in ("build", "tests", "benchmarks", ".venv")
    }
    assert ours <= {name.removeprefix("packmule/") for name in names}


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_a_project_with_packages_called_like_ours_enqueues_and_performs(kind, request, tmp_path):
    source = request.getfixturevalue("source")
    what = ["--editable", "."] if kind == "editable" else [str(request.getfixturevalue("wheel"))]
    bin = wheels.environment(tmp_path / "venv", what, source)
    here = project(tmp_path / "project")
    with private_server() as server:
        variables = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PACKMULE_", "PYTHON", "REDIS_"))
        }
        variables |= {"PACKMULE_REDIS_URL": server.url, "PACKMULE_MODULES": "jobs.mail"}

        def run(*command: str) -> str:
            done = subprocess.run(
                command, cwd=here, env=variables, capture_output=True, text=True, timeout=100, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout.strip()

        python = str(bin / "python")
        ids = [
            run(python, "-c", PRODUCE, "Grace"),
            run(str(bin / "packmule"), "enqueue", "call", "jobs.mail.greet", "name=Alan"),
        ]
        run(str(bin / "packmule"), "worker", "--burst", "-q", "low")
        results = run(python, "-c", READ, *ids).splitlines()
    assert results == ["Ada greets Grace, greeting", "Ada greets Alan, greeting"]


def test_uvx_runs_the_slim_wheel_which_names_in_a_line_what_the_demo_lacks(wheel, tmp_path):
    uv = shutil.which("uv", path=f"{ROOT / 'build' / 'uv' / 'bin'}:{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is not installed: make build/uv/bin/uv")
    done = subprocess.run(
        [uv, "tool", "run", "--python", sys.executable, "--from", str(wheel), "packmule", "demo"],
        cwd=tmp_path,
        env={**os.environ, "UV_CACHE_DIR": str(tmp_path / "cache"), "UV_NO_CONFIG": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == (
        "packmule: the demo needs all extras: pip install 'packmule[all]', "
        "or uvx --from 'packmule[all]' packmule demo"
    )
    assert done.returncode == 2
    assert not (tmp_path / ".packmule").exists()
